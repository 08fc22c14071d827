//! What is to be done for one pod. Pure and total: everything that it depends on is a parameter.
//!
//! | pod | container | actions |
//! | --- | --- | --- |
//! | wanted | never started | prepare, start |
//! | wanted | runs | none |
//! | wanted | ended | start again when its back-off is over, as the restart policy says |
//! | wanted | ran, and its shim is gone | mark as lost; then as ended |
//! | deleted | any | drain, stop, release, remove |
//! | unknown | any | stop, remove |

use std::fmt;
use std::time::Duration;

use prost_types::Timestamp;

use super::shim::files::{Cause, Ended};
use crate::api::v1::RestartPolicy;
use crate::time;

/// The wait before the first restart; it doubles with each one.
pub(crate) const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait before a restart.
pub(crate) const LONGEST_BACKOFF: Duration = Duration::from_mins(5);
/// A run of this length makes the next back-off the first again.
pub(crate) const QUIET_TIME: Duration = Duration::from_mins(10);

/// A pod as it should be, as far as deciding needs. Made by `observe`, which has checked it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredPod {
    /// The names of its containers, in the order in which they start.
    pub(crate) containers: Vec<String>,
    /// When an ended container is started again.
    pub(crate) restart_policy: RestartPolicy,
    /// Set when the pod is being deleted: how long its processes may take to end.
    pub(crate) deleted: Option<Duration>,
    /// True when its status says that it has ended for good.
    pub(crate) is_finished: bool,
    /// Why this node can't run it, if it can't.
    pub(crate) obstacle: Option<String>,
}

/// A pod as it is on this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ObservedPod {
    /// Its folder, bell and ports are there.
    pub(crate) is_prepared: bool,
    /// Its shim lives.
    pub(crate) is_guarded: bool,
    /// The grace period of the stop that it was told.
    pub(crate) stopping: Option<Duration>,
    /// How long its processes may take to end if nobody says otherwise.
    pub(crate) grace: Duration,
    /// What is known of its containers; one that was never asked for is absent.
    pub(crate) containers: Vec<ObservedContainer>,
}

/// A container as it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObservedContainer {
    /// Its name.
    pub(crate) name: String,
    /// Its latest run.
    pub(crate) run: ObservedRun,
    /// How the run before that ended.
    pub(crate) previous: Option<Ended>,
}

/// The latest run of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ObservedRun {
    /// It could not be asked for, since a port that it needs is taken.
    Blocked {
        /// Which run.
        next: Attempt,
        /// Why, as a sentence.
        message: String,
        /// When to try again.
        retry_at: Timestamp,
        /// How often it was tried.
        tries: u32,
    },
    /// The shim was asked for it and has not answered yet.
    Starting(Attempt),
    /// It runs, unless the pod is not guarded.
    Running {
        /// Which run.
        attempt: Attempt,
        /// The main process.
        pid: i32,
        /// Since when, in milliseconds since 1970.
        started_at: i64,
    },
    /// It has ended.
    Ended {
        /// Which run.
        attempt: Attempt,
        /// How.
        ended: Ended,
    },
}

/// Which run of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// From 0.
    pub(crate) number: u32,
    /// How many runs before it ended without [`QUIET_TIME`] in between.
    pub(crate) streak: u32,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make the folder and the bell, and choose the ports.
    Prepare,
    /// Start this run of a container, the next one or one that was asked for in vain.
    Start {
        /// The container.
        container: String,
        /// The run.
        attempt: Attempt,
    },
    /// What ran has no shim any more: kill what is left and record that nobody saw the end.
    MarkLost,
    /// Wait until no router sends anything to the pod, at most five seconds.
    Drain,
    /// Ask all processes to end; kill them after the grace period. Done when none is left.
    Stop {
        /// How long they may take.
        grace: Duration,
    },
    /// Report how the pod ended and complete its deletion.
    Release,
    /// Remove the folder, with logs and ports, and forget the pod.
    Remove,
}

/// What is to be done for one pod, in this order; a step that takes its time holds up those after it. Without actions: all is as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The steps.
    pub(crate) actions: Vec<Action>,
    /// When to plan again even if nothing changes.
    pub(crate) look_again: Option<Timestamp>,
}

/// Decides. `desired` is absent for a pod that nobody wants here, `observed` for one that has left no trace here.
pub(crate) fn plan(desired: Option<&DesiredPod>, observed: Option<&ObservedPod>, now: &Timestamp) -> Plan {
    match (desired, observed) {
        (None, None) => Plan::default(),
        (None, Some(observed)) => stop_and(observed, observed.grace, &[Action::Remove]),
        (Some(DesiredPod { deleted: Some(_), .. }), None) => Plan::of(vec![Action::Release]),
        (Some(DesiredPod { deleted: Some(grace), .. }), Some(observed)) => {
            let mut plan = stop_and(observed, *grace, &[Action::Release, Action::Remove]);
            if matches!(plan.actions.first(), Some(Action::Stop { .. })) && observed.stopping.is_none() {
                plan.actions.insert(0, Action::Drain);
            }
            plan
        }
        (Some(DesiredPod { is_finished: true, .. }), None) | (Some(DesiredPod { obstacle: Some(_), .. }), _) => Plan::default(),
        (Some(desired), observed) => run(desired, observed.unwrap_or(&ObservedPod::default()), now),
    }
}

