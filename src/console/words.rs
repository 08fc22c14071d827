//! The words that people know for the states of things.

use std::collections::HashMap;
use std::time::Duration;

use prost_types::Timestamp;

use super::age::short;
use crate::api::v1::*;
use crate::api::{Role, condition};
use crate::time::elapsed;

/// The one word for a pod's state, found as kubectl finds it: what its containers suffer from counts more than its phase.
pub(super) fn pod_status(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    if pod.metadata.as_ref().is_some_and(|meta| meta.deletion_time.is_some()) && !is_over(&status) {
        return "Terminating".to_owned();
    }
    if let Some(lost) = condition::get(&status.conditions, condition::READY).filter(|ready| ready.status() == ConditionStatus::Unknown) {
        return if lost.reason.is_empty() { "Unknown".to_owned() } else { lost.reason.clone() };
    }
    if let Some(initializing) = initializing(pod, &status) {
        return initializing;
    }
    let troubles: Vec<_> = status.container_statuses.iter().filter_map(trouble).collect();
    let worst = troubles.iter().find(|reason| *reason != "Completed").or(troubles.first());
    let all_ended = troubles.len() == status.container_statuses.len();
    match worst {
        Some(reason) if reason != "Completed" || all_ended => reason.clone(),
        _ if !status.reason.is_empty() => status.reason,
        _ => pod_phase(status.phase()),
    }
}

/// What of a pod's init containers and sidecars the others wait for, as kubectl says it: `Init:1/2`, `Init:CrashLoopBackOff`.
fn initializing(pod: &Pod, status: &PodStatus) -> Option<String> {
    if condition::is_true(&status.conditions, condition::INITIALIZED) {
        return None;
    }
    let waits = |container: &&ContainerStatus| match state(container) {
        Some(container_state::State::Terminated(ended)) => ended.exit_code != 0 || ended.signal != 0 || is_sidecar(pod, container),
        Some(container_state::State::Running(_)) => !(is_sidecar(pod, container) && container.started),
        Some(container_state::State::Waiting(_)) | None => true,
    };
    let (done, waiting) = status.init_container_statuses.iter().enumerate().find(|(_, container)| waits(container))?;
    let total = status.init_container_statuses.len();
    Some(match trouble(waiting).filter(|reason| !["PodInitializing", "ContainerCreating"].contains(&reason.as_str())) {
        Some(reason) => format!("Init:{reason}"),
        None => format!("Init:{done}/{total}"),
    })
}

/// Whether a status is that of a sidecar.
fn is_sidecar(pod: &Pod, container: &ContainerStatus) -> bool {
    let mut roles = pod.spec.iter().flat_map(|spec| spec.roles());
    roles.any(|(known, role)| role == Role::Sidecar && known.name == container.name)
}

/// The statuses that count for a pod's readiness: those of what runs for as long as the pod does.
pub(super) fn lasting<'a>(pod: &'a Pod, status: &'a PodStatus) -> impl Iterator<Item = &'a ContainerStatus> {
    status.init_container_statuses.iter().filter(|container| is_sidecar(pod, container)).chain(&status.container_statuses)
}

fn state(container: &ContainerStatus) -> Option<&container_state::State> {
    container.state.as_ref()?.state.as_ref()
}

/// Whether a pod has ended, in success or failure.
pub(super) fn is_over(status: &PodStatus) -> bool {
    matches!(status.phase(), PodPhase::Succeeded | PodPhase::Failed)
}

/// Why a container does not run.
fn trouble(container: &ContainerStatus) -> Option<String> {
    match state(container)? {
        container_state::State::Waiting(waiting) => Some(waiting.reason.clone()).filter(|reason| !reason.is_empty()),
        container_state::State::Running(_) => None,
        container_state::State::Terminated(ended) => Some(termination(ended)),
    }
}

/// How a container ended.
pub(super) fn termination(ended: &ContainerStateTerminated) -> String {
    match (ended.reason.as_str(), ended.signal, ended.exit_code) {
        ("", 0, 0) => "Completed".to_owned(),
        ("", 0, code) => format!("ExitCode:{code}"),
        ("", signal, _) => format!("Signal:{signal}"),
        (reason, _, _) => reason.to_owned(),
    }
}

/// How often containers were started again, and how long ago one last ended; those that come first while the others wait for them.
pub(super) fn restarts(pod: &Pod, status: &PodStatus, now: &Timestamp) -> String {
    let containers: Vec<&ContainerStatus> = match initializing(pod, status) {
        Some(_) => status.init_container_statuses.iter().collect(),
        None => lasting(pod, status).collect(),
    };
    let count: u64 = containers.iter().map(|container| u64::from(container.restart_count)).sum();
    let ends = containers.iter().filter_map(|container| container.last_termination.as_ref()?.finished_at.as_ref());
    let since_last: Option<Duration> = ends.map(|end| elapsed(end, now)).min();
    match since_last {
        Some(since) if count > 0 => format!("{count} ({} ago)", short(since)),
        _ => count.to_string(),
    }
}

