//! Commands in containers, and connections to their ports, by way of the apiserver.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::scene::{Scene, told};
use crate::api::v1::PodPhase::{Failed, Running};
use crate::api::v1::exec_request::Message as Said;
use crate::api::v1::exec_response::Message as Told;
use crate::api::v1::{
    ClosePort, CloseStdin, ExecRequest, ExecStart, PortForwardRequest, PortForwardStart, port_forward_request, port_forward_response,
};
use crate::error::Error;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "exec.exit-code",
        promise: "A command in a container is told what it wrote, where, and with which code it ended",
        needs: &[],
        steps: &[
            Once("a", &["forever"]),
            Phase("a", Running),
            Do(|scene| Box::pin(check(scene, &["print", "out", "eprint", "err", "exit", "7"], None, false, ("out", "err", 7)))),
            Do(|scene| Box::pin(check(scene, &["env", "BLUEBIRD_CONTAINER"], None, false, ("BLUEBIRD_CONTAINER=main", "", 0)))),
        ],
    },
    Case {
        name: "exec.stdin",
        promise: "What is sent to a command is what it reads, to its end",
        needs: &[],
        steps: &[
            Once("a", &["forever"]),
            Phase("a", Running),
            Do(|scene| Box::pin(check(scene, &["stdin"], Some(b"a\0\xff\r\n"), false, ("5 bytes on standard input", "", 0)))),
            Do(|scene| Box::pin(check(scene, &["stdin"], Some(b""), false, ("0 bytes on standard input", "", 0)))),
            Do(|scene| Box::pin(check(scene, &["stdin"], None, false, ("0 bytes on standard input", "", 0)))),
        ],
    },
    Case {
        name: "exec.tty",
        promise: "In a terminal all that a command writes comes as one",
        needs: &["exec.tty"],
        steps: &[
            Once("a", &["forever"]),
            Phase("a", Running),
            Do(|scene| Box::pin(check(scene, &["print", "out", "eprint", "err", "exit", "3"], None, true, ("out\r\nerr", "", 3)))),
        ],
    },
    Case {
        name: "exec.no-such-program",
        promise: "A command that does not exist ends with 127 and the reason",
        needs: &[],
        steps: &[
            Once("a", &["forever"]),
            Phase("a", Running),
            Do(|scene| {
                Box::pin(async move {
                    let ended = run(scene, vec!["no-such-program-at-all".to_owned()], None, false).await.map_err(told)?;
                    match ended.code == 127 && ended.message.contains("no-such-program-at-all") {
                        true => Ok(()),
                        false => Err(format!("{ended:?}")),
                    }
                })
            }),
        ],
    },
    Case {
        name: "exec.dead-container",
        promise: "A command in a container that has ended is refused and told how that ended",
        needs: &[],
        steps: &[
            Once("a", &["exit", "3"]),
            Phase("a", Failed),
            Do(|scene| {
                Box::pin(async move {
                    let command = vec![scene.stage.testapp.clone(), "forever".to_owned()];
                    match run(scene, command, None, false).await {
                        Err(Error::Precondition(why)) if why.contains("exit code 3") => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                })
            }),
        ],
    },
    Case {
        name: "exec.ends-with-container",
        promise: "A command ends when its container does",
        needs: &[],
        steps: &[
            Once("a", &["forever"]),
            Phase("a", Running),
            Do(|scene| {
                Box::pin(async move {
                    let (_inputs, mut outputs) = begin(scene, &["print", "here", "forever"]).await.map_err(told)?;
                    outputs.next().await.map_err(told)?;
                    scene.delete("a", Some(0)).await?;
                    match outputs.next().await {
                        Err(Error::Precondition(why)) if why.contains("has ended, and the command with it") => Ok(()),
                        other => Err(format!("the command should have ended with its container, but: {other:?}")),
                    }
                })
            }),
            Gone("a"),
        ],
    },
    Case {
        name: "port-forward.both-ways",
        promise: "A connection leads to a port by its name, and either side may say that it sends nothing more",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: web}], command: [testapp, tcp, $(PORT), print, listens, forever]}]}}",
            ),
            Says("a", "listens"),
            Do(|scene| {
                Box::pin(async move {
                    let answer = ask(scene, "web", b"hello").await.map_err(told)?;
                    if answer == b"testapp hello" { Ok(()) } else { Err(format!("{:?}", String::from_utf8_lossy(&answer))) }
                })
            }),
        ],
    },
    Case {
        name: "port-forward.nobody",
        promise: "That nobody listens at a port is told at once",
        needs: &[],
        steps: &[
            KeepFreePort("port"),
            Once("a", &["forever"]),
            Phase("a", Running),
            Do(|scene| {
                Box::pin(async move {
                    let port = scene.kept("port")?.to_owned();
                    match ask(scene, &port, b"hello").await {
                        Err(Error::Precondition(why)) if why.contains("nobody answers") => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                })
            }),
        ],
    },
];

