//! Processes that are held while they are looked at, so that a number that is used again is never mistaken for the process that had it before.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;

/// How a process is told from the next one that gets its number.
#[derive(Debug)]
enum Held {
    /// The kernel does it.
    By(OwnedFd),
    /// Where it doesn't: by when the process was started.
    Since(u64),
}

/// Kills a process if it is doomed; false when it isn't, or is gone.
pub(super) fn kill_if(pid: i32, is_doomed: impl FnOnce() -> bool) -> io::Result<bool> {
    let Some(held) = hold(pid, open(pid))? else { return Ok(false) };
    if !is_doomed() {
        return Ok(false);
    }
    let killed = match held {
        Held::By(handle) => kill_handle(&handle),
        Held::Since(started) if start_time(pid) != Some(started) => return Ok(false),
        Held::Since(_) => {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from)
        }
    };
    match killed {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(io::Error::new(error.kind(), format!("process {pid} can't be killed: {error}"))),
    }
}

/// When a process was started, in clock ticks since the machine was.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    super::fields(&super::stat(pid)?)?.nth(START_TIME)?.parse().ok()
}

/// Its place among the fields of `/proc/PID/stat`, counted from the state.
const START_TIME: usize = 19;

/// `None` for a process that is gone. `opened` is what the kernel has said.
fn hold(pid: i32, opened: io::Result<OwnedFd>) -> io::Result<Option<Held>> {
    match opened {
        Ok(handle) => Ok(Some(Held::By(handle))),
        Err(error) => match error.raw_os_error() {
            // The others say that the number is a thread's by now.
            Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => Ok(None),
            // A kernel before 5.3, or a sandbox that knows no such call.
            Some(libc::ENOSYS | libc::EPERM) => Ok(start_time(pid).map(Held::Since)),
            _ => Err(io::Error::new(error.kind(), format!("process {pid} can't be looked at: {error}"))),
        },
    }
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers; what it returns is a new descriptor, or -1.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            -1 => Err(io::Error::last_os_error()),
            handle => Ok(OwnedFd::from_raw_fd(handle as i32)),
        }
    }
}

fn kill_handle(handle: &OwnedFd) -> io::Result<()> {
    // SAFETY: the null pointer is allowed and means: as kill would.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), libc::SIGKILL, std::ptr::null::<libc::siginfo_t>(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32) -> io::Result<OwnedFd> {
        Err(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn where_the_kernel_holds_no_process_its_start_time_tells_it_from_the_next_one() {
        let me = std::process::id() as i32;
        for errno in [libc::ENOSYS, libc::EPERM] {
            assert!(matches!(hold(me, refused(errno)), Ok(Some(Held::Since(started))) if Some(started) == start_time(me)));
        }
        assert!(matches!(hold(me, refused(libc::ESRCH)), Ok(None)));
        assert!(start_time(me) > Some(0));
    }

    #[test]
    fn a_process_that_cannot_be_looked_at_is_not_taken_for_one_that_is_gone() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let error = hold(1, refused(errno)).unwrap_err();
            assert!(error.to_string().contains("process 1 can't be looked at"), "{error}");
        }
    }

    #[test]
    fn only_what_is_doomed_is_killed() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(!kill_if(pid, || false).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(kill_if(pid, || true).unwrap());
        child.wait().unwrap();
        assert!(!kill_if(pid, || true).unwrap(), "it is gone");
    }
}
