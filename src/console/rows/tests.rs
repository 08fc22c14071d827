use prost_types::Timestamp;

use super::{headings, row};
use crate::api::v1::*;
use crate::api::{Kind, Resource};
use crate::console::table;

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

const NOW: Timestamp = Timestamp { seconds: 1000, nanos: 0 };

fn meta(name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta { name: name.into(), namespace: "default".into(), creation_time: at(940), ..Default::default() })
}

/// The table of one object reads like this.
#[track_caller]
fn check(object: impl Resource, wide: bool, expected: [&str; 2]) {
    let object = object.into_object();
    let kind = object.kind().expect("an arm is set");
    let rows = [headings(kind, wide), row(&object, wide, &NOW)];
    assert_eq!(table::lines(&rows).lines().collect::<Vec<_>>(), expected);
}

fn waiting(reason: &str) -> container_state::State {
    container_state::State::Waiting(ContainerStateWaiting { reason: reason.into(), message: String::new() })
}

fn running() -> container_state::State {
    container_state::State::Running(ContainerStateRunning::default())
}

fn terminated(reason: &str, exit_code: i32, signal: i32) -> container_state::State {
    let reason = reason.into();
    container_state::State::Terminated(ContainerStateTerminated { reason, exit_code, signal, ..Default::default() })
}

/// A pod of a phase with containers in these states.
fn pod(phase: PodPhase, states: Vec<container_state::State>) -> Pod {
    let containers = states.iter().map(|_| Container::default()).collect();
    let container_statuses = states
        .into_iter()
        .map(|state| ContainerStatus {
            ready: matches!(state, container_state::State::Running(_)),
            state: Some(ContainerState { state: Some(state) }),
            ..Default::default()
        })
        .collect();
    Pod {
        metadata: meta("web"),
        spec: Some(PodSpec { containers, ..Default::default() }),
        status: Some(PodStatus { phase: phase.into(), container_statuses, ..Default::default() }),
    }
}

#[test]
fn a_pods_row_reads_as_in_kubectl() {
    let mut pod = pod(PodPhase::Running, vec![running()]);
    check(pod.clone(), false, ["NAME   READY   STATUS    RESTARTS   AGE", "web    1/1     Running   0          60s"]);

    pod.spec.get_or_insert_default().node_name = "n1".into();
    let status = pod.status.get_or_insert_default();
    status.host_ip = "127.0.0.1".into();
    status.ports = vec![AssignedPort { name: "http".into(), port: 40_001, protocol: Protocol::Tcp.into(), ..Default::default() }];
    status.container_statuses[0].restart_count = 2;
    status.container_statuses[0].last_termination = Some(ContainerStateTerminated { finished_at: at(970), ..Default::default() });
    check(
        pod,
        true,
        [
            "NAME   READY   STATUS    RESTARTS      AGE   NODE   IP          PORTS",
            "web    1/1     Running   2 (30s ago)   60s   n1     127.0.0.1   http:40001/TCP",
        ],
    );
}

#[test]
fn a_pods_status_is_what_its_containers_suffer_from() {
    let check = |pod: Pod, expected: &str| assert_eq!(row(&pod.into_object(), false, &NOW)[2], expected);
    check(pod(PodPhase::Pending, vec![]), "Pending");
    check(pod(PodPhase::Pending, vec![waiting("ContainerCreating")]), "ContainerCreating");
    check(pod(PodPhase::Pending, vec![waiting("StartError")]), "StartError");
    check(pod(PodPhase::Running, vec![waiting("CrashLoopBackOff"), running()]), "CrashLoopBackOff");
    check(pod(PodPhase::Running, vec![terminated("Completed", 0, 0), running()]), "Running");
    check(pod(PodPhase::Running, vec![terminated("Error", 1, 0), running()]), "Error");
    check(pod(PodPhase::Succeeded, vec![terminated("Completed", 0, 0)]), "Completed");
    check(pod(PodPhase::Failed, vec![terminated("Completed", 0, 0), terminated("Error", 1, 0)]), "Error");
    check(pod(PodPhase::Failed, vec![terminated("", 137, 9)]), "Signal:9");
    check(pod(PodPhase::Failed, vec![terminated("OOMKilled", 137, 9)]), "OOMKilled");
    check(pod(PodPhase::Failed, vec![terminated("", 3, 0)]), "ExitCode:3");

    let mut unschedulable = pod(PodPhase::Pending, vec![]);
    unschedulable.status.get_or_insert_default().reason = "Unschedulable".into();
    check(unschedulable, "Unschedulable");
}

