//! Init containers first, sidecars beside.

use super::*;

const WELL: Cause = Cause::Exited(0);
const BADLY: Cause = Cause::Exited(3);

/// Two init containers with a sidecar between them, and a main container.
fn pod(main: RestartPolicy) -> DesiredPod {
    let containers = vec![
        container("fetch", Role::Init, RestartPolicy::OnFailure),
        container("proxy", Role::Sidecar, RestartPolicy::Always),
        container("migrate", Role::Init, RestartPolicy::OnFailure),
        container("main", Role::Main, main),
    ];
    DesiredPod { containers, ..wanted(main) }
}

/// What is known of the containers that have a run; the pod is guarded when one runs.
fn with(runs: &[(&str, ObservedRun)]) -> ObservedPod {
    let containers = runs.iter().map(|(name, run)| ObservedContainer {
        name: (*name).into(),
        run: run.clone(),
        previous: None,
        health: Health::default(),
        is_ending: false,
        changed: None,
        held_until: None,
        clock_set: 0,
    });
    let lives = |run: &ObservedRun| matches!(run, ObservedRun::Running { .. } | ObservedRun::Starting(_));
    ObservedPod { containers: containers.collect(), ..seen(running(0), runs.iter().any(|(_, run)| lives(run))) }
}

fn done(cause: Cause) -> ObservedRun {
    ended(attempt(0, 0), cause, Duration::ZERO, 100)
}

#[test]
fn each_init_container_ends_well_before_the_next_starts_and_a_sidecar_only_starts() {
    let (desired, up) = (pod(RestartPolicy::Always), running(0));
    check(Some(&desired), None, "prepare, start fetch (0)", None);
    check(Some(&desired), Some(&with(&[("fetch", up.clone())])), "", None);
    check(Some(&desired), Some(&with(&[("fetch", done(WELL))])), "start proxy (0)", None);
    let starting = ObservedRun::Starting(attempt(0, 0));
    check(Some(&desired), Some(&with(&[("fetch", done(WELL)), ("proxy", starting)])), "", None);
    check(Some(&desired), Some(&with(&[("fetch", done(WELL)), ("proxy", up.clone())])), "start migrate (0)", None);
    check(Some(&desired), Some(&with(&[("fetch", done(WELL)), ("proxy", up.clone()), ("migrate", up.clone())])), "", None);
    let all = with(&[("fetch", done(WELL)), ("proxy", up), ("migrate", done(WELL))]);
    check(Some(&desired), Some(&all), "start main (0)", None);
}

#[test]
fn an_init_container_that_fails_is_started_again_with_back_off_and_nothing_after_it_starts() {
    check(Some(&pod(RestartPolicy::Always)), Some(&with(&[("fetch", done(BADLY))])), "", Some(900));
    let late = with(&[("fetch", ended(attempt(2, 0), BADLY, Duration::ZERO, 1_000))]);
    check(Some(&pod(RestartPolicy::Always)), Some(&late), "start fetch (3)", None);
}

#[test]
fn an_init_container_that_fails_for_good_ends_the_sidecars_before_it() {
    let mut desired = pod(RestartPolicy::Always);
    desired.containers[2].policy = RestartPolicy::Never;
    let observed = with(&[("fetch", done(WELL)), ("proxy", running(0)), ("migrate", done(BADLY))]);
    check(Some(&desired), Some(&observed), "stop (30 s)", None);
    let stopped = with(&[("fetch", done(WELL)), ("proxy", done(Cause::Signaled(15))), ("migrate", done(BADLY))]);
    check(Some(&desired), Some(&ObservedPod { stopping: Some(Duration::from_secs(30)), ..stopped }), "", None);
}

#[test]
fn a_sidecar_that_ends_is_started_again_and_holds_nobody_up_who_ran_before() {
    let desired = pod(RestartPolicy::Always);
    let pod =
        |proxy: ObservedRun, main: ObservedRun| with(&[("fetch", done(WELL)), ("proxy", proxy), ("migrate", done(WELL)), ("main", main)]);
    let old = |number| ended(attempt(number, 0), BADLY, Duration::ZERO, 1_000);
    check(Some(&desired), Some(&pod(old(4), running(0))), "start proxy (5)", None);
    check(Some(&desired), Some(&pod(done(WELL), old(0))), "start main (1)", Some(900));
    // When nothing of the pod runs any more, its order holds again.
    check(Some(&desired), Some(&pod(old(4), old(0))), "start proxy (5)", None);
    check(Some(&desired), Some(&pod(ObservedRun::Starting(attempt(5, 1)), old(0))), "", None);
    check(Some(&desired), Some(&pod(running(5), old(0))), "start main (1)", None);
}

#[test]
fn a_sidecar_that_waits_to_be_started_again_holds_up_what_never_ran() {
    let observed = with(&[("fetch", done(WELL)), ("proxy", done(BADLY))]);
    check(Some(&pod(RestartPolicy::Always)), Some(&observed), "", Some(900));
}

#[test]
fn sidecars_end_when_the_main_containers_have_ended_for_good_and_are_not_started_again() {
    let all = |proxy: ObservedRun| with(&[("fetch", done(WELL)), ("proxy", proxy), ("migrate", done(WELL)), ("main", done(WELL))]);
    check(Some(&pod(RestartPolicy::OnFailure)), Some(&all(running(2))), "stop (30 s)", None);
    check(Some(&pod(RestartPolicy::OnFailure)), Some(&all(done(WELL))), "", None);
    let stopped = ObservedPod { stopping: Some(Duration::from_secs(30)), ..all(done(Cause::Signaled(15))) };
    check(Some(&pod(RestartPolicy::OnFailure)), Some(&stopped), "", None);
    check(Some(&pod(RestartPolicy::Always)), Some(&all(running(2))), "", Some(900));
}

#[test]
fn init_containers_are_not_run_again_by_a_restart_of_everything_else() {
    let lost = ended(attempt(0, 0), Cause::Lost, Duration::ZERO, 5_000);
    let observed = with(&[("fetch", done(WELL)), ("proxy", lost.clone()), ("migrate", done(WELL)), ("main", lost)]);
    check(Some(&pod(RestartPolicy::Always)), Some(&observed), "start proxy (1)", None);
}

#[test]
fn what_the_pod_waits_for_is_told_in_order() {
    let desired = pod(RestartPolicy::Always);
    assert_eq!(desired.uninitialized(None), ["fetch", "proxy", "migrate"]);
    let later = with(&[("fetch", done(WELL)), ("proxy", running(0)), ("migrate", running(0))]);
    assert_eq!(desired.uninitialized(Some(&later)), ["migrate"]);
    let begun = with(&[("fetch", done(WELL)), ("proxy", done(BADLY)), ("migrate", done(WELL)), ("main", running(0))]);
    assert_eq!(desired.uninitialized(Some(&begun)), Vec::<&str>::new());
}

#[test]
fn a_sidecar_that_has_not_started_yet_is_waited_for() {
    let desired = pod(RestartPolicy::Always);
    let mut observed = with(&[("fetch", done(WELL)), ("proxy", running(0))]);
    observed.containers[1].health.started = false;
    check(Some(&desired), Some(&observed), "", None);
    assert_eq!(desired.uninitialized(Some(&observed)), ["proxy", "migrate"]);
    observed.containers[1].health.started = true;
    check(Some(&desired), Some(&observed), "start migrate (0)", None);
}
