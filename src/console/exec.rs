//! `exec`: a command in a container, with this program's streams and terminal as its own.

use std::convert::Infallible;
use std::future::pending;
use std::io::{Read, Write};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::args;
use super::failure::{Failure, Result};
use super::{Asked, Console, Resizes};
use crate::api::v1::exec_request::Message as Said;
use crate::api::v1::exec_response::Message as Told;
use crate::api::v1::{CloseStdin, ExecEnd, ExecRequest, ExecResponse, ExecStart, TerminalSize};
use crate::client::Incoming;

/// The most bytes that are passed on at once.
const PIECE: usize = 32 * 1024;
/// How many pieces that were typed may wait to be sent.
const PIECES: usize = 4;
/// As shells say it of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

pub(super) async fn run(console: &mut Console<'_>, args: args::Exec) -> Result<()> {
    let pod = pod_name(&args.pod)?;
    let terminal = console.io.terminal;
    let size = move || if args.tty { terminal().map(terminal_size) } else { None };
    let start = ExecStart {
        namespace: console.namespace().to_owned(),
        pod: pod.to_owned(),
        container: args.container.unwrap_or_default(),
        command: args.command,
        stdin: args.stdin,
        tty: args.tty,
        terminal_size: size(),
        ..Default::default()
    };
    let asked_to_end = (console.io.asked_to_end)();
    let (inputs, mut outputs) = console.client()?.exec(start).await?;
    let resizes = (console.io.resizes)()?;
    let keys = args.stdin.then(|| typed((console.io.keys)()));
    // Dropped, and the terminal as it was, before anything is said here.
    let raw = if args.stdin && args.tty { (console.io.raw_terminal)()? } else { None };
    let end = tokio::select! {
        end = show(&mut outputs, console.io.out, console.io.err) => end,
        never = pass_on(keys, &inputs) => match never {},
        never = tell_size(resizes, size, &inputs) => match never {},
        asked = interrupted(asked_to_end) => Err(asked),
    };
    drop(raw);
    let end = end?;
    if !end.message.is_empty() {
        writeln!(console.io.err, "error: {}", end.message)?;
    }
    match u8::try_from(end.exit_code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::Ended(code)),
        Err(_) => Err(Failure::Ended(u8::MAX)),
    }
}

/// A pod may be named as other commands name it.
fn pod_name(typed: &str) -> Result<&str> {
    match typed.split_once('/') {
        None => Ok(typed),
        Some(("pod" | "pods" | "po", name)) => Ok(name),
        Some((kind, _)) => Err(Failure::Usage(format!("no command can be run in {kind:?}; name a pod"))),
    }
}

/// Prints what the command writes, until it has ended.
async fn show(outputs: &mut Incoming<ExecResponse>, out: &mut (dyn Write + Send), err: &mut (dyn Write + Send)) -> Result<ExecEnd> {
    while let Some(response) = outputs.next().await? {
        match response.message {
            Some(Told::Stdout(data)) => print(out, &data)?,
            Some(Told::Stderr(data)) => print(err, &data)?,
            Some(Told::End(end)) => return Ok(end),
            None => {}
        }
    }
    Err(Failure::Failed("the stream ended before the command had ended".to_owned()))
}

fn print(stream: &mut dyn Write, data: &[u8]) -> Result<()> {
    stream.write_all(data)?;
    Ok(stream.flush()?)
}

/// Reads in a thread of its own, which can't be interrupted; it ends with the program.
fn typed(mut keys: Box<dyn Read + Send>) -> mpsc::Receiver<Vec<u8>> {
    let (send, pieces) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        // Input that can't be read any more has ended.
        while let Ok(count @ 1..) = keys.read(&mut piece) {
            if send.blocking_send(piece[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    pieces
}

/// Sends what is typed, and that there is no more. Whether the command still listens is told by the other direction.
async fn pass_on(keys: Option<mpsc::Receiver<Vec<u8>>>, inputs: &mpsc::Sender<ExecRequest>) -> Infallible {
    if let Some(mut keys) = keys {
        while let Some(piece) = keys.recv().await {
            say(inputs, Said::Stdin(piece)).await;
        }
        say(inputs, Said::CloseStdin(CloseStdin {})).await;
    }
    pending().await
}

async fn tell_size(mut resizes: Resizes, size: impl Fn() -> Option<TerminalSize>, inputs: &mpsc::Sender<ExecRequest>) -> Infallible {
    let mut told = size();
    while resizes.next().await.is_some() {
        let now = size();
        if let Some(size) = now.filter(|_| now != told) {
            say(inputs, Said::TerminalSize(size)).await;
        }
        told = now;
    }
    pending().await
}

async fn say(inputs: &mpsc::Sender<ExecRequest>, said: Said) {
    // Fails when the stream has ended; the answers tell how.
    let _gone = inputs.send(ExecRequest { message: Some(said) }).await;
}

async fn interrupted(asked_to_end: Asked) -> Failure {
    match asked_to_end.await {
        Ok(()) => Failure::Ended(INTERRUPTED),
        Err(error) => error.into(),
    }
}

fn terminal_size((columns, rows): (usize, usize)) -> TerminalSize {
    let fit = |size: usize| u32::from(u16::try_from(size).unwrap_or(u16::MAX));
    TerminalSize { columns: fit(columns), rows: fit(rows) }
}
