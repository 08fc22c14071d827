//! The guard of one command: starts it, and sees to it that nothing of it is left when it has ended, or when whoever ordered it goes away.
//! Single-threaded, without tokio; its only input is the socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

use super::{detach, poll, ring_at_child_end};
use crate::kubelet::os::{Host, Os, Reaped};
use crate::kubelet::shim::files::{Cause, Run};
use crate::kubelet::shim::launch;

/// What the kubelet says when the command's input is complete.
pub(super) const CLOSE_INPUT: u8 = b'c';
/// Between two kills of a tree that doesn't get smaller fast enough.
const RETRY: Duration = Duration::from_millis(20);

/// Guards one command: `GUARD_ROLE DESCRIPTOR [INPUT]`, the numbers of the socket and of the writing end of the command's input.
pub(in crate::kubelet::os) fn main(arguments: &[String]) -> io::Result<()> {
    let (control, input) = match arguments {
        [control, input] => (control, Some(handed_down(input)?)),
        [control] => (control, None),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a kubelet starts it")),
    };
    let control = UnixStream::from(handed_down(control)?);
    detach()?;
    Host::adopt_orphans()?;
    let (child_ended, bell) = UnixStream::pair()?;
    child_ended.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    ring_at_child_end(bell.as_raw_fd())?;

    let mut order = Vec::new();
    let mut reader = BufReader::new(&control);
    reader.read_until(b'\n', &mut order)?;
    // What was said right after the order, if it came with it.
    let input = input.filter(|_| !reader.buffer().contains(&CLOSE_INPUT));
    let Ok(run) = serde_json::from_slice::<Run>(&order) else {
        // Whoever ordered it has gone away in the middle of it.
        return Ok(());
    };
    let mut guard = Guard { control, input, child_ended, main: None, cause: None };
    let cause = match guard.start(&run) {
        Ok(()) => {
            // They are the command's alone: it must be able to close them.
            close_streams()?;
            guard.run()?
        }
        Err(cause) => Some(cause),
    };
    match cause {
        Some(cause) => guard.control.write_all(&serde_json::to_vec(&cause)?),
        None => Ok(()),
    }
}

struct Guard {
    control: UnixStream,
    /// Keeps the command's input open.
    input: Option<OwnedFd>,
    /// Readable when a child has ended.
    child_ended: UnixStream,
    main: Option<i32>,
    /// How the main process has ended.
    cause: Option<Cause>,
}

impl Guard {
    fn start(&mut self, run: &Run) -> Result<(), Cause> {
        let mut command = launch::command(run)?;
        let main = Host::spawn(&mut command, run).map_err(|error| launch::explain(run, &error))?;
        self.main = Some(main);
        Ok(())
    }

    /// Until nothing of the command is left; how it ended, if it did so before somebody wanted it to.
    fn run(&mut self) -> io::Result<Option<Cause>> {
        let mut has_children = true;
        while has_children && self.cause.is_none() {
            self.wait(None)?;
            if self.is_abandoned()? {
                break;
            }
            has_children = self.reap()?;
        }
        let cause = self.cause.take();
        while has_children {
            for process in Host::descendants(std::process::id() as i32)? {
                Host::kill(process.pid)?;
            }
            has_children = self.reap()?;
            if has_children {
                self.wait(Some(RETRY))?;
                has_children = self.reap()?;
            }
        }
        Ok(cause)
    }

    /// Waits until a child has ended or the kubelet goes away; with a time, only for children.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut ends = [PollFd::new(self.child_ended.as_fd(), PollFlags::POLLIN), PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        let count = if timeout.is_none() { 2 } else { 1 };
        poll(&mut ends[..count], timeout)?;
        let mut rings = [0; 64];
        while matches!((&self.child_ended).read(&mut rings), Ok(1..)) {}
        Ok(())
    }

    /// The kubelet's end of the socket is closed. All that ever comes from there is that the input is complete.
    fn is_abandoned(&mut self) -> io::Result<bool> {
        let mut ends = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        poll(&mut ends, Some(Duration::ZERO))?;
        if !ends[0].any().unwrap_or(true) {
            return Ok(false);
        }
        match self.control.read(&mut [0; 16]) {
            Ok(1..) => drop(self.input.take()),
            // An error says no less.
            Ok(0) | Err(_) => return Ok(true),
        }
        Ok(false)
    }

    /// Takes note of children that have ended; false when there is none left, and so no descendant.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            let (pid, cause) = match Host::reap()? {
                Reaped::Exited { pid, code } => (pid, Cause::Exited(code)),
                Reaped::Signaled { pid, signal } => (pid, Cause::Signaled(signal)),
                Reaped::OutOfMemory { pid } => (pid, Cause::OomKilled),
                Reaped::AllAlive => return Ok(true),
                Reaped::NoChildren => return Ok(false),
            };
            if self.main == Some(pid) {
                self.cause = Some(cause);
            }
        }
    }
}

/// What the kubelet has opened for this process; nobody whom it starts gets it.
fn handed_down(number: &str) -> io::Result<OwnedFd> {
    let number = number.parse().map_err(io::Error::other)?;
    // SAFETY: the kubelet says that it is open, and nothing else in this process knows the number.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(descriptor.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(descriptor)
}

fn close_streams() -> io::Result<()> {
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::unistd::dup2_stdout(&nothing)?;
    nix::unistd::dup2_stderr(&nothing)?;
    Ok(())
}
