use std::time::Duration;

use super::*;
use crate::api::v1::{PodPhase, RestartPolicy};
use crate::kubelet::plan::{Attempt, Health, OWN_BACKOFF};

const NOW: Timestamp = Timestamp { seconds: 1_000, nanos: 0 };

fn ended(cause: Cause) -> Ended {
    Ended { cause, started_at: 990_000, finished_at: 999_500, superseded: None }
}

fn container(run: ObservedRun, previous: Option<Ended>) -> ObservedContainer {
    ObservedContainer {
        name: "main".into(),
        run,
        previous,
        health: Health::default(),
        is_ending: false,
        changed: None,
        held_until: None,
        clock_set: 0,
    }
}

fn finished(cause: Cause) -> ObservedContainer {
    container(ObservedRun::Ended { attempt: Attempt { number: 2, streak: 2 }, ended: ended(cause) }, None)
}

fn running() -> ObservedContainer {
    container(
        ObservedRun::Running { attempt: Attempt { number: 3, streak: 3 }, pid: 42, started_at: 999_000 },
        Some(ended(Cause::Signaled(9))),
    )
}

fn seen(container: ObservedContainer) -> ObservedPod {
    ObservedPod {
        is_prepared: true,
        is_outdated: false,
        refresh_at: None,
        is_guarded: true,
        is_out_of_reach: false,
        is_desired_lost: false,
        stopping: None,
        grace: Duration::ZERO,
        unkillable: String::new(),
        containers: vec![container],
    }
}

fn make(policy: RestartPolicy, before: &PodStatus, observed: Option<&ObservedPod>) -> PodStatus {
    let desired = DesiredPod {
        containers: vec![wanted("main", Role::Main, policy)],
        deleted: None,
        is_finished: false,
        obstacle: None,
        unenforced: None,
    };
    status(&Facts { before, desired: &desired, observed, ports: &[], host_ip: "10.0.0.1", failure: None, now: &NOW })
}

fn wanted(name: &str, role: Role, policy: RestartPolicy) -> DesiredContainer {
    DesiredContainer { name: name.into(), role, policy, backoff: OWN_BACKOFF }
}

/// The status of a pod with an init container, a sidecar and a main container that is not started again.
fn make_with_init(before: &PodStatus, observed: Option<&ObservedPod>) -> PodStatus {
    let containers = vec![
        wanted("fetch", Role::Init, RestartPolicy::Never),
        wanted("proxy", Role::Sidecar, RestartPolicy::Always),
        wanted("main", Role::Main, RestartPolicy::Never),
    ];
    let desired = DesiredPod { containers, deleted: None, is_finished: false, obstacle: None, unenforced: None };
    status(&Facts { before, desired: &desired, observed, ports: &[], host_ip: "10.0.0.1", failure: None, now: &NOW })
}

fn named(name: &str, container: ObservedContainer) -> ObservedContainer {
    ObservedContainer { name: name.into(), ..container }
}

