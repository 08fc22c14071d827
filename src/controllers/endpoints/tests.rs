use super::*;
use crate::api::v1::{ConditionStatus, Container, PodSpec, PodStatus, ServiceSpec};

/// A pod with the ports `name:declared>real`, ready and on node n1.
fn pod(name: &str, ports: &[&str]) -> Pod {
    let mut declared = Vec::new();
    let mut assigned = Vec::new();
    for port in ports {
        let (port_name, numbers) = port.split_once(':').expect("name:declared>real");
        let (number, real) = numbers.split_once('>').expect("declared>real");
        let container_port = number.parse().expect("a number");
        declared.push(ContainerPort { name: port_name.into(), container_port, protocol: Protocol::Tcp.into() });
        let real = real.parse().expect("a number");
        assigned.push(AssignedPort { container: "main".into(), name: port_name.into(), port: real, protocol: Protocol::Tcp.into() });
    }
    let metadata =
        ObjectMeta { name: name.into(), uid: format!("uid-{name}"), labels: [("app".into(), "web".into())].into(), ..Default::default() };
    let container = Container { name: "main".into(), ports: declared, ..Default::default() };
    let spec = PodSpec { containers: vec![container], node_name: "n1".into(), ..Default::default() };
    let mut status = PodStatus { phase: PodPhase::Running.into(), host_ip: "10.0.0.1".into(), ports: assigned, ..Default::default() };
    condition::set(&mut status.conditions, condition::READY, ConditionStatus::True, "", "", Default::default());
    Pod { metadata: Some(metadata), spec: Some(spec), status: Some(status) }
}

/// A service for `app=web` with the ports `name:port>target`.
fn service(ports: &[&str]) -> Service {
    let ports = ports.iter().map(|port| {
        let (name, rest) = port.split_once(':').expect("name:port>target");
        let (number, target) = rest.split_once('>').expect("port>target");
        ServicePort {
            name: name.into(),
            port: number.parse().expect("a number"),
            target_port: target.into(),
            protocol: Protocol::Tcp.into(),
        }
    });
    let spec = ServiceSpec { selector: [("app".into(), "web".into())].into(), ports: ports.collect(), ..Default::default() };
    Service { metadata: Some(ObjectMeta { name: "web".into(), ..Default::default() }), spec: Some(spec), status: None }
}

/// The slice as `pod name=real,name=real` separated by spaces.
fn check(service_ports: &[&str], pods: &[Pod], expected: &str) {
    let spec = slice_spec(&service(service_ports), pods.iter());
    let shown = spec.endpoints.iter().map(|endpoint| {
        let ports: Vec<_> = endpoint.ports.iter().map(|port| format!("{}={}", port.name, port.port)).collect();
        format!("{}/{}", endpoint.pod_name, ports.join(","))
    });
    assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn a_target_is_a_name_or_a_declared_number() {
    let ports = ["http:0>31000", "admin:9000>9000"];
    check(&["http:80>http"], &[pod("a", &ports)], "a/http=31000");
    check(&["http:80>9000"], &[pod("a", &ports)], "a/http=9000");
    check(&["http:80>admin", "x:81>http"], &[pod("a", &ports)], "a/http=9000,x=31000");
}

#[test]
fn without_a_target_the_name_comes_first_then_the_number_then_the_only_port() {
    check(&["http:9000>"], &[pod("a", &["http:0>31000", "admin:9000>9000"])], "a/http=31000");
    check(&[":9000>"], &[pod("a", &["http:0>31000", "admin:9000>9000"])], "a/=9000");
    check(&[":80>"], &[pod("a", &[":0>31000"])], "a/=31000");
    check(&[":80>"], &[pod("a", &["x:0>31000", "y:0>31001"])], "a/");
}

#[test]
fn a_port_that_a_pod_does_not_have_is_left_out_for_that_pod() {
    let pods = [pod("a", &["http:0>31000"]), pod("b", &["other:0>31001"])];
    check(&["web:80>http"], &pods, "a/web=31000 b/");
}

#[test]
fn a_port_that_was_handed_out_is_not_taken_for_a_declared_one_of_the_same_number() {
    check(&[":80>31000"], &[pod("a", &["http:0>31000", "x:0>31001"])], "a/");
}

#[test]
fn ports_of_another_transport_do_not_count() {
    let mut udp = pod("a", &["dns:53>53"]);
    udp.spec.as_mut().expect("has a spec").containers[0].ports[0].protocol = Protocol::Udp.into();
    check(&["dns:53>"], &[udp], "a/");
}

#[test]
fn only_ready_living_pods_with_the_labels_take_connections() {
    let ports = ["http:0>31000"];
    let deleted = {
        let mut pod = pod("deleted", &ports);
        pod.meta_mut().deletion_time = Some(Default::default());
        pod
    };
    let unready = {
        let mut pod = pod("unready", &ports);
        pod.status.as_mut().expect("has a status").conditions[0].status = ConditionStatus::Unknown.into();
        pod
    };
    let ended = {
        let mut pod = pod("ended", &ports);
        pod.status.as_mut().expect("has a status").phase = PodPhase::Failed.into();
        pod
    };
    let other = {
        let mut pod = pod("other", &ports);
        pod.meta_mut().labels.clear();
        pod
    };
    check(&[":80>"], &[pod("a", &ports), deleted, unready, ended, other, pod("z", &ports)], "a/=31000 z/=31000");
}

#[test]
fn a_service_without_a_selector_selects_no_pod() {
    let mut service = service(&[":80>"]);
    service.spec.as_mut().expect("has a spec").selector.clear();
    assert!(slice_spec(&service, [pod("a", &[":0>31000"])].iter()).endpoints.is_empty());
    assert!(!has_selector(&service));
}

#[test]
fn members_are_found_by_pod_until_they_leave() {
    let key = |kind, name| ObjectKey::new(kind, "", name);
    let (a, b) = (key(Kind::Pod, "a"), key(Kind::Pod, "b"));
    let (web, api) = (key(Kind::Service, "web"), key(Kind::Service, "api"));
    let mut members = Members::default();
    members.set(&web, [a.clone(), b.clone()].into());
    members.set(&api, [a.clone()].into());
    assert_eq!(members.services_of(&a), [web.clone(), api.clone()].into());
    members.set(&web, [b.clone()].into());
    assert_eq!(members.services_of(&a), [api.clone()].into());
    members.set(&api, BTreeSet::new());
    members.set(&web, BTreeSet::new());
    assert!(members.pods.is_empty() && members.services.is_empty());
}
