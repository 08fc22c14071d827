use super::{validate, validate_update};
use crate::api::default_object;
use crate::api::v1::*;

/// A pod that is right, changed by `change`, defaulted.
fn pod(change: impl FnOnce(&mut ObjectMeta, &mut PodSpec)) -> Object {
    let mut meta = ObjectMeta { name: "web".into(), ..Default::default() };
    let port = ContainerPort { name: "http".into(), ..Default::default() };
    let container = Container { name: "main".into(), command: vec!["serve".into()], ports: vec![port], ..Default::default() };
    let mut spec = PodSpec { containers: vec![container], ..Default::default() };
    change(&mut meta, &mut spec);
    defaulted(object::Kind::Pod(Pod { metadata: Some(meta), spec: Some(spec), status: None }))
}

/// A service that is right, changed by `change`, defaulted.
fn service(change: impl FnOnce(&mut ObjectMeta, &mut ServiceSpec)) -> Object {
    let mut meta = ObjectMeta { name: "web".into(), ..Default::default() };
    let port = ServicePort { port: 80, target_port: "http".into(), ..Default::default() };
    let mut spec = ServiceSpec { selector: [("app".into(), "web".into())].into(), ports: vec![port], ..Default::default() };
    change(&mut meta, &mut spec);
    defaulted(object::Kind::Service(Service { metadata: Some(meta), spec: Some(spec), status: None }))
}

fn defaulted(kind: object::Kind) -> Object {
    let mut object = Object { kind: Some(kind) };
    default_object(&mut object);
    object
}

/// The object has exactly one fault, at `path`, and what is said of it contains `hint`.
#[track_caller]
fn check(object: &Object, path: &str, hint: &str) {
    let violations = validate(object);
    assert_eq!(violations.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), [path], "{violations:?}");
    assert!(violations[0].message.contains(hint), "{:?} lacks {hint:?}", violations[0].message);
}

#[test]
fn a_right_object_has_no_fault() {
    assert_eq!(validate(&pod(|_, _| {})), []);
    assert_eq!(validate(&service(|_, _| {})), []);
    let namespace = Namespace { metadata: Some(ObjectMeta { name: "prod".into(), ..Default::default() }), ..Default::default() };
    assert_eq!(validate(&defaulted(object::Kind::Namespace(namespace))), []);
}

#[test]
fn defaults_are_those_of_kubernetes_and_stable() {
    let mut first = pod(|_, spec| {
        let limits = [("cpu".into(), "1".into())].into();
        spec.containers[0].resources = Some(ResourceRequirements { limits, requests: Default::default() });
    });
    let Some(object::Kind::Pod(Pod { metadata: Some(meta), spec: Some(spec), status: Some(status) })) = &first.kind else {
        panic!("a pod with all its parts")
    };
    assert_eq!(meta.namespace, "default");
    assert_eq!(spec.restart_policy(), RestartPolicy::Always);
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    assert_eq!(spec.containers[0].ports[0].protocol(), Protocol::Tcp);
    assert_eq!(spec.containers[0].resources.as_ref().map(|resources| resources.requests["cpu"].as_str()), Some("1"));
    assert_eq!(status.phase(), PodPhase::Pending);

    let once = first.clone();
    default_object(&mut first);
    assert_eq!(first, once);
}

#[test]
fn an_event_goes_into_the_namespace_of_its_object() {
    let regarding = EventSubject { kind: "Pod".into(), namespace: "prod".into(), name: "web".into(), uid: String::new() };
    let spec = ClusterEventSpec { regarding: Some(regarding), reason: "Started".into(), ..Default::default() };
    let mut event = ClusterEvent { metadata: Some(ObjectMeta { name: "web.1".into(), ..Default::default() }), spec: Some(spec) };
    let object = defaulted(object::Kind::Event(event.clone()));
    assert_eq!(object.meta().namespace, "prod");
    assert_eq!(validate(&object), []);

    event.metadata.get_or_insert_default().namespace = "other".into();
    check(&defaulted(object::Kind::Event(event)), "event.spec.regarding.namespace", "\"prod\"");
}

#[test]
fn an_object_without_a_kind_is_refused() {
    check(&Object::default(), "kind", "endpoint_slice");
}