/// Decides for a pod whose kubelet goes away and takes its pods along: it stays wanted, but nothing of it may run.
pub(crate) fn plan_to_stop(observed: Option<&ObservedPod>) -> Plan {
    observed.map(|observed| stop_and(observed, observed.grace, &[])).unwrap_or_default()
}

/// The way to an end: nothing is stopped that doesn't run.
fn stop_and(observed: &ObservedPod, grace: Duration, then: &[Action]) -> Plan {
    let mut actions = Vec::new();
    if observed.is_guarded {
        actions.push(Action::Stop { grace: observed.stopping.map_or(grace, |told| told.min(grace)) });
    } else if observed.has_lost_run() {
        actions.push(Action::MarkLost);
    }
    actions.extend_from_slice(then);
    Plan::of(actions)
}

fn run(desired: &DesiredPod, observed: &ObservedPod, now: &Timestamp) -> Plan {
    if desired.is_finished {
        return stop_and(observed, observed.grace, &[]);
    }
    if observed.stopping.is_some() && observed.is_guarded {
        // A stop is never taken back. If the pod is wanted after all, it starts again when everything has ended.
        return Plan::default();
    }
    let mut plan = Plan::default();
    if observed.has_lost_run() {
        // What follows for that container is decided when it is recorded.
        plan.actions.push(Action::MarkLost);
    }
    if !observed.is_prepared {
        plan.actions.push(Action::Prepare);
    }
    for name in &desired.containers {
        let known = observed.containers.iter().find(|container| container.name == *name);
        let was_stopped = observed.stopping.is_some() && known.is_some_and(ObservedContainer::was_seen_to_end);
        match next_start(desired.restart_policy, known.map(|container| &container.run), observed.is_guarded) {
            // An end that the kubelet itself asked for, when it went away with its pods, is no crash and needs no back-off.
            Some((attempt, _)) if was_stopped => plan.actions.push(Action::Start { container: name.clone(), attempt }),
            Some((attempt, due)) if due.as_ref().is_none_or(|due| time::millis(due) <= time::millis(now)) => {
                plan.actions.push(Action::Start { container: name.clone(), attempt });
            }
            Some((_, due)) => plan.look_again = earliest(plan.look_again, due),
            None => {}
        }
    }
    plan
}

/// Which run of a container comes next, and when: at once if no time is given.
pub(crate) fn next_start(policy: RestartPolicy, run: Option<&ObservedRun>, is_guarded: bool) -> Option<(Attempt, Option<Timestamp>)> {
    match run {
        None => Some((Attempt::default(), None)),
        Some(ObservedRun::Blocked { next, retry_at, .. }) => Some((*next, Some(*retry_at))),
        // A shim that ended before it read the request leaves it to the next one.
        Some(ObservedRun::Starting(attempt)) => (!is_guarded).then_some((*attempt, None)),
        Some(ObservedRun::Running { .. }) => None,
        Some(ObservedRun::Ended { attempt, ended }) => {
            let restarts = match policy {
                RestartPolicy::Unspecified | RestartPolicy::Always => true,
                RestartPolicy::OnFailure => !ended.is_well(),
                RestartPolicy::Never => false,
            };
            restarts.then(|| restart(*attempt, ended))
        }
    }
}

/// The run after one that has ended, and when its back-off is over.
fn restart(attempt: Attempt, ended: &Ended) -> (Attempt, Option<Timestamp>) {
    let lasted = u64::try_from(ended.finished_at.saturating_sub(ended.started_at)).unwrap_or(0);
    let streak = if Duration::from_millis(lasted) >= QUIET_TIME { 0 } else { attempt.streak };
    let next = Attempt { number: attempt.number.saturating_add(1), streak: streak.saturating_add(1) };
    (next, Some(from_millis(ended.finished_at.saturating_add(backoff(streak).as_millis() as i64))))
}

/// How long to wait after `streak` waits in a row.
pub(crate) fn backoff(streak: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(streak)).min(LONGEST_BACKOFF)
}

/// A point in time from milliseconds since 1970.
pub(crate) fn from_millis(millis: i64) -> Timestamp {
    Timestamp { seconds: millis.div_euclid(1000), nanos: (millis.rem_euclid(1000) * 1_000_000) as i32 }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min_by_key(time::millis)
}

impl ObservedPod {
    /// Something ran whose shim is gone.
    fn has_lost_run(&self) -> bool {
        !self.is_guarded && self.containers.iter().any(|container| matches!(container.run, ObservedRun::Running { .. }))
    }
}

impl ObservedContainer {
    fn was_seen_to_end(&self) -> bool {
        matches!(&self.run, ObservedRun::Ended { ended, .. } if ended.cause != Cause::Lost)
    }
}

impl Ended {
    /// The main process returned 0.
    pub(crate) fn is_well(&self) -> bool {
        self.cause == Cause::Exited(0)
    }
}

impl Plan {
    fn of(actions: Vec<Action>) -> Self {
        Self { actions, look_again: None }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, action) in self.actions.iter().enumerate() {
            write!(f, "{}{action}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Prepare => f.write_str("prepare"),
            Action::Start { container, attempt } => write!(f, "start {container} ({})", attempt.number),
            Action::MarkLost => f.write_str("mark lost"),
            Action::Drain => f.write_str("drain"),
            Action::Stop { grace } => write!(f, "stop ({} s)", grace.as_secs_f32()),
            Action::Release => f.write_str("release"),
            Action::Remove => f.write_str("remove"),
        }
    }
}

#[cfg(test)]
mod tests;
