//! What is known of a pod whose shim's notes are lost: what the apiserver was told. The inverse of `status`, as far as there is one.

use prost_types::Timestamp;

use super::observe;
use super::phase;
use super::plan::{DesiredContainer, DesiredPod, ObservedPod, ObservedRun, next_start};
use super::shim::files::{Cause, ContainerState, Ended, Stage, State};
use super::status;
use crate::api::Role;
use crate::api::v1::{ContainerStateTerminated, ContainerStatus, PodStatus, container_state};
use crate::time;

/// The latest runs of the containers that were told to have begun.
pub(crate) fn recall(told: &PodStatus) -> State {
    let all = told.init_container_statuses.iter().chain(&told.container_statuses);
    let mut containers: Vec<ContainerState> = all.filter_map(container).collect();
    if phase::is_finished(told.phase()) {
        // A kubelet alone may know that, and nothing else that is so new.
        containers.retain(|container| matches!(container.stage, Stage::Ended(_)));
    }
    State { containers, ..State::default() }
}

/// What was told, and what this kubelet has seen since: a run that it has asked for may have begun.
pub(crate) fn recall_all(told: &PodStatus, seen: Option<&ObservedPod>) -> State {
    let mut state = recall(told);
    for container in seen.iter().flat_map(|seen| &seen.containers) {
        let (attempt, stage) = match &container.run {
            ObservedRun::Blocked { .. } => continue,
            ObservedRun::Starting(attempt) => (attempt, Stage::Running { pid: 0, started_at: 0, start_time: None }),
            ObservedRun::Running { attempt, pid, started_at } => {
                (attempt, Stage::Running { pid: *pid, started_at: *started_at, start_time: None })
            }
            ObservedRun::Ended { attempt, ended } => (attempt, Stage::Ended(ended.clone())),
        };
        if state.get(&container.name).is_none_or(|known| known.attempt < attempt.number) {
            let (name, previous) = (container.name.clone(), container.previous.clone());
            state.set(ContainerState { name, attempt: attempt.number, streak: attempt.streak, stage, previous });
        }
    }
    state
}

/// What init containers have done is gone with the pod's folder: they are to be run again before its main containers, unless those have ended for good.
pub(crate) fn undo_inits(state: &mut State, desired: &DesiredPod) {
    let is_over = |container: &DesiredContainer| {
        let known = state.get(&container.name).map(observe::known);
        known.is_some_and(|known| next_start(container, Some(&known), true).is_none() && matches!(known.run, ObservedRun::Ended { .. }))
    };
    let mut main = desired.containers.iter().filter(|container| container.role == Role::Main);
    if desired.is_finished || main.all(is_over) {
        return;
    }
    for container in desired.containers.iter().filter(|container| container.role == Role::Init) {
        let known = state.containers.iter_mut().find(|known| known.name == container.name);
        if let Some(Stage::Ended(ended)) = known.map(|known| &mut known.stage)
            && ended.cause == Cause::Exited(0)
        {
            ended.cause = Cause::Undone;
        }
    }
}

fn container(told: &ContainerStatus) -> Option<ContainerState> {
    let last = told.last_termination.as_ref().map(ended);
    let before = told.restart_count.checked_sub(1);
    let (attempt, stage, previous) = match told.state.as_ref()?.state.as_ref()? {
        // Without its start time the pid is only to be told: it may be anybody's by now.
        container_state::State::Running(running) => {
            let pid = i32::try_from(running.pid).unwrap_or_default();
            let stage = Stage::Running { pid, started_at: millis(running.started_at.as_ref()), start_time: None };
            (told.restart_count, stage, last)
        }
        container_state::State::Terminated(now) => (told.restart_count, Stage::Ended(ended(now)), last),
        // It waits after that run, and not before another.
        container_state::State::Waiting(waiting) if status::has_ended(&waiting.reason) => (told.restart_count, Stage::Ended(last?), None),
        container_state::State::Waiting(_) => (before?, Stage::Ended(last?), None),
    };
    Some(ContainerState { name: told.name.clone(), attempt, streak: 0, stage, previous })
}

