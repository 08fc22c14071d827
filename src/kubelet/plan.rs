//! What is to be done for one pod. Pure and total: everything that it depends on is a parameter.
//!
//! | pod | container | actions |
//! | --- | --- | --- |
//! | wanted | never started | prepare, start, in order: after init containers and sidecars |
//! | wanted | any, and a ConfigMap or Secret that it uses has changed | configure |
//! | wanted | runs | none |
//! | wanted | runs, and a probe has failed | end that run |
//! | wanted | runs, and shall be started again when what it uses of them changes | end that run |
//! | wanted | runs, and what its shim was asked for is damaged | ask again |
//! | wanted | ended | start again when its back-off is over, as the restart policy says |
//! | wanted | ran, and its shim is gone, or its folder | mark as lost; then as ended |
//! | wanted | all main ones have ended for good | stop the sidecars |
//! | deleted | any | drain, stop, release, remove |
//! | unknown | any | stop, remove |

mod pod;
mod restart;

use std::fmt;
use std::time::Duration;

pub(crate) use pod::{Attempt, DesiredContainer, DesiredPod, Health, ObservedContainer, ObservedPod, ObservedRun};
use prost_types::Timestamp;
pub(crate) use restart::{Backoff, OWN as OWN_BACKOFF, from_millis, next_start};

use crate::api::Role;
use crate::time;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make the folder and the bell, and choose the ports.
    Prepare,
    /// Say anew what the shim was asked for, since the file that says it is damaged.
    AskAgain,
    /// Bring what the folder has of ConfigMaps and Secrets up to date.
    Configure,
    /// Start this run of a container, the next one or one that was asked for in vain.
    Start {
        /// The container.
        container: String,
        /// The run.
        attempt: Attempt,
    },
    /// Ask a run to end and kill what is left of it after the pod's grace period, while the others go on.
    End {
        /// The container.
        container: String,
        /// The run.
        attempt: u32,
        /// Why.
        why: Why,
    },
    /// What ran has no shim any more, or no folder: kill what is left and record that nobody saw the end.
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

/// Why a run has to end, as a sentence about the container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Why {
    /// A probe has failed.
    Unhealthy(String),
    /// It was started with what no longer holds; the next run takes its place.
    Changed(String),
}

/// Between the start of a container and the next one for a change of its configuration: changes in a row are taken together, and one that never stops
/// changing keeps nothing busy and takes no back-off away. The first run of all rests for nothing.
const BETWEEN_CHANGES: Duration = Duration::from_secs(5);

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
            if observed.is_guarded && observed.stopping.is_none() {
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
        // How it is asked to end is part of that.
        actions.extend(observed.is_desired_lost.then_some(Action::AskAgain));
        actions.push(Action::Stop { grace: observed.stopping.map_or(grace, |told| told.min(grace)) });
    } else if observed.has_lost_run() {
        actions.push(Action::MarkLost);
    }
    actions.extend_from_slice(then);
    Plan::of(actions)
}

