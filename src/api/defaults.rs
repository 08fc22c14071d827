use super::v1::{self, Object, object};
use super::{DEFAULT_NAMESPACE, Kind, settle_texts};

/// How long a pod's processes get to stop when the pod doesn't say, in seconds.
pub const DEFAULT_GRACE_PERIOD_SECONDS: i64 = 30;

/// What a secret is that doesn't say.
const DEFAULT_SECRET_TYPE: &str = "Opaque";

/// Fills in what may be left out. Doing it twice changes nothing more. What is given stays, also when it is wrong: that is for
/// [`validate`](super::validate) to say.
pub fn default_object(object: &mut Object) {
    let Some(kind) = object.kind() else { return };
    settle_texts(object);
    let event_namespace = default_arm(object);
    if let Some(meta) = object.meta_mut()
        && kind.is_namespaced()
        && meta.namespace.is_empty()
    {
        meta.namespace = event_namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    }
}

/// Takes out what [`default_object`] filled in by what else the object has, so that filling in again goes by what it has then. True if there was any.
pub(crate) fn undefault_object(object: &mut Object) -> bool {
    let Some(object::Kind::Pod(v1::Pod { spec: Some(spec), .. })) = &mut object.kind else { return false };
    let mut found = false;
    for resources in spec.all_containers_mut().filter_map(|container| container.resources.as_mut()) {
        let count = resources.requests.len();
        resources.requests.retain(|name, request| resources.limits.get(name) != Some(request));
        found |= resources.requests.len() < count;
    }
    found
}

/// The defaults of one kind; for an event also the namespace that it should be in.
fn default_arm(object: &mut Object) -> Option<String> {
    match object.kind.as_mut()? {
        object::Kind::Pod(pod) => default_pod(pod),
        object::Kind::Service(service) => default_service(service),
        object::Kind::Namespace(namespace) => {
            let phase = &mut namespace.status.get_or_insert_default().phase;
            default_enum(phase, v1::NamespacePhase::Active as i32);
        }
        object::Kind::EndpointSlice(slice) => {
            for port in slice.spec.iter_mut().flat_map(|spec| &mut spec.endpoints).flat_map(|endpoint| &mut endpoint.ports) {
                default_enum(&mut port.protocol, v1::Protocol::Tcp as i32);
            }
        }
        object::Kind::Event(event) => return default_event(event),
        object::Kind::Secret(secret) if secret.r#type.is_empty() => DEFAULT_SECRET_TYPE.clone_into(&mut secret.r#type),
        object::Kind::Node(_) | object::Kind::Lease(_) | object::Kind::ConfigMap(_) | object::Kind::Secret(_) => {}
    }
    None
}

fn default_pod(pod: &mut v1::Pod) {
    if let Some(spec) = &mut pod.spec {
        default_enum(&mut spec.restart_policy, v1::RestartPolicy::Always as i32);
        spec.termination_grace_period_seconds.get_or_insert(DEFAULT_GRACE_PERIOD_SECONDS);
        for container in spec.all_containers_mut() {
            container.restart_backoff.iter_mut().for_each(default_backoff);
            container.lifecycle.iter_mut().for_each(default_lifecycle);
            for probe in [&mut container.startup_probe, &mut container.liveness_probe, &mut container.readiness_probe] {
                probe.iter_mut().for_each(default_probe);
            }
            for port in &mut container.ports {
                default_enum(&mut port.protocol, v1::Protocol::Tcp as i32);
            }
            // As in Kubernetes: who says how much it may use at most, and nothing else, wants that much set aside.
            if let Some(resources) = &mut container.resources {
                for (name, limit) in resources.limits.iter().filter(|(name, _)| *name != "pids") {
                    resources.requests.entry(name.clone()).or_insert_with(|| limit.clone());
                }
            }
        }
    }
    default_enum(&mut pod.status.get_or_insert_default().phase, v1::PodPhase::Pending as i32);
}

fn default_probe(probe: &mut v1::Probe) {
    let numbers = [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ];
    for (number, default) in numbers {
        if *number == 0 {
            *number = default;
        }
    }
    if let Some(v1::probe::Handler::HttpGet(action)) = &mut probe.handler {
        default_http(action);
    }
}

fn default_lifecycle(lifecycle: &mut v1::Lifecycle) {
    let before = lifecycle.pre_stop.as_mut().and_then(|pre_stop| pre_stop.handler.as_mut());
    if let Some(v1::lifecycle_handler::Handler::HttpGet(action)) = before {
        default_http(action);
    }
    if let Some(v1::stop_method::Method::Http(action)) = lifecycle.stop.as_mut().and_then(|stop| stop.method.as_mut()) {
        default_http(action);
    }
}

fn default_http(action: &mut v1::HttpGetAction) {
    for (text, default) in [(&mut action.path, "/"), (&mut action.scheme, "HTTP")] {
        if text.is_empty() {
            *text = default.to_owned();
        }
    }
}

/// What a container that says nothing of its back-off gets, and one that says something gets for the rest.
fn default_backoff(backoff: &mut v1::RestartBackoff) {
    let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
    let initial = *backoff.initial.get_or_insert(seconds(1));
    if backoff.factor == 0.0 {
        backoff.factor = 2.0;
    }
    let cap = seconds(5 * 60);
    backoff.cap.get_or_insert(if (initial.seconds, initial.nanos) > (cap.seconds, cap.nanos) { initial } else { cap });
    backoff.reset.get_or_insert(seconds(10 * 60));
}

/// The back-off of a container that says nothing of it.
pub fn default_restart_backoff() -> v1::RestartBackoff {
    let mut backoff = v1::RestartBackoff::default();
    default_backoff(&mut backoff);
    backoff
}

fn default_service(service: &mut v1::Service) {
    for port in service.spec.iter_mut().flat_map(|spec| &mut spec.ports) {
        default_enum(&mut port.protocol, v1::Protocol::Tcp as i32);
    }
}

fn default_event(event: &mut v1::ClusterEvent) -> Option<String> {
    let spec = event.spec.as_mut()?;
    default_enum(&mut spec.r#type, v1::EventType::Normal as i32);
    spec.count = spec.count.max(1);
    let regarding = spec.regarding.as_mut()?;
    if regarding.namespace.is_empty() && Kind::from_name(&regarding.kind).is_some_and(Kind::is_namespaced) {
        regarding.namespace = DEFAULT_NAMESPACE.to_owned();
    }
    Some(regarding.namespace.clone()).filter(|namespace| !namespace.is_empty())
}

fn default_enum(value: &mut i32, default: i32) {
    if *value == 0 {
        *value = default;
    }
}
