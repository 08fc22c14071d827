//! What a process wrote can be read, all of it and as it was.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::runs_again;
use super::super::scene::{same_text, shortened};
use crate::api::v1::LogsRequest;
use crate::api::v1::PodPhase::Succeeded;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "logs.both-streams",
        promise: "Standard output and standard error are in the log, in the order in which they were written",
        needs: &[],
        steps: &[
            Once("a", &["print", "one", "eprint", "two", "sleep", "100", "print", "three", "sleep", "100", "eprint", "four"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log(&scene.request("a")).await?;
                    // Two pipes have no order between them, but what was written a while later comes later.
                    match log.as_str() {
                        "one\ntwo\nthree\nfour\n" | "two\none\nthree\nfour\n" => Ok(()),
                        other => Err(format!("the log is {other:?}")),
                    }
                })
            }),
        ],
    },
    Case {
        name: "logs.complete-at-the-end",
        promise: "All that a process wrote is in the log when its end is told",
        needs: &[],
        steps: &[
            Once("a", &["lines", "20000", "0"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let expected: String = (1..=20_000).map(|number| format!("line {number}\n")).collect();
                    same_text(&scene.log(&scene.request("a")).await?, &expected)
                })
            }),
        ],
    },
    Case {
        name: "logs.while-it-runs",
        promise: "What a process writes can be read while it runs",
        needs: &[],
        steps: &[Always("a", &["print", "alive", "forever"]), Says("a", "alive")],
    },
    Case {
        name: "logs.tail",
        promise: "The last so many lines can be asked for",
        needs: &[],
        steps: &[
            Once("a", &["lines", "100", "0"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let request = LogsRequest { tail_lines: Some(2), ..scene.request("a") };
                    same_text(&scene.log(&request).await?, "line 99\nline 100\n")?;
                    same_text(&scene.log(&LogsRequest { tail_lines: Some(0), ..scene.request("a") }).await?, "")
                })
            }),
        ],
    },
    Case {
        name: "logs.previous",
        promise: "The log of the run before the present one can be asked for",
        needs: &[],
        steps: &[
            Always("a", &["print", "begins", "runs", "count", "1", "1", "print", "second", "forever"]),
            Until("a", "running again", |pod| runs_again(pod, 1)),
            Says("a", "second"),
            Do(|scene| {
                Box::pin(async move {
                    same_text(&scene.log(&LogsRequest { previous: true, ..scene.request("a") }).await?, "begins\n")?;
                    same_text(&scene.log(&scene.request("a")).await?, "begins\nsecond\n")
                })
            }),
        ],
    },
    Case {
        name: "logs.no-previous",
        promise: "Asking for a run that never was is an error, and no empty log",
        needs: &[],
        steps: &[
            Once("a", &["print", "only"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    match scene.log(&LogsRequest { previous: true, ..scene.request("a") }).await {
                        Ok(log) => Err(format!("the log of a run that never was is {log:?}")),
                        Err(_) => Ok(()),
                    }
                })
            }),
        ],
    },
    Case {
        name: "logs.follow",
        promise: "Following a log gives everything that is written, over restarts, and ends with the pod",
        needs: &[],
        steps: &[
            OnFailure("a", &["lines", "3", "20", "runs", "count", "1", "1"]),
            Do(|scene| {
                Box::pin(async move {
                    scene
                        .until("a", "taken up", |pod| !pod.status.as_ref().is_none_or(|status| status.container_statuses.is_empty()))
                        .await?;
                    let log = scene.log(&LogsRequest { follow: true, ..scene.request("a") }).await?;
                    same_text(&log, "line 1\nline 2\nline 3\nline 1\nline 2\nline 3\n")
                })
            }),
        ],
    },
    Case {
        name: "logs.long-line",
        promise: "A line of 10 MB without an end is in the log, byte for byte",
        needs: &[],
        steps: &[
            Once("a", &["long-line", "10000000", "print", "", "print", "after"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log_bytes(&scene.request("a")).await?;
                    let (line, rest) = log.split_at_checked(10_000_000).ok_or_else(|| format!("the log has {} bytes", log.len()))?;
                    match line.iter().position(|byte| *byte != b'x') {
                        Some(at) => Err(format!("byte {at} is {}", line[at])),
                        None => same_text(&String::from_utf8_lossy(rest), "\nafter\n"),
                    }
                })
            }),
        ],
    },
    Case {
        name: "logs.bytes",
        promise: "Bytes that are no text are in the log as they are",
        needs: &[],
        steps: &[
            Once("a", &["bytes", "print", "", "print", "after"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log_bytes(&scene.request("a")).await?;
                    let expected: Vec<u8> = (0..=u8::MAX).chain(*b"\nafter\n").collect();
                    if log == expected { Ok(()) } else { Err(format!("the log is {}", shortened(&String::from_utf8_lossy(&log)))) }
                })
            }),
        ],
    },
    Case {
        name: "logs.no-such-container",
        promise: "Asking for a container that there isn't is an error that names it",
        needs: &[],
        steps: &[
            Once("a", &["print", "only"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    match scene.log(&scene.request("a/other")).await {
                        Err(why) if why.contains("other") => Ok(()),
                        other => Err(format!("the answer is {other:?}")),
                    }
                })
            }),
        ],
    },
    Case {
        name: "logs.timestamps",
        promise: "Each line may be asked for with the time at which it was written",
        needs: &[],
        steps: &[
            Once("a", &["print", "one", "print", "two"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log(&LogsRequest { timestamps: true, ..scene.request("a") }).await?;
                    let lines: Vec<_> = log.lines().filter_map(|line| line.split_once(' ')).collect();
                    let is_time = |text: &str| text.len() == 30 && text.contains('T') && text.ends_with('Z');
                    match lines.as_slice() {
                        [(first, "one"), (second, "two")] if is_time(first) && is_time(second) && first <= second => Ok(()),
                        _ => Err(format!("the log is {log:?}")),
                    }
                })
            }),
        ],
    },
    Case {
        name: "logs.since",
        promise: "What was written since a time may be asked for",
        needs: &[],
        steps: &[
            Once("a", &["print", "one", "sleep", "50", "print", "two", "print", "three"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log(&LogsRequest { timestamps: true, ..scene.request("a") }).await?;
                    let time = log.lines().find_map(|line| line.strip_suffix(" two")).ok_or_else(|| format!("the log is {log:?}"))?;
                    let since_time = Some(time.parse().map_err(|error| format!("{time:?} is no time: {error}"))?);
                    same_text(&scene.log(&LogsRequest { since_time, ..scene.request("a") }).await?, "two\nthree\n")
                })
            }),
        ],
    },
    Case {
        name: "logs.bounded",
        promise: "A process that writes without end can't fill the disk: the oldest of its log goes, the newest stays",
        needs: &[],
        steps: &[
            Once("a", &["long-line", "90000000", "print", "", "print", "last"]),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log_bytes(&scene.request("a")).await?;
                    match log.ends_with(b"x\nlast\n") && log.len() < 80_000_000 {
                        true => Ok(()),
                        false => Err(format!("the log has {} bytes: {}", log.len(), shortened(&String::from_utf8_lossy(&log)))),
                    }
                })
            }),
        ],
    },
];