#[test]
fn a_pod_that_waits_for_its_init_containers_says_how_many_have_ended() {
    let container =
        |name: &str, policy: RestartPolicy| Container { name: name.into(), restart_policy: policy.into(), ..Default::default() };
    let check = |states: [container_state::State; 2], expected: [&str; 3]| {
        let mut pod = pod(PodPhase::Pending, vec![waiting("PodInitializing")]);
        let spec = pod.spec.get_or_insert_default();
        spec.init_containers = vec![container("fetch", RestartPolicy::Unspecified), container("proxy", RestartPolicy::Always)];
        let status = pod.status.get_or_insert_default();
        status.init_container_statuses = ["fetch", "proxy"]
            .into_iter()
            .zip(states)
            .map(|(name, state)| {
                let runs = matches!(state, container_state::State::Running(_));
                let state = Some(ContainerState { state: Some(state) });
                ContainerStatus { name: name.into(), state, started: runs, ready: runs, restart_count: 2, ..Default::default() }
            })
            .collect();
        assert_eq!(row(&pod.into_object(), false, &NOW)[1..4], expected);
    };
    check([running(), waiting("PodInitializing")], ["0/2", "Init:0/2", "4"]);
    check([terminated("Completed", 0, 0), waiting("PodInitializing")], ["0/2", "Init:1/2", "4"]);
    check([waiting("CrashLoopBackOff"), waiting("PodInitializing")], ["0/2", "Init:CrashLoopBackOff", "4"]);
    check([terminated("Error", 3, 0), waiting("PodInitializing")], ["0/2", "Init:Error", "4"]);
    // A sidecar that has started is none that is waited for; from then on only what lasts is counted.
    check([terminated("Completed", 0, 0), running()], ["1/2", "PodInitializing", "2"]);
}

#[test]
fn a_deleted_pod_is_terminating_until_it_has_ended() {
    let check = |phase: PodPhase, state: container_state::State, expected: &str| {
        let mut pod = pod(phase, vec![state]);
        pod.meta_mut().deletion_time = at(990);
        assert_eq!(row(&pod.into_object(), false, &NOW)[2], expected);
    };
    check(PodPhase::Running, running(), "Terminating");
    check(PodPhase::Succeeded, terminated("Completed", 0, 0), "Completed");
}

