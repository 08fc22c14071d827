use proptest::prelude::*;

use super::{Manifest, list_to_json, list_to_yaml, parse, to_json, to_yaml};
use crate::api::v1::*;
use crate::api::{Kind, default_object};

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers:
  - name: main
    command: [serve, --fast]
    env:
    - {name: A, value: '1'}
    ports:
    - {name: http, containerPort: 8080, protocol: TCP}
    resources:
      limits: {cpu: 0.5, memory: 64Mi}
      requests: {cpu: 1}
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 5
";

fn pod(object: &Object) -> &Pod {
    let Some(object::Kind::Pod(pod)) = &object.kind else { panic!("a pod, not {object:?}") };
    pod
}

/// The text has exactly one fault, which reads like this.
#[track_caller]
fn check(text: &str, expected: &str) {
    let faults = parse(text, "in.yaml").expect_err(text);
    assert_eq!(faults.to_string(), expected);
}

/// The pod, with one piece of text replaced, has exactly one fault.
#[track_caller]
fn check_pod(right: &str, wrong: &str, expected: &str) {
    assert!(POD.contains(right), "{right}");
    check(&POD.replacen(right, wrong, 1), expected);
}

#[test]
fn a_back_off_is_written_as_people_write_times() {
    let text =
        POD.replace("    ports:", "    restartPolicy: Never\n    restartBackoff: {initial: 500ms, factor: 1.5, cap: 1h30m}\n    ports:");
    let read = parse(&text, "in.yaml").expect("right");
    let container = &pod(&read[0]).spec.as_ref().expect("a spec").containers[0];
    let backoff = container.restart_backoff.expect("given");
    assert_eq!((backoff.initial.map(|time| time.nanos), backoff.cap.map(|time| time.seconds)), (Some(500_000_000), Some(5_400)));
    assert_eq!((backoff.factor, container.restart_policy()), (1.5, RestartPolicy::Never));
    let written = to_yaml(&read[0]);
    assert!(written.contains("initial: 0.500s") && written.contains("cap: 5400s"), "{written}");
    assert_eq!(parse(&written, "out.yaml").expect("right"), read);
    let wrong = text.replace("500ms", "5").replace("1.5", "fast");
    let faults = parse(&wrong, "in.yaml").expect_err("wrong").to_string();
    assert!(faults.contains("must be a duration") && faults.contains("must be a number"), "{faults}");
}

#[test]
fn a_manifest_of_kubernetes_is_read() {
    let objects = parse(POD, "in.yaml").expect("a right manifest");
    let spec = pod(&objects[0]).spec.clone().unwrap_or_default();
    let container = &spec.containers[0];
    assert_eq!(container.command, ["serve", "--fast"]);
    assert_eq!(container.env[0], EnvVar { name: "A".into(), value: "1".into(), ..Default::default() });
    assert_eq!(container.ports[0], ContainerPort { name: "http".into(), container_port: 8080, protocol: Protocol::Tcp as i32 });
    let resources = container.resources.clone().unwrap_or_default();
    assert_eq!((resources.limits["cpu"].as_str(), resources.limits["memory"].as_str()), ("0.5", "64Mi"));
    assert_eq!(resources.requests["cpu"], "1");
    assert_eq!(spec.restart_policy(), RestartPolicy::OnFailure);
    assert_eq!(spec.termination_grace_period_seconds, Some(5));
}

#[test]
fn json_is_read_as_well() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\n\t\"name\": \"web\", \"annotations\": {\"a\": \"\\ud83d\\ude00\\/\"}}}";
    let objects = parse(text, "in.json").expect("right JSON");
    assert_eq!(objects[0].meta().annotations["a"], "😀/");
    check("{\"kind\": \"Pod\", \"kind\": \"Pod\"}", "in.yaml:1: the key \"kind\" stands twice in one mapping");
}

#[test]
fn several_documents_come_in_order_and_empty_ones_are_skipped() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    let objects = parse(&format!("---\n# nothing\n---\n{POD}---\n---\n{service}...\n"), "in.yaml").expect("two objects");
    assert_eq!(objects.iter().filter_map(Object::kind).collect::<Vec<_>>(), [Kind::Pod, Kind::Service]);
    assert_eq!(parse("", "in.yaml"), Ok(vec![]));
    assert_eq!(parse("# only a comment\n", "in.yaml"), Ok(vec![]));
}