fn run(desired: &DesiredPod, observed: &ObservedPod, now: &Timestamp) -> Plan {
    if observed.is_out_of_reach {
        return Plan::of(vec![Action::MarkLost]);
    }
    if desired.is_finished {
        return stop_and(observed, observed.grace, &[]);
    }
    if desired.is_over(Some(observed)) {
        // Only sidecars can still run. Without any the shim ends by itself.
        return if observed.may_run() { stop_and(observed, observed.grace, &[]) } else { Plan::default() };
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
    match observed.refresh_at.filter(|at| restart::is_ahead(at, now)) {
        Some(at) if observed.is_outdated => plan.look_again = Some(at),
        _ if observed.is_outdated => plan.actions.push(Action::Configure),
        _ => {}
    }
    if observed.is_desired_lost && observed.is_guarded {
        plan.actions.push(Action::AskAgain);
    }
    let mut order = Order::of(desired, observed);
    for container in &desired.containers {
        let known = observed.get(&container.name);
        if let Some(known) = known.filter(|_| observed.is_guarded) {
            let end = end_of_unhealthy(known).or_else(|| end_of_outdated(&mut plan, container, known, now));
            plan.actions.extend(end);
        }
        let starts = !order.holds_up(known) && start(&mut plan, container, observed, now);
        order.pass(container, known, starts);
    }
    plan
}

/// The end of a run whose probes say that it is of no use any more.
fn end_of_unhealthy(known: &ObservedContainer) -> Option<Action> {
    let ObservedRun::Running { attempt, .. } = &known.run else { return None };
    let failure = known.health.failure.as_ref().filter(|_| !known.is_ending)?;
    Some(Action::End { container: known.name.clone(), attempt: attempt.number, why: Why::Unhealthy(failure.clone()) })
}

/// The end of a run that was told what no longer holds. Whoever does it looks first whether the next run could be started.
fn end_of_outdated(plan: &mut Plan, container: &DesiredContainer, known: &ObservedContainer, now: &Timestamp) -> Option<Action> {
    let ObservedRun::Running { attempt, started_at, .. } = &known.run else { return None };
    let changed = known.changed.as_ref().filter(|_| container.role != Role::Init && !known.is_ending)?;
    let rests = rests_until(*started_at, now).filter(|_| attempt.number > 0);
    let held = known.held_until.filter(|at| restart::is_ahead(at, now));
    if let Some(later) = rests.into_iter().chain(held).max_by_key(time::millis) {
        plan.look_again = earliest(plan.look_again, Some(later));
        return None;
    }
    Some(Action::End { container: known.name.clone(), attempt: attempt.number, why: Why::Changed(changed.clone()) })
}

/// Until when a container that was started then isn't started again for a change. A start that has not come yet was before the clock went back.
fn rests_until(started_at: i64, now: &Timestamp) -> Option<Timestamp> {
    let (due, now) = (started_at.saturating_add(restart::millis(BETWEEN_CHANGES)), time::millis(now));
    (started_at <= now && due > now).then(|| from_millis(due))
}

/// Plans the next run of a container, now or later; true if it starts now.
fn start(plan: &mut Plan, container: &DesiredContainer, observed: &ObservedPod, now: &Timestamp) -> bool {
    let known = observed.get(&container.name);
    let Some((attempt, due)) = next_start(container, known, observed.is_guarded) else { return false };
    // An end that the kubelet itself asked for, such as when it went away with its pods, is no crash and needs no back-off.
    let changed = known.filter(|known| known.changed.is_some());
    let rests = changed.and_then(|known| match &known.run {
        ObservedRun::Ended { ended, .. } => rests_until(ended.started_at, now),
        _ => None,
    });
    let is_told_anew = changed.is_some() && rests.is_none();
    let was_asked = observed.stopping.is_some() || known.is_some_and(|known| known.is_ending && known.health.failure.is_none());
    let was_stopped = was_asked && known.is_some_and(ObservedContainer::was_seen_to_end);
    let starts = was_stopped || is_told_anew || due.as_ref().is_none_or(|due| restart::is_due(container, known, due, now));
    if starts {
        plan.actions.push(Action::Start { container: container.name.clone(), attempt });
    } else {
        plan.look_again = earliest(plan.look_again, earliest(due, rests));
    }
    starts
}

/// What holds up the containers that come later in the order of their start.
struct Order {
    /// What runs is guarded; otherwise it is lost.
    is_guarded: bool,
    /// Some main container runs: those that have been started before no longer wait for sidecars that come up again.
    is_up: bool,
    /// An init container has not ended well.
    waits_for_init: bool,
    /// A sidecar is about to start, or has not started yet.
    waits_for_rising: bool,
    /// A sidecar waits to be started again.
    waits_for_fallen: bool,
}

impl Order {
    fn of(desired: &DesiredPod, observed: &ObservedPod) -> Self {
        let lives = |container: &DesiredContainer| {
            let run = observed.get(&container.name).map(|known| &known.run);
            observed.is_guarded && matches!(run, Some(ObservedRun::Running { .. } | ObservedRun::Starting(_)))
        };
        let is_up = desired.containers.iter().any(|container| container.role == Role::Main && lives(container));
        Self { is_guarded: observed.is_guarded, is_up, waits_for_init: false, waits_for_rising: false, waits_for_fallen: false }
    }

    /// Whether a container has to wait for those before it.
    fn holds_up(&self, known: Option<&ObservedContainer>) -> bool {
        let is_first = known.is_none();
        self.waits_for_init || self.waits_for_rising && (is_first || !self.is_up) || self.waits_for_fallen && is_first
    }

    /// Takes note of a container that comes before the rest.
    fn pass(&mut self, container: &DesiredContainer, known: Option<&ObservedContainer>, starts: bool) {
        match (container.role, known.map(|known| &known.run)) {
            (Role::Main, _) => {}
            (Role::Init, _) => self.waits_for_init |= known.and_then(ObservedContainer::ended_well) != Some(true),
            (Role::Sidecar, _) if self.is_guarded && known.is_some_and(ObservedContainer::has_started) => {}
            (Role::Sidecar, Some(ObservedRun::Ended { .. } | ObservedRun::Blocked { .. })) if !starts => self.waits_for_fallen = true,
            (Role::Sidecar, _) => self.waits_for_rising = true,
        }
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min_by_key(time::millis)
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
            Action::Configure => f.write_str("configure"),
            Action::AskAgain => f.write_str("ask again"),
            Action::Start { container, attempt } => write!(f, "start {container} ({})", attempt.number),
            Action::End { container, attempt, .. } => write!(f, "end {container} ({attempt})"),
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
