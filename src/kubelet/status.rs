//! A pod's status, from what was seen of it. Pure: `plan` and this can't disagree, since both ask the same functions.

use prost_types::Timestamp;

use super::phase::{self, Seen};
use super::plan::{DesiredPod, ObservedContainer, ObservedPod, ObservedRun, from_millis, next_start};
use super::shim::files::{Cause, Ended};
use crate::api::condition;
use crate::api::v1::{
    AssignedPort, Condition, ConditionStatus, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, PodStatus, container_state,
};

/// What a status is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The status before: its conditions keep their times, its phase is where the next one goes on from.
    pub(crate) before: &'a PodStatus,
    pub(crate) desired: &'a DesiredPod,
    pub(crate) observed: Option<&'a ObservedPod>,
    pub(crate) ports: &'a [AssignedPort],
    pub(crate) host_ip: &'a str,
    /// Why this node failed to do what was planned, and when it tries again.
    pub(crate) failure: Option<&'a (String, Timestamp)>,
    pub(crate) now: &'a Timestamp,
}

/// The status of a pod.
pub(crate) fn status(facts: &Facts<'_>) -> PodStatus {
    let known = |name: &String| facts.observed?.containers.iter().find(|container| container.name == *name);
    let is_ending = facts.desired.deleted.is_some();
    let seen: Vec<Seen> = facts.desired.containers.iter().map(|name| seen(facts, known(name), is_ending)).collect();
    let container_statuses: Vec<ContainerStatus> =
        facts.desired.containers.iter().map(|name| container_status(facts, name, known(name), is_ending)).collect();
    let is_stopping = facts.observed.is_some_and(|observed| observed.stopping.is_some());
    let all_ready = !is_stopping && !container_statuses.is_empty() && container_statuses.iter().all(|container| container.ready);
    PodStatus {
        phase: phase::advance(facts.before.phase(), &seen).into(),
        conditions: conditions(facts, all_ready),
        container_statuses,
        host_ip: facts.host_ip.to_owned(),
        ports: facts.ports.to_vec(),
        start_time: Some(facts.before.start_time.unwrap_or(*facts.now)),
        reason: facts.desired.obstacle.as_ref().map_or_else(String::new, |_| MISSING_CAPABILITY.to_owned()),
        message: facts.desired.obstacle.clone().unwrap_or_default(),
    }
}

const MISSING_CAPABILITY: &str = "MissingCapability";

fn seen(facts: &Facts<'_>, container: Option<&ObservedContainer>, is_ending: bool) -> Seen {
    let Some(container) = container else { return Seen::NeverStarted };
    let ran = |ended: &Ended| !matches!(ended.cause, Cause::StartFailed { .. });
    let ran_before = container.previous.as_ref().is_some_and(ran);
    match &container.run {
        ObservedRun::Running { .. } => Seen::Alive,
        ObservedRun::Blocked { .. } | ObservedRun::Starting(_) if ran_before => Seen::Alive,
        ObservedRun::Blocked { .. } | ObservedRun::Starting(_) => Seen::NeverStarted,
        ObservedRun::Ended { ended, .. } if is_ending || next_start(facts.desired.restart_policy, Some(&container.run), true).is_none() => {
            Seen::Ended { well: ended.is_well() }
        }
        ObservedRun::Ended { ended, .. } if ran(ended) || ran_before => Seen::Alive,
        ObservedRun::Ended { .. } => Seen::NeverStarted,
    }
}

