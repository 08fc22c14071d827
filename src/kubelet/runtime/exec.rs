//! Commands that are run in containers besides what the containers are: for people, and for probes.

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::look::{Found, look};
use crate::kubelet::os::{Guarded as _, Host, Os, Streams, TerminalSize, Wiring};
use crate::kubelet::root::Root;
use crate::kubelet::shim::files::{ABOUT_TO_START, Cause, OOM_KILLED, Run, Stage};
use crate::kubelet::uid::PodUid;

/// The most bytes of output that are handed on at once.
const PIECE: usize = 32 * 1024;
/// How much of what a command writes [`Execs::output`] keeps.
const KEPT_OUTPUT: usize = 10 * 1024;
/// How long the streams of a command that has ended may stay open without a word: somebody outside of its tree may have got hold of them.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// In all, that long is waited for what comes of them then, and so much of it is handed on: a pipe holds less.
const ALL_LAST_WORDS: Duration = Duration::from_secs(30);
const MOST_LAST_WORDS: usize = 4 * 1024 * 1024;
/// Tells which command a process belongs to, in the environment of every process of it, beside those of its container.
const EXEC_VARIABLE: &str = "BLUEBIRD_EXEC";
/// What programs are told of the terminal that they run in, unless the container says otherwise.
const TERMINAL_KIND: (&str, &str) = ("TERM", "xterm");

/// The commands that run now, so that each ends with the run of the container that it was started in.
#[derive(Debug)]
pub(crate) struct Execs {
    root: Arc<Root>,
    guard_program: PathBuf,
    running: Mutex<Vec<Running>>,
}

#[derive(Debug)]
struct Running {
    id: String,
    uid: PodUid,
    container: String,
    attempt: u32,
    container_ended: CancellationToken,
}

/// Why a command could not be run to its end.
#[derive(Debug)]
pub(crate) enum ExecError {
    /// There is no such container, or it doesn't run; for people.
    NotRunning(String),
    /// The run of the container is over, and so is the command.
    ContainerEnded,
    /// It took longer than it may. Nothing of it is left, or will be in a moment.
    TimedOut,
    /// The machine doesn't allow it, or somebody has killed the guard.
    Failed(io::Error),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecEnd {
    /// As a shell would tell it: 127 when there is no such program, 126 when it can't be executed, 128 and the number of the signal that ended it.
    pub(crate) code: i32,
    /// For people, when the code is none of the command's own.
    pub(crate) message: String,
}

/// The outcome of a command that reads nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) end: ExecEnd,
    /// The first that it wrote, to standard output and standard error as they came.
    pub(crate) text: Vec<u8>,
}

/// What comes out of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last.
    Ended(ExecEnd),
}

/// A command that runs. Dropping it ends the command with all that it has started.
pub(crate) struct Exec {
    command: <Host as Os>::Guarded,
    stdin: Option<Box<dyn AsyncWrite + Send + Sync + Unpin>>,
    stdout: Outlet,
    stderr: Outlet,
    /// How it ended.
    end: Option<ExecEnd>,
    last_words: LastWords,
    container_ended: CancellationToken,
    registered: Registered,
}

impl Execs {
    /// `guard_program` is any executable of BlueBird's own that plays roles.
    pub(crate) fn new(root: Arc<Root>, guard_program: PathBuf) -> Arc<Self> {
        Arc::new(Self { root, guard_program, running: Mutex::default() })
    }

