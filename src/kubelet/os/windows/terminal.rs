//! A command in a terminal. This program once more, in the role of a guard, is started in a pseudo console: it is told by a pipe what to run, runs that as it
//! would be run outside of a terminal, and tells how it ended. Both are in a job that ends when this is dropped, and when the kubelet dies.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{AsHandle as _, OwnedHandle};
use std::os::windows::process::CommandExt as _;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::windows::named_pipe::NamedPipeServer;
use windows_sys::Win32::Storage::FileSystem::SECURITY_IDENTIFICATION;
use windows_sys::Win32::System::Console::SetConsoleCtrlHandler;
use windows_sys::Win32::System::Threading::CREATE_SUSPENDED;

use super::children::KILLED;
use super::job::Job;
use super::pseudo_console::PseudoConsole;
use super::{check, console, privacy, process};
use crate::kubelet::os::{GUARD_ROLE, Streams, TerminalSize};
use crate::kubelet::shim::files::{Cause, Run};
use crate::kubelet::shim::launch;

/// What a program takes for the end of its input when it comes at the beginning of a line.
const END_OF_INPUT: &[u8] = b"\x1a\r";

/// A command in a terminal, as the kubelet has it.
#[derive(Debug)]
pub(super) struct InTerminal {
    /// `None` when the command has ended.
    console: Mutex<Option<PseudoConsole>>,
    guard: OwnedHandle,
    job: Job,
    /// By which the guard tells how the command ended, and what it has said so far.
    from_guard: NamedPipeServer,
    said: Vec<u8>,
    /// Open for as long as the terminal: without it that would end.
    _keyboard: Arc<NamedPipeServer>,
}

impl InTerminal {
    pub(super) async fn start(program: &Path, run: &Run, size: TerminalSize, has_stdin: bool) -> io::Result<(Self, Streams)> {
        let (keyboard, their_keyboard) = pipe(File::options().read(true)).await?;
        let (screen, their_screen) = pipe(File::options().write(true)).await?;
        let console = PseudoConsole::new(size, their_keyboard.into(), their_screen.into())?;
        let name = new_name();
        let mut control = privacy::private_pipe(&name)?;
        let job = Job::new()?;
        let guard = console.spawn(program, &[GUARD_ROLE, &name])?;
        if let Err(error) = job.assign(guard.as_handle()).and_then(|()| process::resume(guard.as_handle())) {
            process::terminate(guard.as_handle(), KILLED)?;
            return Err(error);
        }
        tokio::select! {
            connected = control.connect() => connected?,
            ended = process::ended(guard.try_clone()?) => return Err(ended.err().unwrap_or_else(killed)),
        }
        let mut order = serde_json::to_vec(run)?;
        order.push(b'\n');
        control.write_all(&order).await?;
        let keyboard = Arc::new(keyboard);
        let streams =
            Streams { stdin: has_stdin.then(|| Box::new(Keyboard(keyboard.clone())) as _), stdout: Box::new(Screen(screen)), stderr: None };
        let console = Mutex::new(Some(console));
        Ok((Self { console, guard, job, from_guard: control, said: Vec::new(), _keyboard: keyboard }, streams))
    }

    /// As [`Guarded::ended`](crate::kubelet::os::Guarded::ended); from then on the terminal shows its last and ends.
    pub(super) async fn ended(&mut self) -> io::Result<Cause> {
        process::ended(self.guard.try_clone()?).await?;
        while or_end(self.from_guard.read_buf(&mut self.said).await)? > 0 {}
        self.job.end(KILLED).await?;
        if let Some(console) = self.console().take() {
            // It waits until its last has been read.
            close(console);
        }
        match self.said.is_empty() {
            true => Err(killed()),
            false => Ok(serde_json::from_slice(&self.said)?),
        }
    }

    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.console().as_ref().map_or(Ok(()), |console| console.resize(size))
    }

    fn console(&self) -> MutexGuard<'_, Option<PseudoConsole>> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        if let Some(console) = self.console().take() {
            // It may wait for what is in it to end, which is done when this value's job is dropped: not before this has returned.
            close(console);
        }
    }
}

/// Closes it in a thread that nobody waits for, not even the end of this program.
fn close(console: PseudoConsole) {
    let closed = std::thread::Builder::new().name("terminal".to_owned()).spawn(move || drop(console));
    if let Err(error) = closed {
        tracing::warn!(%error, "a terminal can't be closed without waiting");
    }
}

fn killed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the guard of the command was killed")
}

/// A pipe whose one end can be awaited, while the other, which is opened so, is a file like any other.
async fn pipe(theirs: &OpenOptions) -> io::Result<(NamedPipeServer, File)> {
    let name = new_name();
    let ours = privacy::private_pipe(&name)?;
    let theirs = theirs.open(&name)?;
    ours.connect().await?;
    Ok((ours, theirs))
}

