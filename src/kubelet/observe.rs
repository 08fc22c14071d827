//! Turns what there is, objects and files, into what `plan` decides on.

use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::Timestamp;

use super::phase;
use super::plan::{Attempt, Backoff, DesiredContainer, DesiredPod, Health, ObservedContainer, ObservedPod, ObservedRun};
use super::runtime::Found;
use super::shim::files::{ABOUT_TO_START, ContainerState, Ended, Run, Stage, State};
use super::told::Told;
use crate::api::v1::{Container, Pod, PodPhase, PodSpec};
use crate::api::{DEFAULT_GRACE_PERIOD_SECONDS, Role, capability, default_restart_backoff};

/// Why a run could not be asked for, and when to try again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blocked {
    pub(crate) next: Attempt,
    /// One word, as in the status.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) retry_at: Timestamp,
    pub(crate) tries: u32,
}

/// A run that goes on in spite of a change, since the next one could not be started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    /// When that is tried again.
    pub(crate) until: Timestamp,
    /// As it was told.
    pub(crate) why: String,
    pub(crate) tries: u32,
}

/// What the kubelet itself knows of a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes<'a> {
    pub(crate) is_prepared: bool,
    pub(crate) is_outdated: bool,
    pub(crate) refresh_at: Option<Timestamp>,
    pub(crate) grace: Duration,
    pub(crate) blocked: &'a BTreeMap<String, Blocked>,
    pub(crate) health: &'a BTreeMap<String, Health>,
    /// What containers are told that start now, if changes of that matter to those that run; without those that can't be started so.
    pub(crate) told: &'a BTreeMap<String, Told>,
    /// The containers whose runs go on in spite of a change.
    pub(crate) held: &'a BTreeMap<String, Held>,
    /// By how many milliseconds the clock was set since these runs of containers were seen to have ended.
    pub(crate) clock_set: &'a ClockSet,
}

/// By how many milliseconds a machine's clock was set since a run of a container had ended.
pub(crate) type ClockSet = BTreeMap<String, (u32, i64)>;

/// What a pod's object asks of this node.
pub(crate) fn desired(pod: &Pod, capabilities: &[String]) -> DesiredPod {
    let meta = pod.metadata.as_ref();
    let deleted = meta.and_then(|meta| meta.deletion_time.as_ref().map(|_| meta.deletion_grace_period_seconds));
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    DesiredPod {
        containers: spec.roles().map(|(container, role)| desired_container(spec, container, role)).collect(),
        deleted: deleted.map(|grace| grace.map_or_else(|| grace_of(pod), seconds)),
        is_finished: phase::is_finished(pod.status.as_ref().map_or(PodPhase::Unspecified, |status| status.phase())),
        obstacle: capability::obstacle(spec, capabilities),
        unenforced: (spec.best_effort_limits && capability::has_limits(spec)).then(|| capability::unenforced_limits(spec, capabilities)),
    }
}

fn desired_container(spec: &PodSpec, container: &Container, role: Role) -> DesiredContainer {
    let given = container.restart_backoff.unwrap_or_else(default_restart_backoff);
    // What is no duration was refused at creation.
    let duration = |given: Option<prost_types::Duration>| given.and_then(|given| Duration::try_from(given).ok()).unwrap_or_default();
    let backoff =
        Backoff { initial: duration(given.initial), factor: given.factor, cap: duration(given.cap), reset: duration(given.reset) };
    DesiredContainer { name: container.name.clone(), role, policy: spec.restart_policy_of(container, role), backoff }
}

/// How long a pod's processes may take to end, as its spec says.
pub(crate) fn grace_of(pod: &Pod) -> Duration {
    seconds(pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE_PERIOD_SECONDS))
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// What there is of a pod on this machine.
pub(crate) fn observed(found: &Found, notes: &Notes<'_>) -> ObservedPod {
    let mut containers: Vec<ObservedContainer> = found
        .state
        .containers
        .iter()
        .filter(|state| !is_asked_again(&found.desired.runs, state.name.as_str(), state.attempt))
        .map(|state| seen(state, found.is_guarded))
        .collect();
    for run in &found.desired.runs {
        if !containers.iter().any(|container| container.name == run.container) {
            containers.push(starting(run, &found.state));
        }
    }
    for (name, blocked) in notes.blocked {
        let Blocked { next, reason, message, retry_at, tries } = blocked.clone();
        let run = ObservedRun::Blocked { next, reason, message, retry_at, tries };
        match containers.iter_mut().find(|container| container.name == *name) {
            Some(container) => {
                if let ObservedRun::Ended { ended, .. } = &container.run {
                    container.previous = Some(ended.clone());
                }
                container.run = run;
            }
            None => containers.push(container(name, run, None)),
        }
    }
    for container in &mut containers {
        let (ObservedRun::Running { attempt, .. } | ObservedRun::Ended { attempt, .. }) = container.run else { continue };
        let is_latest = |run: &&Run| run.container == container.name && run.attempt == attempt.number;
        let asked = found.desired.runs.iter().find(is_latest);
        container.is_ending = asked.is_some_and(|run| run.end.is_some());
        if let ObservedRun::Ended { ended, .. } = &mut container.run
            && ended.superseded.is_none()
            && container.is_ending
        {
            // Its shim was gone before it could write that down, or is of an older kubelet.
            ended.superseded = asked.and_then(|run| run.superseded.clone());
        }
        container.held_until = notes.held.get(&container.name).map(|held| held.until);
        container.clock_set = notes.clock_set.get(&container.name).filter(|(run, _)| *run == attempt.number).map_or(0, |(_, by)| *by);
        container.changed = asked.and_then(|run| run.told.as_ref()?.changed(notes.told.get(&container.name)?));
        if let Some(health) = notes.health.get(&container.name).filter(|health| health.attempt == attempt.number) {
            container.health = health.clone();
        }
    }
    ObservedPod {
        is_prepared: notes.is_prepared,
        is_outdated: notes.is_outdated,
        refresh_at: notes.refresh_at,
        is_guarded: found.is_guarded,
        is_out_of_reach: found.damage.is_out_of_reach,
        is_desired_lost: found.damage.is_desired_lost,
        stopping: found.desired.stop.map(|stop| Duration::from_millis(stop.grace_ms)),
        grace: notes.grace,
        unkillable: found.state.unkillable.clone(),
        containers,
    }
}