/// `http-get :http/healthz delay=0s timeout=1s period=10s #success=1 #failure=3`, as kubectl says it.
pub(super) fn probe(probe: &Probe) -> String {
    let what = match &probe.handler {
        Some(probe::Handler::Exec(action)) => format!("exec {:?}", action.command),
        Some(probe::Handler::HttpGet(action)) => format!("http-get {}:{}{}", action.host, action.port, action.path),
        Some(probe::Handler::TcpSocket(action)) => format!("tcp-socket {}:{}", action.host, action.port),
        Some(probe::Handler::Grpc(action)) => format!("grpc :{} {}", action.port, action.service).trim_end().to_owned(),
        None => "nothing".to_owned(),
    };
    let Probe { initial_delay_seconds, timeout_seconds, period_seconds, success_threshold, failure_threshold, .. } = probe;
    format!(
        "{what} delay={initial_delay_seconds}s timeout={timeout_seconds}s period={period_seconds}s \
         #success={success_threshold} #failure={failure_threshold}"
    )
}

/// The one word for a node's state, and whether it takes new pods.
pub(super) fn node_status(node: &Node) -> String {
    let conditions = node.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let ready = if condition::is_true(conditions, condition::READY) { "Ready" } else { "NotReady" };
    match node.spec.as_ref().is_some_and(|spec| spec.unschedulable) {
        true => format!("{ready},SchedulingDisabled"),
        false => ready.to_owned(),
    }
}

/// `http:40001/TCP,40002/TCP`
pub(super) fn assigned_ports(ports: &[AssignedPort]) -> String {
    let one = |port: &AssignedPort| match port.name.as_str() {
        "" => format!("{}/{}", port.port, protocol(port.protocol())),
        name => format!("{name}:{}/{}", port.port, protocol(port.protocol())),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

/// `80/TCP,443/TCP`
pub(super) fn service_ports(ports: &[ServicePort]) -> String {
    ports.iter().map(|port| format!("{}/{}", port.port, protocol(port.protocol()))).collect::<Vec<_>>().join(",")
}

/// `127.0.0.1:80`, `[::1]:80`
pub(super) fn address(ip: &str, port: u32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// `app=web,tier=front`, sorted.
pub(super) fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(",")
}

/// `2026-01-31T12:00:00Z`, to the second.
pub(super) fn time(time: Timestamp) -> String {
    Timestamp { nanos: 0, ..time }.to_string()
}

/// `15.5Gi`
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1}{name}", bytes as f64 / *unit as f64).replace(".0", ""),
        None => bytes.to_string(),
    }
}

/// `PORT=80`, `PASSWORD from key password of Secret db`
pub(super) fn variable(variable: &EnvVar) -> String {
    use env_var_source::Source;
    let (kind, object, key, optional) = match variable.value_from.as_ref().and_then(|from| from.source.as_ref()) {
        None => return format!("{}={}", variable.name, variable.value),
        Some(Source::ConfigMapKeyRef(map)) => ("ConfigMap", &map.name, &map.key, map.optional),
        Some(Source::SecretKeyRef(secret)) => ("Secret", &secret.name, &secret.key, secret.optional),
    };
    format!("{} from key {key} of {kind} {object}{}", variable.name, if_optional(optional))
}

/// `ConfigMap web, as WEB_*`
pub(super) fn variables(from: &EnvFromSource) -> String {
    use env_from_source::Source;
    let (kind, object, optional) = match &from.source {
        None => return String::new(),
        Some(Source::ConfigMapRef(map)) => ("ConfigMap", &map.name, map.optional),
        Some(Source::SecretRef(secret)) => ("Secret", &secret.name, secret.optional),
    };
    let named = if from.prefix.is_empty() { String::new() } else { format!(", as {}*", from.prefix) };
    format!("{kind} {object}{named}{}", if_optional(optional))
}

/// `emptyDir`, `hostPath /data`, `Secret db`
pub(super) fn volume(volume: &Volume) -> String {
    use volume::Source;
    match &volume.source {
        None => String::new(),
        Some(Source::EmptyDir(_)) => "emptyDir".to_owned(),
        Some(Source::HostPath(host)) => format!("hostPath {}", host.path),
        Some(Source::ConfigMap(map)) => format!("ConfigMap {}{}", map.name, if_optional(map.optional)),
        Some(Source::Secret(secret)) => format!("Secret {}{}", secret.secret_name, if_optional(secret.optional)),
    }
}

fn if_optional(optional: bool) -> &'static str {
    if optional { " (optional)" } else { "" }
}

pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp | Protocol::Unspecified => "TCP",
        Protocol::Udp => "UDP",
    }
}

pub(super) fn pod_phase(phase: PodPhase) -> String {
    match phase {
        PodPhase::Unspecified | PodPhase::Pending => "Pending",
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
    }
    .to_owned()
}

pub(super) fn namespace_phase(namespace: &Namespace) -> String {
    let is_deleted = namespace.metadata.as_ref().is_some_and(|meta| meta.deletion_time.is_some());
    match namespace.status.as_ref().map(NamespaceStatus::phase) {
        Some(NamespacePhase::Terminating) => "Terminating",
        _ if is_deleted => "Terminating",
        _ => "Active",
    }
    .to_owned()
}

pub(super) fn event_type(r#type: EventType) -> String {
    match r#type {
        EventType::Warning => "Warning",
        EventType::Normal | EventType::Unspecified => "Normal",
    }
    .to_owned()
}

pub(super) fn condition_status(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown | ConditionStatus::Unspecified => "Unknown",
    }
}

pub(super) fn restart_policy(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::Always | RestartPolicy::Unspecified => "Always",
        RestartPolicy::OnFailure => "OnFailure",
        RestartPolicy::Never => "Never",
    }
}
