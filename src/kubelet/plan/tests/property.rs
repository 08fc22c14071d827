use proptest::prelude::*;

use super::*;

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
                Action::Configure => self.observed.get_or_insert_default().is_outdated = false,
                Action::AskAgain => {
                    let observed = self.observed.as_mut().expect("somebody was asked");
                    assert!(observed.is_guarded, "nobody is there to be asked");
                    observed.is_desired_lost = false;
                }
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
                    observed.containers.push(ObservedContainer {
                        name: container.clone(),
                        run: running,
                        previous: None,
                        health: Health::default(),
                        is_ending: false,
                        changed: None,
                        held_until: None,
                        clock_set: 0,
                    });
                }
                Action::End { container, why, .. } => {
                    assert!(self.observed.as_ref().is_some_and(|observed| observed.is_guarded), "ended without anybody who does it");
                    self.end(container, Cause::Signaled(15), now);
                    if let Why::Changed(why) = why {
                        self.supersede(container, why);
                    }
                }
                Action::MarkLost => {
                    self.end_all(Cause::Lost, now);
                    self.observed.as_mut().expect("something was there").is_out_of_reach = false;
                }
                Action::Drain => {
                    let is_stop = |action: &Action| matches!(action, Action::Stop { .. });
                    assert!(plan.actions.iter().any(is_stop), "drained for nothing: {plan}");
                }
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
        ["a", "b", "c"].into_iter().for_each(|name| self.end(name, cause.clone(), now));
    }

    /// The next run takes the place of the one that has ended.
    fn supersede(&mut self, name: &str, why: &str) {
        let containers = self.observed.iter_mut().flat_map(|observed| &mut observed.containers);
        for container in containers.filter(|container| container.name == name) {
            if let ObservedRun::Ended { ended, .. } = &mut container.run {
                ended.superseded = Some(why.to_owned());
            }
        }
    }

    /// A container that runs ends.
    fn end(&mut self, name: &str, cause: Cause, now: i64) {
        let containers = self.observed.iter_mut().flat_map(|observed| &mut observed.containers);
        for container in containers.filter(|container| container.name == name) {
            if let ObservedRun::Running { attempt, started_at, .. } = container.run {
                let ended = Ended { cause: cause.clone(), started_at, finished_at: now, superseded: None };
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
            reason: "PortTaken",
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

fn any_container(name: &'static str) -> impl Strategy<Value = DesiredContainer> {
    let policy = prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)];
    let role = prop_oneof![1 => Just(Role::Init), 1 => Just(Role::Sidecar), 2 => Just(Role::Main)];
    (role, policy).prop_map(move |(role, policy)| match role {
        Role::Sidecar => container(name, role, RestartPolicy::Always),
        Role::Init if policy == RestartPolicy::Always => container(name, role, RestartPolicy::OnFailure),
        role => container(name, role, policy),
    })
}

/// Init containers and sidecars first, and at least one main one.
fn any_containers() -> impl Strategy<Value = Vec<DesiredContainer>> {
    (any_container("a"), any_container("b"), any_container("c"), 1..4_usize).prop_map(|(a, b, c, count)| {
        let mut containers = [a, b, c][..count].to_vec();
        containers.sort_by_key(|container| container.role == Role::Main);
        let last = containers.last_mut().expect("at least one");
        if last.role != Role::Main {
            *last = container(&last.name, Role::Main, last.policy);
        }
        containers
    })
}

fn any_desired() -> impl Strategy<Value = DesiredPod> {
    let deleted = proptest::option::weighted(0.3, (0..60_u64).prop_map(Duration::from_secs));
    let obstacle = proptest::option::weighted(0.1, Just("no runtime".to_owned()));
    (any_containers(), deleted, proptest::bool::weighted(0.2), obstacle).prop_map(|(containers, deleted, is_finished, obstacle)| {
        DesiredPod { containers, deleted, is_finished, obstacle, unenforced: None }
    })
}

fn any_health() -> impl Strategy<Value = Health> {
    let failure = proptest::option::weighted(0.2, Just("its liveness probe failed".to_owned()));
    (proptest::bool::weighted(0.8), any::<bool>(), failure).prop_map(|(started, ready, failure)| Health {
        started,
        ready,
        failure,
        ..Health::default()
    })
}

fn any_observed() -> impl Strategy<Value = ObservedPod> {
    let changed = proptest::option::weighted(0.3, Just("what it uses has changed".to_owned()));
    let held_until = proptest::option::weighted(0.1, (-2_000..2_000_i64).prop_map(at));
    let runs = proptest::collection::vec((0..3_usize, any_run(), any_health(), any::<bool>(), changed, held_until), 0..4);
    let refresh_at = proptest::option::weighted(0.2, (-2_000..2_000_i64).prop_map(at));
    let stopping = proptest::option::weighted(0.2, (0..60_u64).prop_map(Duration::from_secs));
    let (is_out_of_reach, is_desired_lost) = (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1));
    let flags = (any::<bool>(), any::<bool>(), is_out_of_reach, is_desired_lost);
    (flags, refresh_at, stopping, runs).prop_map(|(flags, refresh_at, stopping, runs)| {
        let (is_guarded, is_outdated, is_out_of_reach, is_desired_lost) = flags;
        let mut containers: Vec<ObservedContainer> = Vec::new();
        for (index, run, health, is_ending, changed, held_until) in runs {
            let name = ["a", "b", "c"][index].to_owned();
            if containers.iter().all(|known| known.name != name) {
                containers.push(ObservedContainer { name, run, previous: None, health, is_ending, changed, held_until, clock_set: 0 });
            }
        }
        ObservedPod {
            is_prepared: !containers.is_empty() && !is_out_of_reach,
            is_outdated,
            refresh_at,
            is_guarded: is_guarded && !is_out_of_reach,
            is_out_of_reach,
            is_desired_lost: is_desired_lost && is_guarded && !is_out_of_reach,
            stopping,
            grace: Duration::from_secs(30),
            unkillable: String::new(),
            containers,
        }
    })
}

