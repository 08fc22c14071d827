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

/// What is known of the containers of a pod, each list in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Containers {
    /// The init containers that are no sidecars.
    pub(crate) init: Vec<Seen>,
    /// The main ones.
    pub(crate) main: Vec<Seen>,
    /// Some sidecar still runs. How sidecars end doesn't matter.
    pub(crate) sidecar_runs: bool,
}

/// The phase after `previous` of a pod whose containers are as `seen`.
pub(crate) fn advance(previous: PodPhase, seen: &Containers) -> PodPhase {
    let Containers { init, main, sidecar_runs } = seen;
    let ended = |seen: &Seen| matches!(seen, Seen::Ended { .. });
    let is_over = init.contains(&BADLY) || !main.is_empty() && main.iter().all(ended);
    let next = if is_over && !sidecar_runs {
        match init.contains(&BADLY) || main.contains(&BADLY) {
            true => PodPhase::Failed,
            false => PodPhase::Succeeded,
        }
    } else if main.is_empty() || main.contains(&Seen::NeverStarted) {
        PodPhase::Pending
    } else {
        PodPhase::Running
    };
    // How a pod has ended once, it has ended for good.
    if is_finished(previous) || rank(next) < rank(previous) { previous } else { next }
}

const BADLY: Seen = Seen::Ended { well: false };

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

    fn check(previous: PodPhase, main: &[Seen], expected: PodPhase) {
        check_all(previous, &[], main, false, expected);
    }

    fn check_all(previous: PodPhase, init: &[Seen], main: &[Seen], sidecar_runs: bool, expected: PodPhase) {
        let seen = Containers { init: init.to_vec(), main: main.to_vec(), sidecar_runs };
        assert_eq!(advance(previous, &seen), expected, "{previous:?} {seen:?}");
    }

    #[test]
    fn a_pod_is_pending_while_its_init_containers_run_and_fails_with_one_of_them() {
        check_all(PodPhase::Pending, &[Alive], &[NeverStarted], false, PodPhase::Pending);
        check_all(PodPhase::Pending, &[WELL, NeverStarted], &[NeverStarted], true, PodPhase::Pending);
        check_all(PodPhase::Pending, &[WELL], &[Alive], true, PodPhase::Running);
        check_all(PodPhase::Pending, &[WELL, BADLY], &[NeverStarted], false, PodPhase::Failed);
        check_all(PodPhase::Pending, &[BADLY], &[NeverStarted], true, PodPhase::Pending);
    }

    #[test]
    fn a_pod_has_ended_only_when_its_sidecars_have_too_however_they_did() {
        check_all(PodPhase::Running, &[WELL], &[WELL], true, PodPhase::Running);
        check_all(PodPhase::Running, &[WELL], &[WELL], false, PodPhase::Succeeded);
        check_all(PodPhase::Running, &[WELL], &[BADLY], true, PodPhase::Running);
        check_all(PodPhase::Running, &[WELL], &[BADLY], false, PodPhase::Failed);
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
