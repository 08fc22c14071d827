//! A command and its guard, as the kubelet has them: this executable once more, in a tiny role of its own, that ends the command's whole tree when the
//! socket between the two goes away. The streams are the command's own; the guard only passes them on when it starts it.

mod input;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use input::Input;
use nix::libc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};

use super::terminal::Terminal;
use crate::kubelet::os::{GUARD_ROLE, Streams, TerminalSize, Wiring};
use crate::kubelet::shim::files::{Cause, Run};

/// Dropping it closes the socket, which ends the tree.
#[derive(Debug)]
pub(crate) struct Guarded {
    from_guard: OwnedReadHalf,
    /// The only one that lasts: the command's input just knows it.
    _to_guard: Arc<OwnedWriteHalf>,
    /// What the guard has said so far.
    said: Vec<u8>,
    terminal: Option<Terminal>,
    /// Reaped by tokio in its time, also when this is dropped before.
    _guard: Child,
}

impl crate::kubelet::os::Guarded for Guarded {
    async fn start(program: &Path, run: &Run, wiring: Wiring) -> io::Result<(Self, Streams)> {
        let (ours, theirs) = BlockingStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut control = UnixStream::from_std(ours)?;

        let mut command = Command::new(program);
        command.arg(GUARD_ROLE).arg(theirs.as_raw_fd().to_string());
        command.env_clear().current_dir("/");
        let terminal = wiring.terminal.map(|size| Terminal::open(size, &mut command)).transpose()?;
        let mut input = None;
        if terminal.is_none() {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            if wiring.stdin {
                let (reader, writer) = io::pipe()?;
                let copy = OwnedFd::from(writer.try_clone()?);
                command.stdin(reader).arg(copy.as_raw_fd().to_string());
                hand_down(&mut command, copy);
                input = Some(pipe::Sender::from_owned_fd(writer.into())?);
            }
        }
        hand_down(&mut command, theirs.into());
        let mut guard = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("the guard {} can't be started: {error}", program.display())))?;
        // It holds the guard's ends of the socket, the input and the terminal.
        drop(command);

        let mut order = serde_json::to_vec(run)?;
        order.push(b'\n');
        control.write_all(&order).await?;
        let (from_guard, to_guard) = control.into_split();
        let to_guard = Arc::new(to_guard);
        let streams = match &terminal {
            Some(terminal) => {
                Streams { stdin: wiring.stdin.then(|| Box::new(terminal.clone()) as _), stdout: Box::new(terminal.clone()), stderr: None }
            }
            None => piped(&mut guard, input.map(|pipe| Input::new(pipe, &to_guard)))?,
        };
        Ok((Self { from_guard, _to_guard: to_guard, said: Vec::new(), terminal, _guard: guard }, streams))
    }

    async fn ended(&mut self) -> io::Result<Cause> {
        while self.from_guard.read_buf(&mut self.said).await? > 0 {}
        match self.said.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the guard of the command was killed")),
            false => Ok(serde_json::from_slice(&self.said)?),
        }
    }

    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| terminal.resize(size))
    }
}

fn piped(guard: &mut Child, input: Option<Input>) -> io::Result<Streams> {
    let missing = || io::Error::other("a pipe of the command is missing");
    Ok(Streams {
        stdin: input.map(|input| Box::new(input) as _),
        stdout: Box::new(guard.stdout.take().ok_or_else(missing)?),
        stderr: Some(Box::new(guard.stderr.take().ok_or_else(missing)?)),
    })
}

/// Lets the new process have this descriptor, under the same number; nobody else who is started meanwhile gets it.
fn hand_down(command: &mut Command, descriptor: OwnedFd) {
    let keep = move || match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: one system call, which is allowed between fork and exec; nothing is allocated.
    unsafe { command.pre_exec(keep) };
}