#[test]
fn names_obey_the_rules_of_dns() {
    let named = |name: &str| pod(|meta, _| meta.name = name.into());
    assert_eq!(validate(&named("a.b-c.9")), []);
    for name in ["Web", "-web", "web-", "we_b", "a..b", "ü", &"a".repeat(254)] {
        check(&named(name), "pod.metadata.name", "DNS subdomain");
    }
    check(&named(""), "pod.metadata.name", "must not be empty");
    check(&service(|meta, _| meta.name = "a.b".into()), "service.metadata.name", "DNS label");
    check(&pod(|meta, _| meta.namespace = "a.b".into()), "pod.metadata.namespace", "DNS label");
    check(&pod(|_, spec| spec.containers[0].name = "Main".into()), "pod.spec.containers[0].name", "DNS label");
}

#[test]
fn a_node_has_no_namespace() {
    let metadata = Some(ObjectMeta { name: "n1".into(), namespace: "default".into(), ..Default::default() });
    check(&defaulted(object::Kind::Node(Node { metadata, ..Default::default() })), "node.metadata.namespace", "must be empty");
}

#[test]
fn labels_obey_the_rules_of_kubernetes() {
    let labelled = |key: &str, value: &str| pod(|meta, _| meta.labels = [(key.into(), value.into())].into());
    for (key, value) in [("app", "web"), ("example.com/a_b.c", ""), ("A", "v1.2-x_Y")] {
        assert_eq!(validate(&labelled(key, value)), [], "{key}={value}");
    }
    for key in ["", "a b", "-a", "/a", "a/", "a/b/c", "Example.com/a", &"a".repeat(64)] {
        check(&labelled(key, "x"), &format!("pod.metadata.labels[{key}]"), "label key");
    }
    for value in ["a b", "-a", "a/b", &"a".repeat(64)] {
        check(&labelled("app", value), "pod.metadata.labels[app]", "label value");
    }
    check(&service(|_, spec| spec.selector = [("app".into(), "a b".into())].into()), "service.spec.selector[app]", "label value");
    check(&pod(|meta, _| meta.annotations = [("a b".into(), "any thing".into())].into()), "pod.metadata.annotations[a b]", "label key");
}

#[test]
fn annotations_and_objects_have_a_largest_size() {
    let annotated = |bytes: usize| pod(|meta, _| meta.annotations = [("a".into(), "x".repeat(bytes - 1))].into());
    assert_eq!(validate(&annotated(256 * 1024)), []);
    check(&annotated(256 * 1024 + 1), "pod.metadata.annotations", "262144");
    check(&pod(|_, spec| spec.containers[0].args = vec!["x".repeat(1024 * 1024)]), "pod", "1048576");
}

#[test]
fn a_pod_needs_containers_with_distinct_names_and_something_to_run() {
    check(&pod(|_, spec| spec.containers.clear()), "pod.spec.containers", "at least one");
    let twice = pod(|_, spec| {
        spec.containers[0].ports.clear();
        spec.containers.push(spec.containers[0].clone());
    });
    check(&twice, "pod.spec.containers[1].name", "[0]");
    check(&pod(|_, spec| spec.containers[0].command.clear()), "pod.spec.containers[0].command", "program");
    check(&pod(|_, spec| spec.containers[0].command[0].clear()), "pod.spec.containers[0].command[0]", "program");
    check(&pod(|_, spec| spec.containers[0].args = vec!["a\0b".into()]), "pod.spec.containers[0].args[0]", "NUL");
}

#[test]
fn ports_of_a_pod_are_ports_with_distinct_names_and_numbers() {
    let ports = |ports: &[(&str, u32)]| {
        pod(|_, spec| {
            let port = |(name, number): &(&str, u32)| ContainerPort { name: (*name).into(), container_port: *number, protocol: 0 };
            spec.containers[0].ports = ports.iter().map(port).collect();
        })
    };
    assert_eq!(validate(&ports(&[("", 0)])), []);
    assert_eq!(validate(&ports(&[("a", 0), ("b", 0), ("c", 65_535)])), []);
    check(&ports(&[("a", 65_536)]), "pod.spec.containers[0].ports[0].container_port", "1 to 65535");
    check(&ports(&[("a", 0), ("", 0)]), "pod.spec.containers[0].ports[1].name", "more than one");
    check(&ports(&[("a", 0), ("a", 0)]), "pod.spec.containers[0].ports[1].name", "containers[0].ports[0]");
    check(&ports(&[("a", 80), ("b", 80)]), "pod.spec.containers[0].ports[1].container_port", "TCP 80");
    for name in ["80", "HTTP", "a--b", "a-very-long-name", "-a"] {
        check(&ports(&[(name, 0)]), "pod.spec.containers[0].ports[0].name", "port name");
    }
}

