//! ConfigMaps and Secrets, in the environment.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{container, last_end, main, waiting, waits};
use crate::api::v1::PodPhase::{Running, Succeeded};

const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {COLOUR: blue, SIZE: large}}";
const SECRET: &str = "{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {PASSWORD: hunter2}}";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "configuration.variables",
        promise: "A variable may have its value from a key of a ConfigMap or a Secret, and others may use it",
        needs: &["secrets.private"],
        steps: &[
            Create(MAP),
            Create(SECRET),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main,
                    env: [{name: C, valueFrom: {configMapKeyRef: {name: web, key: COLOUR}}},
                        {name: P, valueFrom: {secretKeyRef: {name: db, key: PASSWORD}}}, {name: BOTH, value: $(C)-$(P)}],
                    command: [testapp, env, C, env, P, env, BOTH]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "C=blue\nP=hunter2\nBOTH=blue-hunter2\n"),
        ],
    },
    Case {
        name: "configuration.all-variables",
        promise: "All keys of a ConfigMap or a Secret may become variables, with a prefix",
        needs: &["secrets.private"],
        steps: &[
            Create(MAP),
            Create(SECRET),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main,
                    envFrom: [{prefix: WEB_, configMapRef: {name: web}}, {secretRef: {name: db}}],
                    command: [testapp, env, WEB_COLOUR, env, WEB_SIZE, env, PASSWORD]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "WEB_COLOUR=blue\nWEB_SIZE=large\nPASSWORD=hunter2\n"),
        ],
    },
    Case {
        name: "configuration.missing",
        promise: "A container waits for a ConfigMap that isn't there, says so, and starts when it is",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main,
                    envFrom: [{configMapRef: {name: web}}], command: [testapp, env, COLOUR, forever]}]}}",
            ),
            Until("a", "waiting for it", |pod| {
                let told = main(pod).and_then(waiting).is_some_and(|waiting| waiting.message.contains("\"web\""));
                waits(pod, "CreateContainerConfigError") && told
            }),
            Create(MAP),
            Phase("a", Running),
            Says("a", "COLOUR=blue"),
        ],
    },
    Case {
        name: "configuration.missing-key",
        promise: "A container waits for a key that isn't in its Secret, and says so",
        needs: &["secrets.private"],
        steps: &[
            Create(SECRET),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main,
                    env: [{name: P, valueFrom: {secretKeyRef: {name: db, key: OTHER}}}], command: [testapp, forever]}]}}",
            ),
            Until("a", "waiting for it", |pod| {
                let told = main(pod).and_then(waiting).is_some_and(|waiting| waiting.message.contains("\"OTHER\""));
                waits(pod, "CreateContainerConfigError") && told
            }),
        ],
    },
    Case {
        name: "configuration.restart",
        promise: "A change of what a container uses restarts it if its pod asks for that, whatever its restart policy, and says so",
        needs: &["restart-on-config-change"],
        steps: &[
            Apply(MAP),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartOnConfigChange: true, restartPolicy: Never, containers: [{name: main,
                    env: [{name: C, valueFrom: {configMapKeyRef: {name: web, key: COLOUR}}}], command: [testapp, env, C, forever]},
                    {name: other, env: [{name: S, valueFrom: {configMapKeyRef: {name: web, key: SIZE}}}], command: [testapp, env, S, forever]}]}}",
            ),
            Says("a/main", "C=blue"),
            Says("a/other", "S=large"),
            Apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {COLOUR: red, SIZE: large}}"),
            Says("a/main", "C=red"),
            Until("a", "restarted for the change, where that is used", |pod| {
                let restarts = |name| container(pod, name).map(|container| container.restart_count);
                last_end(pod).is_some_and(|end| end.reason == "ConfigChanged") && (restarts("main"), restarts("other")) == (Some(1), Some(0))
            }),
        ],
    },
    Case {
        name: "configuration.optional",
        promise: "What is optional and isn't there is left out",
        needs: &["secrets.private"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main,
                    envFrom: [{configMapRef: {name: none, optional: true}}],
                    env: [{name: P, valueFrom: {secretKeyRef: {name: none, key: none, optional: true}}}], command: [testapp, env, P]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "P: environment variable not found\n"),
        ],
    },
];