#[test]
fn a_pod_of_a_silent_node_says_so() {
    let mut pod = pod(PodPhase::Running, vec![running()]);
    let unknown =
        Condition { r#type: "Ready".into(), status: ConditionStatus::Unknown.into(), reason: "NodeLost".into(), ..Default::default() };
    pod.status.get_or_insert_default().conditions = vec![unknown];
    assert_eq!(row(&pod.into_object(), false, &NOW)[2], "NodeLost");
}

#[test]
fn a_services_row_shows_its_address_and_ports() {
    let ports = vec![ServicePort { port: 8080, ..Default::default() }, ServicePort { port: 53, protocol: 2, ..Default::default() }];
    let selector = [("tier".into(), "front".into()), ("app".into(), "web".into())].into();
    let spec = ServiceSpec { selector, ports, cluster_ip: "127.96.0.10".into() };
    let service = Service { metadata: meta("web"), spec: Some(spec), status: None };
    check(service.clone(), false, ["NAME   CLUSTER-IP    PORT(S)           AGE", "web    127.96.0.10   8080/TCP,53/UDP   60s"]);
    check(
        service,
        true,
        ["NAME   CLUSTER-IP    PORT(S)           AGE   SELECTOR", "web    127.96.0.10   8080/TCP,53/UDP   60s   app=web,tier=front"],
    );
}

#[test]
fn a_nodes_row_shows_whether_it_is_ready_and_what_it_is() {
    let ready = Condition { r#type: "Ready".into(), status: ConditionStatus::True.into(), ..Default::default() };
    let info = NodeInfo { os: "linux".into(), arch: "amd64".into(), kubelet_version: "0.1.0".into(), ..Default::default() };
    let capacity = [("cpu".into(), "2".into()), ("memory".into(), "16642998272".into())].into();
    let status = NodeStatus { conditions: vec![ready], info: Some(info), capacity, ..Default::default() };
    let mut node = Node { metadata: meta("n1"), spec: None, status: Some(status) };
    check(
        node.clone(),
        true,
        [
            "NAME   STATUS   OS      ARCH    AGE   VERSION   IP       HOSTNAME   KERNEL   CPU   MEMORY",
            "n1     Ready    linux   amd64   60s   0.1.0     <none>   <none>     <none>   2     15.5Gi",
        ],
    );
    node.spec = Some(NodeSpec { unschedulable: true });
    node.status = None;
    check(
        node,
        false,
        [
            "NAME   STATUS                        OS       ARCH     AGE   VERSION",
            "n1     NotReady,SchedulingDisabled   <none>   <none>   60s   <none>",
        ],
    );
}

#[test]
fn an_endpoint_slices_row_shows_the_first_endpoints() {
    let endpoint = |port: u32| Endpoint {
        address: "127.0.0.1".into(),
        ports: vec![EndpointPort { port, ..Default::default() }],
        ..Default::default()
    };
    let slice = |count: u32| EndpointSlice {
        metadata: meta("web"),
        spec: Some(EndpointSliceSpec { endpoints: (1..=count).map(endpoint).collect() }),
    };
    assert_eq!(row(&slice(0).into_object(), false, &NOW)[1], "<none>");
    assert_eq!(row(&slice(3).into_object(), false, &NOW)[1], "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3");
    assert_eq!(row(&slice(5).into_object(), false, &NOW)[1], "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3 + 2 more");
}

#[test]
fn an_events_row_says_what_happened_to_what() {
    let regarding = EventSubject { kind: "Pod".into(), name: "web".into(), ..Default::default() };
    let spec = ClusterEventSpec {
        regarding: Some(regarding),
        reason: "Started".into(),
        note: "Started container main".into(),
        last_time: at(995),
        ..Default::default()
    };
    check(
        ClusterEvent { metadata: meta("web.1"), spec: Some(spec) },
        false,
        ["LAST SEEN   TYPE     REASON    OBJECT    MESSAGE", "5s          Normal   Started   pod/web   Started container main"],
    );
}

#[test]
fn of_config_maps_and_secrets_it_is_told_how_many_values_they_hold() {
    let data = [("a".to_owned(), "1".to_owned())].into();
    let map = ConfigMap { metadata: meta("web"), data, binary_data: [("b".to_owned(), vec![0])].into() };
    check(map, true, ["NAME   DATA   AGE", "web    2      60s"]);
    let data = [("password".to_owned(), b"hunter2".to_vec())].into();
    let secret = Secret { metadata: meta("db"), r#type: "Opaque".into(), data, ..Default::default() };
    check(secret, true, ["NAME   TYPE     DATA   AGE", "db     Opaque   1      60s"]);
}

#[test]
fn every_kind_has_as_many_cells_as_headings() {
    let objects = [
        Pod::default().into_object(),
        Service::default().into_object(),
        Node::default().into_object(),
        EndpointSlice::default().into_object(),
        Namespace::default().into_object(),
        ClusterEvent::default().into_object(),
        Lease::default().into_object(),
        ConfigMap::default().into_object(),
        Secret::default().into_object(),
    ];
    assert_eq!(objects.len(), Kind::ALL.len());
    for object in objects {
        let kind = object.kind().expect("an arm is set");
        for wide in [false, true] {
            assert_eq!(row(&object, wide, &NOW).len(), headings(kind, wide).len(), "{kind}");
        }
    }
}