#[test]
fn variables_have_names_that_every_system_takes() {
    let variable =
        |name: &str| pod(|_, spec| spec.containers[0].env = vec![EnvVar { name: name.into(), value: "=".into(), ..Default::default() }]);
    for name in ["A", "_a1", "a.b-c", ".a"] {
        assert_eq!(validate(&variable(name)), [], "{name}");
    }
    for name in ["", "1A", "A=B", "A B", "..", "."] {
        check(&variable(name), "pod.spec.containers[0].env[0].name", "variable name");
    }
}

#[test]
fn resources_are_quantities_of_cpu_and_memory() {
    let resources = |requests: &[(&str, &str)], limits: &[(&str, &str)]| {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, amount)| ((*name).into(), (*amount).into())).collect();
        pod(|_, spec| spec.containers[0].resources = Some(ResourceRequirements { requests: map(requests), limits: map(limits) }))
    };
    assert_eq!(validate(&resources(&[("cpu", "500m"), ("memory", "64Mi")], &[("cpu", "0.5")])), []);
    check(&resources(&[("cpu", "1,5")], &[]), "pod.spec.containers[0].resources.requests[cpu]", "must be a number");
    check(&resources(&[("cpus", "1")], &[]), "pod.spec.containers[0].resources.requests[cpus]", "cpu, memory");
    check(&resources(&[("pids", "1")], &[]), "pod.spec.containers[0].resources.requests[pids]", "cpu, memory");
    check(&resources(&[], &[("memory", "0")]), "pod.spec.containers[0].resources.limits[memory]", "nothing to run with");
    assert_eq!(validate(&resources(&[], &[("pids", "100")])), [], "it is no request");
    check(&resources(&[("cpu", "2")], &[("cpu", "1")]), "pod.spec.containers[0].resources.requests[cpu]", "more than the limit");
}

#[test]
fn a_number_that_names_no_choice_is_refused() {
    check(&pod(|_, spec| spec.restart_policy = 9), "pod.spec.restart_policy", "OnFailure");
    check(&pod(|_, spec| spec.containers[0].ports[0].protocol = 9), "pod.spec.containers[0].ports[0].protocol", "TCP");
}

#[test]
fn the_grace_period_is_not_negative() {
    check(&pod(|_, spec| spec.termination_grace_period_seconds = Some(-1)), "pod.spec.termination_grace_period_seconds", "0");
    assert_eq!(validate(&pod(|_, spec| spec.termination_grace_period_seconds = Some(0))), []);
}

#[test]
fn a_service_needs_distinct_tcp_ports() {
    let port = |name: &str, port: u32| ServicePort { name: name.into(), port, ..Default::default() };
    let ports = |ports: Vec<ServicePort>| service(|_, spec| spec.ports = ports);
    check(&ports(vec![]), "service.spec.ports", "at least one");
    check(&ports(vec![port("", 0)]), "service.spec.ports[0].port", "1 to 65535");
    check(&ports(vec![port("", 70_000)]), "service.spec.ports[0].port", "1 to 65535");
    check(&ports(vec![port("a", 80), port("", 81)]), "service.spec.ports[1].name", "more than one");
    check(&ports(vec![port("a", 80), port("a", 81)]), "service.spec.ports[1].name", "[0]");
    check(&ports(vec![port("a", 80), port("b", 80)]), "service.spec.ports[1].port", "[0]");
    check(&service(|_, spec| spec.ports[0].protocol = Protocol::Udp as i32), "service.spec.ports[0].protocol", "UDP");
}

#[test]
fn a_target_port_is_a_name_or_a_number() {
    let target = |target: &str| service(|_, spec| spec.ports[0].target_port = target.into());
    for right in ["", "http", "1", "65535"] {
        assert_eq!(validate(&target(right)), [], "{right}");
    }
    for wrong in ["0", "65536", "99999999999", "Http", "http_", "8080/tcp"] {
        check(&target(wrong), "service.spec.ports[0].target_port", "port");
    }
}

