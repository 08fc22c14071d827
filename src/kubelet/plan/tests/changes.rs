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
fn a_folder_that_cannot_be_brought_up_to_date_holds_up_nothing_by_itself() {
    let mut desired = wanted(RestartPolicy::Always);
    desired.containers.push(container("other", Role::Main, RestartPolicy::Always));
    let outdated = ObservedPod { is_outdated: true, ..changed(running(0)) };
    // Of what a container mounts itself is made sure before it is ended.
    check(Some(&desired), Some(&outdated), "configure, end main (0), start other (0)", None);
    let retried = |offset| ObservedPod { refresh_at: Some(at(offset)), ..outdated.clone() };
    check(Some(&desired), Some(&retried(2_000)), "end main (0), start other (0)", Some(2_000));
    check(Some(&desired), Some(&retried(0)), "configure, end main (0), start other (0)", None);
    check(Some(&desired), Some(&retried(3_600_000)), "configure, end main (0), start other (0)", None);
}

#[test]
fn a_run_whose_next_one_could_not_be_started_goes_on_until_that_is_tried_again() {
    let mut desired = wanted(RestartPolicy::Always);
    desired.containers.push(container("other", Role::Main, RestartPolicy::Always));
    let held = |offset| {
        let mut observed = changed(running(0));
        observed.containers[0].held_until = Some(at(offset));
        observed
    };
    check(Some(&desired), Some(&held(2_000)), "start other (0)", Some(2_000));
    check(Some(&desired), Some(&held(0)), "end main (0), start other (0)", None);
    check(Some(&desired), Some(&held(3_600_000)), "end main (0), start other (0)", None);
    let mut unhealthy = held(2_000);
    unhealthy.containers[0].health.failure = Some("its liveness probe failed".to_owned());
    check(Some(&wanted(RestartPolicy::Always)), Some(&unhealthy), "end main (0)", None);
}

#[test]
fn from_a_start_to_the_next_one_for_a_change_are_five_seconds_whatever_ended_the_run_before() {
    let desired = wanted(RestartPolicy::Always);
    let again = |number: u32, age: i64| changed(ObservedRun::Running { attempt: attempt(number, 0), pid: 7, started_at: NOW - age });
    check(Some(&desired), Some(&again(2, 1_000)), "", Some(4_000));
    check(Some(&desired), Some(&again(2, 5_000)), "end main (2)", None);
    check(Some(&desired), Some(&again(2, -1)), "end main (2)", None);
    check(Some(&desired), Some(&again(0, 1_000)), "end main (0)", None);
}

#[test]
fn a_container_that_waits_for_its_back_off_is_started_with_what_holds_now_but_not_at_each_change_of_many() {
    let waits = |policy, cause, ago| (wanted(policy), changed(ended(attempt(7, 7), cause, Duration::ZERO, ago)));
    let (desired, observed) = waits(RestartPolicy::Always, Cause::Exited(1), 5_000);
    check(Some(&desired), Some(&observed), "start main (8)", None);
    let (desired, observed) = waits(RestartPolicy::Always, Cause::Exited(1), 1_000);
    check(Some(&desired), Some(&observed), "", Some(4_000));
    let (desired, observed) = waits(RestartPolicy::Always, Cause::Exited(1), -1_000);
    check(Some(&desired), Some(&observed), "start main (8)", None);
    // A back-off that is over sooner is.
    let mut first = changed(ended(attempt(0, 0), Cause::Exited(1), Duration::ZERO, 200));
    check(Some(&desired), Some(&first), "", Some(800));
    first.containers[0].run = ended(attempt(0, 0), Cause::Exited(1), Duration::ZERO, 1_000);
    check(Some(&desired), Some(&first), "start main (1)", None);
    // What has ended for good has.
    for (policy, cause) in [(RestartPolicy::Never, Cause::Exited(1)), (RestartPolicy::OnFailure, Cause::Exited(0))] {
        let (desired, observed) = waits(policy, cause, 5_000);
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
