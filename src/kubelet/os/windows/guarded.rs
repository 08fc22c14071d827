//! A command that runs in a container beside it: in a job of the kubelet's own, so that all of it ends when the job is dropped, and when the kubelet dies.
//! The limits of its container hold for it by itself.

use std::io;
use std::os::windows::io::BorrowedHandle;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};
use windows_sys::Win32::System::Threading::{CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, CREATE_SUSPENDED};

use super::children::KILLED;
use super::job::Job;
use super::terminal::InTerminal;
use super::{process, pseudo_console};
use crate::kubelet::os::{Streams, TerminalSize, Wiring};
use crate::kubelet::shim::files::{Cause, Run};
use crate::kubelet::shim::launch;

/// A command that was started, or why it could not be.
#[derive(Debug)]
pub(crate) struct Guarded(State);

#[derive(Debug)]
enum State {
    Runs(Running),
    RunsInTerminal(InTerminal),
    NeverBegan(Cause),
}

#[derive(Debug)]
struct Running {
    child: Child,
    job: Job,
}

impl crate::kubelet::os::Guarded for Guarded {
    async fn start(program: &Path, run: &Run, wiring: Wiring) -> io::Result<(Self, Streams)> {
        if let Some(size) = wiring.terminal {
            if !pseudo_console::can_be_had() {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "this node has no terminals whose windows can be resized"));
            }
            let (running, streams) = InTerminal::start(program, run, size, wiring.stdin).await?;
            return Ok((Self(State::RunsInTerminal(running)), streams));
        }
        match launch::command(run) {
            Ok(command) => match begin(command.into(), run, wiring.stdin) {
                Ok((running, streams)) => Ok((Self(State::Runs(running)), streams)),
                Err(error) => Ok(never_began(launch::explain(run, &error))),
            },
            Err(cause) => Ok(never_began(cause)),
        }
    }

    async fn ended(&mut self) -> io::Result<Cause> {
        let Running { child, job } = match &mut self.0 {
            State::Runs(running) => running,
            State::RunsInTerminal(running) => return running.ended().await,
            State::NeverBegan(cause) => return Ok(cause.clone()),
        };
        let status = child.wait().await?;
        job.end(KILLED).await?;
        Ok(Cause::Exited(status.code().unwrap_or(KILLED.cast_signed())))
    }

    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        match &self.0 {
            State::RunsInTerminal(running) => running.resize(size),
            State::Runs(_) | State::NeverBegan(_) => Ok(()),
        }
    }
}

fn never_began(cause: Cause) -> (Guarded, Streams) {
    let streams = Streams { stdin: Some(Box::new(tokio::io::sink())), stdout: Box::new(tokio::io::empty()), stderr: None };
    (Guarded(State::NeverBegan(cause)), streams)
}

fn begin(mut command: Command, run: &Run, has_stdin: bool) -> io::Result<(Running, Streams)> {
    command.stdin(if has_stdin { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Nobody can join the container's own job, which only its shim has.
    let job = Job::within(&run.limits)?;
    // What is not in the job yet must not outlive a failure.
    let mut child = command.creation_flags(CREATE_SUSPENDED | CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP).kill_on_drop(true).spawn()?;
    let handle = child.raw_handle().ok_or_else(|| io::Error::other("the command has ended before it began"))?;
    // SAFETY: the child, which owns the handle, lives longer than this.
    let handle = unsafe { BorrowedHandle::borrow_raw(handle) };
    job.assign(handle)?;
    process::resume(handle)?;
    let missing = || io::Error::other("a pipe of the command is missing");
    let streams = Streams {
        stdin: child.stdin.take().map(|stdin| Box::new(stdin) as _),
        stdout: Box::new(child.stdout.take().ok_or_else(missing)?),
        stderr: Some(Box::new(child.stderr.take().ok_or_else(missing)?)),
    };
    Ok((Running { child, job }, streams))
}