fn new_name() -> String {
    format!(r"\\.\pipe\bluebird-{}", uuid::Uuid::new_v4())
}

/// A pipe that nobody has the other end of any more is at its end.
fn or_end(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        other => other,
    }
}

/// What is shown.
struct Screen(NamedPipeServer);

impl AsyncRead for Screen {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(or_end(ready!(Pin::new(&mut self.0).poll_read(context, buffer)).map(|()| 0)).map(drop))
    }
}

/// What is typed.
struct Keyboard(Arc<NamedPipeServer>);

impl AsyncWrite for Keyboard {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no end: the program is told in the way in which a person would.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(context, END_OF_INPUT).map_ok(drop)
    }
}

/// Guards one command: `GUARD_ROLE PIPE`.
pub(super) fn guard(arguments: &[String]) -> io::Result<()> {
    let [pipe] = arguments else { return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a kubelet starts it")) };
    console::prepare()?;
    // What is typed to end the command is for that alone; whether it is for anybody is inherited.
    // SAFETY: no handler.
    check(unsafe { SetConsoleCtrlHandler(None, 0) })?;
    let mut control = File::options().read(true).write(true).security_qos_flags(SECURITY_IDENTIFICATION).open(pipe)?;
    let mut order = Vec::new();
    BufReader::new(&control).read_until(b'\n', &mut order)?;
    let Ok(run) = serde_json::from_slice::<Run>(&order) else {
        // Whoever ordered it has gone away in the middle of it.
        return Ok(());
    };
    let cause = launch::command(&run).and_then(|mut command| execute(&mut command, &run).map_err(|error| launch::explain(&run, &error)));
    control.write_all(&serde_json::to_vec(&cause.map_or_else(|failed| failed, Cause::Exited))?)
}

/// Runs it to its end, and ends what is left of it.
fn execute(command: &mut Command, run: &Run) -> io::Result<i32> {
    let open = |name: &str| File::options().read(true).write(true).open(name);
    let screen = open("CONOUT$")?;
    command.stdin(open("CONIN$")?).stdout(screen.try_clone()?).stderr(screen);
    // As for commands without a terminal: nobody can join the container's own.
    let job = Job::within(&run.limits)?;
    let mut child = command.creation_flags(CREATE_SUSPENDED).spawn()?;
    if let Err(error) = job.assign(child.as_handle()).and_then(|()| process::resume(child.as_handle())) {
        child.kill()?;
        return Err(error);
    }
    Ok(child.wait()?.code().unwrap_or(KILLED.cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::shim;

    const SIZE: TerminalSize = TerminalSize { columns: 90, rows: 30 };

    fn run(folder: &Path, command: &[&str]) -> Run {
        let env = std::env::vars().collect();
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Run { container: "main".into(), command, env, working_dir: folder.to_owned(), ..Run::default() }
    }

    /// How a command in a terminal ends in which this is typed, and what it has shown.
    async fn show(command: &[&str], typed: &[u8]) -> (Cause, String) {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path(), command);
        let (mut terminal, mut streams) = InTerminal::start(&shim::find(None).unwrap(), &run, SIZE, true).await.unwrap();
        let mut keyboard = streams.stdin.take().unwrap();
        keyboard.write_all(typed).await.unwrap();
        let mut screen = Vec::new();
        let (cause, shown) = tokio::join!(terminal.ended(), streams.stdout.read_to_end(&mut screen));
        shown.unwrap();
        (cause.unwrap(), String::from_utf8_lossy(&screen).into_owned())
    }

    #[tokio::test]
    async fn a_command_in_a_terminal_reads_what_is_typed_and_all_that_it_showed_comes_before_the_end() {
        let (cause, screen) = show(&["cmd.exe", "/c", "set /p line=what& exit 5"], b"typed\r").await;
        assert_eq!(cause, Cause::Exited(5), "{screen:?}");
        assert!(screen.contains("what") && screen.contains("typed"), "{screen:?}");
    }

    #[tokio::test]
    async fn what_can_not_be_started_in_a_terminal_is_told_as_it_is_outside_of_one() {
        let (cause, _) = show(&["no-such-program-at-all"], b"").await;
        assert!(matches!(cause, Cause::StartFailed { code: 127, .. }), "{cause:?}");
    }

    #[tokio::test]
    async fn a_command_in_a_terminal_that_nobody_wants_any_more_ends() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path(), &["cmd.exe", "/c", "set /p line="]);
        let (terminal, _streams) = InTerminal::start(&shim::find(None).unwrap(), &run, SIZE, false).await.unwrap();
        let guard = terminal.guard.try_clone().unwrap();
        drop(terminal);
        process::ended(guard).await.unwrap();
    }
}
