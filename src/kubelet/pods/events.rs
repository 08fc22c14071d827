use super::entry::Entry;
use crate::api::v1::container_state::State;
use crate::api::v1::{ContainerStateTerminated, EventType, Pod, PodStatus};
use crate::client::{Recorder, subject};
use crate::kubelet::shim::files::{EndStep, Failure};
use crate::kubelet::status::{CONFIG_CHANGED, KUBELET_FAILED};

/// Tells people what changed between two statuses of a pod.
pub(super) fn record(recorder: &Recorder, pod: &Pod, before: &PodStatus, now: &PodStatus) {
    if now.reason == KUBELET_FAILED && now.message != before.message {
        recorder.event(subject(pod), EventType::Warning, KUBELET_FAILED, now.message.clone());
    }
    for container in now.init_container_statuses.iter().chain(&now.container_statuses) {
        let state = container.state.as_ref().and_then(|state| state.state.as_ref());
        let known = before.init_container_statuses.iter().chain(&before.container_statuses).find(|known| known.name == container.name);
        let told = known.and_then(|known| known.last_termination.as_ref());
        let known = known.and_then(|known| known.state.as_ref()?.state.as_ref());
        if state == known {
            continue;
        }
        let name = &container.name;
        // Nobody told of that end when it happened: there was no kubelet, or nobody to tell.
        if let (Some(State::Running(_)), Some(ended)) = (state, &container.last_termination)
            && ended.exit_code != 0
            && ended.reason != CONFIG_CHANGED
            && told != Some(ended)
        {
            let (reason, note) = end(name, ended);
            recorder.event(subject(pod), EventType::Warning, reason, note);
        }
        let (event_type, reason, note) = match state {
            Some(State::Running(_)) => (EventType::Normal, "Started", format!("started container {name}")),
            Some(State::Waiting(waiting)) if waiting.reason == "CrashLoopBackOff" => {
                (EventType::Warning, "BackOff", format!("container {name} {}", waiting.message))
            }
            Some(State::Waiting(waiting)) if !waiting.message.is_empty() => {
                (EventType::Warning, "Failed", format!("container {name}: {}", waiting.message))
            }
            Some(State::Terminated(ended))
                if ended.exit_code != 0 && pod.metadata.as_ref().is_some_and(|meta| meta.deletion_time.is_none()) =>
            {
                let (reason, note) = end(name, ended);
                (EventType::Warning, reason, note)
            }
            Some(State::Waiting(_) | State::Terminated(_)) | None => continue,
        };
        recorder.event(subject(pod), event_type, reason, note);
    }
}

/// Tells people what went wrong when containers were asked to end; each once, or once more under the next kubelet.
pub(super) fn tell_failures(recorder: &Recorder, entry: &mut Entry, failures: &[Failure]) {
    let Some(pod) = &entry.pod else { return };
    entry.told.retain(|told| failures.contains(told));
    for failure in failures {
        if entry.told.insert(failure.clone()) {
            let reason = match failure.step {
                EndStep::PreStop => "FailedPreStopHook",
                EndStep::Stop => "FailedStop",
            };
            recorder.event(subject(pod), EventType::Warning, reason, format!("container {}: {}", failure.container, failure.why));
        }
    }
}

fn end(container: &str, ended: &ContainerStateTerminated) -> (&'static str, String) {
    match (ended.reason.as_str(), ended.message.as_str()) {
        ("Lost", why) => ("Lost", format!("container {container} is gone: {why}")),
        (_, "") => ("Failed", format!("container {container} ended with exit code {}", ended.exit_code)),
        (_, why) => ("Failed", format!("container {container} ended with exit code {}: {why}", ended.exit_code)),
    }
}
