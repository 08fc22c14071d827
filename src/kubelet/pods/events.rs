use crate::api::v1::container_state::State;
use crate::api::v1::{EventType, Pod, PodStatus};
use crate::client::{Recorder, subject};

/// Tells people what changed between two statuses of a pod.
pub(super) fn record(recorder: &Recorder, pod: &Pod, before: &PodStatus, now: &PodStatus) {
    for container in now.init_container_statuses.iter().chain(&now.container_statuses) {
        let state = container.state.as_ref().and_then(|state| state.state.as_ref());
        let known = before.init_container_statuses.iter().chain(&before.container_statuses).find(|known| known.name == container.name);
        let known = known.and_then(|known| known.state.as_ref()?.state.as_ref());
        if state == known {
            continue;
        }
        let name = &container.name;
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
                (EventType::Warning, "Failed", format!("container {name} ended with exit code {}", ended.exit_code))
            }
            Some(State::Waiting(_) | State::Terminated(_)) | None => continue,
        };
        recorder.event(subject(pod), event_type, reason, note);
    }
}
