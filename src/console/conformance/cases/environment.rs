//! What a process finds in its environment.

use super::super::case::Case;
use super::super::case::Step::*;
use crate::api::v1::PodPhase::Succeeded;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "environment.values",
        promise: "A variable has the value that is written, whatever is in it",
        needs: &[],
        steps: &[
            Create(
                r#"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main,
                    command: [testapp, env, PLAIN, env, ODD, env, EMPTY, env, ABSENT],
                    env: [{name: PLAIN, value: text}, {name: ODD, value: "a b\t'c' \"d\" ü%PATH%$HOME"}, {name: EMPTY}]}]}}"#,
            ),
            Phase("a", Succeeded),
            Log("a", "PLAIN=text\nODD=a b\t'c' \"d\" ü%PATH%$HOME\nEMPTY=\nABSENT: environment variable not found\n"),
        ],
    },
    Case {
        name: "environment.expansion",
        promise: "$(NAME) is replaced in command, arguments and later variables; what there is no variable for stays",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main,
                    command: [testapp, print, 'A is $(A)'], args: [env, B, print, '$(C)$(NONE)$(A', env, EARLY],
                    env: [{name: EARLY, value: '$(A)'}, {name: A, value: one}, {name: B, value: '$(A)-two'}, {name: C, value: ''}]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "A is one\nB=one-two\n$(NONE)$(A\nEARLY=$(A)\n"),
        ],
    },
    Case {
        name: "environment.escape",
        promise: "$$(NAME) stands for the text $(NAME)",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main,
                    command: [testapp, print, '$$(A) $$$(A) a$b'], env: [{name: A, value: one}]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "$(A) $one a$b\n"),
        ],
    },
    Case {
        name: "environment.ports",
        promise: "A process learns its ports from PORT and PORT_<NAME>, as they are in the status",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: web-1}, {name: admin}],
                    command: [testapp, print, 'ports $(PORT_WEB_1) $(PORT_ADMIN)', print, 'first $(PORT)', forever]}]}}",
            ),
            KeepPort("port", "a"),
            Says("a", "ports @port@ "),
            Says("a", "first @port@"),
        ],
    },
    Case {
        name: "environment.ports-of-neighbours",
        promise: "A container learns the named ports of the pod's other containers",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [
                    {name: main, ports: [{name: web}], command: [testapp, forever]},
                    {name: side, command: [testapp, print, 'the port is $(PORT_WEB)', forever]}]}}",
            ),
            KeepPort("port", "a"),
            Says("a/side", "the port is @port@"),
        ],
    },
    Case {
        name: "environment.services",
        promise: "A process learns the addresses of its namespace's services that had one when it started",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Service, metadata: {name: my-shop}, spec: {selector: {app: none}, ports: [{name: web, port: 8080}]}}",
            ),
            Do(|scene| {
                Box::pin(async move {
                    let has_address = |scene: &super::super::scene::Scene| {
                        let service = scene.cache.get::<crate::api::v1::Service>(&scene.namespace, "my-shop")?;
                        service.spec.as_ref().map(|spec| spec.cluster_ip.clone()).filter(|address| !address.is_empty())
                    };
                    let address = scene.wait("the service's address", has_address).await?;
                    scene.keep("address", address);
                    Ok(())
                })
            }),
            OnFailure("a", &["env", "MY_SHOP_SERVICE_HOST", "env", "MY_SHOP_SERVICE_PORT", "env", "MY_SHOP_SERVICE_PORT_WEB"]),
            Phase("a", Succeeded),
            Log("a", "MY_SHOP_SERVICE_HOST=@address@\nMY_SHOP_SERVICE_PORT=8080\nMY_SHOP_SERVICE_PORT_WEB=8080\n"),
        ],
    },
    Case {
        name: "environment.marks",
        promise: "The marks by which a node knows a pod's processes can't be overruled",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main,
                    command: [testapp, env, BLUEBIRD_CONTAINER], env: [{name: BLUEBIRD_CONTAINER, value: forged}]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "BLUEBIRD_CONTAINER=main\n"),
        ],
    },
];