#[test]
fn a_list_gives_its_items() {
    let text = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n";
    assert_eq!(parse(text, "in.yaml").expect("one node")[0].meta().name, "a");
    check(
        &text.replace("name: a", "nam: a"),
        "in.yaml:5 (document 1): items[0].metadata.nam: there is no such field; did you mean \"name\"?",
    );
    check("apiVersion: v1\nkind: List\nspec: {}\n", "in.yaml:3 (document 1): spec: a List has only items");
}

#[test]
fn a_target_port_is_a_number_or_a_name() {
    let service = |target: &str| {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: 80, targetPort: {target}}}]}}\n");
        let objects = parse(&text, "in.yaml").expect("a right service");
        let Some(object::Kind::Service(service)) = objects[0].kind.clone() else { panic!("a service") };
        (service.spec.unwrap_or_default().ports[0].target_port.clone(), to_yaml(&objects[0]))
    };
    let (target, text) = service("8080");
    assert_eq!(target, "8080");
    assert!(text.contains("targetPort: 8080\n"), "{text}");
    let (target, text) = service("http");
    assert_eq!(target, "http");
    assert!(text.contains("targetPort: http\n"), "{text}");
}

#[test]
fn a_misspelt_field_is_named_with_its_place_and_the_nearest_right_one() {
    check_pod(
        "command:",
        "comand:",
        "in.yaml:9 (document 1): spec.containers[0].comand: there is no such field; did you mean \"command\"?",
    );
    check_pod(
        "restartPolicy:",
        "restart_policy:",
        "in.yaml:17 (document 1): spec.restart_policy: there is no such field; did you mean \"restartPolicy\"?",
    );
}

#[test]
fn an_unknown_field_is_refused_with_those_that_there_are() {
    check_pod(
        "protocol: TCP",
        "zzz: 1",
        "in.yaml:13 (document 1): spec.containers[0].ports[0].zzz: there is no such field; there are name, containerPort, protocol",
    );
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    check_pod(
        "value: '1'",
        "value: 1",
        "in.yaml:11 (document 1): spec.containers[0].env[0].value: must be a text, not the number 1; put it in quotes",
    );
    check_pod(
        "value: '1'",
        "value: true",
        "in.yaml:11 (document 1): spec.containers[0].env[0].value: must be a text, not true; put it in quotes",
    );
    check_pod("[serve, --fast]", "serve", "in.yaml:9 (document 1): spec.containers[0].command: must be a list, not the text \"serve\"");
    check_pod("{app: web}", "[app]", "in.yaml:5 (document 1): metadata.labels: must be a mapping, not a list");
    check_pod(
        "{app: web}",
        "{app: }",
        "in.yaml:5 (document 1): metadata.labels[app]: must be a text, not nothing; write \"\" for an empty one",
    );
    check_pod(
        "containerPort: 8080",
        "containerPort: http",
        "in.yaml:13 (document 1): spec.containers[0].ports[0].containerPort: must be a whole number from 0 to 4294967295, not the text \"http\"",
    );
    check_pod(
        "containerPort: 8080",
        "containerPort: -1",
        "in.yaml:13 (document 1): spec.containers[0].ports[0].containerPort: must be a whole number from 0 to 4294967295, not the number -1",
    );
    check_pod(
        "OnFailure",
        "onFailure",
        "in.yaml:17 (document 1): spec.restartPolicy: must be one of Always, OnFailure, Never, not the text \"onFailure\"",
    );
    check("just text", "in.yaml:1 (document 1): must be a mapping with apiVersion, kind and metadata, not the text \"just text\"");
}

#[test]
fn every_fault_of_a_text_is_told_at_once() {
    let text = POD.replace("command:", "comand:").replace("OnFailure", "Sometimes");
    assert_eq!(parse(&text, "in.yaml").expect_err("two faults").0.len(), 2);
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let faults = parse(&POD.replace("{app: web}", "{app: web, app: other}"), "in.yaml").expect_err("a duplicate");
    assert_eq!(faults.to_string(), "in.yaml:5: the key \"app\" stands twice in one mapping");
    check(
        "apiVersion: v1\nkind: Service\nspec: {clusterIP: 127.96.0.2, clusterIp: 127.96.0.3}\n",
        "in.yaml:3 (document 1): spec.clusterIp: is given twice, under two spellings",
    );
}

#[test]
fn broken_text_is_refused_with_its_line() {
    let faults = parse("apiVersion: v1\nkind: [Pod\n", "in.yaml").expect_err("broken");
    assert!(faults.to_string().starts_with("in.yaml:"), "{faults}");
}

