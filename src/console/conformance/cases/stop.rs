//! How pods end that are asked to.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{is_ready, runs_again, waits};
use super::super::scene::same_text;
use crate::api::capability::STOP_ASK;
use crate::api::v1::LogsRequest;
use crate::api::v1::PodPhase::{Running, Succeeded};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "stop.asked-first",
        promise: "A deleted pod's process is asked to end, has its grace period for it, and what it says meanwhile is in the log",
        needs: &[STOP_ASK],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 600, containers: [{name: main, command: [testapp, on-stop, '3', print, ready, forever]}]}}",
            ),
            Says("a", "ready"),
            Do(|scene| {
                Box::pin(async move {
                    let request = LogsRequest { follow: true, ..scene.request("a") };
                    let (log, deleted) = tokio::join!(scene.log(&request), scene.delete("a", None));
                    deleted?;
                    let log = log?;
                    if log.starts_with("ready\nasked to end by ") { Ok(()) } else { Err(format!("the log is {log:?}")) }
                })
            }),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.ignored-request",
        promise: "A process that ignores the request to end is killed after the grace period",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, ports: [{name: web}], command: [testapp, ignore-stop, tcp, $(PORT), print, deaf, forever]}]}}",
            ),
            Says("a", "deaf"),
            KeepPort("port", "a"),
            Delete("a", None),
            Gone("a"),
            Once("b", &["refused", "127.0.0.1:@port@"]),
            Phase("b", Succeeded),
        ],
    },
    Case {
        name: "stop.double-fork",
        promise: "What forked twice, left its group and ignores requests to end is gone with its pod",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, command: [testapp, ignore-stop, detach, forever]}]}}",
            ),
            Keep("address", "a", "detached", 2),
            Once("before", &["accepted", "@address@"]),
            Phase("before", Succeeded),
            Delete("a", None),
            Gone("a"),
            Once("after", &["refused", "@address@"]),
            Phase("after", Succeeded),
        ],
    },
    Case {
        name: "stop.nothing-survives-the-main-process",
        promise: "When a container's main process ends, nothing that it started is left",
        needs: &[],
        steps: &[
            Once("a", &["detach", "exit", "0"]),
            Phase("a", Succeeded),
            Keep("address", "a", "detached", 2),
            Once("after", &["refused", "@address@"]),
            Phase("after", Succeeded),
        ],
    },
    Case {
        name: "stop.nothing-survives-a-restart",
        promise: "Before a container is started again everything of its last run is gone",
        needs: &[],
        steps: &[
            Always("a", &["detach", "runs", "count", "1", "1", "forever"]),
            Until("a", "running again", |pod| runs_again(pod, 1)),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log(&LogsRequest { previous: true, ..scene.request("a") }).await?;
                    let address = log.split_whitespace().nth(2).ok_or_else(|| format!("the first run said {log:?}"))?;
                    scene.keep("address", address.to_owned());
                    Ok(())
                })
            }),
            Once("after", &["refused", "@address@"]),
            Phase("after", Succeeded),
        ],
    },
    Case {
        name: "stop.tree",
        promise: "A whole tree of processes is gone with its pod",
        needs: &[],
        steps: &[
            Always("a", &["tree", "2", "4", "detach", "detach", "forever"]),
            Keep("address", "a", "detached", 2),
            Delete("a", Some(1)),
            Gone("a"),
            Once("after", &["refused", "@address@"]),
            Phase("after", Succeeded),
        ],
    },
    Case {
        name: "stop.shorter-grace",
        promise: "A delete may shorten the grace period",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, ignore-stop, print, deaf, forever]}]}}",
            ),
            Says("a", "deaf"),
            Delete("a", Some(1)),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.second-delete",
        promise: "A second delete may shorten the grace period of the first",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, ignore-stop, print, deaf, forever]}]}}",
            ),
            Says("a", "deaf"),
            Delete("a", None),
            Until("a", "being deleted", |pod| pod.metadata.as_ref().is_some_and(|meta| meta.deletion_time.is_some())),
            Delete("a", Some(1)),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.force",
        promise: "A delete by force removes the pod at once, and its processes soon after",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, ports: [{name: web}], command: [testapp, ignore-stop, tcp, $(PORT), print, deaf, forever]}]}}",
            ),
            Says("a", "deaf"),
            KeepPort("port", "a"),
            Delete("a", Some(0)),
            Gone("a"),
            Once("b", &["refused", "127.0.0.1:@port@"]),
            Phase("b", Succeeded),
        ],
    },
    Case {
        name: "stop.in-back-off",
        promise: "A pod that waits to be started again can be deleted, and starts no more",
        needs: &[],
        steps: &[Always("a", &["exit", "1"]), Until("a", "waiting", |pod| waits(pod, "CrashLoopBackOff")), Delete("a", None), Gone("a")],
    },
    Case {
        name: "stop.while-starting",
        promise: "A pod that is deleted while it starts is gone, and so is whatever of it had been started",
        needs: &[],
        steps: &[Always("a", &["forever"]), Delete("a", Some(1)), Gone("a")],
    },
    Case {
        name: "stop.ended-pod",
        promise: "A pod that is over can be deleted, and its log goes with it",
        needs: &[],
        steps: &[
            Once("a", &["print", "done"]),
            Phase("a", Succeeded),
            Delete("a", None),
            Gone("a"),
            Do(|scene| {
                Box::pin(async move {
                    match scene.log(&scene.request("a")).await {
                        Err(_) => Ok(()),
                        Ok(log) => same_text(&log, "no log at all"),
                    }
                })
            }),
        ],
    },
    Case {
        name: "stop.same-name-again",
        promise: "A pod that gets the name of one that was deleted is another pod",
        needs: &[],
        steps: &[
            Once("a", &["print", "first", "forever"]),
            Phase("a", Running),
            Delete("a", Some(1)),
            Gone("a"),
            Once("a", &["print", "second", "list", "."]),
            Phase("a", Succeeded),
            Log("a", "second\n\n"),
        ],
    },
    Case {
        name: "stop.not-ready",
        promise: "A pod that is being deleted is not Ready while its process still runs",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, ignore-stop, print, deaf, forever]}]}}",
            ),
            Says("a", "deaf"),
            Until("a", "ready", is_ready),
            Delete("a", None),
            Until("a", "not ready", |pod| !is_ready(pod)),
            Delete("a", Some(1)),
            Gone("a"),
        ],
    },
];