#[test]
fn an_address_of_a_service_is_ipv4() {
    let address = |address: &str| service(|_, spec| spec.cluster_ip = address.into());
    assert_eq!(validate(&address("127.96.0.10")), []);
    for wrong in ["None", "::1", "127.96.0", "0.0.0.0", "127.96.0.10/12"] {
        check(&address(wrong), "service.spec.cluster_ip", "IPv4");
    }
}

#[test]
fn a_held_lease_needs_a_duration() {
    let spec = Some(LeaseSpec { holder_identity: "me".into(), ..Default::default() });
    let metadata = Some(ObjectMeta { name: "leader".into(), ..Default::default() });
    check(&defaulted(object::Kind::Lease(Lease { metadata, spec })), "lease.spec.lease_duration_seconds", "at least 1");
}

#[test]
fn owners_are_named_in_full_and_one_may_be_the_controller() {
    let owner = |uid: &str| OwnerReference { kind: "ReplicaSet".into(), name: "web".into(), uid: uid.into(), controller: true };
    let owned = |owners: Vec<OwnerReference>| pod(|meta, _| meta.owner_references = owners);
    assert_eq!(validate(&owned(vec![owner("1")])), []);
    check(&owned(vec![owner("")]), "pod.metadata.owner_references[0].uid", "uid");
    check(&owned(vec![owner("1"), owner("2")]), "pod.metadata.owner_references", "at most one");
}

#[test]
fn init_containers_obey_the_rules_of_containers_and_have_names_and_ports_of_their_own() {
    let init = |change: &dyn Fn(&mut Container)| {
        pod(|_, spec| {
            let mut container = Container { name: "setup".into(), command: vec!["true".into()], ..Default::default() };
            change(&mut container);
            spec.init_containers.push(container);
        })
    };
    assert_eq!(validate(&init(&|container| container.restart_policy = RestartPolicy::Always as i32)), []);
    check(&init(&|container| container.command.clear()), "pod.spec.init_containers[0].command", "program");
    check(&init(&|container| container.name = "main".into()), "pod.spec.init_containers[0].name", "containers[0]");
    check(&init(&|container| container.restart_policy = 9), "pod.spec.init_containers[0].restart_policy", "OnFailure");
    let port = ContainerPort { name: "http".into(), ..Default::default() };
    let taken = init(&|container| container.ports = vec![port.clone()]);
    check(&taken, "pod.spec.containers[0].ports[0].name", "init_containers[0].ports[0]");
}

#[test]
fn a_probe_says_what_to_do_how_often_and_on_which_port() {
    let http = |port: &str| {
        let action = HttpGetAction { port: port.into(), ..Default::default() };
        Probe { handler: Some(probe::Handler::HttpGet(action)), ..Default::default() }
    };
    let with = |probe: Probe| pod(|_, spec| spec.containers[0].readiness_probe = Some(probe));
    let path = |field: &str| format!("pod.spec.containers[0].readiness_probe{field}");
    for port in ["http", "8080", ""] {
        assert_eq!(validate(&with(http(port))), [], "{port:?}");
    }
    for (port, hint) in [("none", "neither"), ("0", "no port"), ("70000", "no port")] {
        check(&with(http(port)), &path(".http_get.port"), hint);
    }
    let portless = pod(|_, spec| {
        spec.containers[0].ports[0].protocol = Protocol::Udp.into();
        spec.containers[0].readiness_probe = Some(http(""));
    });
    check(&portless, &path(".http_get.port"), "no TCP port");
    check(&with(Probe::default()), &path(""), "exec, http_get, tcp_socket or grpc");
    check(&with(Probe { period_seconds: 90_000, ..http("") }), &path(".period_seconds"), "1 to 86400");
    check(&with(Probe { timeout_seconds: 3_601, ..http("") }), &path(".timeout_seconds"), "1 to 3600");
    let exec = Probe { handler: Some(probe::Handler::Exec(ExecAction::default())), ..Default::default() };
    check(&with(exec), &path(".exec.command"), "program");
    let action = HttpGetAction { path: "no slash".into(), scheme: "HTTPS".into(), ..Default::default() };
    let wrong = with(Probe { handler: Some(probe::Handler::HttpGet(action)), ..Default::default() });
    let paths: Vec<_> = validate(&wrong).into_iter().map(|violation| violation.path).collect();
    assert_eq!(paths, [path(".http_get.path"), path(".http_get.scheme")]);

    let twice = pod(|_, spec| spec.containers[0].liveness_probe = Some(Probe { success_threshold: 2, ..http("") }));
    check(&twice, "pod.spec.containers[0].liveness_probe.success_threshold", "must be 1");
    let on_init = |policy: RestartPolicy| {
        pod(|_, spec| {
            let mut init = Container { name: "init".into(), command: vec!["true".into()], ..Default::default() };
            (init.restart_policy, init.startup_probe) = (policy.into(), Some(http("80")));
            spec.init_containers.push(init);
        })
    };
    assert_eq!(validate(&on_init(RestartPolicy::Always)), []);
    check(&on_init(RestartPolicy::OnFailure), "pod.spec.init_containers[0].startup_probe", "Always");
}