#[test]
fn an_unknown_kind_is_refused_with_the_nearest_or_all() {
    check_pod("kind: Pod", "kind: Pods", "in.yaml:2 (document 1): kind: there is no kind \"Pods\"; did you mean \"Pod\"?");
    check_pod(
        "kind: Pod",
        "kind: Ingress",
        "in.yaml:2 (document 1): kind: there is no kind \"Ingress\"; there are Pod, Service, Node, EndpointSlice, Namespace, Event, Lease, \
         ConfigMap, Secret",
    );
    check_pod("kind: Pod\n", "", "in.yaml:1 (document 1): kind: is missing; every object begins with apiVersion and kind");
}

#[test]
fn a_wrong_api_version_is_refused_with_the_right_ones() {
    check_pod(
        "apiVersion: v1",
        "apiVersion: apps/v1",
        "in.yaml:1 (document 1): apiVersion: \"apps/v1\" has no kind Pod; write v1 or bluebird/v1",
    );
}

#[test]
fn an_object_that_stands_twice_is_refused_with_both_places() {
    check(
        &format!("{POD}---\n{POD}"),
        "in.yaml:20 (document 2): metadata.name: Pod/default/web stands in in.yaml:1 (document 1) already; an object may be given once",
    );
    let mut manifest = Manifest::new("prod");
    manifest.read(POD, "a.yaml").expect("the first");
    let other_namespace = POD.replace("  name: web\n", "  name: web\n  namespace: other\n");
    manifest.read(&other_namespace, "b.yaml").expect("another namespace, another object");
    let same = POD.replace("  name: web\n", "  name: web\n  namespace: prod\n");
    let faults = manifest.read(&same, "c.yaml").expect_err("the first again");
    assert!(faults.to_string().contains("a.yaml:1"), "{faults}");
    assert_eq!(manifest.objects().len(), 2);
}

#[test]
fn a_small_text_cannot_become_a_large_tree() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert!(parse(&text, "in.yaml").is_err());
}

#[test]
fn printed_objects_begin_with_kind_and_name_and_read_like_kubernetes() {
    let mut object = parse(POD, "in.yaml").expect("a pod").remove(0);
    default_object(&mut object);
    object.meta_mut().expect("a pod has metadata").resource_version = 7;
    let expected = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  resourceVersion: 7
  labels:
    app: web
spec:
  containers:
  - name: main
    command:
    - serve
    - --fast
    env:
    - name: A
      value: '1'
    ports:
    - name: http
      containerPort: 8080
      protocol: TCP
    resources:
      requests:
        cpu: '1'
        memory: 64Mi
      limits:
        cpu: '0.5'
        memory: 64Mi
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 5
status:
  phase: Pending
";
    assert_eq!(to_yaml(&object).replace('"', "'"), expected);
}

#[test]
fn bytes_are_base64_that_may_be_broken_into_lines() {
    let map = |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\nbinaryData: {{logo: {value}}}\n");
    let objects = parse(&map("\"AAEC\\n AwQF\\n\""), "in.yaml").expect("right base64");
    let Some(object::Kind::ConfigMap(read)) = &objects[0].kind else { panic!("a ConfigMap") };
    assert_eq!(read.binary_data["logo"], [0, 1, 2, 3, 4, 5]);
    check(&map("A"), "in.yaml:4 (document 1): binaryData[logo]: must be bytes as base64, in a text, not the text \"A\"");
    check(&map("7"), "in.yaml:4 (document 1): binaryData[logo]: must be bytes as base64, in a text, not the number 7");
}

/// Any text, more often such text as YAML could take for something else.
fn text() -> impl Strategy<Value = String> {
    let tricky = prop::sample::select(vec![
        "",
        " ",
        "~",
        "null",
        "yes",
        "true",
        "0x10",
        "1e3",
        "1_000",
        "01",
        ".nan",
        "- a",
        "a: b",
        "a #b",
        "#",
        "\"",
        "'",
        "*a",
        "&a",
        "!a",
        "|",
        ">",
        "%",
        "@",
        "`",
        "---",
        "...",
        "<<",
        "a\nb",
        "\n",
        "a\n\n",
        " a",
        "a ",
        "\t",
        "\r\n",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{7f}",
        "2026-01-31",
        "12:30",
        "ü😀",
        "=",
        "?",
        "? a",
        "{",
        "[",
        ",",
    ]);
    prop_oneof![3 => tricky.prop_map(str::to_owned), 2 => ".{0,12}", 1 => any::<String>(), 1 => "[a-z ]{70,100}"]
}

