use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000_000_000;

fn wanted(policy: RestartPolicy) -> DesiredPod {
    DesiredPod { containers: vec!["main".into()], restart_policy: policy, deleted: None, is_finished: false, obstacle: None }
}

fn seen(run: ObservedRun, is_guarded: bool) -> ObservedPod {
    ObservedPod {
        is_prepared: true,
        is_guarded,
        stopping: None,
        grace: Duration::from_secs(30),
        containers: vec![ObservedContainer { name: "main".into(), run, previous: None }],
    }
}

fn attempt(number: u32, streak: u32) -> Attempt {
    Attempt { number, streak }
}

fn running(number: u32) -> ObservedRun {
    ObservedRun::Running { attempt: attempt(number, number), pid: 7, started_at: NOW - 5_000 }
}

/// A run that ended `ago_ms` before now and had lasted `lasted`.
fn ended(attempt: Attempt, cause: Cause, lasted: Duration, ago_ms: i64) -> ObservedRun {
    let finished_at = NOW - ago_ms;
    ObservedRun::Ended { attempt, ended: Ended { cause, started_at: finished_at - lasted.as_millis() as i64, finished_at } }
}

fn at(offset_ms: i64) -> Timestamp {
    from_millis(NOW + offset_ms)
}

/// What is planned, and in how many milliseconds to look again.
fn check(desired: Option<&DesiredPod>, observed: Option<&ObservedPod>, expected: &str, look_again_in: Option<i64>) {
    let plan = plan(desired, observed, &at(0));
    assert_eq!((plan.to_string().as_str(), plan.look_again.map(|time| time::millis(&time) - NOW)), (expected, look_again_in));
}

#[test]
fn a_new_pod_is_prepared_and_its_containers_start_in_order() {
    let mut desired = wanted(RestartPolicy::Always);
    desired.containers = vec!["b".into(), "a".into()];
    check(Some(&desired), None, "prepare, start b (0), start a (0)", None);
}

#[test]
fn what_runs_is_left_alone_also_by_a_restarted_kubelet() {
    check(Some(&wanted(RestartPolicy::Always)), Some(&seen(running(0), true)), "", None);
    check(Some(&wanted(RestartPolicy::Always)), Some(&seen(ObservedRun::Starting(attempt(0, 0)), true)), "", None);
}

#[test]
fn a_request_that_a_shim_did_not_live_to_read_is_made_again() {
    check(Some(&wanted(RestartPolicy::Never)), Some(&seen(ObservedRun::Starting(attempt(3, 1)), false)), "start main (3)", None);
}

#[test]
fn the_restart_policy_decides_what_follows_an_end() {
    let after = |cause: Cause| seen(ended(attempt(0, 0), cause, Duration::ZERO, 1_000), true);
    for (policy, cause, expected) in [
        (RestartPolicy::Always, Cause::Exited(0), "start main (1)"),
        (RestartPolicy::Unspecified, Cause::Exited(0), "start main (1)"),
        (RestartPolicy::OnFailure, Cause::Exited(0), ""),
        (RestartPolicy::OnFailure, Cause::Exited(3), "start main (1)"),
        (RestartPolicy::OnFailure, Cause::Signaled(9), "start main (1)"),
        (RestartPolicy::OnFailure, Cause::Lost, "start main (1)"),
        (RestartPolicy::OnFailure, Cause::StartFailed { code: 127, message: String::new() }, "start main (1)"),
        (RestartPolicy::Never, Cause::Exited(3), ""),
    ] {
        check(Some(&wanted(policy)), Some(&after(cause)), expected, None);
    }
}

#[test]
fn the_wait_before_a_restart_doubles_up_to_five_minutes() {
    for (streak, seconds) in [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (400, 300)] {
        let observed = seen(ended(attempt(7, streak), Cause::Exited(1), Duration::ZERO, 0), false);
        check(Some(&wanted(RestartPolicy::Always)), Some(&observed), "", Some(seconds * 1_000));
    }
}

