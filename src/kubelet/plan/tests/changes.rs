//! Runs that were told what no longer holds.

use super::*;

const ALL: [RestartPolicy; 3] = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never];
const WHAT: &str = "what it uses has changed: ConfigMap \"web\"";

/// The pod's only container, which was told what no longer holds.
fn changed(run: ObservedRun) -> ObservedPod {
    let mut observed = seen(run, true);
    observed.containers[0].changed = Some(WHAT.to_owned());
    observed
}

/// As the end of a run that makes way for the next.
fn superseded(run: ObservedRun) -> ObservedRun {
    let ObservedRun::Ended { attempt, ended } = run else { return run };
    ObservedRun::Ended { attempt, ended: Ended { superseded: Some(WHAT.to_owned()), ..ended } }
}

fn ended_for_it(cause: Cause, lasted: Duration) -> ObservedPod {
    let mut observed = changed(superseded(ended(attempt(4, 3), cause, lasted, 0)));
    observed.containers[0].is_ending = true;
    observed
}

#[test]
fn a_run_that_was_told_what_no_longer_holds_is_ended_once_whatever_the_restart_policy() {
    for policy in ALL {
        check(Some(&wanted(policy)), Some(&changed(running(2))), "end main (2)", None);
        let mut ending = changed(running(2));
        ending.containers[0].is_ending = true;
        check(Some(&wanted(policy)), Some(&ending), "", None);
    }
    let plan = plan(Some(&wanted(RestartPolicy::Never)), Some(&changed(running(2))), &at(0));
    assert_eq!(plan.actions, [Action::End { container: "main".into(), attempt: 2, why: Why::Changed(WHAT.to_owned()) }]);
}

#[test]
fn what_was_ended_for_a_change_starts_at_once_and_has_not_failed() {
    for (policy, cause) in ALL.into_iter().zip([Cause::Signaled(15), Cause::Exited(0), Cause::Exited(3)]) {
        let observed = ended_for_it(cause, Duration::ZERO);
        check(Some(&wanted(policy)), Some(&observed), "start main (5)", None);
        assert!(!wanted(policy).is_over(Some(&observed)));
    }
    let next = |lasted| {
        let observed = ended_for_it(Cause::Signaled(9), lasted);
        next_start(&container("main", Role::Main, RestartPolicy::Always), observed.get("main"), true)
    };
    assert_eq!(next(Duration::ZERO), Some((attempt(5, 3), None)), "the row of failures before it goes on as it was");
    assert_eq!(next(Duration::from_mins(10)), Some((attempt(5, 0), None)));
}

#[test]
fn nothing_is_ended_before_the_folder_is_up_to_date_and_that_holds_up_nothing_else() {
    let mut desired = wanted(RestartPolicy::Always);
    desired.containers.push(container("other", Role::Main, RestartPolicy::Always));
    let outdated = ObservedPod { is_outdated: true, ..changed(running(0)) };
    check(Some(&desired), Some(&outdated), "configure, start other (0)", None);
    let retried = |offset| ObservedPod { refresh_at: Some(at(offset)), ..outdated.clone() };
    check(Some(&desired), Some(&retried(2_000)), "start other (0)", Some(2_000));
    check(Some(&desired), Some(&retried(0)), "configure, start other (0)", None);
    check(Some(&desired), Some(&retried(3_600_000)), "configure, start other (0)", None);
    let mut unhealthy = retried(2_000);
    unhealthy.containers[0].health.failure = Some("its liveness probe failed".to_owned());
    check(Some(&wanted(RestartPolicy::Always)), Some(&unhealthy), "end main (0)", Some(2_000));
}

#[test]
fn between_two_ends_for_changes_are_five_seconds() {
    let desired = wanted(RestartPolicy::Always);
    let again = |age: i64| {
        let mut observed = changed(ObservedRun::Running { attempt: attempt(2, 0), pid: 7, started_at: NOW - age });
        let ObservedRun::Ended { ended, .. } = superseded(ended(attempt(1, 0), Cause::Signaled(15), Duration::ZERO, age)) else {
            unreachable!()
        };
        observed.containers[0].previous = Some(ended);
        observed
    };
    check(Some(&desired), Some(&again(1_000)), "", Some(4_000));
    check(Some(&desired), Some(&again(5_000)), "end main (2)", None);
    check(Some(&desired), Some(&again(-1)), "end main (2)", None);
    // What ended by itself before is none of a row.
    let mut first = again(1_000);
    first.containers[0].previous.as_mut().unwrap().superseded = None;
    check(Some(&desired), Some(&first), "end main (2)", None);
}

#[test]
fn a_container_that_waits_for_its_back_off_is_started_at_once_with_what_holds_now() {
    let waits = |policy, cause| (wanted(policy), changed(ended(attempt(7, 7), cause, Duration::ZERO, 0)));
    let (desired, observed) = waits(RestartPolicy::Always, Cause::Exited(1));
    check(Some(&desired), Some(&observed), "start main (8)", None);
    // What has ended for good has.
    for (policy, cause) in [(RestartPolicy::Never, Cause::Exited(1)), (RestartPolicy::OnFailure, Cause::Exited(0))] {
        let (desired, observed) = waits(policy, cause);
        check(Some(&desired), Some(&observed), "", None);
    }
}

#[test]
fn neither_an_init_container_nor_a_pod_that_ends_is_started_again_for_a_change() {
    let mut init = wanted(RestartPolicy::Always);
    init.containers[0].role = Role::Init;
    check(Some(&init), Some(&changed(running(0))), "", None);
    let mut sidecar = wanted(RestartPolicy::Always);
    sidecar.containers[0].role = Role::Sidecar;
    check(Some(&sidecar), Some(&changed(running(0))), "end main (0)", None);
    let deleted = DesiredPod { deleted: Some(Duration::from_secs(3)), ..wanted(RestartPolicy::Always) };
    check(Some(&deleted), Some(&changed(running(0))), "drain, stop (3 s), release, remove", None);
    let stopping = ObservedPod { stopping: Some(Duration::ZERO), ..changed(running(0)) };
    check(Some(&wanted(RestartPolicy::Always)), Some(&stopping), "", None);
    let lost = ObservedPod { is_guarded: false, ..changed(running(0)) };
    check(Some(&wanted(RestartPolicy::Never)), Some(&lost), "mark lost", None);
}