/// What became of a command.
#[derive(Debug)]
struct Ended {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: i32,
    message: String,
}

type Command = (tokio::sync::mpsc::Sender<ExecRequest>, crate::client::Incoming<crate::api::v1::ExecResponse>);

fn start(scene: &Scene, command: Vec<String>) -> ExecStart {
    ExecStart { namespace: scene.namespace.clone(), pod: "a".to_owned(), command, ..Default::default() }
}

/// Begins a command of testapp that reads nothing.
async fn begin(scene: &Scene, words: &[&str]) -> Result<Command, Error> {
    let command = std::iter::once(scene.stage.testapp.as_str()).chain(words.iter().copied()).map(str::to_owned).collect();
    scene.stage.client.exec(start(scene, command)).await
}

/// Runs a command to its end; with an input, that is what it reads.
async fn run(scene: &Scene, command: Vec<String>, input: Option<&'static [u8]>, tty: bool) -> Result<Ended, Error> {
    let late = |_| Error::Timeout("the command does not end".to_owned());
    let run = async {
        let start = ExecStart { stdin: input.is_some(), tty, ..start(scene, command) };
        let (inputs, mut outputs) = scene.stage.client.exec(start).await?;
        let said = input.iter().filter(|input| !input.is_empty()).map(|input| Said::Stdin(input.to_vec()));
        for said in said.chain(input.map(|_| Said::CloseStdin(CloseStdin {}))) {
            // It fails when the command has ended, which the outputs tell.
            let _gone = inputs.send(ExecRequest { message: Some(said) }).await;
        }
        let mut ended = Ended { stdout: Vec::new(), stderr: Vec::new(), code: -1, message: String::new() };
        while let Some(output) = outputs.next().await? {
            match output.message {
                Some(Told::Stdout(data)) => ended.stdout.extend(data),
                Some(Told::Stderr(data)) => ended.stderr.extend(data),
                Some(Told::End(end)) => (ended.code, ended.message) = (end.exit_code, end.message),
                None => {}
            }
        }
        Ok(ended)
    };
    tokio::time::timeout(scene.stage.timeout, run).await.map_err(late)?
}

/// Runs a command of testapp: what it writes, but for the end of the last line, and its code must be so.
async fn check(
    scene: &mut Scene,
    words: &'static [&'static str],
    input: Option<&'static [u8]>,
    tty: bool,
    expected: (&str, &str, i32),
) -> Result<(), String> {
    let command = std::iter::once(scene.stage.testapp.as_str()).chain(words.iter().copied()).map(str::to_owned).collect();
    let ended = run(scene, command, input, tty).await.map_err(told)?;
    let text = |bytes: &[u8]| shown(&String::from_utf8_lossy(bytes)).trim_end().to_owned();
    let found = (text(&ended.stdout), text(&ended.stderr), ended.code);
    if (found.0.as_str(), found.1.as_str(), found.2) == expected {
        Ok(())
    } else {
        Err(format!("{found:?} instead of {expected:?}: {}", ended.message))
    }
}

/// A text without what tells a terminal how to show it: some systems' terminals draw their windows themselves.
fn shown(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |shown, piece| {
        let after = match piece.strip_prefix(']') {
            // A title.
            Some(title) => title.split_once('\u{7}').map_or("", |(_, after)| after),
            None => piece.strip_prefix('[').unwrap_or(piece).trim_start_matches(|c| !char::is_alphabetic(c)).get(1..).unwrap_or_default(),
        };
        shown + after
    })
}

/// Sends something to a port of the pod, says that this is all, and gives all that comes back.
async fn ask(scene: &Scene, port: &str, text: &[u8]) -> Result<Vec<u8>, Error> {
    let late = |_| Error::Timeout("the connection does not end".to_owned());
    let exchange = async {
        let start =
            PortForwardStart { namespace: scene.namespace.clone(), pod: "a".to_owned(), port: port.to_owned(), ..Default::default() };
        let (to_pod, mut from_pod) = scene.stage.client.port_forward(start).await?;
        for said in [port_forward_request::Message::Data(text.to_vec()), port_forward_request::Message::Close(ClosePort {})] {
            // It fails when the connection has ended, which the answers tell.
            let _gone = to_pod.send(PortForwardRequest { message: Some(said) }).await;
        }
        let mut all = Vec::new();
        while let Some(answer) = from_pod.next().await? {
            if let Some(port_forward_response::Message::Data(data)) = answer.message {
                all.extend(data);
            }
        }
        Ok(all)
    };
    tokio::time::timeout(scene.stage.timeout, exchange).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_shows_is_the_text_without_how_it_is_drawn() {
        assert_eq!(shown("out\r\nerr"), "out\r\nerr");
        assert_eq!(
            shown("\u{1b}[2J\u{1b}[m\u{1b}[H\u{1b}]0;C:\\testapp.exe\u{7}\u{1b}[?25hout\r\n\u{1b}[1;31merr\u{1b}[?25l"),
            "out\r\nerr"
        );
    }
}
