//! What runs, with which words, where, and how its end is told.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{container, ended, is_ready, main, running, terminated};
use crate::api::v1::PodPhase::{Failed, Pending, Running, Succeeded};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "start.success",
        promise: "A process that returns 0 makes its pod Succeeded",
        needs: &[],
        steps: &[
            Once("a", &["print", "hello"]),
            Phase("a", Succeeded),
            Until("a", "ended as Completed", |pod| ended(pod, 0, "Completed")),
            Log("a", "hello\n"),
        ],
    },
    Case {
        name: "start.exit-code",
        promise: "What a process returns is told, and anything but 0 makes its pod Failed",
        needs: &[],
        steps: &[Once("a", &["exit", "7"]), Phase("a", Failed), Until("a", "ended with 7", |pod| ended(pod, 7, "Error"))],
    },
    Case {
        name: "start.large-exit-code",
        promise: "Exit codes up to 255 are told as they are",
        needs: &[],
        steps: &[Once("a", &["exit", "255"]), Phase("a", Failed), Until("a", "ended with 255", |pod| ended(pod, 255, "Error"))],
    },
    Case {
        name: "start.death",
        promise: "A process that is ended by a fault of its own makes its pod Failed, with an exit code that is not 0",
        needs: &[],
        steps: &[
            Once("a", &["die"]),
            Phase("a", Failed),
            Until("a", "ended with some code", |pod| main(pod).and_then(terminated).is_some_and(|end| end.exit_code != 0)),
        ],
    },
    Case {
        name: "start.signal-is-told",
        promise: "Of a process that a signal ended the signal is told, and the exit code is 128 more",
        needs: &["stop.signal"],
        steps: &[
            Once("a", &["die"]),
            Phase("a", Failed),
            Until("a", "ended by a signal", |pod| {
                main(pod).and_then(terminated).is_some_and(|end| end.signal > 0 && end.exit_code == 128 + end.signal)
            }),
        ],
    },
    Case {
        name: "start.after-a-time",
        promise: "A pod is Running and Ready while its process runs, and over when that ends",
        needs: &[],
        steps: &[
            Once("a", &["wait-for", "go", "exit", "3"]),
            Phase("a", Running),
            Until("a", "ready, with a process id", |pod| {
                is_ready(pod) && main(pod).and_then(running).is_some_and(|running| running.pid > 0 && running.started_at.is_some())
            }),
            Delete("a", Some(1)),
            Gone("a"),
        ],
    },
    Case {
        name: "start.arguments",
        promise: "Arguments arrive as they are written, whatever is in them",
        needs: &[],
        steps: &[
            Once(
                "a",
                &[
                    "args",
                    "two words",
                    "",
                    "\"quoted\"",
                    "it's",
                    "back\\slash",
                    "ends\\",
                    "\\\"",
                    "$HOME",
                    "*",
                    "%PATH%",
                    "ü→\u{1f426}",
                    "-x",
                    "a=b;c|d&e",
                ],
            ),
            Phase("a", Succeeded),
            Log(
                "a",
                "[two words]\n[]\n[\"quoted\"]\n[it's]\n[back\\slash]\n[ends\\]\n[\\\"]\n[$HOME]\n[*]\n[%PATH%]\n[ü→\u{1f426}]\n[-x]\n[a=b;c|d&e]\n",
            ),
        ],
    },
    Case {
        name: "start.command-then-args",
        promise: "The arguments of `args` follow those of `command`",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, command: [testapp, args, one], args: [two, three]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "[one]\n[two]\n[three]\n"),
        ],
    },
    Case {
        name: "start.standard-input",
        promise: "Standard input is empty",
        needs: &[],
        steps: &[Once("a", &["stdin"]), Phase("a", Succeeded), Log("a", "0 bytes on standard input\n")],
    },
    Case {
        name: "start.folder-of-its-own",
        promise: "Without a working folder a process starts in one of its pod's own, which is empty and can be written",
        needs: &[],
        steps: &[
            Once("a", &["list", ".", "write", "file", "text", "read", "file"]),
            Once("b", &["list", "."]),
            Phase("a", Succeeded),
            Phase("b", Succeeded),
            Log("a", "\ntext\n"),
            Log("b", "\n"),
        ],
    },
    Case {
        name: "start.folder-stays",
        promise: "What a run left in the pod's folder is there in the next one",
        needs: &[],
        steps: &[OnFailure("a", &["runs", "count", "1", "1", "list", "."]), Phase("a", Succeeded), Log("a", "count\n")],
    },
    Case {
        name: "start.working-dir",
        promise: "A process starts in the folder that `workingDir` names",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, workingDir: '@folder@', command: [testapp, cwd]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "@folder@\n"),
        ],
    },
    Case {
        name: "start.several-containers",
        promise: "All containers of a pod run at once, each with a log and an end of its own; the pod is over when all are",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [
                    {name: first, command: [testapp, print, first, wait-for, go, exit, '0']},
                    {name: second, command: [testapp, print, second, write, go, now, exit, '4']}]}}",
            ),
            Phase("a", Failed),
            Until("a", "both ended, each in its way", |pod| {
                let code = |name| container(pod, name).and_then(terminated).map(|end| end.exit_code);
                (code("first"), code("second")) == (Some(0), Some(4))
            }),
            Log("a/first", "first\n"),
            Log("a/second", "second\n"),
        ],
    },
    Case {
        name: "start.half-a-pod",
        promise: "A pod of which a container has not been started is Pending, and says of each why",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [
                    {name: first, command: [testapp, forever]},
                    {name: second, command: [no-such-program]}]}}",
            ),
            Until("a", "half started", |pod| {
                let waits = container(pod, "second").and_then(super::super::look::waiting);
                container(pod, "first").and_then(running).is_some() && waits.is_some_and(|waiting| waiting.reason == "StartError")
            }),
            Phase("a", Pending),
        ],
    },
];
