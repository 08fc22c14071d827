//! A pod's status, from what was seen of it. Pure: `plan` and this can't disagree, since both ask the same functions.

use prost_types::Timestamp;

use super::phase::{self, Seen};
use super::plan::{DesiredContainer, DesiredPod, ObservedContainer, ObservedPod, ObservedRun, from_millis, next_start};
use super::shim::files::{Cause, Ended, OOM_KILLED};
use crate::api::v1::{
    AssignedPort, Condition, ConditionStatus, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, PodPhase, PodStatus, container_state,
};
use crate::api::{Role, condition};

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
    let desired = facts.desired;
    let statuses = |is_wanted: fn(Role) -> bool| -> Vec<ContainerStatus> {
        desired
            .containers
            .iter()
            .filter(|container| is_wanted(container.role))
            .map(|container| container_status(facts, container))
            .collect()
    };
    let (init_container_statuses, container_statuses) = (statuses(|role| role != Role::Main), statuses(|role| role == Role::Main));
    let (reason, message) = hindrance(facts);
    let phase = phase::advance(facts.before.phase(), &seen_containers(facts));
    PodStatus {
        phase: phase.into(),
        conditions: conditions(facts, phase, &init_container_statuses, &container_statuses),
        init_container_statuses,
        container_statuses,
        host_ip: facts.host_ip.to_owned(),
        ports: facts.ports.to_vec(),
        start_time: Some(facts.before.start_time.unwrap_or(*facts.now)),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// What keeps a pod from what it shall be; two empty texts when nothing does.
fn hindrance<'a>(facts: &Facts<'a>) -> (&'static str, &'a str) {
    let unkillable = facts.observed.map_or("", |observed| &observed.unkillable);
    match (&facts.desired.obstacle, facts.failure) {
        (Some(obstacle), _) => (MISSING_CAPABILITY, obstacle),
        (None, Some((message, _))) => (KUBELET_FAILED, message),
        (None, None) if unkillable.is_empty() => ("", ""),
        (None, None) => ("FailedKill", unkillable),
    }
}

fn seen_containers(facts: &Facts<'_>) -> phase::Containers {
    let mut all = phase::Containers::default();
    for container in &facts.desired.containers {
        let known = facts.known(&container.name);
        match container.role {
            Role::Init => all.init.push(seen(facts, container, known)),
            Role::Main => all.main.push(seen(facts, container, known)),
            Role::Sidecar => all.sidecar_runs |= known.is_some_and(|known| facts.may_run(&known.run)),
        }
    }
    all
}

impl Facts<'_> {
    fn known(&self, name: &str) -> Option<&ObservedContainer> {
        self.observed.and_then(|observed| observed.get(name))
    }

    /// Whether there may be a process of it. What no shim lived to start has none.
    fn may_run(&self, run: &ObservedRun) -> bool {
        let is_guarded = self.observed.is_some_and(|observed| observed.is_guarded);
        matches!(run, ObservedRun::Running { .. }) || is_guarded && matches!(run, ObservedRun::Starting(_))
    }

    /// What has ended is not started again: the pod is being deleted, or is over.
    fn is_ending(&self) -> bool {
        self.desired.deleted.is_some() || self.desired.is_over(self.observed)
    }
}

/// Why a run ended, or a container waits: what it was told of ConfigMaps and Secrets has changed.
pub(crate) const CONFIG_CHANGED: &str = "ConfigChanged";

const MISSING_CAPABILITY: &str = "MissingCapability";
/// Why nothing happens to a pod that its kubelet has to do something for.
pub(crate) const KUBELET_FAILED: &str = "KubeletFailed";

fn seen(facts: &Facts<'_>, desired: &DesiredContainer, known: Option<&ObservedContainer>) -> Seen {
    let Some(container) = known else { return Seen::NeverStarted };
    let ran = |ended: &Ended| !matches!(ended.cause, Cause::StartFailed { .. });
    let ran_before = container.previous.as_ref().is_some_and(ran);
    match &container.run {
        ObservedRun::Running { .. } => Seen::Alive,
        ObservedRun::Blocked { .. } | ObservedRun::Starting(_) if ran_before => Seen::Alive,
        ObservedRun::Blocked { .. } | ObservedRun::Starting(_) => Seen::NeverStarted,
        ObservedRun::Ended { .. } if facts.is_ending() || next_start(desired, Some(container), true).is_none() => {
            Seen::Ended { well: container.ended_well() == Some(true) }
        }
        ObservedRun::Ended { ended, .. } if ran(ended) || ran_before => Seen::Alive,
        ObservedRun::Ended { .. } => Seen::NeverStarted,
    }
}