#[test]
fn a_back_off_has_bounds() {
    let with = |backoff: RestartBackoff| pod(|_, spec| spec.containers[0].restart_backoff = Some(backoff));
    let millis = |millis: i64| Some(prost_types::Duration { seconds: millis / 1_000, nanos: (millis % 1_000 * 1_000_000) as i32 });
    let path = |field: &str| format!("pod.spec.containers[0].restart_backoff.{field}");
    assert_eq!(validate(&with(RestartBackoff::default())), []);
    assert_eq!(validate(&with(RestartBackoff { initial: millis(600_000), factor: 1.0, reset: millis(0), ..Default::default() })), []);
    for initial in [0, 9, -1_000, 86_400_001] {
        check(&with(RestartBackoff { initial: millis(initial), ..Default::default() }), &path("initial"), "10ms");
    }
    for cap in [999, 86_400_001, -5] {
        check(&with(RestartBackoff { cap: millis(cap), ..Default::default() }), &path("cap"), "initial");
    }
    for factor in [0.5, -1.0, 101.0, f64::NAN, f64::INFINITY] {
        check(&with(RestartBackoff { factor, ..Default::default() }), &path("factor"), "1 to 100");
    }
    check(&with(RestartBackoff { reset: millis(-1_000), ..Default::default() }), &path("reset"), "negative");
}

#[track_caller]
fn check_update(old: &Object, new: &Object, path: &str) {
    let violations = validate_update(old, new);
    assert_eq!(violations.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), [path], "{violations:?}");
}

#[test]
fn a_pods_spec_does_not_change() {
    let old = pod(|_, _| {});
    check_update(&old, &pod(|_, spec| spec.containers[0].args = vec!["--fast".into()]), "pod.spec.containers[0].args");
    check_update(&old, &pod(|_, spec| spec.restart_policy = RestartPolicy::Never as i32), "pod.spec.restart_policy");
    check_update(&old, &pod(|_, spec| spec.containers.clear()), "pod.spec.containers");
    check_update(&old, &pod(|_, spec| spec.init_containers.push(Container::default())), "pod.spec.init_containers");
    check_update(&old, &pod(|_, spec| spec.containers[0].restart_policy = 3), "pod.spec.containers[0].restart_policy");
    check_update(&old, &pod(|_, spec| spec.restart_on_config_change = true), "pod.spec.restart_on_config_change");
    let probe = Some(Probe::default());
    check_update(&old, &pod(|_, spec| spec.containers[0].liveness_probe = probe.clone()), "pod.spec.containers[0].liveness_probe");
    let backoff = Some(RestartBackoff { factor: 3.0, ..Default::default() });
    check_update(&old, &pod(|_, spec| spec.containers[0].restart_backoff = backoff), "pod.spec.containers[0].restart_backoff");
    let labelled = pod(|meta, _| meta.labels = [("a".into(), "b".into())].into());
    assert_eq!(validate_update(&old, &labelled), []);
}

#[test]
fn a_pod_is_bound_once() {
    let free = pod(|_, _| {});
    let bound = pod(|_, spec| spec.node_name = "n1".into());
    assert_eq!(validate_update(&free, &bound), []);
    assert_eq!(validate_update(&bound, &bound), []);
    check_update(&bound, &free, "pod.spec.node_name");
    check_update(&bound, &pod(|_, spec| spec.node_name = "n2".into()), "pod.spec.node_name");
}