/// The state of each container in one word, as in `fetch Terminated, proxy Running ready`.
fn words(status: &PodStatus) -> String {
    let word = |container: &ContainerStatus| {
        let state = match container.state.as_ref().and_then(|state| state.state.as_ref()) {
            Some(container_state::State::Waiting(waiting)) => waiting.reason.clone(),
            Some(container_state::State::Running(_)) => "Running".to_owned(),
            Some(container_state::State::Terminated(ended)) => ended.reason.clone(),
            None => String::new(),
        };
        format!("{} {state}{}", container.name, if container.ready { " ready" } else { "" })
    };
    status.init_container_statuses.iter().chain(&status.container_statuses).map(word).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_pod_tells_how_far_its_init_containers_are() {
    let condition_of = |status: &PodStatus, name| condition::get(&status.conditions, name).cloned().unwrap();
    let first = make_with_init(&PodStatus::default(), None);
    assert_eq!(words(&first), "fetch ContainerCreating, proxy PodInitializing, main PodInitializing");
    let initialized = condition_of(&first, condition::INITIALIZED);
    assert_eq!((initialized.status(), initialized.message.as_str()), (ConditionStatus::False, "waits for fetch, proxy"));

    let pod = |containers: Vec<ObservedContainer>| ObservedPod { containers, ..seen(running()) };
    let fetched = named("fetch", finished(Cause::Exited(0)));
    let second = make_with_init(&first, Some(&pod(vec![fetched.clone(), named("proxy", running())])));
    assert_eq!(words(&second), "fetch Completed ready, proxy Running ready, main ContainerCreating");
    assert_eq!((second.phase(), condition::is_true(&second.conditions, condition::INITIALIZED)), (PodPhase::Pending, true));

    let third = make_with_init(&second, Some(&pod(vec![fetched.clone(), named("proxy", running()), running()])));
    assert_eq!((third.phase(), condition::is_true(&third.conditions, condition::READY)), (PodPhase::Running, true));
    assert!(third.init_container_statuses[1].started && third.container_statuses[0].started);

    // A sidecar that is down makes the pod unready and nothing else.
    let down = named("proxy", finished(Cause::Exited(1)));
    let fourth = make_with_init(&third, Some(&pod(vec![fetched.clone(), down.clone(), running()])));
    assert_eq!(words(&fourth), "fetch Completed ready, proxy CrashLoopBackOff, main Running ready");
    let ready = condition_of(&fourth, condition::CONTAINERS_READY);
    assert_eq!((ready.status(), ready.message.as_str()), (ConditionStatus::False, "not ready: proxy"));
    assert!(condition::is_true(&fourth.conditions, condition::INITIALIZED));
}

#[test]
fn a_pod_succeeds_when_its_sidecars_have_ended_after_its_main_containers() {
    let before = PodStatus { phase: PodPhase::Running.into(), ..Default::default() };
    let pod = |proxy: ObservedContainer| {
        let containers = vec![named("fetch", finished(Cause::Exited(0))), named("proxy", proxy), finished(Cause::Exited(0))];
        ObservedPod { containers, ..seen(running()) }
    };
    assert_eq!(make_with_init(&before, Some(&pod(running()))).phase(), PodPhase::Running);
    let over = make_with_init(&before, Some(&pod(finished(Cause::Signaled(15)))));
    assert_eq!((over.phase(), words(&over).as_str()), (PodPhase::Succeeded, "fetch Completed ready, proxy Error, main Completed"));
    assert_eq!(condition::get(&over.conditions, condition::READY).unwrap().reason, "PodCompleted");
    // One that no shim lived to start has no process to wait for.
    let starting = container(ObservedRun::Starting(Attempt::default()), None);
    assert_eq!(make_with_init(&before, Some(&ObservedPod { is_guarded: false, ..pod(starting) })).phase(), PodPhase::Succeeded);
}

#[test]
fn a_pod_that_cannot_end_says_which_process_cannot_be_killed_for_as_long_as_that_is_so() {
    let before = make(RestartPolicy::Always, &PodStatus::default(), Some(&seen(running())));
    let stuck = ObservedPod { unkillable: "process 42 can't be killed: no".into(), ..seen(running()) };
    let stuck = make(RestartPolicy::Always, &before, Some(&stuck));
    assert_eq!((stuck.reason.as_str(), stuck.message.as_str()), ("FailedKill", "process 42 can't be killed: no"));
    assert_eq!(make(RestartPolicy::Always, &stuck, Some(&seen(running()))), before);
}

#[test]
fn a_pod_that_takes_limits_as_best_effort_says_which_are_not_enforced() {
    let told = |unenforced: &[&str]| {
        let unenforced = Some(unenforced.iter().map(|limit| (*limit).to_owned()).collect());
        let containers = vec![wanted("main", Role::Main, RestartPolicy::Always)];
        let desired = DesiredPod { containers, deleted: None, is_finished: false, obstacle: None, unenforced };
        let before = PodStatus::default();
        let facts = Facts { before: &before, desired: &desired, observed: None, ports: &[], host_ip: "10.0.0.1", failure: None, now: &NOW };
        let condition = condition::get(&status(&facts).conditions, condition::LIMITS_ENFORCED).cloned().unwrap();
        (condition.status(), condition.message)
    };
    assert_eq!(told(&[]), (ConditionStatus::True, String::new()));
    let message = "this node doesn't enforce the limits cpu of main, memory of main".to_owned();
    assert_eq!(told(&["cpu of main", "memory of main"]), (ConditionStatus::False, message));
    let plain = make(RestartPolicy::Always, &PodStatus::default(), None);
    assert_eq!(condition::get(&plain.conditions, condition::LIMITS_ENFORCED), None);
}

#[test]
fn a_pod_whose_init_container_fails_for_good_has_failed() {
    let observed = ObservedPod { containers: vec![named("fetch", finished(Cause::Exited(3)))], ..seen(running()) };
    let status = make_with_init(&PodStatus::default(), Some(&observed));
    assert_eq!((status.phase(), words(&status).as_str()), (PodPhase::Failed, "fetch Error, proxy PodInitializing, main PodInitializing"));
}

fn waiting_reason(status: &PodStatus) -> &str {
    match status.container_statuses[0].state.as_ref().unwrap().state.as_ref().unwrap() {
        container_state::State::Waiting(waiting) => &waiting.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_running_pod_is_ready_and_tells_how_its_previous_run_ended() {
    let status = make(RestartPolicy::Always, &PodStatus::default(), Some(&seen(running())));
    assert_eq!(status.phase(), PodPhase::Running);
    assert!(condition::is_true(&status.conditions, condition::READY));
    assert!(condition::is_true(&status.conditions, condition::POD_SCHEDULED));
    let container = &status.container_statuses[0];
    assert_eq!((container.ready, container.restart_count), (true, 3));
    assert_eq!(container.last_termination.as_ref().unwrap().exit_code, 137);
    assert_eq!((status.host_ip.as_str(), status.start_time), ("10.0.0.1", Some(NOW)));
}

#[test]
fn a_crashed_container_tells_when_it_is_started_again() {
    let status = make(RestartPolicy::Always, &PodStatus::default(), Some(&seen(finished(Cause::Exited(3)))));
    let container = &status.container_statuses[0];
    assert_eq!((status.phase(), waiting_reason(&status)), (PodPhase::Running, "CrashLoopBackOff"));
    assert_eq!(container.next_retry_time, Some(from_millis(1_003_500)));
    let last = container.last_termination.as_ref().unwrap();
    assert_eq!((last.exit_code, last.finished_at), (3, Some(from_millis(999_500))));
}

#[test]
fn a_program_that_does_not_exist_is_a_start_error_of_a_pending_pod() {
    let cause = Cause::StartFailed { code: 127, message: "no such program".into() };
    let status = make(RestartPolicy::Always, &PodStatus::default(), Some(&seen(finished(cause))));
    assert_eq!((status.phase(), waiting_reason(&status)), (PodPhase::Pending, "StartError"));
    assert_eq!(status.container_statuses[0].last_termination.as_ref().unwrap().exit_code, 127);
}

#[test]
fn a_pod_that_is_not_restarted_ends_by_its_exit_codes() {
    for (cause, phase, code, reason) in [
        (Cause::Exited(0), PodPhase::Succeeded, 0, "Completed"),
        (Cause::Exited(7), PodPhase::Failed, 7, "Error"),
        (Cause::Signaled(15), PodPhase::Failed, 143, "Error"),
        (Cause::Lost, PodPhase::Failed, 137, "Lost"),
        (Cause::StartFailed { code: 126, message: "not executable".into() }, PodPhase::Failed, 126, "StartError"),
    ] {
        let status = make(RestartPolicy::Never, &PodStatus::default(), Some(&seen(finished(cause))));
        let Some(container_state::State::Terminated(ended)) = &status.container_statuses[0].state.as_ref().unwrap().state else {
            panic!("{status:?}")
        };
        assert_eq!((status.phase(), ended.exit_code, ended.reason.as_str()), (phase, code, reason));
    }
}

#[test]
fn a_condition_keeps_the_time_of_its_last_transition() {
    let first = make(RestartPolicy::Always, &PodStatus::default(), None);
    assert_eq!((first.phase(), waiting_reason(&first)), (PodPhase::Pending, "ContainerCreating"));
    let mut later = first.clone();
    for condition in &mut later.conditions {
        condition.last_transition_time = Some(Timestamp { seconds: 1, nanos: 0 });
    }
    let next = make(RestartPolicy::Always, &later, Some(&seen(running())));
    let time_of = |name| condition::get(&next.conditions, name).unwrap().last_transition_time.unwrap().seconds;
    assert_eq!((time_of(condition::POD_SCHEDULED), time_of(condition::READY)), (1, 1_000));
}

#[test]
fn a_status_that_is_already_so_does_not_change() {
    let observed = seen(running());
    let first = make(RestartPolicy::Always, &PodStatus::default(), Some(&observed));
    assert_eq!(make(RestartPolicy::Always, &first, Some(&observed)), first);
}

#[test]
fn what_was_ended_with_its_kubelet_is_not_called_a_crash() {
    let stopped = ObservedPod { stopping: Some(Duration::from_secs(1)), ..seen(finished(Cause::Signaled(15))) };
    let status = make(RestartPolicy::Always, &PodStatus::default(), Some(&stopped));
    assert_eq!((waiting_reason(&status), status.container_statuses[0].next_retry_time), ("Stopped", None));
    let lost = ObservedPod { stopping: Some(Duration::from_secs(1)), ..seen(finished(Cause::Lost)) };
    assert_eq!(waiting_reason(&make(RestartPolicy::Always, &PodStatus::default(), Some(&lost))), "CrashLoopBackOff");
}

#[test]
fn a_pod_that_runs_without_its_shim_is_not_ready() {
    let observed = ObservedPod { is_guarded: false, ..seen(running()) };
    let status = make(RestartPolicy::Always, &PodStatus::default(), Some(&observed));
    assert!(!condition::is_true(&status.conditions, condition::READY));
}

#[test]
fn probes_decide_what_has_started_and_is_ready_and_why_a_run_was_ended() {
    let with = |health: Health| {
        let mut observed = seen(running());
        observed.containers[0].health = health;
        make(RestartPolicy::OnFailure, &PodStatus::default(), Some(&observed))
    };
    let starting = with(Health { started: false, ready: false, ..Health::default() });
    assert_eq!((starting.container_statuses[0].started, starting.container_statuses[0].ready), (false, false));
    assert_eq!(starting.phase(), PodPhase::Running);
    let unready = with(Health { ready: false, unready: "its readiness probe failed: HTTP status 503".into(), ..Health::default() });
    assert_eq!((unready.container_statuses[0].started, unready.container_statuses[0].ready), (true, false));
    let ready = condition::get(&unready.conditions, condition::READY).unwrap();
    assert_eq!(ready.message, "not ready: main (its readiness probe failed: HTTP status 503)");

    let mut observed = seen(finished(Cause::Exited(0)));
    observed.containers[0].health.failure = Some("its liveness probe failed: connection refused".into());
    let restarts = make(RestartPolicy::OnFailure, &PodStatus::default(), Some(&observed));
    assert_eq!((restarts.phase(), waiting_reason(&restarts)), (PodPhase::Running, "CrashLoopBackOff"));
    let last = restarts.container_statuses[0].last_termination.as_ref().unwrap();
    assert_eq!(last.message, "its liveness probe failed: connection refused");
    assert_eq!(make(RestartPolicy::Never, &PodStatus::default(), Some(&observed)).phase(), PodPhase::Failed);
}
