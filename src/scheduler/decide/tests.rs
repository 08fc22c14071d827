use super::super::fleet::Fleet;
use super::*;
use crate::api::v1::{
    ConditionStatus, Container, ContainerPort, Node, NodeSpec, NodeStatus, ObjectMeta, Pod, PodSpec, ResourceRequirements, RestartPolicy,
};
use crate::api::{Kind, ObjectKey, Resource, condition};

/// A node by words: `ready`, `cordoned`, `label k=v`, `can x`, `cpu=2`, `memory=1Gi`, `pods=3`, separated by `; `.
fn node(name: &str, words: &str) -> Node {
    let mut node = Node { metadata: Some(ObjectMeta { name: name.into(), ..Default::default() }), ..Default::default() };
    let mut status = NodeStatus::default();
    for word in words.split("; ") {
        match word.split_once([' ', '=']) {
            None if word == "ready" => {
                condition::set(&mut status.conditions, condition::READY, ConditionStatus::True, "", "", Default::default());
            }
            None if word == "cordoned" => node.spec = Some(NodeSpec { unschedulable: true }),
            Some(("label", label)) => {
                let (key, value) = label.split_once('=').expect("label k=v");
                node.meta_mut().labels.insert(key.into(), value.into());
            }
            Some(("can", capability)) => status.capabilities.push(capability.into()),
            Some((amount, value)) => drop(status.capacity.insert(amount.into(), value.into())),
            _ => panic!("what is {word:?}?"),
        }
    }
    node.status = Some(status);
    node
}

/// A pod by words: `app=x` (label), `on k=v` (node selector), `image x`, `port n`, `request cpu=1`, `limit memory=1Gi`, `at node`.
fn pod(name: &str, words: &str) -> Pod {
    let mut container = Container { name: "main".into(), command: vec!["true".into()], ..Default::default() };
    let mut spec = PodSpec::default();
    let mut resources = ResourceRequirements::default();
    let mut metadata = ObjectMeta { name: name.into(), uid: format!("uid-{name}"), ..Default::default() };
    let pair = |text: &str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).expect("k=v");
    for word in words.split("; ").filter(|word| !word.is_empty()) {
        match word.split_once(' ') {
            None => metadata.labels.extend([pair(word)]),
            Some(("on", label)) => spec.node_selector.extend([pair(label)]),
            Some(("image", image)) => container.image = image.into(),
            Some(("port", number)) => {
                container.ports.push(ContainerPort { container_port: number.parse().expect("a number"), ..Default::default() });
            }
            Some(("request", amount)) => resources.requests.extend([pair(amount)]),
            Some(("limit", amount)) => resources.limits.extend([pair(amount)]),
            Some(("at", node)) => spec.node_name = node.into(),
            _ => panic!("what is {word:?}?"),
        }
    }
    container.resources = Some(resources);
    spec.containers = vec![container];
    Pod { metadata: Some(metadata), spec: Some(spec), status: None }
}

/// Where a pod goes, or why nowhere, given nodes and the pods that are there.
fn check(nodes: &[(&str, &str)], placed: &[&str], wanted: &str, expected: &str) {
    let mut fleet = Fleet::default();
    for (name, words) in nodes {
        fleet.observe_node(name, Some(&node(name, words)));
    }
    for (index, words) in placed.iter().enumerate() {
        let name = format!("p{index}");
        fleet.observe_pod(&ObjectKey::new(Kind::Pod, "", &name), Some(&pod(&name, words)));
    }
    let shown = match decide(&Needs::of(&pod("wanted", wanted)), fleet.nodes()) {
        Decision::Bind(name) => name,
        Decision::Unschedulable(message) => message,
    };
    assert_eq!(shown, expected);
}

const PLAIN: &str = "ready; can runtime.process";

#[test]
fn replicas_are_spread_first_and_pods_as_such_then() {
    let nodes = [("n1", PLAIN), ("n2", PLAIN), ("n3", PLAIN)];
    check(&nodes, &[], "app=web", "n1");
    check(&nodes, &["app=web; at n1"], "app=web", "n2");
    check(&nodes, &["app=web; at n1", "app=db; at n2"], "app=web", "n3");
    check(&nodes, &["app=web; at n1", "app=db; at n2", "app=db; at n2", "app=web; at n3"], "app=web", "n2");
    check(&nodes, &["app=web; at n1", "at n2", "at n2", "app=web; at n3"], "", "n1");
}

