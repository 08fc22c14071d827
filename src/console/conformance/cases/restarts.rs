//! When an ended container is started again, and how that is told.

use std::time::Duration;

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{back_off, ended, last_end, main, phase, runs_again, waits};
use crate::api::v1::PodPhase::{Failed, Running, Succeeded};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "restarts.always",
        promise: "With Always a container is started again whatever it returned, and its pod stays Running",
        needs: &[],
        steps: &[
            Always("a", &["runs", "count", "1", "0", "forever"]),
            Until("a", "running again", |pod| runs_again(pod, 1)),
            Until("a", "told how the first run ended", |pod| last_end(pod).is_some_and(|end| end.exit_code == 0)),
            Phase("a", Running),
        ],
    },
    Case {
        name: "restarts.on-failure-after-failure",
        promise: "With OnFailure a container is started again until it returns 0",
        needs: &[],
        steps: &[
            OnFailure("a", &["runs", "count", "2", "5"]),
            Phase("a", Succeeded),
            Until("a", "ended with 0 after two restarts", |pod| {
                ended(pod, 0, "Completed") && main(pod).is_some_and(|main| main.restart_count == 2)
            }),
        ],
    },
    Case {
        name: "restarts.on-failure-after-success",
        promise: "With OnFailure a container that returned 0 is not started again",
        needs: &[],
        steps: &[
            OnFailure("a", &["print", "once"]),
            Phase("a", Succeeded),
            Until("a", "never restarted", |pod| main(pod).is_some_and(|main| main.restart_count == 0)),
            Log("a", "once\n"),
        ],
    },
    Case {
        name: "restarts.never",
        promise: "With Never a container that failed is not started again",
        needs: &[],
        steps: &[
            Once("a", &["exit", "9"]),
            Phase("a", Failed),
            Until("a", "never restarted", |pod| ended(pod, 9, "Error") && main(pod).is_some_and(|main| main.restart_count == 0)),
        ],
    },
    Case {
        name: "restarts.told-while-waiting",
        promise: "A container that waits to be started again says so (CrashLoopBackOff), since when, until when and how it ended",
        needs: &[],
        steps: &[
            Always("a", &["exit", "3"]),
            Until("a", "waiting, with all that is known", |pod| {
                waits(pod, "CrashLoopBackOff") && last_end(pod).is_some_and(|end| end.exit_code == 3) && back_off(pod).is_some()
            }),
            Phase("a", Running),
        ],
    },
    Case {
        name: "restarts.back-off-grows",
        promise: "Each wait is twice as long as the one before, from one second on",
        needs: &[],
        steps: &[
            Always("a", &["exit", "1"]),
            Until("a", "waiting for 4 s", |pod| {
                let four_seconds = back_off(pod).is_some_and(|wait| wait == Duration::from_secs(4));
                main(pod).is_some_and(|main| main.restart_count == 2) && four_seconds
            }),
        ],
    },
    Case {
        name: "restarts.count",
        promise: "How often a container was started again is counted",
        needs: &[],
        steps: &[Always("a", &["runs", "count", "2", "1", "forever"]), Until("a", "running the third time", |pod| runs_again(pod, 2))],
    },
    Case {
        name: "restarts.one-of-several",
        promise: "A container that is started again leaves its neighbours alone",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [
                    {name: main, command: [testapp, runs, count, '1', '1', forever]},
                    {name: side, command: [testapp, print, side, forever]}]}}",
            ),
            Until("a", "running again", |pod| runs_again(pod, 1)),
            Until("a", "with the same neighbour", |pod| {
                super::super::look::container(pod, "side").is_some_and(|side| side.restart_count == 0 && side.ready)
            }),
            Log("a/side", "side\n"),
        ],
    },
    Case {
        name: "restarts.phase-is-final",
        promise: "A pod that is over never runs again",
        needs: &[],
        steps: &[
            Once("a", &["print", "once"]),
            Phase("a", Succeeded),
            // What makes the node look at everything it has.
            Once("b", &["exit", "1"]),
            Phase("b", Failed),
            Until("a", "still over", |pod| phase(pod) == Succeeded),
            Log("a", "once\n"),
        ],
    },
];