fn container_status(facts: &Facts<'_>, desired: &DesiredContainer) -> ContainerStatus {
    let mut status = ContainerStatus { name: desired.name.clone(), ..Default::default() };
    let Some(known) = facts.known(&desired.name) else {
        let state = not_started(facts, desired, &mut status.next_retry_time);
        return ContainerStatus { state: Some(ContainerState { state: Some(state) }), ..status };
    };
    let (state, restart_count) = match &known.run {
        ObservedRun::Starting(attempt) => (not_started(facts, desired, &mut status.next_retry_time), attempt.number),
        ObservedRun::Blocked { next, reason, message, retry_at, .. } => {
            status.next_retry_time = Some(*retry_at);
            (waiting(reason, message), next.number)
        }
        ObservedRun::Running { attempt, pid, started_at } => {
            status.started = known.has_started() && facts.observed.is_some_and(|observed| observed.is_guarded);
            status.ready = status.started && known.health.ready && !known.is_ending && desired.role != Role::Init;
            let running = ContainerStateRunning { started_at: Some(from_millis(*started_at)), pid: i64::from(*pid) };
            (container_state::State::Running(running), attempt.number)
        }
        ObservedRun::Ended { attempt, ended } => {
            let next = next_start(desired, Some(known), true).filter(|_| !facts.is_ending());
            status.ready = desired.role == Role::Init && known.ended_well() == Some(true);
            let terminated = terminated(ended, known.health.failure.as_deref());
            status.last_termination = next.as_ref().map(|_| terminated.clone());
            let was_stopped = facts.observed.is_some_and(|observed| observed.stopping.is_some()) && ended.cause != Cause::Lost;
            let state = match next {
                Some(_) if was_stopped => waiting(STOPPED, "was ended together with its kubelet, and is started again with the next one"),
                Some((_, due)) => {
                    status.next_retry_time = due;
                    waits_for_restart(ended, known.health.failure.as_deref())
                }
                None => container_state::State::Terminated(terminated),
            };
            (state, attempt.number)
        }
    };
    if status.last_termination.is_none() {
        status.last_termination = known.previous.as_ref().map(|ended| terminated(ended, None));
    }
    ContainerStatus { state: Some(ContainerState { state: Some(state) }), restart_count, ..status }
}

fn not_started(facts: &Facts<'_>, desired: &DesiredContainer, next_retry_time: &mut Option<Timestamp>) -> container_state::State {
    match (&facts.desired.obstacle, facts.failure) {
        (Some(obstacle), _) => waiting(MISSING_CAPABILITY, obstacle),
        (None, Some((message, retry_at))) => {
            *next_retry_time = Some(*retry_at);
            waiting(START_ERROR, message)
        }
        (None, None) if !is_next(facts, desired) => waiting("PodInitializing", ""),
        (None, None) => waiting("ContainerCreating", ""),
    }
}

/// Whether nothing of the pod has to come before it.
fn is_next(facts: &Facts<'_>, desired: &DesiredContainer) -> bool {
    facts.desired.uninitialized(facts.observed).first().is_none_or(|first| *first == desired.name)
}

/// `failure` is why the kubelet ended it, if it did.
fn waits_for_restart(ended: &Ended, failure: Option<&str>) -> container_state::State {
    match (&ended.cause, failure) {
        _ if ended.superseded.is_some() => waiting(CONFIG_CHANGED, ""),
        (Cause::StartFailed { message, .. }, _) => waiting(START_ERROR, message),
        (_, Some(failure)) => waiting(BACK_OFF, &format!("waits to be started again: {failure}")),
        (cause, None) => waiting(BACK_OFF, &format!("waits to be started again: {}", describe(cause))),
    }
}

const START_ERROR: &str = "StartError";
const BACK_OFF: &str = "CrashLoopBackOff";
const STOPPED: &str = "Stopped";

/// Whether a container that waits for this reason waits after its last run, and not for what the next one needs.
pub(crate) fn has_ended(reason: &str) -> bool {
    [START_ERROR, BACK_OFF, CONFIG_CHANGED, STOPPED].contains(&reason)
}

fn waiting(reason: &str, message: &str) -> container_state::State {
    container_state::State::Waiting(ContainerStateWaiting { reason: reason.to_owned(), message: message.to_owned() })
}

/// The exit code of a run whose end nobody saw: that of a kill, which is how most of them end.
const LOST: i32 = 137;

/// `failure` is why the kubelet ended it, if it did.
fn terminated(ended: &Ended, failure: Option<&str>) -> ContainerStateTerminated {
    let (exit_code, signal, reason) = match &ended.cause {
        Cause::Exited(0) => (0, 0, "Completed"),
        Cause::Exited(code) => (*code, 0, "Error"),
        Cause::Signaled(signal) => (128 + signal, *signal, "Error"),
        Cause::OomKilled => (OOM_KILLED, OOM_KILLED - 128, OUT_OF_MEMORY),
        Cause::StartFailed { code, .. } => (*code, 0, START_ERROR),
        Cause::Lost => (LOST, 0, NOBODY_SAW),
        Cause::Undone => (0, 0, UNDONE),
    };
    ContainerStateTerminated {
        exit_code,
        signal,
        reason: ended.superseded.as_ref().map_or(reason, |_| CONFIG_CHANGED).to_owned(),
        message: match (&ended.cause, failure.or(ended.superseded.as_deref())) {
            (_, Some(why)) => why.to_owned(),
            (Cause::Exited(_), None) => String::new(),
            (cause, None) => describe(cause),
        },
        started_at: Some(from_millis(ended.started_at)),
        finished_at: Some(from_millis(ended.finished_at)),
    }
}