/// What starts has every init container before it behind it, and every sidecar before it up or, if it ran before, at least tried.
fn check_order(desired: &DesiredPod, observed: Option<&ObservedPod>, plan: &Plan) -> Result<(), TestCaseError> {
    let known = |name: &str| observed.and_then(|observed| observed.get(name));
    let run = |name: &str| known(name).map(|known| &known.run);
    for action in &plan.actions {
        let Action::Start { container, .. } = action else { continue };
        let before = desired.containers.iter().take_while(|known| known.name != *container);
        for earlier in before.filter(|earlier| earlier.role != Role::Main) {
            let is_behind = match (earlier.role, run(&earlier.name)) {
                (Role::Init, _) => known(&earlier.name).and_then(ObservedContainer::ended_well) == Some(true),
                (Role::Sidecar, Some(ObservedRun::Running { .. })) => true,
                (Role::Sidecar, Some(_)) => run(container).is_some(),
                _ => false,
            };
            prop_assert!(is_behind, "{plan}, but {} is {:?}", earlier.name, run(&earlier.name));
        }
    }
    Ok(())
}

proptest! {
    /// What can't be stopped yet, since its stop goes on, is the one thing that a world without time can't finish in one step.
    #[test]
    fn after_a_plan_is_applied_there_is_nothing_left_to_do(
        desired in proptest::option::weighted(0.8, any_desired()),
        observed in proptest::option::weighted(0.8, any_observed()),
    ) {
        let mut world = World { desired, observed };
        let mut plans = Vec::new();
        // Each sidecar is a step of its own, as what comes after it waits until it has started.
        for _ in 0..5 {
            let plan = plan(world.desired.as_ref(), world.observed.as_ref(), &at(0));
            world.apply(&plan, NOW);
            plans.push(plan.to_string());
        }
        prop_assert_eq!(plans.last().map(String::as_str), Some(""), "{:?}", plans);
    }

    #[test]
    fn whatever_ends_when_a_pod_comes_to_its_end_and_nothing_starts_out_of_order(
        containers in any_containers(), ends in proptest::collection::vec((0..3_usize, 0..2_i32), 0..40),
    ) {
        let desired = DesiredPod { containers, deleted: None, is_finished: false, obstacle: None, unenforced: None };
        let mut world = World { desired: Some(desired.clone()), observed: None };
        let mut now = NOW;
        // At last everything ends well, so that every pod whose policies allow it comes to its end.
        for (index, code) in ends.into_iter().chain((0..12).map(|round| (round % 3, 0))) {
            now += 400_000;
            for _ in 0..5 {
                let plan = plan(world.desired.as_ref(), world.observed.as_ref(), &from_millis(now));
                check_order(&desired, world.observed.as_ref(), &plan)?;
                world.apply(&plan, now);
            }
            world.end(["a", "b", "c"][index], Cause::Exited(code), now);
        }
        let is_running = |known: &ObservedContainer| matches!(known.run, ObservedRun::Running { .. });
        if desired.is_over(world.observed.as_ref()) {
            let plan = plan(world.desired.as_ref(), world.observed.as_ref(), &from_millis(now));
            world.apply(&plan, now);
            prop_assert!(world.observed.iter().flat_map(|observed| &observed.containers).all(|known| !is_running(known)));
        } else {
            prop_assert!(desired.containers.iter().any(|container| container.role == Role::Main && container.policy == RestartPolicy::Always));
        }
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