fn texts() -> impl Strategy<Value = std::collections::HashMap<String, String>> {
    prop::collection::hash_map(text(), text(), 0..3)
}

fn time() -> impl Strategy<Value = Option<prost_types::Timestamp>> {
    let time =
        (-62_135_596_800_i64..253_402_300_800, 0..1_000_000_000).prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
    prop::option::of(time)
}

fn meta() -> impl Strategy<Value = ObjectMeta> {
    (text(), text(), any::<u64>(), any::<i64>(), time(), texts(), texts(), prop::collection::vec(text(), 0..3), any::<Option<i64>>())
        .prop_map(|(name, uid, resource_version, generation, creation_time, labels, annotations, finalizers, grace)| ObjectMeta {
            name,
            uid,
            resource_version,
            generation,
            creation_time,
            labels,
            annotations,
            finalizers,
            deletion_grace_period_seconds: grace,
            owner_references: vec![OwnerReference { controller: generation > 0, ..Default::default() }],
            ..Default::default()
        })
}

fn container() -> impl Strategy<Value = Container> {
    (text(), prop::collection::vec(text(), 0..3), text(), any::<u32>(), 0..3, prop::option::of(texts())).prop_map(
        |(name, command, value, container_port, protocol, requests)| Container {
            name,
            command,
            env: vec![EnvVar { name: "A".into(), value, ..Default::default() }],
            ports: vec![ContainerPort { name: String::new(), container_port, protocol }],
            resources: requests.map(|requests| ResourceRequirements { requests, limits: Default::default() }),
            ..Default::default()
        },
    )
}

fn status() -> impl Strategy<Value = PodStatus> {
    let running = (time(), any::<i64>()).prop_map(|(started_at, pid)| ContainerStateRunning { started_at, pid });
    (0..5, running, text(), any::<u32>(), 0..4).prop_map(|(phase, running, message, restart_count, condition)| PodStatus {
        phase,
        message,
        container_statuses: vec![ContainerStatus {
            state: Some(ContainerState { state: Some(container_state::State::Running(running)) }),
            restart_count,
            ..Default::default()
        }],
        conditions: vec![Condition { r#type: "Ready".into(), status: condition, ..Default::default() }],
        ..Default::default()
    })
}

fn any_pod() -> impl Strategy<Value = Object> {
    let spec = (prop::collection::vec(container(), 0..3), 0..4, any::<Option<i64>>(), texts()).prop_map(
        |(containers, restart_policy, termination_grace_period_seconds, node_selector)| PodSpec {
            containers,
            restart_policy,
            termination_grace_period_seconds,
            node_selector,
            ..Default::default()
        },
    );
    (prop::option::of(meta()), prop::option::of(spec), prop::option::of(status()))
        .prop_map(|(metadata, spec, status)| Object { kind: Some(object::Kind::Pod(Pod { metadata, spec, status })) })
}

fn any_service() -> impl Strategy<Value = Object> {
    (meta(), texts(), text(), any::<u16>(), any::<u32>()).prop_map(|(metadata, selector, cluster_ip, target, port)| {
        let ports = vec![ServicePort { port, target_port: target.to_string(), ..Default::default() }];
        let spec = Some(ServiceSpec { selector, cluster_ip, ports });
        Object { kind: Some(object::Kind::Service(Service { metadata: Some(metadata), spec, status: None })) }
    })
}

fn any_config_map() -> impl Strategy<Value = Object> {
    let bytes = prop::collection::hash_map(text(), prop::collection::vec(any::<u8>(), 0..5), 0..3);
    (meta(), texts(), bytes).prop_map(|(metadata, data, binary_data)| Object {
        kind: Some(object::Kind::ConfigMap(ConfigMap { metadata: Some(metadata), data, binary_data })),
    })
}

proptest! {
    #[test]
    fn what_was_printed_is_read_back_the_same(object in prop_oneof![any_pod(), any_service(), any_config_map()]) {
        for text in [to_yaml(&object), to_json(&object), list_to_yaml(std::slice::from_ref(&object)), list_to_json(std::slice::from_ref(&object))] {
            prop_assert_eq!(parse(&text, "out"), Ok(vec![object.clone()]), "{}", text);
        }
    }

    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        if let Err(faults) = parse(&text, "in.yaml") {
            prop_assert!(!faults.0.is_empty());
        }
    }
}
