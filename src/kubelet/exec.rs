//! Runs a command in a container for somebody at the other end of a tunnel.

use std::future::pending;
use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tonic::Code;

use super::os::{TerminalSize, Wiring};
use super::runtime::{Exec, ExecError, Execs, Heard};
use super::tunnel::{Refusal, piece};
use super::uid::PodUid;
use crate::api::v1::exec_request::Message as Said;
use crate::api::v1::exec_response::Message as Told;
use crate::api::v1::{self, ExecEnd, ExecResponse, ExecStart, TunnelRequest, TunnelResponse, tunnel_request, tunnel_response};
use crate::client::Incoming;

/// A terminal whose size nobody has told.
const DEFAULT_SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// Runs the command to its end, or as long as there is somebody at the other end.
pub(crate) async fn serve(
    execs: &Arc<Execs>,
    start: ExecStart,
    pieces: &mpsc::Sender<TunnelRequest>,
    incoming: &mut Incoming<TunnelResponse>,
) -> Result<(), Refusal> {
    let uid = PodUid::new(&start.pod_uid).ok_or_else(|| (Code::InvalidArgument, "that is no pod's uid".to_owned()))?;
    let size = start.terminal_size.as_ref().map_or(DEFAULT_SIZE, terminal_size);
    let wiring = Wiring { stdin: start.stdin, terminal: start.tty.then_some(size) };
    let refusal = |error| refusal(error, &start);
    let started = tokio::select! {
        started = execs.start(&uid, &start.container, &start.command, wiring) => started,
        () = pieces.closed() => return Ok(()),
    };
    let mut exec = started.map_err(refusal)?;
    let stdin = exec.take_stdin();
    let mut running = Running { exec, stdin };
    let (resize, sizes) = watch::channel(size);
    tokio::select! {
        told = tell(&mut running.exec, sizes, pieces) => told.map_err(refusal),
        () = listen(incoming, &mut running.stdin, start.tty.then_some(resize)) => Ok(()),
        // Seen also while the command doesn't read what it was sent.
        () = pieces.closed() => Ok(()),
    }
}

/// A command and what it reads, in this order: they are dropped in it, and an input that is cut off must not look complete to the command.
struct Running {
    exec: Exec,
    stdin: Option<Box<dyn AsyncWrite + Send + Sync + Unpin>>,
}

/// Passes on what the command writes, and how it ends.
async fn tell(exec: &mut Exec, mut sizes: watch::Receiver<TerminalSize>, pieces: &mpsc::Sender<TunnelRequest>) -> Result<(), ExecError> {
    loop {
        let heard = tokio::select! {
            heard = exec.next() => heard?,
            Ok(()) = sizes.changed() => {
                exec.resize(*sizes.borrow_and_update()).map_err(ExecError::Failed)?;
                continue;
            }
        };
        let (told, is_last) = match heard {
            Heard::Stdout(data) => (Told::Stdout(data.into()), false),
            Heard::Stderr(data) => (Told::Stderr(data.into()), false),
            Heard::Ended(end) => (Told::End(ExecEnd { exit_code: end.code, message: end.message }), true),
        };
        let piece = piece(tunnel_request::Message::Exec(ExecResponse { message: Some(told) }));
        let sent = tokio::select! {
            biased;
            sent = pieces.send(piece) => sent,
            // It must not wait for somebody who reads nothing.
            () = exec.container_ended() => return Err(ExecError::ContainerEnded),
        };
        if is_last || sent.is_err() {
            return Ok(());
        }
    }
}

/// Passes on what the command is to read, and the sizes of its terminal if it has one. Returns when the other side has gone away.
async fn listen(
    incoming: &mut Incoming<TunnelResponse>,
    stdin: &mut Option<Box<dyn AsyncWrite + Send + Sync + Unpin>>,
    resize: Option<watch::Sender<TerminalSize>>,
) {
    loop {
        let said = match incoming.next().await {
            Ok(Some(TunnelResponse { message: Some(tunnel_response::Message::Exec(request)) })) => request.message,
            Ok(Some(_)) => None,
            // The server ends a tunnel only after this side has.
            Ok(None) => pending().await,
            Err(error) => {
                tracing::debug!(%error, "whoever asked for a command has gone away");
                return;
            }
        };
        match said {
            Some(Said::Stdin(data)) => {
                if let Some(open) = stdin
                    && open.write_all(&data).await.is_err()
                {
                    // It doesn't read any more, as a program may.
                    *stdin = None;
                }
            }
            Some(Said::CloseStdin(_)) => {
                if let Some(mut open) = stdin.take() {
                    // Fails when there is nobody left who reads.
                    let _closed = open.shutdown().await;
                }
            }
            Some(Said::TerminalSize(size)) => {
                if let Some(resize) = &resize {
                    resize.send_replace(terminal_size(&size));
                }
            }
            Some(Said::Start(_)) | None => {}
        }
    }
}

fn terminal_size(size: &v1::TerminalSize) -> TerminalSize {
    let fit = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
    TerminalSize { columns: fit(size.columns), rows: fit(size.rows) }
}

fn refusal(error: ExecError, start: &ExecStart) -> Refusal {
    match error {
        ExecError::NotRunning(why) => (Code::FailedPrecondition, why),
        ExecError::ContainerEnded => {
            (Code::FailedPrecondition, format!("container {} has ended, and the command with it", start.container))
        }
        ExecError::TimedOut => (Code::DeadlineExceeded, "the command took too long".to_owned()),
        ExecError::Failed(error) if error.kind() == ErrorKind::Unsupported => (Code::FailedPrecondition, error.to_string()),
        ExecError::Failed(error) => {
            tracing::warn!(%error, pod = start.pod, "a command can't be run");
            (Code::Unavailable, format!("the node can't run the command, or not to its end: {error}"))
        }
    }
}
