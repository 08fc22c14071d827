//! Several containers: those that come first, those that run beside, and those with a policy of their own.

use std::time::Duration;

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{back_off, container, init, is_ready, main, running, terminated, waits};
use crate::api::condition;
use crate::api::v1::PodPhase::{Failed, Pending, Running, Succeeded};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "init.order",
        promise: "Init containers run one after the other, each to its end, before the others begin",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never,
                    initContainers: [
                        {name: one, command: [testapp, sleep, '200', list, ., write, one, '1']},
                        {name: two, command: [testapp, list, ., write, two, '2']}],
                    containers: [{name: main, command: [testapp, list, .]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a/one", "\n"),
            Log("a/two", "one\n"),
            Log("a/main", "one two\n"),
        ],
    },
    Case {
        name: "init.told-while-it-runs",
        promise: "While an init container runs its pod is Pending and not Initialized, and the others wait for it (PodInitializing)",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {
                    initContainers: [{name: one, command: [testapp, wait-for, never]}],
                    containers: [{name: main, command: [testapp, forever]}]}}",
            ),
            Until("a", "waiting for the init container", |pod| {
                let status = pod.status.clone().unwrap_or_default();
                let initialized = condition::is_true(&status.conditions, "Initialized");
                waits(pod, "PodInitializing") && init(pod, "one").and_then(running).is_some() && !initialized
            }),
            Phase("a", Pending),
        ],
    },
    Case {
        name: "init.initialized",
        promise: "When all init containers have ended well their pod is Initialized, and their ends are told",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {
                    initContainers: [{name: one, command: [testapp, exit, '0']}],
                    containers: [{name: main, command: [testapp, forever]}]}}",
            ),
            Phase("a", Running),
            Until("a", "Initialized", |pod| {
                let status = pod.status.clone().unwrap_or_default();
                let end = init(pod, "one").and_then(terminated);
                condition::is_true(&status.conditions, "Initialized") && end.is_some_and(|end| end.exit_code == 0)
            }),
        ],
    },
    Case {
        name: "init.failure",
        promise: "Where nothing is started again, an init container that fails makes its pod Failed, and the others never begin",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never,
                    initContainers: [{name: one, command: [testapp, exit, '3']}],
                    containers: [{name: main, command: [testapp, forever]}]}}",
            ),
            Phase("a", Failed),
            Until("a", "told by the init container's end", |pod| {
                init(pod, "one").and_then(terminated).is_some_and(|end| end.exit_code == 3)
            }),
            Until("a", "never begun", |pod| main(pod).is_some_and(|main| running(main).is_none() && main.restart_count == 0)),
        ],
    },
    Case {
        name: "init.retried",
        promise: "An init container that fails is started again until it ends well, and only it",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: OnFailure,
                    initContainers: [{name: one, command: [testapp, runs, count, '1', '1']}],
                    containers: [{name: main, command: [testapp, list, .]}]}}",
            ),
            Phase("a", Succeeded),
            Until("a", "restarted once", |pod| {
                init(pod, "one").is_some_and(|one| one.restart_count == 1) && main(pod).is_some_and(|main| main.restart_count == 0)
            }),
            Log("a/main", "count\n"),
        ],
    },
    Case {
        name: "sidecar.beside",
        promise: "A sidecar starts before the others, runs beside them, and doesn't keep the pod from Succeeded: it is ended when they are",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never,
                    initContainers: [{name: side, restartPolicy: Always, command: [testapp, write, side, here, detach, forever]}],
                    containers: [{name: main, command: [testapp, wait-for, side, read, side]}]}}",
            ),
            Keep("address", "a/side", "detached", 2),
            Phase("a", Succeeded),
            Log("a/main", "here\n"),
            Once("after", &["refused", "@address@"]),
            Phase("after", Succeeded),
        ],
    },
    Case {
        name: "sidecar.restarted",
        promise: "A sidecar that ends is started again, and the others don't notice",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {
                    initContainers: [{name: side, restartPolicy: Always, command: [testapp, runs, count, '1', '0', forever]}],
                    containers: [{name: main, command: [testapp, forever]}]}}",
            ),
            Until("a", "the sidecar running again", |pod| {
                let side = init(pod, "side").is_some_and(|side| side.restart_count == 1 && running(side).is_some());
                side && main(pod).is_some_and(|main| main.restart_count == 0 && running(main).is_some()) && is_ready(pod)
            }),
        ],
    },
    Case {
        name: "restarts.own-policy",
        promise: "A container may have a restart policy of its own",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [
                    {name: once, restartPolicy: Never, command: [testapp, exit, '4']},
                    {name: always, command: [testapp, runs, count, '1', '1', forever]}]}}",
            ),
            Until("a", "one ended, and one running again", |pod| {
                let ended = container(pod, "once").and_then(terminated).is_some_and(|end| end.exit_code == 4);
                ended && container(pod, "always").is_some_and(|always| always.restart_count == 1 && running(always).is_some())
            }),
            Phase("a", Running),
        ],
    },
    Case {
        name: "restarts.own-back-off",
        promise: "A container may have a back-off of its own: a first wait, a factor and a longest wait",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [
                    {name: main, restartBackoff: {initial: 0.5s, factor: 3, cap: 2s}, command: [testapp, exit, '1']}]}}",
            ),
            Until("a", "waiting for the longest wait", |pod| {
                main(pod).is_some_and(|main| main.restart_count >= 2) && back_off(pod) == Some(Duration::from_secs(2))
            }),
        ],
    },
];