#[test]
fn a_restart_comes_exactly_when_its_wait_is_over() {
    let desired = wanted(RestartPolicy::Always);
    check(Some(&desired), Some(&seen(ended(attempt(1, 1), Cause::Exited(1), Duration::ZERO, 1_999), false)), "", Some(1));
    check(Some(&desired), Some(&seen(ended(attempt(1, 1), Cause::Exited(1), Duration::ZERO, 2_000), false)), "start main (2)", None);
}

#[test]
fn ten_quiet_minutes_make_the_next_wait_the_first_again() {
    let next = |lasted| {
        let ObservedRun::Ended { attempt, ended } = ended(attempt(9, 9), Cause::Exited(1), lasted, 0) else { unreachable!() };
        restart(attempt, &ended)
    };
    assert_eq!(next(QUIET_TIME), (attempt(10, 1), Some(at(1_000))));
    assert_eq!(next(QUIET_TIME - Duration::from_millis(1)), (attempt(10, 10), Some(at(300_000))));
}

#[test]
fn a_run_without_its_shim_is_lost_before_anything_else_is_decided() {
    check(Some(&wanted(RestartPolicy::Never)), Some(&seen(running(2), false)), "mark lost", None);
    check(None, Some(&seen(running(2), false)), "mark lost, remove", None);
}

#[test]
fn a_deleted_pod_is_drained_before_it_is_stopped() {
    let desired = DesiredPod { deleted: Some(Duration::from_secs(3)), ..wanted(RestartPolicy::Always) };
    check(Some(&desired), Some(&seen(running(0), true)), "drain, stop (3 s), release, remove", None);
    let stopping = ObservedPod { stopping: Some(Duration::from_secs(3)), ..seen(running(0), true) };
    check(Some(&desired), Some(&stopping), "stop (3 s), release, remove", None);
    check(Some(&desired), Some(&seen(ended(attempt(0, 0), Cause::Exited(0), Duration::ZERO, 0), false)), "release, remove", None);
    check(Some(&desired), None, "release", None);
}

#[test]
fn a_grace_period_only_gets_shorter() {
    let stopping = ObservedPod { stopping: Some(Duration::from_secs(3)), ..seen(running(0), true) };
    let deleted = |seconds| DesiredPod { deleted: Some(Duration::from_secs(seconds)), ..wanted(RestartPolicy::Always) };
    check(Some(&deleted(1)), Some(&stopping), "stop (1 s), release, remove", None);
    check(Some(&deleted(9)), Some(&stopping), "stop (3 s), release, remove", None);
}

#[test]
fn a_pod_that_nobody_wants_is_stopped_and_removed() {
    check(None, Some(&seen(running(0), true)), "stop (30 s), remove", None);
    check(None, Some(&ObservedPod::default()), "remove", None);
    check(None, None, "", None);
}

#[test]
fn a_pod_that_has_ended_for_good_never_runs_again() {
    let desired = DesiredPod { is_finished: true, ..wanted(RestartPolicy::Always) };
    check(Some(&desired), None, "", None);
    check(Some(&desired), Some(&seen(ended(attempt(0, 0), Cause::Exited(0), Duration::ZERO, 60_000), false)), "", None);
    check(Some(&desired), Some(&seen(running(0), true)), "stop (30 s)", None);
}

#[test]
fn a_pod_that_this_node_cannot_run_is_not_begun() {
    let desired = DesiredPod { obstacle: Some("no runtime".into()), ..wanted(RestartPolicy::Always) };
    check(Some(&desired), None, "", None);
}

#[test]
fn a_container_whose_port_is_taken_waits_for_its_next_try() {
    let blocked = |retry_at| ObservedRun::Blocked { next: attempt(0, 0), message: "taken".into(), retry_at, tries: 1 };
    check(Some(&wanted(RestartPolicy::Always)), Some(&seen(blocked(at(700)), false)), "", Some(700));
    check(Some(&wanted(RestartPolicy::Always)), Some(&seen(blocked(at(0)), false)), "start main (0)", None);
}