#[test]
fn a_services_address_is_set_once() {
    let free = service(|_, _| {});
    let placed = service(|_, spec| spec.cluster_ip = "127.96.0.2".into());
    assert_eq!(validate_update(&free, &placed), []);
    check_update(&placed, &free, "service.spec.cluster_ip");
    let more = service(|_, spec| {
        spec.cluster_ip = "127.96.0.2".into();
        spec.selector.clear();
    });
    assert_eq!(validate_update(&placed, &more), []);
}

#[test]
fn an_object_keeps_its_name() {
    check_update(&pod(|_, _| {}), &pod(|meta, _| meta.name = "other".into()), "pod.metadata.name");
    check_update(&pod(|_, _| {}), &service(|_, _| {}), "pod.metadata.name");
}

#[test]
fn keys_of_config_maps_and_secrets_may_become_names_of_files() {
    let metadata = || Some(ObjectMeta { name: "web".into(), ..Default::default() });
    let map = |key: &str| {
        let data = [(key.to_owned(), String::new())].into();
        defaulted(object::Kind::ConfigMap(ConfigMap { metadata: metadata(), data, ..Default::default() }))
    };
    for right in ["a", ".a", "A-b_c.d", "a..b", &"k".repeat(253)] {
        assert_eq!(validate(&map(right)), [], "{right}");
    }
    for wrong in ["", ".", "..", "..a", "a/b", "a\\b", "a b", "ü", &"k".repeat(254)] {
        check(&map(wrong), &format!("config_map.data[{wrong}]"), "253 letters, digits");
    }
    let (data, binary_data) = ([("a".to_owned(), String::new())].into(), [("a".to_owned(), Vec::new())].into());
    let twice = ConfigMap { metadata: metadata(), data, binary_data };
    check(&defaulted(object::Kind::ConfigMap(twice)), "config_map.binary_data[a]", "stands in data already");
    let string_data = [("a/b".to_owned(), "x".to_owned())].into();
    let secret = Secret { metadata: metadata(), string_data, ..Default::default() };
    check(&defaulted(object::Kind::Secret(secret)), "secret.data[a/b]", "253 letters, digits");
}

