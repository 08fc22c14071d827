//! What a case looks at in a pod. Everything here is a function of the pod.

use std::time::Duration;

use crate::api::condition;
use crate::api::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodPhase, PodStatus,
    container_state::State,
};
use crate::console::words;
use crate::time::elapsed;

pub(super) fn phase(pod: &Pod) -> PodPhase {
    pod.status.as_ref().map_or(PodPhase::Unspecified, PodStatus::phase)
}

pub(super) fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(words::is_over)
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::READY))
}

/// The first container, or the only one.
pub(super) fn main(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.first()
}

/// A container by its name.
pub(super) fn container<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    pod.status.as_ref()?.container_statuses.iter().find(|container| container.name == name)
}

/// An init container by its name.
pub(super) fn init<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    pod.status.as_ref()?.init_container_statuses.iter().find(|container| container.name == name)
}

fn state(container: &ContainerStatus) -> Option<&State> {
    container.state.as_ref()?.state.as_ref()
}

pub(super) fn running(container: &ContainerStatus) -> Option<&ContainerStateRunning> {
    match state(container)? {
        State::Running(running) => Some(running),
        _ => None,
    }
}

pub(super) fn waiting(container: &ContainerStatus) -> Option<&ContainerStateWaiting> {
    match state(container)? {
        State::Waiting(waiting) => Some(waiting),
        _ => None,
    }
}

pub(super) fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    match state(container)? {
        State::Terminated(ended) => Some(ended),
        _ => None,
    }
}

/// The main container has ended for good with this code and reason.
pub(super) fn ended(pod: &Pod, code: i32, reason: &str) -> bool {
    main(pod).and_then(terminated).is_some_and(|end| (end.exit_code, end.reason.as_str()) == (code, reason))
}

/// The main container waits for this reason.
pub(super) fn waits(pod: &Pod, reason: &str) -> bool {
    main(pod).and_then(waiting).is_some_and(|waiting| waiting.reason == reason)
}

/// The main container runs, and was started again so many times.
pub(super) fn runs_again(pod: &Pod, restarts: u32) -> bool {
    main(pod).is_some_and(|container| container.restart_count == restarts && running(container).is_some())
}

/// How the main container's run before the present one ended.
pub(super) fn last_end(pod: &Pod) -> Option<&ContainerStateTerminated> {
    main(pod)?.last_termination.as_ref()
}

/// How long the main container waits between its last end and its next start.
pub(super) fn back_off(pod: &Pod) -> Option<Duration> {
    let container = main(pod)?;
    let end = container.last_termination.as_ref()?.finished_at.as_ref()?;
    Some(elapsed(end, container.next_retry_time.as_ref()?))
}

/// All ports, as they really are.
pub(super) fn ports(pod: &Pod) -> Vec<u32> {
    pod.status.iter().flat_map(|status| &status.ports).map(|port| port.port).collect()
}

/// A pod's state in a few words, for whoever wonders why a case failed.
pub(super) fn describe(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let mut parts = vec![words::pod_status(pod)];
    parts.extend([status.reason, status.message].into_iter().filter(|text| !text.is_empty()));
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    parts.extend(containers.map(|container| format!("{}: {}", container.name, describe_container(container))));
    parts.join("; ")
}

fn describe_container(container: &ContainerStatus) -> String {
    let ContainerStatus { state: Some(ContainerState { state: Some(state) }), restart_count, .. } = container else {
        return "nothing is known".to_owned();
    };
    let now = match state {
        State::Waiting(waiting) => format!("waits: {} {}", waiting.reason, waiting.message),
        State::Running(_) => "runs".to_owned(),
        State::Terminated(end) => format!("ended with {} {} {}", end.exit_code, end.reason, end.message),
    };
    format!("{} (restarts: {restart_count})", now.trim_end())
}