fn container_status(facts: &Facts<'_>, name: &str, container: Option<&ObservedContainer>, is_ending: bool) -> ContainerStatus {
    let mut status = ContainerStatus { name: name.to_owned(), ..Default::default() };
    let (state, restart_count) = match container.map(|container| &container.run) {
        None => (not_started(facts, &mut status.next_retry_time), 0),
        Some(ObservedRun::Starting(attempt)) => (not_started(facts, &mut status.next_retry_time), attempt.number),
        Some(ObservedRun::Blocked { next, message, retry_at, .. }) => {
            status.next_retry_time = Some(*retry_at);
            (waiting("PortTaken", message), next.number)
        }
        Some(ObservedRun::Running { attempt, pid, started_at }) => {
            status.ready = facts.observed.is_some_and(|observed| observed.is_guarded);
            let running = ContainerStateRunning { started_at: Some(from_millis(*started_at)), pid: i64::from(*pid) };
            (container_state::State::Running(running), attempt.number)
        }
        Some(run @ ObservedRun::Ended { attempt, ended }) => {
            let next = next_start(facts.desired.restart_policy, Some(run), true).filter(|_| !is_ending);
            status.last_termination = next.as_ref().map(|_| terminated(ended));
            let state = match next {
                Some((_, due)) => {
                    status.next_retry_time = due;
                    waits_for_restart(ended)
                }
                None => container_state::State::Terminated(terminated(ended)),
            };
            (state, attempt.number)
        }
    };
    if status.last_termination.is_none() {
        status.last_termination = container.and_then(|container| container.previous.as_ref()).map(terminated);
    }
    ContainerStatus { state: Some(ContainerState { state: Some(state) }), restart_count, ..status }
}

fn not_started(facts: &Facts<'_>, next_retry_time: &mut Option<Timestamp>) -> container_state::State {
    match (&facts.desired.obstacle, facts.failure) {
        (Some(obstacle), _) => waiting(MISSING_CAPABILITY, obstacle),
        (None, Some((message, retry_at))) => {
            *next_retry_time = Some(*retry_at);
            waiting("StartError", message)
        }
        (None, None) => waiting("ContainerCreating", ""),
    }
}

fn waits_for_restart(ended: &Ended) -> container_state::State {
    match &ended.cause {
        Cause::StartFailed { message, .. } => waiting("StartError", message),
        cause => waiting("CrashLoopBackOff", &format!("waits to be started again: {}", describe(cause))),
    }
}

fn waiting(reason: &str, message: &str) -> container_state::State {
    container_state::State::Waiting(ContainerStateWaiting { reason: reason.to_owned(), message: message.to_owned() })
}

/// The exit code of a run whose end nobody saw: that of a kill, which is how most of them end.
const LOST: i32 = 137;

fn terminated(ended: &Ended) -> ContainerStateTerminated {
    let (exit_code, signal, reason) = match &ended.cause {
        Cause::Exited(0) => (0, 0, "Completed"),
        Cause::Exited(code) => (*code, 0, "Error"),
        Cause::Signaled(signal) => (128 + signal, *signal, "Error"),
        Cause::StartFailed { code, .. } => (*code, 0, "StartError"),
        Cause::Lost => (LOST, 0, "Lost"),
    };
    ContainerStateTerminated {
        exit_code,
        signal,
        reason: reason.to_owned(),
        message: match &ended.cause {
            Cause::Exited(_) => String::new(),
            cause => describe(cause),
        },
        started_at: Some(from_millis(ended.started_at)),
        finished_at: Some(from_millis(ended.finished_at)),
    }
}

fn describe(cause: &Cause) -> String {
    match cause {
        Cause::Exited(code) => format!("it ended with exit code {code}"),
        Cause::Signaled(signal) => format!("signal {signal} ended it"),
        Cause::StartFailed { message, .. } => message.clone(),
        Cause::Lost => "nobody saw how it ended: its supervisor was killed, or the machine was restarted".to_owned(),
    }
}

/// Ours; those of others stay as they are.
fn conditions(facts: &Facts<'_>, all_ready: bool) -> Vec<Condition> {
    let mut conditions = facts.before.conditions.clone();
    if !condition::is_true(&conditions, condition::POD_SCHEDULED) {
        // Nobody but the one who made the pod chose its node.
        condition::set(&mut conditions, condition::POD_SCHEDULED, ConditionStatus::True, "", "", *facts.now);
    }
    let (status, reason) = match (all_ready, facts.desired.deleted) {
        (true, _) => (ConditionStatus::True, ""),
        (false, Some(_)) => (ConditionStatus::False, "PodDeleted"),
        (false, None) => (ConditionStatus::False, "ContainersNotReady"),
    };
    condition::set(&mut conditions, condition::READY, status, reason, "", *facts.now);
    conditions
}

#[cfg(test)]
mod tests;