#[test]
fn a_secret_keeps_its_type() {
    let secret = |r#type: &str| {
        let metadata = Some(ObjectMeta { name: "db".into(), ..Default::default() });
        defaulted(object::Kind::Secret(Secret { metadata, r#type: r#type.into(), ..Default::default() }))
    };
    assert_eq!(validate(&secret("kubernetes.io/tls")), []);
    assert_eq!(validate_update(&secret(""), &secret("Opaque")), []);
    check(&secret("a b"), "secret.type", "visible ASCII");
    let violations = validate_update(&secret(""), &secret("kubernetes.io/tls"));
    assert_eq!(violations.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["secret.type"]);
}

#[test]
fn a_variable_has_one_source_that_can_be() {
    use env_var_source::Source;
    let of = |name: &str, key: &str| Some(Source::SecretKeyRef(SecretKeySelector { name: name.into(), key: key.into(), optional: false }));
    let with = |value: &str, source: Option<Source>| {
        let variable = EnvVar { name: "A".into(), value: value.into(), value_from: Some(EnvVarSource { source }) };
        pod(|_, spec| spec.containers[0].env = vec![variable])
    };
    assert_eq!(validate(&with("", of("db", "password"))), []);
    let path = |rest: &str| format!("pod.spec.containers[0].env[0].value_from{rest}");
    check(&with("x", of("db", "password")), &path(""), "can't stand beside value");
    check(&with("", None), &path(""), "config_map_key_ref or secret_key_ref");
    check(&with("", of("", "password")), &path(".secret_key_ref.name"), "must not be empty");
    check(&with("", of("db", "../password")), &path(".secret_key_ref.key"), "is not a key");
    let from = |prefix: &str, source| pod(|_, spec| spec.containers[0].env_from = vec![EnvFromSource { prefix: prefix.into(), source }]);
    let web = || Some(env_from_source::Source::ConfigMapRef(ConfigMapEnvSource { name: "web".into(), optional: true }));
    assert_eq!(validate(&from("WEB_", web())), []);
    check(&from("1 2", web()), "pod.spec.containers[0].env_from[0].prefix", "a variable name");
    check(&from("", None), "pod.spec.containers[0].env_from[0]", "config_map_ref or secret_ref");
}

#[test]
fn a_container_ends_in_a_way_that_there_is() {
    let with = |lifecycle: Lifecycle| pod(|_, spec| spec.containers[0].lifecycle = Some(lifecycle));
    let stop = |method| with(Lifecycle { stop: Some(StopMethod { method }), ..Default::default() });
    let path = |field: &str| format!("pod.spec.containers[0].lifecycle.{field}");
    let right = stop(Some(stop_method::Method::Signal("SIGINT".into())));
    assert_eq!(validate(&right), []);
    check(&stop(Some(stop_method::Method::Signal("INT".into()))), &path("stop.signal"), "there are SIGHUP, SIGINT");
    check(&stop(None), &path("stop"), "signal, command, http or ctrl_break");
    assert_eq!(validate(&stop(Some(stop_method::Method::CtrlBreak(true)))), []);
    check(&stop(Some(stop_method::Method::CtrlBreak(false))), &path("stop.ctrl_break"), "must be true");
    let get = |port: &str| HttpGetAction { port: port.into(), ..Default::default() };
    assert_eq!(validate(&stop(Some(stop_method::Method::Http(get("8080"))))), []);
    check(&stop(Some(stop_method::Method::Http(get("admin")))), &path("stop.http.port"), "nor the name of a TCP port");
    let pre_stop = |handler| with(Lifecycle { pre_stop: Some(LifecycleHandler { handler: Some(handler) }), ..Default::default() });
    assert_eq!(validate(&pre_stop(lifecycle_handler::Handler::HttpGet(get("8080")))), []);
    check(&pre_stop(lifecycle_handler::Handler::HttpGet(get("admin"))), &path("pre_stop.http_get.port"), "nor the name of a TCP port");
    check(&stop(Some(stop_method::Method::Command(ExecAction::default()))), &path("stop.command.command"), "must name the program");
    check(&with(Lifecycle { pre_stop: Some(LifecycleHandler::default()), ..Default::default() }), &path("pre_stop"), "must say what to do");
}

#[test]
fn a_user_is_a_name_or_a_number_with_or_without_a_group() {
    let with = |user: &str| pod(|_, spec| spec.containers[0].run_as = user.into());
    for right in ["web", "1000", "web:staff", "1000:1000", "_apt", "svc$"] {
        assert_eq!(validate(&with(right)), [], "{right}");
    }
    for wrong in [":staff", "web:", "web:a:b", "a b", "-x", &"x".repeat(33)] {
        check(&with(wrong), "pod.spec.containers[0].run_as", "a user: USER or USER:GROUP");
    }
}

#[test]
fn a_volume_is_one_thing_that_can_be() {
    use volume::Source;
    let with = |source: Option<Source>| {
        let volume = Volume { name: "data".into(), source };
        pod(|_, spec| spec.volumes = vec![volume])
    };
    let host = |path: &str| with(Some(Source::HostPath(HostPathVolumeSource { path: path.into(), r#type: 0 })));
    let items = |paths: &[&str]| {
        let items = paths.iter().map(|path| KeyToPath { key: "a".into(), path: (*path).into() }).collect();
        with(Some(Source::Secret(SecretVolumeSource { secret_name: "db".into(), items, optional: false })))
    };
    let path = |rest: &str| format!("pod.spec.volumes[0]{rest}");
    check(&with(None), &path(""), "empty_dir, host_path, config_map or secret");
    for right in ["/data", "C:\\data", "\\\\host\\share"] {
        assert_eq!(validate(&host(right)), [], "{right}");
    }
    for wrong in ["", "data", "../data", "/data/../etc", "C:\\..\\x"] {
        check(&host(wrong), &path(".host_path.path"), "not an absolute path without");
    }
    assert_eq!(validate(&items(&["a", "b/c", "b/d"])), []);
    for wrong in ["", "/etc", "../x", "a/../b", "a//b", "./a", "C:a", "a\\b"] {
        check(&items(&[wrong]), &path(".secret.items[0].path"), "not a relative path");
    }
    check(&items(&["..data"]), &path(".secret.items[0].path"), "begins with \"..\"");
    check(&items(&["a", "A/b"]), &path(".secret.items[1].path"), "clashes with \"a\"");
    let twice = pod(|_, spec| {
        let volume = Volume { name: "data".into(), source: Some(Source::EmptyDir(EmptyDirVolumeSource {})) };
        spec.volumes = vec![volume.clone(), volume];
    });
    check(&twice, "pod.spec.volumes[1].name", "stands in [0] already");
}

#[test]
fn mounts_of_a_pod_do_not_get_into_each_others_way() {
    let with = |mounts: &[&[(&str, &str)]]| {
        pod(|_, spec| {
            let source = || Some(volume::Source::EmptyDir(EmptyDirVolumeSource {}));
            spec.volumes = ["a", "b"].map(|name| Volume { name: name.into(), source: source() }).to_vec();
            let first = spec.containers.remove(0);
            spec.containers =
                (0..mounts.len()).map(|index| Container { name: format!("c{index}"), ports: vec![], ..first.clone() }).collect();
            for (container, mounts) in spec.containers.iter_mut().zip(mounts) {
                let mount = |(name, path): &(&str, &str)| VolumeMount { name: (*name).into(), mount_path: (*path).into() };
                container.volume_mounts = mounts.iter().map(mount).collect();
            }
        })
    };
    let path = |container: usize, mount: usize, field: &str| format!("pod.spec.containers[{container}].volume_mounts[{mount}].{field}");
    assert_eq!(validate(&with(&[&[("a", "x"), ("b", "y/z"), ("a", "/abs")], &[("a", "x"), ("b", "/abs")]])), []);
    check(&with(&[&[("c", "x")]]), &path(0, 0, "name"), "no volume \"c\"");
    check(&with(&[&[("a", "../x")]]), &path(0, 0, "mount_path"), "not a relative path");
    check(&with(&[&[("a", "/x/../y")]]), &path(0, 0, "mount_path"), "neither \"..\"");
    check(&with(&[&[("a", "x"), ("b", "x")]]), &path(0, 1, "mount_path"), "stands here already");
    check(&with(&[&[("a", "/x"), ("b", "/x")]]), &path(0, 1, "mount_path"), "stands here already");
    check(&with(&[&[("a", "x"), ("b", "X/y")]]), &path(0, 1, "mount_path"), "clashes with \"x\", where \"a\" is");
    check(&with(&[&[("a", "x/y")], &[("b", "x")]]), &path(1, 0, "mount_path"), "clashes with \"x/y\"");
    check(&with(&[&[("a", "x")], &[("b", "x")]]), &path(1, 0, "mount_path"), "clashes with \"x\"");
}

#[test]
fn a_secret_is_mounted_by_containers_of_one_user_and_everything_else_by_any() {
    let with = |users: [&str; 2], source: volume::Source| {
        pod(|_, spec| {
            spec.volumes = vec![Volume { name: "data".into(), source: Some(source) }];
            spec.containers[0].volume_mounts = vec![VolumeMount { name: "data".into(), mount_path: "data".into() }];
            let second = Container { name: "second".into(), ports: vec![], ..spec.containers[0].clone() };
            spec.containers.push(second);
            users.into_iter().zip(&mut spec.containers).for_each(|(user, container)| container.run_as = user.into());
        })
    };
    let secret = || volume::Source::Secret(SecretVolumeSource { secret_name: "db".into(), items: vec![], optional: false });
    for right in [["web", "web"], ["", ""]] {
        assert_eq!(validate(&with(right, secret())), [], "{right:?}");
    }
    let name = "pod.spec.containers[1].volume_mounts[0].name";
    for (wrong, how) in [(["web", "db"], "with run_as \"web\""), (["web", ""], "with run_as \"web\""), (["", "web"], "without run_as")] {
        check(&with(wrong, secret()), name, &format!("mounts it {how}; make a volume for each user"));
    }
    let host = HostPathVolumeSource { path: "/srv".into(), r#type: 0 };
    let map = ConfigMapVolumeSource { name: "web".into(), items: vec![], optional: false };
    let others = [volume::Source::HostPath(host), volume::Source::EmptyDir(EmptyDirVolumeSource {}), volume::Source::ConfigMap(map)];
    for source in others {
        assert_eq!(validate(&with(["web", "db"], source)), []);
    }
}
