//! Which run of a container comes next, and when.

use std::time::Duration;

use prost_types::Timestamp;

use super::pod::{Attempt, DesiredContainer, ObservedContainer, ObservedRun};
use crate::api::v1::RestartPolicy;
use crate::kubelet::shim::files::{Cause, Ended};
use crate::time;

/// How long an ended container waits before it is started again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backoff {
    /// The first wait.
    pub(crate) initial: Duration,
    /// What each wait is multiplied with.
    pub(crate) factor: f64,
    /// The longest wait.
    pub(crate) cap: Duration,
    /// A run of this length makes the next wait the first again.
    pub(crate) reset: Duration,
}

/// What the kubelet itself failed to do is tried again like this.
pub(crate) const OWN: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, cap: Duration::from_mins(5), reset: Duration::from_mins(10) };

impl Backoff {
    /// How long to wait after `streak` waits in a row.
    pub(crate) fn wait(&self, streak: u32) -> Duration {
        let factor = self.factor.powi(i32::try_from(streak).unwrap_or(i32::MAX));
        Duration::try_from_secs_f64(self.initial.as_secs_f64() * factor).map_or(self.cap, |wait| wait.min(self.cap))
    }
}

/// Which run of a container comes next, and when: at once if no time is given.
pub(crate) fn next_start(
    desired: &DesiredContainer,
    known: Option<&ObservedContainer>,
    is_guarded: bool,
) -> Option<(Attempt, Option<Timestamp>)> {
    let Some(known) = known else { return Some((Attempt::default(), None)) };
    match &known.run {
        ObservedRun::Blocked { next, retry_at, .. } => Some((*next, Some(*retry_at))),
        // A shim that ended before it read the request leaves it to the next one.
        ObservedRun::Starting(attempt) => (!is_guarded).then_some((*attempt, None)),
        ObservedRun::Running { .. } => None,
        ObservedRun::Ended { attempt, ended } => {
            if ended.superseded.is_some() || ended.cause == Cause::Undone {
                // It was no failure.
                let (next, _) = restart(&desired.backoff, *attempt, ended, 0);
                return Some((Attempt { streak: next.streak.saturating_sub(1), ..next }, None));
            }
            let restarts = match desired.policy {
                RestartPolicy::Unspecified | RestartPolicy::Always => true,
                RestartPolicy::OnFailure => known.ended_well() != Some(true),
                RestartPolicy::Never => false,
            };
            restarts.then(|| restart(&desired.backoff, *attempt, ended, known.clock_set))
        }
    }
}

/// Whether the time of [`next_start`] has come. A clock that was set back unseen, while there was no kubelet, makes a wait look longer than it was meant;
/// the wait is then over, once.
pub(super) fn is_due(desired: &DesiredContainer, known: Option<&ObservedContainer>, due: &Timestamp, now: &Timestamp) -> bool {
    let (due, now) = (time::millis(due), time::millis(now));
    let clock_went_back = match known.map(|known| (&known.run, known.clock_set)) {
        Some((ObservedRun::Ended { ended, .. }, clock_set)) => ended.finished_at.saturating_add(clock_set) > now,
        _ => due.saturating_sub(now) > millis(desired.backoff.cap.max(OWN.cap)),
    };
    due <= now || clock_went_back
}

/// Whether something that the kubelet tries again is still waited for. A wait that looks longer than any can be is over: the clock went back.
pub(super) fn is_ahead(at: &Timestamp, now: &Timestamp) -> bool {
    (1..=millis(OWN.cap)).contains(&time::millis(at).saturating_sub(time::millis(now)))
}

/// The run after one that has ended, and when its back-off is over by the clock as it was set since.
fn restart(backoff: &Backoff, attempt: Attempt, ended: &Ended, clock_set: i64) -> (Attempt, Option<Timestamp>) {
    let lasted = u64::try_from(ended.finished_at.saturating_sub(ended.started_at)).unwrap_or(0);
    let streak = if Duration::from_millis(lasted) >= backoff.reset { 0 } else { attempt.streak };
    let next = Attempt { number: attempt.number.saturating_add(1), streak: streak.saturating_add(1) };
    let finished_at = ended.finished_at.saturating_add(clock_set);
    (next, Some(from_millis(finished_at.saturating_add(millis(backoff.wait(streak))))))
}

/// A point in time from milliseconds since 1970.
pub(crate) fn from_millis(millis: i64) -> Timestamp {
    Timestamp { seconds: millis.div_euclid(1000), nanos: (millis.rem_euclid(1000) * 1_000_000) as i32 }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