#[test]
fn one_container_waits_while_another_starts() {
    let mut desired = wanted(RestartPolicy::Always);
    desired.containers.push("side".into());
    let observed = seen(ended(attempt(0, 0), Cause::Exited(1), Duration::ZERO, 0), true);
    check(Some(&desired), Some(&observed), "start side (0)", Some(1_000));
}

#[test]
fn a_stop_is_not_taken_back_but_forgotten_when_everything_has_ended() {
    let desired = wanted(RestartPolicy::Always);
    let stopping = ObservedPod { stopping: Some(Duration::ZERO), ..seen(running(0), true) };
    check(Some(&desired), Some(&stopping), "", None);
    let stopped =
        ObservedPod { stopping: Some(Duration::ZERO), ..seen(ended(attempt(0, 0), Cause::Signaled(15), Duration::ZERO, 5_000), false) };
    check(Some(&desired), Some(&stopped), "start main (1)", None);
}

#[test]
fn an_end_that_the_kubelet_asked_for_is_followed_by_a_start_without_back_off() {
    let desired = wanted(RestartPolicy::Always);
    let crashed = seen(ended(attempt(4, 4), Cause::Signaled(15), Duration::ZERO, 0), false);
    check(Some(&desired), Some(&crashed), "", Some(16_000));
    let stopped = ObservedPod { stopping: Some(Duration::ZERO), ..crashed };
    check(Some(&desired), Some(&stopped), "start main (5)", None);
}

/// A pod as any history may have left it, and what a kubelet would make of it.
#[derive(Clone, Debug)]
struct World {
    desired: Option<DesiredPod>,
    observed: Option<ObservedPod>,
}

impl World {
    /// As if every step took no time.
    fn apply(&mut self, plan: &Plan, now: i64) {
        for action in &plan.actions {
            match action {
                Action::Prepare => self.observed.get_or_insert_default().is_prepared = true,
                Action::Start { container, attempt } => {
                    let observed = self.observed.as_mut().expect("prepared before it is started");
                    assert!(observed.is_prepared, "started without a folder");
                    let running = ObservedRun::Running { attempt: *attempt, pid: 1, started_at: now };
                    (observed.is_guarded, observed.stopping) = (true, None);
                    observed.containers.retain(|known| {
                        let is_other = known.name != *container;
                        assert!(is_other || !matches!(known.run, ObservedRun::Running { .. }), "started twice");
                        is_other
                    });
                    observed.containers.push(ObservedContainer { name: container.clone(), run: running, previous: None });
                }
                Action::MarkLost => self.end_all(Cause::Lost, now),
                Action::Drain => assert!(matches!(plan.actions.get(1), Some(Action::Stop { .. })), "drained for nothing: {plan}"),
                Action::Stop { .. } => {
                    self.end_all(Cause::Signaled(15), now);
                    let observed = self.observed.as_mut().expect("only what is there is stopped");
                    (observed.is_guarded, observed.stopping) = (false, Some(Duration::ZERO));
                }
                Action::Release => self.desired = None,
                Action::Remove => {
                    let observed = self.observed.take().unwrap_or_default();
                    assert!(!observed.is_guarded, "removed while something ran: {plan}");
                }
            }
        }
    }

    fn end_all(&mut self, cause: Cause, now: i64) {
        for container in self.observed.iter_mut().flat_map(|observed| &mut observed.containers) {
            if let ObservedRun::Running { attempt, started_at, .. } = container.run {
                let ended = Ended { cause: cause.clone(), started_at, finished_at: now };
                container.run = ObservedRun::Ended { attempt, ended };
            }
        }
    }
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    (0..20_u32, 0..12_u32).prop_map(|(number, streak)| Attempt { number, streak })
}