    /// Runs a command in a container until it ends, at most for so long.
    pub(crate) async fn output(
        self: &Arc<Self>,
        uid: &PodUid,
        container: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<Output, ExecError> {
        let run = async {
            let mut exec = self.start(uid, container, command, Wiring::default()).await?;
            let mut text = Vec::new();
            loop {
                match exec.next().await? {
                    Heard::Stdout(piece) | Heard::Stderr(piece) => {
                        let room = KEPT_OUTPUT - text.len();
                        text.extend_from_slice(&piece[..piece.len().min(room)]);
                    }
                    Heard::Ended(end) => return Ok(Output { end, text }),
                }
            }
        };
        tokio::time::timeout(timeout, run).await.unwrap_or(Err(ExecError::TimedOut))
    }

    /// Starts a command in the environment and the folder of a container that runs.
    pub(crate) async fn start(
        self: &Arc<Self>,
        uid: &PodUid,
        container: &str,
        command: &[String],
        wiring: Wiring,
    ) -> Result<Exec, ExecError> {
        let mut run = self.run_now(uid, container).await?.with_command(command);
        let registered = Registered { execs: self.clone(), id: uuid::Uuid::new_v4().to_string() };
        let container_ended = CancellationToken::new();
        self.lock().push(Running {
            id: registered.id.clone(),
            uid: uid.clone(),
            container: container.to_owned(),
            attempt: run.attempt,
            container_ended: container_ended.clone(),
        });
        // It may have ended before its end could be heard here.
        if self.run_now(uid, container).await?.attempt != run.attempt {
            return Err(ExecError::ContainerEnded);
        }
        run.env.push((EXEC_VARIABLE.to_owned(), registered.id.clone()));
        if wiring.terminal.is_some() && !run.env.iter().any(|(name, _)| name == TERMINAL_KIND.0) {
            run.env.push((TERMINAL_KIND.0.to_owned(), TERMINAL_KIND.1.to_owned()));
        }
        let started = <Host as Os>::Guarded::start(&self.guard_program, &run, wiring).await;
        let (command, Streams { stdin, stdout, stderr }) = started.map_err(ExecError::Failed)?;
        Ok(Exec {
            command,
            stdin,
            stdout: Outlet::new(Some(stdout)),
            stderr: Outlet::new(stderr),
            end: None,
            last_words: LastWords::default(),
            container_ended,
            registered,
        })
    }

    /// Ends the commands in those runs of a pod's containers that are over: all for which `is_running` says no.
    pub(crate) fn end_unless(&self, uid: &PodUid, is_running: impl Fn(&str, u32) -> bool) {
        for running in self.lock().iter().filter(|running| running.uid == *uid) {
            if !is_running(&running.container, running.attempt) {
                running.container_ended.cancel();
            }
        }
    }

    /// As [`Execs::run_of`]; files are read, which no task may do.
    async fn run_now(self: &Arc<Self>, uid: &PodUid, container: &str) -> Result<Run, ExecError> {
        let (execs, uid, container) = (self.clone(), uid.clone(), container.to_owned());
        let looked = tokio::task::spawn_blocking(move || execs.run_of(&uid, &container)).await;
        looked.unwrap_or_else(|error| Err(ExecError::Failed(io::Error::other(error))))
    }

    /// What a container was started with that runs now.
    fn run_of(&self, uid: &PodUid, container: &str) -> Result<Run, ExecError> {
        let gone = || ExecError::NotRunning("the pod is not on this node any more".to_owned());
        let Found { is_guarded, desired, state, .. } = look(&self.root.pod(uid)).map_err(ExecError::Failed)?.ok_or_else(gone)?;
        let not_started = || ExecError::NotRunning(format!("container {container} has not been started yet"));
        let latest = state.get(container).ok_or_else(not_started)?;
        match &latest.stage {
            Stage::Ended(ended) => return Err(ExecError::NotRunning(format!("container {container} {}", how(&ended.cause)))),
            Stage::Running { pid, start_time, .. } if !is_guarded || start_time.is_some() && Host::start_time(*pid) != *start_time => {
                return Err(ExecError::NotRunning(format!("container {container} {}", how(&Cause::Lost))));
            }
            Stage::Running { pid: ABOUT_TO_START, .. } => return Err(not_started()),
            Stage::Running { .. } => {}
        }
        let run = desired.runs.into_iter().find(|run| run.container == container && run.attempt == latest.attempt);
        run.ok_or_else(not_started)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exec {
    /// Its standard input, once. Shutting that down says that there is no more; dropping it says nothing.
    pub(crate) fn take_stdin(&mut self) -> Option<Box<dyn AsyncWrite + Send + Sync + Unpin>> {
        self.stdin.take()
    }

    /// The next of what comes out of it. It waits while this isn't asked for. Cancelling this loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Heard, ExecError> {
        loop {
            if let Some(end) = self.end.as_ref().filter(|_| self.stdout.is_closed() && self.stderr.is_closed()) {
                return Ok(Heard::Ended(end.clone()));
            }
            match self.wake().await {
                Wake::ContainerEnded => return Err(ExecError::ContainerEnded),
                Wake::Stdout(Ok(Some(piece))) => return Ok(Heard::Stdout(self.heard(piece))),
                Wake::Stderr(Ok(Some(piece))) => return Ok(Heard::Stderr(self.heard(piece))),
                Wake::Stdout(Ok(None)) | Wake::Stderr(Ok(None)) => {}
                Wake::Stdout(Err(error)) | Wake::Stderr(Err(error)) => return Err(ExecError::Failed(error)),
                Wake::Ended(Ok(cause)) => self.end = Some(ExecEnd::from(cause)),
                Wake::Ended(Err(error)) => return Err(self.unguarded(error).await),
                Wake::Silent => (self.stdout, self.stderr) = (Outlet::new(None), Outlet::new(None)),
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let has_ended = self.end.is_some();
        if self.last_words.are_over() {
            return Wake::Silent;
        }
        // From now on: whoever reads slowly is waited for, and gets what there is before anything counts as silence.
        let silence = Instant::now() + LAST_WORDS;
        let _waiting = has_ended.then(|| self.last_words.wait());
        let heard = async {
            tokio::select! {
                () = self.container_ended.cancelled() => Wake::ContainerEnded,
                piece = self.stdout.read() => Wake::Stdout(piece),
                piece = self.stderr.read() => Wake::Stderr(piece),
                cause = self.command.ended(), if !has_ended => Wake::Ended(cause),
            }
        };
        tokio::select! {
            biased;
            wake = heard => wake,
            () = tokio::time::sleep_until(silence), if has_ended => Wake::Silent,
        }
    }

    fn heard(&mut self, piece: Bytes) -> Bytes {
        if self.end.is_some() {
            self.last_words.bytes += piece.len();
        }
        piece
    }

    /// Waits until the run of its container is over.
    pub(crate) fn container_ended(&self) -> impl Future<Output = ()> + use<> {
        self.container_ended.clone().cancelled_owned()
    }

    /// Tells it how large its terminal's window is now.
    pub(crate) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.command.resize(size)
    }

    /// Its guard is gone before it: what is left is found by its mark.
    async fn unguarded(&self, error: io::Error) -> ExecError {
        let id = self.registered.id.clone();
        let killed = tokio::task::spawn_blocking(move || Host::kill_all(|variable| variable(EXEC_VARIABLE).as_deref() == Some(&*id))).await;
        tracing::warn!(%error, ?killed, "a command lost its guard; what was left of it is killed");
        ExecError::Failed(error)
    }
}

enum Wake {
    ContainerEnded,
    Stdout(io::Result<Option<Bytes>>),
    Stderr(io::Result<Option<Bytes>>),
    Ended(io::Result<Cause>),
    Silent,
}

/// What came of a command's streams after its end. Somebody outside of its tree who holds them may write for ever.
#[derive(Default)]
struct LastWords {
    /// Without the time in which nobody asked.
    waited: Duration,
    bytes: usize,
}

struct Waiting<'a> {
    waited: &'a mut Duration,
    since: Instant,
}

impl LastWords {
    fn are_over(&self) -> bool {
        self.waited >= ALL_LAST_WORDS || self.bytes >= MOST_LAST_WORDS
    }

    /// Somebody waits for them until this is dropped.
    fn wait(&mut self) -> Waiting<'_> {
        Waiting { waited: &mut self.waited, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.waited += self.since.elapsed();
    }
}

/// A stream that a command writes to.
struct Outlet {
    /// `None` once it has ended.
    stream: Option<Box<dyn AsyncRead + Send + Sync + Unpin>>,
    buffer: BytesMut,
}

impl Outlet {
    fn new(stream: Option<Box<dyn AsyncRead + Send + Sync + Unpin>>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    fn is_closed(&self) -> bool {
        self.stream.is_none()
    }

    /// The next bytes; `None` at the end, once. After that it waits for ever.
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let Some(stream) = &mut self.stream else { return pending().await };
        self.buffer.reserve(PIECE);
        match stream.read_buf(&mut (&mut self.buffer).limit(PIECE)).await? {
            0 => self.stream = None,
            _ => return Ok(Some(self.buffer.split().freeze())),
        }
        Ok(None)
    }
}

/// Notes that a command runs, until it is dropped.
#[derive(Debug)]
struct Registered {
    execs: Arc<Execs>,
    id: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.execs.lock().retain(|running| running.id != self.id);
    }
}

impl From<Cause> for ExecEnd {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Exited(code) => Self { code, message: String::new() },
            Cause::Signaled(signal) => Self { code: 128_i32.saturating_add(signal), message: format!("ended by signal {signal}") },
            Cause::OomKilled => Self { code: OOM_KILLED, message: "it reached its limit of memory".to_owned() },
            Cause::StartFailed { code, message } => Self { code, message },
            Cause::Lost | Cause::Undone => Self { code: 255, message: "nobody saw how it ended".to_owned() },
        }
    }
}

/// How a container has ended, after its name.
fn how(cause: &Cause) -> String {
    match cause {
        Cause::Exited(code) => format!("has ended with exit code {code}"),
        Cause::Signaled(signal) => format!("was ended by signal {signal}"),
        Cause::OomKilled => "was killed at its limit of memory".to_owned(),
        Cause::StartFailed { message, .. } => format!("could not be started: {message}"),
        Cause::Lost => "has ended; nobody saw how".to_owned(),
        Cause::Undone => "has ended, and waits to be run again".to_owned(),
    }
}

// They run scripts of a Unix shell; what of it is Windows' own is shown by the conformance.
#[cfg(all(test, unix))]
mod tests;
