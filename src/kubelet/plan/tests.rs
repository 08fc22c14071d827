mod changes;
mod order;
mod property;

use super::*;
use crate::api::v1::RestartPolicy;
use crate::kubelet::shim::files::{Cause, Ended};

const NOW: i64 = 1_000_000_000;

fn wanted(policy: RestartPolicy) -> DesiredPod {
    DesiredPod {
        containers: vec![container("main", Role::Main, policy)],
        deleted: None,
        is_finished: false,
        obstacle: None,
        unenforced: None,
    }
}

fn container(name: &str, role: Role, policy: RestartPolicy) -> DesiredContainer {
    DesiredContainer { name: name.into(), role, policy, backoff: OWN_BACKOFF }
}

fn seen(run: ObservedRun, is_guarded: bool) -> ObservedPod {
    ObservedPod {
        is_prepared: true,
        is_outdated: false,
        refresh_at: None,
        is_guarded,
        is_out_of_reach: false,
        is_desired_lost: false,
        stopping: None,
        grace: Duration::from_secs(30),
        unkillable: String::new(),
        containers: vec![ObservedContainer {
            name: "main".into(),
            run,
            previous: None,
            health: Health::default(),
            is_ending: false,
            changed: None,
            held_until: None,
            clock_set: 0,
        }],
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
    ObservedRun::Ended {
        attempt,
        ended: Ended { cause, started_at: finished_at - lasted.as_millis() as i64, finished_at, superseded: None },
    }
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
    desired.containers = ["b", "a"].map(|name| container(name, Role::Main, RestartPolicy::Always)).to_vec();
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
        let observed = seen(ObservedRun::Ended { attempt, ended }, true);
        next_start(&container("main", Role::Main, RestartPolicy::Always), observed.get("main"), true)
    };
    assert_eq!(next(Duration::from_mins(10)), Some((attempt(10, 1), Some(at(1_000)))));
    assert_eq!(next(Duration::from_mins(10) - Duration::from_millis(1)), Some((attempt(10, 10), Some(at(300_000)))));
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
    let blocked = |retry_at| ObservedRun::Blocked { next: attempt(0, 0), reason: "PortTaken", message: "taken".into(), retry_at, tries: 1 };
    check(Some(&wanted(RestartPolicy::Always)), Some(&seen(blocked(at(700)), false)), "", Some(700));
    check(Some(&wanted(RestartPolicy::Always)), Some(&seen(blocked(at(0)), false)), "start main (0)", None);
}

#[test]
fn a_change_of_what_a_pod_uses_is_brought_to_it_before_anything_starts_and_not_once_it_ends() {
    let observed = ObservedPod { is_outdated: true, ..seen(running(0), true) };
    check(Some(&wanted(RestartPolicy::Always)), Some(&observed), "configure", None);
    let crashed = ObservedPod { is_outdated: true, ..seen(ended(attempt(0, 0), Cause::Exited(1), Duration::ZERO, 60_000), true) };
    check(Some(&wanted(RestartPolicy::Always)), Some(&crashed), "configure, start main (1)", None);
    let deleted = DesiredPod { deleted: Some(Duration::ZERO), ..wanted(RestartPolicy::Always) };
    check(Some(&deleted), Some(&observed), "drain, stop (0 s), release, remove", None);
}

#[test]
fn one_container_waits_while_another_starts() {
    let mut desired = wanted(RestartPolicy::Always);
    desired.containers.push(container("side", Role::Main, RestartPolicy::Always));
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
    let stopped = ObservedPod { stopping: Some(Duration::ZERO), ..crashed.clone() };
    check(Some(&desired), Some(&stopped), "start main (5)", None);
    let mut alone = crashed;
    alone.containers[0].is_ending = true;
    check(Some(&desired), Some(&alone), "start main (5)", None);
}

#[test]
fn a_container_waits_as_its_own_back_off_says() {
    let mut desired = wanted(RestartPolicy::Always);
    let seconds = Duration::from_secs;
    desired.containers[0].backoff = Backoff { initial: seconds(2), factor: 3.0, cap: seconds(60), reset: seconds(5) };
    for (streak, lasted, wait) in [(0, 0, 2), (1, 4, 6), (2, 4, 18), (3, 4, 54), (4, 4, 60), (u32::MAX, 4, 60), (4, 5, 2)] {
        let observed = seen(ended(attempt(7, streak), Cause::Exited(1), seconds(lasted), 0), false);
        check(Some(&desired), Some(&observed), "", Some(wait * 1_000));
    }
    desired.containers[0].backoff = Backoff { initial: seconds(7), factor: 1.0, cap: seconds(7), reset: Duration::ZERO };
    check(Some(&desired), Some(&seen(ended(attempt(7, 9), Cause::Exited(1), seconds(0), 0), false)), "", Some(7_000));
}

const HOUR: i64 = 60 * 60 * 1_000;