fn any_run() -> impl Strategy<Value = ObservedRun> {
    let cause = prop_oneof![
        (0..3).prop_map(Cause::Exited),
        Just(Cause::Signaled(9)),
        Just(Cause::Lost),
        Just(Cause::StartFailed { code: 127, message: "none".into() }),
    ];
    prop_oneof![
        (any_attempt(), -2_000..2_000_i64, 1..5_u32).prop_map(|(next, offset, tries)| ObservedRun::Blocked {
            next,
            message: "taken".into(),
            retry_at: at(offset),
            tries
        }),
        any_attempt().prop_map(ObservedRun::Starting),
        any_attempt().prop_map(|attempt| ObservedRun::Running { attempt, pid: 9, started_at: NOW - 1 }),
        (any_attempt(), cause, 0..1_000_000_u64, 0..1_000_000_i64).prop_map(|(attempt, cause, lasted, ago)| ended(
            attempt,
            cause,
            Duration::from_millis(lasted),
            ago
        )),
    ]
}

fn any_desired() -> impl Strategy<Value = DesiredPod> {
    let policy = prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)];
    let deleted = proptest::option::weighted(0.3, (0..60_u64).prop_map(Duration::from_secs));
    let obstacle = proptest::option::weighted(0.1, Just("no runtime".to_owned()));
    (policy, deleted, proptest::bool::weighted(0.2), obstacle, 1..3_usize).prop_map(
        |(restart_policy, deleted, is_finished, obstacle, count)| {
            let containers = ["a", "b"][..count].iter().map(|name| (*name).to_owned()).collect();
            DesiredPod { containers, restart_policy, deleted, is_finished, obstacle }
        },
    )
}

fn any_observed() -> impl Strategy<Value = ObservedPod> {
    let runs = proptest::collection::vec((0..2_usize, any_run(), any::<bool>()), 0..3);
    let stopping = proptest::option::weighted(0.2, (0..60_u64).prop_map(Duration::from_secs));
    (any::<bool>(), stopping, runs).prop_map(|(is_guarded, stopping, runs)| {
        let mut containers: Vec<ObservedContainer> = Vec::new();
        for (index, run, _) in runs {
            let name = ["a", "b"][index].to_owned();
            if containers.iter().all(|known| known.name != name) {
                containers.push(ObservedContainer { name, run, previous: None });
            }
        }
        ObservedPod { is_prepared: !containers.is_empty(), is_guarded, stopping, grace: Duration::from_secs(30), containers }
    })
}

proptest! {
    /// What can't be stopped yet, since its stop goes on, is the one thing that a world without time can't finish in one step.
    #[test]
    fn after_a_plan_is_applied_there_is_nothing_left_to_do(
        desired in proptest::option::weighted(0.8, any_desired()),
        observed in proptest::option::weighted(0.8, any_observed()),
    ) {
        let mut world = World { desired, observed };
        let first = plan(world.desired.as_ref(), world.observed.as_ref(), &at(0));
        world.apply(&first, NOW);
        let second = plan(world.desired.as_ref(), world.observed.as_ref(), &at(0));
        prop_assert_eq!(&second.actions, &Vec::<Action>::new(), "first {}, then {}", first, second);
    }

    #[test]
    fn nothing_is_started_for_a_pod_that_is_deleted_unknown_or_finished(
        desired in any_desired(), observed in any_observed(), case in 0..3_u8,
    ) {
        let desired = match case {
            0 => None,
            1 => Some(DesiredPod { deleted: Some(Duration::ZERO), ..desired }),
            _ => Some(DesiredPod { is_finished: true, ..desired }),
        };
        let plan = plan(desired.as_ref(), Some(&observed), &at(0));
        prop_assert!(!plan.actions.iter().any(|action| matches!(action, Action::Start { .. })), "{}", plan);
    }
}
