//! The probes of one run of one container, from its start to its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::check::{Check, Checker, Outcome};
use super::tally::{Rhythm, Tally, Try};
use crate::api::v1::{EventSubject, EventType, Probe};
use crate::client::Recorder;
use crate::kubelet::plan::Health;
use crate::kubelet::uid::PodUid;
use crate::kubelet::wakes::Wakes;

/// What it takes to probe one run of one container.
pub(super) struct Watch {
    pub(super) uid: PodUid,
    pub(super) container: String,
    pub(super) subject: EventSubject,
    pub(super) startup: Option<Probed>,
    pub(super) liveness: Option<Probed>,
    pub(super) readiness: Option<Probed>,
    /// It ran before this kubelet did.
    pub(super) is_resumed: bool,
    pub(super) health: Arc<Mutex<Health>>,
    pub(super) checker: Arc<Checker>,
    pub(super) recorder: Recorder,
    pub(super) wakes: Arc<Wakes>,
}

/// A probe, and what it tries.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    pub(super) kind: Kind,
    pub(super) probe: Probe,
    /// `None`: it names a port that the container doesn't have.
    pub(super) check: Option<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Watch {
    /// Probes until it is cancelled, or nothing more can come of it.
    pub(super) async fn run(self) {
        if let Some(startup) = self.startup.as_ref().filter(|_| !self.health().started) {
            let mut trials = Trials::new(&self, startup, None);
            let (passed, message) = trials.next().await;
            self.change(|health| match passed {
                true => health.started = true,
                false => health.failure = Some(told(startup, &message)),
            });
            if !passed {
                return;
            }
        }
        tokio::join!(self.watch_liveness(), self.watch_readiness());
    }

    async fn watch_liveness(&self) {
        let Some(liveness) = &self.liveness else { return };
        let mut trials = Trials::new(self, liveness, Some(true));
        let (_, message) = trials.next().await;
        self.change(|health| health.failure = Some(told(liveness, &message)));
    }

    async fn watch_readiness(&self) {
        let Some(readiness) = &self.readiness else {
            self.change(|health| health.ready = true);
            return;
        };
        let mut trials = Trials::new(self, readiness, Some(self.health().ready));
        loop {
            let (passed, message) = trials.next().await;
            self.change(|health| {
                health.ready = passed;
                health.unready = if passed { String::new() } else { told(readiness, &message) };
            });
        }
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is known, and lets the pod be looked at if that is new.
    fn change(&self, change: impl FnOnce(&mut Health)) {
        let is_new = {
            let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            let before = health.clone();
            change(&mut health);
            *health != before
        };
        if is_new {
            self.wakes.pod(&self.uid);
        }
    }
}

fn told(probed: &Probed, message: &str) -> String {
    format!("its {} probe failed: {message}", probed.kind.word())
}

/// The tries of one probe.
struct Trials<'a> {
    watch: &'a Watch,
    probed: &'a Probed,
    tally: Tally,
    rhythm: Rhythm,
    begun: Instant,
}

impl<'a> Trials<'a> {
    /// `verdict` is what holds until tries say otherwise.
    fn new(watch: &'a Watch, probed: &'a Probed, verdict: Option<bool>) -> Self {
        let has_passed = verdict == Some(true);
        let rhythm = match watch.is_resumed && has_passed {
            true => Rhythm::resumed(&probed.probe, fastrand::f32()),
            false => Rhythm::new(&probed.probe, !has_passed, fastrand::f32()),
        };
        Self { watch, probed, tally: Tally::new(&probed.probe, verdict), rhythm, begun: Instant::now() }
    }

    /// Goes on until the verdict is another one; what the last try said comes with it.
    async fn next(&mut self) -> (bool, String) {
        loop {
            let next = self.rhythm.next(self.begun.elapsed());
            tokio::time::sleep_until(self.begun + next.at).await;
            let outcome = self.try_once().await;
            self.rhythm.tried(next, self.begun.elapsed());
            if let Some(changed) = self.judge(next, outcome) {
                return changed;
            }
        }
    }

    async fn try_once(&self) -> Outcome {
        let Watch { checker, uid, container, .. } = self.watch;
        match &self.probed.check {
            Some(check) => {
                let timeout = Duration::from_secs(self.probed.probe.timeout_seconds.max(1).into());
                checker.check(uid, container, check, timeout).await
            }
            None => Outcome::Failed("the container has no such port".to_owned()),
        }
    }

    fn judge(&mut self, made: Try, outcome: Outcome) -> Option<(bool, String)> {
        let (passed, message) = match outcome {
            Outcome::Passed => (true, String::new()),
            Outcome::Failed(_) if !made.counts => return None,
            Outcome::Failed(message) => (false, message),
            Outcome::Unknown(message) => {
                tracing::debug!(pod = %self.watch.uid, container = self.watch.container, message, "a probe could not be tried");
                return None;
            }
        };
        let changed = self.tally.take(passed);
        if passed {
            self.rhythm.has_passed();
        } else if self.tally.fails_anew() {
            let note = format!("{} probe of container {} failed: {message}", self.probed.kind.title(), self.watch.container);
            self.watch.recorder.event(self.watch.subject.clone(), EventType::Warning, "Unhealthy", note);
            if self.probed.kind == Kind::Readiness {
                let unready = told(self.probed, &message);
                self.watch.change(|health| {
                    if !health.ready && health.unready.is_empty() {
                        health.unready = unready;
                    }
                });
            }
        }
        changed.map(|passed| (passed, message))
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Liveness => "liveness",
            Kind::Readiness => "readiness",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}
