//! A pod as it should be and as it is, as far as deciding needs.

use std::time::Duration;

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::restart::{Backoff, next_start};
use crate::api::Role;
use crate::api::v1::RestartPolicy;
use crate::kubelet::shim::files::{Cause, Ended};

/// A pod as it should be. Made by `observe`, which has checked it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredPod {
    /// Its containers, in the order in which they start: init containers and sidecars come first.
    pub(crate) containers: Vec<DesiredContainer>,
    /// Set when the pod is being deleted: how long its processes may take to end.
    pub(crate) deleted: Option<Duration>,
    /// True when its status says that it has ended for good.
    pub(crate) is_finished: bool,
    /// Why this node can't run it, if it can't.
    pub(crate) obstacle: Option<String>,
    /// Of a pod that takes limits as best effort: those that this node doesn't enforce.
    pub(crate) unenforced: Option<Vec<String>>,
}

/// A container as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredContainer {
    /// Its name.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) role: Role,
    /// When it is started again after it has ended.
    pub(crate) policy: RestartPolicy,
    /// How long it waits for that.
    pub(crate) backoff: Backoff,
}

/// A pod as it is on this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ObservedPod {
    /// Its folder, bell and ports are there.
    pub(crate) is_prepared: bool,
    /// More is known of the ConfigMaps and Secrets that it uses than is in its folder.
    pub(crate) is_outdated: bool,
    /// When that is tried again, if it could not be written.
    pub(crate) refresh_at: Option<Timestamp>,
    /// Its shim lives.
    pub(crate) is_guarded: bool,
    /// Its folder was removed since it was first here, or can't be looked at for so long that it is given up, or a live shim has lost its bell: what may run
    /// of it can neither be seen nor be asked anything.
    pub(crate) is_out_of_reach: bool,
    /// What its shim was asked for can't be read any more.
    pub(crate) is_desired_lost: bool,
    /// The grace period of the stop that it was told.
    pub(crate) stopping: Option<Duration>,
    /// How long its processes may take to end if nobody says otherwise.
    pub(crate) grace: Duration,
    /// A process that can't be killed although it shall be, and why: a sentence. Empty while there is none.
    pub(crate) unkillable: String,
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
    /// What its probes say of its latest run.
    pub(crate) health: Health,
    /// Its run was told to end.
    pub(crate) is_ending: bool,
    /// What of the ConfigMaps and Secrets that its run was told has changed since, if that matters and it could be started with what holds now; as a
    /// sentence about the container.
    pub(crate) changed: Option<String>,
    /// Until when its run goes on in spite of that, since the next one could not be started when that was tried.
    pub(crate) held_until: Option<Timestamp>,
    /// By how many milliseconds the machine's clock was set since its latest run was seen to have ended: what is told of that end is by the clock before.
    pub(crate) clock_set: i64,
}

/// What probes have come to in one run of a container. Kept in the pod's folder for the next kubelet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// Which run.
    pub(crate) attempt: u32,
    /// Its startup probe has passed, or it has none.
    pub(crate) started: bool,
    /// Its readiness probe passes, or it has none and has started.
    pub(crate) ready: bool,
    /// Why the run must end: its startup or liveness probe has failed. As a sentence about the container.
    pub(crate) failure: Option<String>,
    /// Why it isn't ready, once a probe has said so; as a sentence about the container.
    pub(crate) unready: String,
}

/// Of a run without probes.
impl Default for Health {
    fn default() -> Self {
        Self { attempt: 0, started: true, ready: true, failure: None, unready: String::new() }
    }
}

/// The latest run of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ObservedRun {
    /// It could not be asked for, since something that it needs can't be had.
    Blocked {
        /// Which run.
        next: Attempt,
        /// Why, as one word.
        reason: &'static str,
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
    /// How many runs before it ended without a long one in between.
    pub(crate) streak: u32,
}

impl DesiredPod {
    /// Whether nothing of it shall run any more by itself: its main containers have ended for good, or an init container has failed for good.
    pub(crate) fn is_over(&self, observed: Option<&ObservedPod>) -> bool {
        let Some(observed) = observed else { return false };
        let ended = |container: &DesiredContainer| {
            let known = observed.get(&container.name)?;
            known.ended_well().filter(|_| next_start(container, Some(known), true).is_none())
        };
        let mut main = self.containers.iter().filter(|container| container.role == Role::Main).peekable();
        let has_main = main.peek().is_some();
        let failed = |container: &DesiredContainer| container.role == Role::Init && ended(container) == Some(false);
        self.containers.iter().any(failed) || has_main && main.all(|container| ended(container).is_some())
    }

    /// The names of the init containers and sidecars that the main containers still wait for.
    pub(crate) fn uninitialized(&self, observed: Option<&ObservedPod>) -> Vec<&str> {
        let known = |container: &DesiredContainer| observed.and_then(|observed| observed.get(&container.name));
        let begun = |container: &DesiredContainer| container.role == Role::Main && known(container).is_some();
        if self.containers.iter().any(begun) {
            return Vec::new();
        }
        let is_up = |container: &DesiredContainer| match (container.role, known(container)) {
            (Role::Main, _) => true,
            (Role::Init, Some(known)) => known.ended_well() == Some(true),
            (Role::Sidecar, Some(known)) => known.has_started(),
            (_, None) => false,
        };
        self.containers.iter().filter(|container| !is_up(container)).map(|container| container.name.as_str()).collect()
    }
}

impl ObservedPod {
    /// What is known of a container.
    pub(crate) fn get(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// There may be processes of it.
    pub(super) fn may_run(&self) -> bool {
        self.containers.iter().any(|container| matches!(container.run, ObservedRun::Running { .. } | ObservedRun::Starting(_)))
    }

    /// Something ran whose shim is gone.
    pub(super) fn has_lost_run(&self) -> bool {
        self.is_out_of_reach
            || !self.is_guarded && self.containers.iter().any(|container| matches!(container.run, ObservedRun::Running { .. }))
    }
}

impl ObservedContainer {
    /// It runs, and its startup probe has passed if it has one.
    pub(crate) fn has_started(&self) -> bool {
        matches!(self.run, ObservedRun::Running { .. }) && self.health.started
    }

    /// Of one that has ended: with exit code 0, and not since a probe had failed.
    pub(crate) fn ended_well(&self) -> Option<bool> {
        match &self.run {
            ObservedRun::Ended { ended, .. } => Some(ended.cause == Cause::Exited(0) && self.health.failure.is_none()),
            _ => None,
        }
    }

    pub(super) fn was_seen_to_end(&self) -> bool {
        matches!(&self.run, ObservedRun::Ended { ended, .. } if ended.cause != Cause::Lost)
    }
}