/// The same of a pod that is prepared, where its files are all that is known.
#[cfg(test)]
pub(crate) fn observed_alone(found: &Found) -> ObservedPod {
    let (blocked, health, told, held, clock_set) = Default::default();
    let (blocked, health, told, held, clock_set) = (&blocked, &health, &told, &held, &clock_set);
    let (grace, refresh_at) = (Duration::ZERO, None);
    observed(found, &Notes { is_prepared: true, is_outdated: false, refresh_at, grace, blocked, health, told, held, clock_set })
}

fn is_asked_again(runs: &[Run], container: &str, attempt: u32) -> bool {
    runs.iter().any(|run| run.container == container && run.attempt > attempt)
}

/// What a shim has written of a container, by itself.
pub(crate) fn known(state: &ContainerState) -> ObservedContainer {
    let attempt = Attempt { number: state.attempt, streak: state.streak };
    let run = match &state.stage {
        // Where the pid is not known, none is told.
        Stage::Running { pid, started_at, .. } => ObservedRun::Running { attempt, pid: (*pid).max(0), started_at: *started_at },
        Stage::Ended(ended) => ObservedRun::Ended { attempt, ended: ended.clone() },
    };
    container(&state.name, run, state.previous.clone())
}

/// The same of a run that may be about to start.
fn seen(state: &ContainerState, is_guarded: bool) -> ObservedContainer {
    let mut container = known(state);
    if is_guarded && matches!(state.stage, Stage::Running { pid: ABOUT_TO_START, .. }) {
        container.run = ObservedRun::Starting(Attempt { number: state.attempt, streak: state.streak });
    }
    container
}

fn container(name: &str, run: ObservedRun, previous: Option<Ended>) -> ObservedContainer {
    ObservedContainer {
        name: name.to_owned(),
        run,
        previous,
        health: Health::default(),
        is_ending: false,
        changed: None,
        held_until: None,
        clock_set: 0,
    }
}

fn starting(run: &Run, state: &State) -> ObservedContainer {
    let previous = state.get(&run.container).and_then(|before| match &before.stage {
        Stage::Ended(ended) => Some(ended.clone()),
        Stage::Running { .. } => None,
    });
    let attempt = Attempt { number: run.attempt, streak: run.streak };
    container(&run.container, ObservedRun::Starting(attempt), previous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::shim::files::{Cause, Desired, Stop};

    #[test]
    fn a_run_that_is_told_in_unknown_words_runs_and_only_one_that_is_about_to_start_is_starting() {
        let about_to_start = Stage::Running { pid: ABOUT_TO_START, started_at: 5, start_time: None };
        let run = |stage: &Stage, is_guarded| {
            let state = ContainerState { name: "main".into(), attempt: 3, streak: 1, stage: stage.clone(), previous: None };
            let found = Found { state: State { containers: vec![state], ..State::default() }, is_guarded, ..Found::default() };
            observed_alone(&found).containers.remove(0).run
        };
        let attempt = Attempt { number: 3, streak: 1 };
        assert_eq!(run(&Stage::default(), true), ObservedRun::Running { attempt, pid: 0, started_at: 0 });
        assert_eq!(run(&about_to_start, true), ObservedRun::Starting(attempt));
        assert_eq!(run(&about_to_start, false), ObservedRun::Running { attempt, pid: 0, started_at: 5 }, "nobody knows whether it did");
    }

    #[test]
    fn a_run_that_gave_way_to_a_change_is_known_as_such_also_when_its_shim_did_not_say_so() {
        let superseded = |end: Option<Stop>, told: Option<&str>| {
            let asked = Run { container: "main".into(), attempt: 3, end, superseded: Some("the map".into()), ..Run::default() };
            let ended = Ended { cause: Cause::Lost, started_at: 1, finished_at: 2, superseded: told.map(str::to_owned) };
            let state = ContainerState { name: "main".into(), attempt: 3, streak: 0, stage: Stage::Ended(ended), previous: None };
            let found = Found {
                desired: Desired { runs: vec![asked], ..Desired::default() },
                state: State { containers: vec![state], ..State::default() },
                ..Found::default()
            };
            match observed_alone(&found).containers.remove(0).run {
                ObservedRun::Ended { ended, .. } => ended.superseded,
                other => panic!("{other:?}"),
            }
        };
        let stop = Some(Stop::within(Duration::from_secs(1)));
        assert_eq!(superseded(stop, None).as_deref(), Some("the map"));
        assert_eq!(superseded(stop, Some("as the shim said")).as_deref(), Some("as the shim said"));
        assert_eq!(superseded(None, None), None, "it was not asked to end");
    }
}