#[test]
fn only_ready_nodes_that_take_pods_are_used() {
    check(&[("n1", "can runtime.process"), ("n2", "ready; cordoned"), ("n3", PLAIN)], &[], "", "n3");
    check(&[("n1", "can runtime.process"), ("n2", "ready; cordoned")], &[], "", "0/2 nodes fit: 1 is not ready, 1 is unschedulable");
    check(&[], &[], "", "0/0 nodes fit: no node has joined");
}

#[test]
fn a_selector_names_labels_that_the_node_has() {
    let nodes = [("n1", PLAIN), ("n2", "ready; can runtime.process; label kubernetes.io/os=windows")];
    check(&nodes, &[], "on kubernetes.io/os=windows", "n2");
    check(&nodes, &[], "on kubernetes.io/os=plan9", "0/2 nodes fit: 2 lack label kubernetes.io/os=plan9");
}

#[test]
fn what_a_pod_needs_is_a_capability_of_its_node() {
    let nodes = [("n1", PLAIN), ("n2", "ready; can runtime.process; can memory-limits; memory=1Gi")];
    check(&nodes, &[], "limit memory=64Mi", "n2");
    check(&nodes, &[], "limit cpu=1", "0/2 nodes fit: 2 lack capability cpu-limits");
    check(&nodes, &[], "image nginx", "0/2 nodes fit: 2 lack capability runtime.docker");
}

#[test]
fn two_pods_with_the_same_fixed_port_go_to_different_nodes() {
    let nodes = [("n1", PLAIN), ("n2", PLAIN)];
    check(&nodes, &["port 80; at n1"], "port 80", "n2");
    check(&nodes, &["port 80; at n1", "port 80; at n2"], "port 80", "0/2 nodes fit: 2 have port 80 taken");
    check(&nodes, &["port 0; at n1", "port 0; at n2"], "port 0", "n1");
}

#[test]
fn requests_fit_into_what_is_left() {
    let nodes = [("n1", "ready; can runtime.process; cpu=2; memory=1Gi; pods=3")];
    check(&nodes, &["request cpu=1500m; at n1"], "request cpu=500m", "n1");
    check(&nodes, &["request cpu=1500m; at n1"], "request cpu=501m", "0/1 nodes fit: 1 has too little cpu left");
    check(&nodes, &["request memory=1Gi; at n1"], "request memory=1", "0/1 nodes fit: 1 has too little memory left");
    check(&nodes, &["request memory=1Gi; at n1"], "", "n1");
    check(&nodes, &["at n1", "at n1", "at n1"], "", "0/1 nodes fit: 1 is full");
}

#[test]
fn a_limit_without_a_request_is_set_aside() {
    let nodes = [("n1", "ready; can runtime.process; can cpu-limits; cpu=2")];
    check(&nodes, &["limit cpu=2; at n1"], "request cpu=1", "0/1 nodes fit: 1 has too little cpu left");
    check(&nodes, &["limit cpu=2; request cpu=1; at n1"], "request cpu=1", "n1");
}

#[test]
fn init_containers_need_room_before_the_main_ones_and_sidecars_beside_all_that_follow() {
    let container = |name: &str, policy: RestartPolicy, cpu: &str| Container {
        name: name.into(),
        restart_policy: policy.into(),
        resources: Some(ResourceRequirements { requests: [("cpu".into(), cpu.into())].into(), ..Default::default() }),
        ..Default::default()
    };
    let cpu = |init: &[(RestartPolicy, &str)], main: &str| {
        let init_containers = init.iter().map(|(policy, cpu)| container("init", *policy, cpu)).collect();
        let spec = PodSpec { init_containers, containers: vec![container("main", RestartPolicy::Unspecified, main)], ..Default::default() };
        Needs::of(&Pod { spec: Some(spec), ..Default::default() }).amounts.cpu_millis
    };
    let (init, sidecar) = (RestartPolicy::Unspecified, RestartPolicy::Always);
    assert_eq!(cpu(&[(init, "2"), (init, "3")], "1"), 3_000);
    assert_eq!(cpu(&[(init, "1")], "3"), 3_000);
    assert_eq!(cpu(&[(sidecar, "1"), (init, "3")], "2"), 4_000);
    assert_eq!(cpu(&[(init, "3"), (sidecar, "1")], "2"), 3_000);
    assert_eq!(cpu(&[(sidecar, "1"), (sidecar, "1")], "2"), 4_000);
}

#[test]
fn reasons_are_counted_and_the_commonest_comes_first() {
    let full = "ready; can runtime.process; can memory-limits; memory=1Gi; pods=0";
    let nodes = [("n1", PLAIN), ("n2", full), ("n3", PLAIN), ("n4", full), ("n5", PLAIN)];
    check(&nodes, &[], "limit memory=1Mi", "0/5 nodes fit: 3 lack capability memory-limits, 2 are full");
}
