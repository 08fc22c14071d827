//! What can't be started: why is told, and nothing else suffers.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{back_off, ended, last_end, main, terminated, waiting, waits};
use crate::api::v1::Pod;
use crate::api::v1::PodPhase::{Failed, Pending, Succeeded};

/// The main container has ended before it began, for a reason in which this stands.
fn not_started(pod: &Pod, code: i32, why: &str) -> bool {
    let told = |end: &crate::api::v1::ContainerStateTerminated| end.reason == "StartError" && end.message.contains(why);
    main(pod).and_then(terminated).is_some_and(|end| end.exit_code == code && told(end))
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "obstacles.no-such-program",
        promise: "A program that doesn't exist is told as such, with exit code 127",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, command: [no-such-program]}]}}",
            ),
            Phase("a", Failed),
            Until("a", "told why", |pod| not_started(pod, 127, "no-such-program")),
        ],
    },
    Case {
        name: "obstacles.no-such-path",
        promise: "A path at which there is no program is told as such, with exit code 127",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, command: ['@folder@no/such/program']}]}}",
            ),
            Phase("a", Failed),
            Until("a", "told why", |pod| not_started(pod, 127, "no/such/program")),
        ],
    },
    Case {
        name: "obstacles.not-executable",
        promise: "A folder in the place of a program is told as what can't be executed, with exit code 126",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, command: ['@folder@']}]}}",
            ),
            Phase("a", Failed),
            Until("a", "told why", |pod| not_started(pod, 126, "")),
        ],
    },
    Case {
        name: "obstacles.no-such-folder",
        promise: "A working folder that doesn't exist is told as such, and nothing is started",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, workingDir: '@folder@no-such-folder', command: [testapp]}]}}",
            ),
            Phase("a", Failed),
            Until("a", "told why", |pod| not_started(pod, 126, "no-such-folder")),
        ],
    },
    Case {
        name: "obstacles.start-is-tried-again",
        promise: "What can't be started is tried again, with a back-off, and the status says why and when",
        needs: &[],
        steps: &[
            Create("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, command: [no-such-program]}]}}"),
            Until("a", "waiting to be tried again", |pod| {
                let told = main(pod).and_then(waiting).is_some_and(|waiting| waiting.message.contains("no-such-program"));
                waits(pod, "StartError") && told && back_off(pod).is_some() && main(pod).is_some_and(|main| main.restart_count >= 1)
            }),
            Phase("a", Pending),
            Until("a", "the last try told", |pod| last_end(pod).is_some_and(|end| end.exit_code == 127)),
        ],
    },
    Case {
        name: "obstacles.neighbours",
        promise: "A pod that can't be started holds up no other",
        needs: &[],
        steps: &[
            Create("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, command: [no-such-program]}]}}"),
            Until("a", "in trouble", |pod| waits(pod, "StartError")),
            Once("b", &["exit", "0"]),
            Phase("b", Succeeded),
            Delete("a", None),
            Gone("a"),
        ],
    },
    Case {
        name: "obstacles.missing-capability",
        promise: "A pod that needs what the node can't do isn't started there, and says what is missing",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, image: no-such-runtime, command: [testapp]}]}}",
            ),
            Until("a", "told what is missing", |pod| {
                let status = pod.status.clone().unwrap_or_default();
                waits(pod, "MissingCapability") && status.message.contains("runtime.docker")
            }),
            Phase("a", Pending),
            Delete("a", None),
            Gone("a"),
        ],
    },
    Case {
        name: "obstacles.end-before-begin",
        promise: "A process that ends at once is told like any other",
        needs: &[],
        steps: &[Once("a", &[]), Phase("a", Succeeded), Until("a", "ended with 0", |pod| ended(pod, 0, "Completed"))],
    },
];