#[test]
fn a_clock_that_was_set_back_ends_a_wait_instead_of_making_it_an_hour_longer() {
    let desired = wanted(RestartPolicy::Always);
    let before = |streak, ago| seen(ended(attempt(3, streak), Cause::Exited(1), Duration::ZERO, ago), false);
    // It ended an hour ahead of what the clock shows now.
    check(Some(&desired), Some(&before(5, -HOUR)), "start main (4)", None);
    check(Some(&desired), Some(&before(5, -1)), "start main (4)", None);
    let blocked = |retry_in| ObservedRun::Blocked {
        next: attempt(0, 0),
        reason: "PortTaken",
        message: "taken".into(),
        retry_at: at(retry_in),
        tries: 1,
    };
    check(Some(&desired), Some(&seen(blocked(HOUR), false)), "start main (0)", None);
    check(Some(&desired), Some(&seen(blocked(299_000), false)), "", Some(299_000));
}

#[test]
fn a_wait_keeps_its_length_when_the_clock_is_set_meanwhile() {
    let desired = wanted(RestartPolicy::Always);
    for set in [-HOUR, HOUR] {
        // It ended by the clock before.
        let seen = |ago| {
            let mut seen = seen(ended(attempt(3, 5), Cause::Exited(1), Duration::ZERO, ago + set), false);
            seen.containers[0].clock_set = set;
            seen
        };
        check(Some(&desired), Some(&seen(1_000)), "", Some(31_000));
        check(Some(&desired), Some(&seen(31_999)), "", Some(1));
        check(Some(&desired), Some(&seen(32_000)), "start main (4)", None);
    }
}

#[test]
fn after_the_clock_was_set_back_a_crashing_container_backs_off_as_before() {
    let desired = wanted(RestartPolicy::Always);
    // The first start after the jump comes at once; its end is of the new time, and the row of failures goes on.
    let observed = seen(ended(attempt(4, 6), Cause::Exited(1), Duration::from_millis(5), 0), false);
    check(Some(&desired), Some(&observed), "", Some(64_000));
    // A run that began before the jump and ended after it lasted less than nothing, and no time at all counts as long.
    let mut odd = seen(ended(attempt(4, 6), Cause::Exited(1), Duration::ZERO, 0), false);
    if let ObservedRun::Ended { ended, .. } = &mut odd.containers[0].run {
        ended.started_at += HOUR;
    }
    check(Some(&desired), Some(&odd), "", Some(64_000));
}

/// The pod's only container, of which a probe has said this.
fn unhealthy(run: ObservedRun, is_ending: bool) -> ObservedPod {
    let mut observed = seen(run, true);
    observed.containers[0].health.failure = Some("its liveness probe failed: no answer".to_owned());
    observed.containers[0].is_ending = is_ending;
    observed
}

#[test]
fn a_run_whose_probe_has_failed_is_ended_once_and_counts_as_a_failure_whatever_it_returns() {
    check(Some(&wanted(RestartPolicy::Never)), Some(&unhealthy(running(2), false)), "end main (2)", None);
    check(Some(&wanted(RestartPolicy::Never)), Some(&unhealthy(running(2), true)), "", None);
    let ended = |ago| unhealthy(ended(attempt(2, 0), Cause::Exited(0), Duration::from_secs(9), ago), true);
    check(Some(&wanted(RestartPolicy::OnFailure)), Some(&ended(0)), "", Some(1_000));
    check(Some(&wanted(RestartPolicy::OnFailure)), Some(&ended(1_000)), "start main (3)", None);
    check(Some(&wanted(RestartPolicy::Never)), Some(&ended(1_000)), "", None);
    // Without its shim it is lost, and nobody could end it.
    check(Some(&wanted(RestartPolicy::Never)), Some(&ObservedPod { is_guarded: false, ..unhealthy(running(2), false) }), "mark lost", None);
}

#[test]
fn a_pod_whose_folder_was_removed_is_first_of_all_lost_whatever_is_known_of_it() {
    let away = |run| ObservedPod { is_out_of_reach: true, is_prepared: false, ..seen(run, false) };
    let wanted = wanted(RestartPolicy::Always);
    for run in [running(0), ObservedRun::Starting(attempt(0, 0)), ended(attempt(0, 0), Cause::Exited(0), Duration::ZERO, 0)] {
        check(Some(&wanted), Some(&away(run.clone())), "mark lost", None);
        let deleted = DesiredPod { deleted: Some(Duration::from_secs(3)), ..wanted.clone() };
        check(Some(&deleted), Some(&away(run.clone())), "mark lost, release, remove", None);
        check(None, Some(&away(run)), "mark lost, remove", None);
    }
}

#[test]
fn what_a_shim_was_asked_for_is_said_again_when_it_is_damaged_also_before_it_is_stopped() {
    let wanted = wanted(RestartPolicy::Always);
    let damaged = ObservedPod { is_desired_lost: true, ..seen(running(0), true) };
    check(Some(&wanted), Some(&damaged), "ask again", None);
    let deleted = DesiredPod { deleted: Some(Duration::from_secs(3)), ..wanted };
    check(Some(&deleted), Some(&damaged), "drain, ask again, stop (3 s), release, remove", None);
}