fn ended(told: &ContainerStateTerminated) -> Ended {
    Ended {
        cause: status::cause(told),
        started_at: millis(told.started_at.as_ref()),
        finished_at: millis(told.finished_at.as_ref()),
        superseded: (told.reason == status::CONFIG_CHANGED).then(|| told.message.clone()),
    }
}

fn millis(time: Option<&Timestamp>) -> i64 {
    time.map(time::millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{PodPhase, RestartPolicy};
    use crate::kubelet::plan::{OWN_BACKOFF, from_millis};
    use crate::kubelet::runtime::Found;
    use crate::kubelet::shim::files::{Desired, Run, Stop};
    use crate::kubelet::status::{Facts, status};

    /// What is told of a container that is always started again.
    fn told(state: &State) -> PodStatus {
        told_of(&Found { is_guarded: true, state: state.clone(), ..Found::default() })
    }

    fn told_of(found: &Found) -> PodStatus {
        let container = DesiredContainer { name: "main".into(), role: Role::Main, policy: RestartPolicy::Always, backoff: OWN_BACKOFF };
        let desired = DesiredPod { containers: vec![container], deleted: None, is_finished: false, obstacle: None, unenforced: None };
        let observed = observe::observed_alone(found);
        let (before, now) = (PodStatus::default(), from_millis(10_000));
        status(&Facts { before: &before, desired: &desired, observed: Some(&observed), ports: &[], host_ip: "", failure: None, now: &now })
    }

    fn state(attempt: u32, stage: Stage, previous: Option<Ended>) -> State {
        let main = ContainerState { name: "main".into(), attempt, streak: 0, stage, previous };
        State { containers: vec![main], ..State::default() }
    }

    #[test]
    fn what_was_told_of_a_run_is_known_again() {
        let start_failed = Cause::StartFailed { code: 127, message: "none".into() };
        for cause in [Cause::Exited(0), Cause::Exited(7), Cause::Signaled(15), Cause::OomKilled, Cause::Lost, Cause::Undone, start_failed] {
            let ended = Ended { cause, started_at: 1_000, finished_at: 2_000, superseded: None };
            let running = Stage::Running { pid: 42, started_at: 3_000, start_time: None };
            for known in [state(4, Stage::Ended(ended.clone()), None), state(5, running, Some(ended))] {
                assert_eq!(recall(&told(&known)), known);
            }
        }
    }

    #[test]
    fn what_was_told_of_a_container_that_waits_is_how_its_last_run_ended() {
        let ended = Ended { cause: Cause::Exited(7), started_at: 1_000, finished_at: 2_000, superseded: None };
        let known = state(4, Stage::Ended(ended), None);
        let asked = Run { container: "main".into(), attempt: 5, ..Run::default() };
        let stop = Some(Stop::within(std::time::Duration::from_secs(1)));
        let desired = [Desired { stop, ..Desired::default() }, Desired { runs: vec![asked], ..Desired::default() }];
        for (desired, expected) in desired.into_iter().zip(["Stopped", "ContainerCreating"]) {
            let told = told_of(&Found { is_guarded: true, state: known.clone(), desired, ..Found::default() });
            let Some(container_state::State::Waiting(waiting)) = &told.container_statuses[0].state.as_ref().unwrap().state else {
                panic!("{told:?}")
            };
            assert_eq!(waiting.reason, expected);
            assert_eq!(recall(&told), known);
        }
    }

    #[test]
    fn a_run_that_was_asked_for_may_have_begun_though_nobody_was_told() {
        let asked = Run { container: "main".into(), attempt: 5, streak: 2, ..Run::default() };
        let desired = Desired { runs: vec![asked], ..Desired::default() };
        let seen = observe::observed_alone(&Found { is_guarded: true, desired, ..Found::default() });
        let begun = Stage::Running { pid: 0, started_at: 0, start_time: None };
        let expected = ContainerState { name: "main".into(), attempt: 5, streak: 2, stage: begun, previous: None };
        assert_eq!(recall_all(&PodStatus::default(), Some(&seen)).containers, [expected]);
        // What was told is newer.
        let told = told(&state(6, Stage::Running { pid: 42, started_at: 3_000, start_time: None }, None));
        assert_eq!(recall_all(&told, Some(&seen)), recall(&told));
    }

    #[test]
    fn of_what_never_began_and_of_what_may_be_older_than_a_pods_end_nothing_is_known() {
        assert_eq!(recall(&told(&State::default())), State::default());
        let mut old = told(&state(0, Stage::Running { pid: 42, started_at: 3_000, start_time: None }, None));
        old.set_phase(PodPhase::Succeeded);
        assert_eq!(recall(&old), State::default());
    }

    #[test]
    fn without_its_folder_a_pods_init_containers_run_again_unless_its_main_ones_have_ended_for_good() {
        use RestartPolicy::{Always, Never, OnFailure};
        let container = |name: &str, role, policy| DesiredContainer { name: name.into(), role, policy, backoff: OWN_BACKOFF };
        let known = |name: &str, cause: Cause| {
            let stage = Stage::Ended(Ended { cause, started_at: 1_000, finished_at: 2_000, superseded: None });
            ContainerState { name: name.into(), attempt: 3, streak: 0, stage, previous: None }
        };
        type Main = (RestartPolicy, Option<Cause>);
        // How the main containers are to be restarted and have ended, if they have begun; how the init container has ended; and how it is taken then.
        let (ok, failed) = (Cause::Exited(0), Cause::Exited(1));
        let cases: [(Vec<Main>, Cause, Cause); 9] = [
            (vec![(Always, Some(Cause::Lost))], ok.clone(), Cause::Undone),
            (vec![(OnFailure, Some(Cause::Lost))], ok.clone(), Cause::Undone),
            (vec![(Never, None)], ok.clone(), Cause::Undone),
            (vec![(Never, Some(Cause::Lost))], ok.clone(), ok.clone()),
            (vec![(OnFailure, Some(ok.clone()))], ok.clone(), ok.clone()),
            (vec![(Never, Some(failed.clone())), (OnFailure, Some(ok.clone()))], ok.clone(), ok.clone()),
            (vec![(Never, Some(ok.clone())), (OnFailure, Some(failed.clone()))], ok.clone(), Cause::Undone),
            (vec![(Always, None)], failed.clone(), failed),
            (vec![(Always, None)], Cause::Lost, Cause::Lost),
        ];
        for (number, (mains, init, expected)) in cases.into_iter().enumerate() {
            let mut containers = vec![container("init", Role::Init, OnFailure), container("sidecar", Role::Sidecar, Always)];
            let mut state = State { containers: vec![known("init", init), known("sidecar", Cause::Exited(0))], ..State::default() };
            for (index, (policy, cause)) in mains.iter().enumerate() {
                let name = format!("main{index}");
                containers.push(container(&name, Role::Main, *policy));
                state.containers.extend(cause.clone().map(|cause| known(&name, cause)));
            }
            let desired = DesiredPod { containers, deleted: None, is_finished: false, obstacle: None, unenforced: None };
            let before = state.clone();
            undo_inits(&mut state, &desired);
            assert_eq!(state.get("init"), Some(&known("init", expected.clone())), "{number}");
            assert_eq!(state.containers[1..], before.containers[1..], "{number}");
            let observed = observe::observed_alone(&Found { state: state.clone(), ..Found::default() });
            let again = next_start(&desired.containers[0], observed.get("init"), false);
            assert_eq!(
                again.map(|(next, due)| (next.number, due.is_none())),
                match expected {
                    Cause::Exited(0) => None,
                    // At once, as another run.
                    Cause::Undone => Some((4, true)),
                    _ => Some((4, false)),
                }
            );
        }
    }
}
