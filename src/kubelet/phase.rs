//! The phase of a pod: it only moves forward, here.

use crate::api::v1::PodPhase;

/// What is known of one container, as far as the phase is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It has never been started.
    NeverStarted,
    /// It runs, or will be started again.
    Alive,
    /// It has ended and will not be started again.
    Ended {
        /// With exit code 0.
        well: bool,
    },
}

/// The phase after `previous` of a pod whose containers are as `seen`.
pub(crate) fn advance(previous: PodPhase, seen: &[Seen]) -> PodPhase {
    let ended = |seen: &Seen| matches!(seen, Seen::Ended { .. });
    let next = if seen.is_empty() {
        PodPhase::Pending
    } else if seen.iter().all(ended) {
        match seen.contains(&Seen::Ended { well: false }) {
            true => PodPhase::Failed,
            false => PodPhase::Succeeded,
        }
    } else if seen.contains(&Seen::NeverStarted) {
        PodPhase::Pending
    } else {
        PodPhase::Running
    };
    // How a pod has ended once, it has ended for good.
    if is_finished(previous) || rank(next) < rank(previous) { previous } else { next }
}

/// Whether nothing of the pod will ever run again.
pub(crate) fn is_finished(phase: PodPhase) -> bool {
    matches!(phase, PodPhase::Succeeded | PodPhase::Failed)
}

fn rank(phase: PodPhase) -> u8 {
    match phase {
        PodPhase::Unspecified => 0,
        PodPhase::Pending => 1,
        PodPhase::Running => 2,
        PodPhase::Succeeded | PodPhase::Failed => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::Seen::{Alive, NeverStarted};
    use super::*;

    const WELL: Seen = Seen::Ended { well: true };
    const BADLY: Seen = Seen::Ended { well: false };

    fn check(previous: PodPhase, seen: &[Seen], expected: PodPhase) {
        assert_eq!(advance(previous, seen), expected, "{previous:?} {seen:?}");
    }

    #[test]
    fn a_pod_runs_when_every_container_has_been_started() {
        check(PodPhase::Unspecified, &[], PodPhase::Pending);
        check(PodPhase::Pending, &[NeverStarted, Alive], PodPhase::Pending);
        check(PodPhase::Pending, &[Alive, Alive], PodPhase::Running);
        check(PodPhase::Pending, &[WELL, Alive], PodPhase::Running);
    }

    #[test]
    fn a_pod_succeeds_only_when_every_container_ended_well() {
        check(PodPhase::Running, &[WELL, WELL], PodPhase::Succeeded);
        check(PodPhase::Running, &[WELL, BADLY], PodPhase::Failed);
        check(PodPhase::Pending, &[WELL, NeverStarted], PodPhase::Pending);
    }

    #[test]
    fn a_phase_never_goes_back() {
        check(PodPhase::Running, &[NeverStarted], PodPhase::Running);
        check(PodPhase::Succeeded, &[Alive], PodPhase::Succeeded);
        check(PodPhase::Succeeded, &[BADLY], PodPhase::Succeeded);
        check(PodPhase::Failed, &[WELL], PodPhase::Failed);
    }
}