/// How a run ended that was told so: the inverse of [`terminated`].
pub(crate) fn cause(told: &ContainerStateTerminated) -> Cause {
    match (told.reason.as_str(), told.signal) {
        (OUT_OF_MEMORY, _) => Cause::OomKilled,
        (START_ERROR, _) => Cause::StartFailed { code: told.exit_code, message: told.message.clone() },
        (NOBODY_SAW, _) => Cause::Lost,
        (UNDONE, _) => Cause::Undone,
        (_, 0) => Cause::Exited(told.exit_code),
        (_, signal) => Cause::Signaled(signal),
    }
}

const OUT_OF_MEMORY: &str = "OOMKilled";
const NOBODY_SAW: &str = "Lost";
const UNDONE: &str = "Undone";

fn describe(cause: &Cause) -> String {
    match cause {
        Cause::Exited(code) => format!("it ended with exit code {code}"),
        Cause::Signaled(signal) => format!("signal {signal} ended it"),
        Cause::OomKilled => "it was killed at its limit of memory".to_owned(),
        Cause::StartFailed { message, .. } => message.clone(),
        Cause::Lost => {
            "nobody saw how it ended: its supervisor was killed, its folder was removed, or the machine was restarted".to_owned()
        }
        Cause::Undone => "it had ended well, and what it had done is gone with the pod's folder".to_owned(),
    }
}

/// Ours; those of others stay as they are.
fn conditions(facts: &Facts<'_>, phase: PodPhase, init: &[ContainerStatus], main: &[ContainerStatus]) -> Vec<Condition> {
    let mut conditions = facts.before.conditions.clone();
    let mut set = |condition_type: &str, is_true: bool, reason: &str, message: String| {
        let (status, reason) = if is_true { (ConditionStatus::True, "") } else { (ConditionStatus::False, reason) };
        condition::set(&mut conditions, condition_type, status, reason, message, *facts.now);
    };
    if !condition::is_true(&facts.before.conditions, condition::POD_SCHEDULED) {
        // Nobody but the one who made the pod chose its node.
        set(condition::POD_SCHEDULED, true, "", String::new());
    }
    let missing = facts.desired.uninitialized(facts.observed);
    // What was so once stays so, also when the containers are gone.
    let is_initialized = missing.is_empty() || condition::is_true(&facts.before.conditions, condition::INITIALIZED);
    set(condition::INITIALIZED, is_initialized, "ContainersNotInitialized", sentence(is_initialized, "waits for", &missing));

    if let Some(unenforced) = &facts.desired.unenforced {
        set(
            condition::LIMITS_ENFORCED,
            unenforced.is_empty(),
            MISSING_CAPABILITY,
            sentence(unenforced.is_empty(), "this node doesn't enforce the limits", unenforced),
        );
    }

    let is_stopping = facts.observed.is_some_and(|observed| observed.stopping.is_some());
    let sidecars = facts.desired.containers.iter().filter(|container| container.role != Role::Main).zip(init);
    let sidecars = sidecars.filter(|(container, _)| container.role == Role::Sidecar).map(|(_, status)| status);
    let unready: Vec<&str> = sidecars.chain(main).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    let is_ready = !is_stopping && unready.is_empty() && !main.is_empty();
    let reason = match (facts.desired.deleted, phase::is_finished(phase)) {
        (Some(_), _) => "PodDeleted",
        (None, true) => "PodCompleted",
        (None, false) => "ContainersNotReady",
    };
    let unready: Vec<String> = unready.into_iter().map(|name| unready_because(facts, name)).collect();
    for condition_type in [condition::CONTAINERS_READY, condition::READY] {
        set(condition_type, is_ready, reason, sentence(is_ready, "not ready:", &unready));
    }
    conditions
}

fn unready_because(facts: &Facts<'_>, name: &str) -> String {
    let said = facts.known(name).filter(|known| matches!(known.run, ObservedRun::Running { .. })).map_or("", |known| &known.health.unready);
    if said.is_empty() { name.to_owned() } else { format!("{name} ({said})") }
}

fn sentence(is_fine: bool, what: &str, names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if is_fine || names.is_empty() { String::new() } else { format!("{what} {}", names.join(", ")) }
}

#[cfg(test)]
mod tests;
