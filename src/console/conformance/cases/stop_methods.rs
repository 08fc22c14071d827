//! The ways in which pods are asked to end.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::scene::Scene;
use crate::api::capability::{STOP_ASK, STOP_CTRL_BREAK, STOP_SIGNAL};
use crate::api::v1::LogsRequest;

/// Deletes the pod `a` and reads its log until that ends: it must contain this.
async fn says_to_its_end(scene: &mut Scene, expected: &str) -> Result<(), String> {
    let request = LogsRequest { follow: true, ..scene.request("a") };
    let (log, deleted) = tokio::join!(scene.log(&request), scene.delete("a", None));
    deleted?;
    let log = log?;
    if log.contains(expected) { Ok(()) } else { Err(format!("the log is {log:?}, without {expected:?}")) }
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "stop.by-signal",
        promise: "A container can name the signal that asks it to end",
        needs: &[STOP_SIGNAL],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, on-stop, '3', print, ready, forever], lifecycle: {stop: {signal: SIGINT}}}]}}",
            ),
            Says("a", "ready"),
            Do(|scene| Box::pin(says_to_its_end(scene, "asked to end by SIGINT"))),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.by-ctrl-break",
        promise: "A container can ask to be ended by Ctrl-Break",
        needs: &[STOP_CTRL_BREAK],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, on-stop, '3', print, ready, forever], lifecycle: {stop: {ctrlBreak: true}}}]}}",
            ),
            Says("a", "ready"),
            Do(|scene| Box::pin(says_to_its_end(scene, "asked to end by CTRL_BREAK"))),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.by-command",
        promise: "A container can be asked to end by a command that runs beside it",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, ignore-stop, print, ready, wait-for, go], lifecycle: {stop: {command: {command: [testapp, write, go, now]}}}}]}}",
            ),
            Says("a", "ready"),
            Delete("a", None),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.by-http",
        promise: "A container can be asked to end by a request to a port by its name",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, ports: [{name: web}], command: [testapp, ignore-stop, serve, $(PORT), print, ready, forever], lifecycle: {stop: {http: {path: /exit/0, port: web}}}}]}}",
            ),
            Says("a", "ready"),
            Delete("a", None),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.pre-stop-command",
        promise: "A command before the end has ended before the container is asked to end",
        needs: &[STOP_ASK],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, on-stop, '3', print, ready, wait-for, before, print, before, write, seen, x, forever], lifecycle: {preStop: {exec: {command: [testapp, write, before, x, wait-for, seen]}}}}]}}",
            ),
            Says("a", "ready"),
            Do(|scene| Box::pin(says_to_its_end(scene, "ready\nbefore\nasked to end by "))),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.pre-stop-http",
        promise: "A request before the end is answered before the container is asked to end",
        needs: &[STOP_ASK],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, ports: [{name: web}], command: [testapp, on-stop, '3', serve, $(PORT), print, ready, forever], lifecycle: {preStop: {httpGet: {path: /print/before, port: web}}}}]}}",
            ),
            Says("a", "ready"),
            Do(|scene| Box::pin(says_to_its_end(scene, "ready\nbefore\nasked to end by "))),
            Gone("a"),
        ],
    },
    Case {
        name: "stop.failed-pre-stop",
        promise: "A command before the end that fails is told and holds nothing up",
        needs: &[STOP_ASK],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, command: [testapp, on-stop, '3', print, ready, forever], lifecycle: {preStop: {exec: {command: [testapp, exit, '5']}}}}]}}",
            ),
            Says("a", "ready"),
            Do(|scene| Box::pin(says_to_its_end(scene, "asked to end by "))),
            Gone("a"),
            Event("FailedPreStopHook", "exit code 5"),
        ],
    },
    Case {
        name: "stop.failed-method",
        promise: "Where its stop method fails, a container is asked to end as ever, and the failure is told",
        needs: &[STOP_ASK],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 100000, containers: [{name: main, ports: [{name: web}], command: [testapp, on-stop, '3', serve, $(PORT), print, ready, forever], lifecycle: {stop: {http: {path: /no-such-page, port: web}}}}]}}",
            ),
            Says("a", "ready"),
            Do(|scene| Box::pin(says_to_its_end(scene, "asked to end by "))),
            Gone("a"),
            Event("FailedStop", "HTTP status 404"),
        ],
    },
    Case {
        name: "stop.hanging-pre-stop",
        promise: "A request before the end that is never answered is told, and the pod is gone after its grace period",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, ports: [{name: web}], command: [testapp, serve, $(PORT), print, ready, forever], lifecycle: {preStop: {httpGet: {path: /hang, port: web}}}}]}}",
            ),
            Says("a", "ready"),
            Delete("a", None),
            Gone("a"),
            Event("FailedPreStopHook", "had not ended when the grace period was over"),
        ],
    },
];
