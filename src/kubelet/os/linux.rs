//! Linux: descendants stay ours (child subreaper), containers die with their shim (death signal), and /proc tells the rest.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use nix::sys::signal::Signal;

use super::Process;
pub(super) use super::unix::end_signal;
pub(crate) use super::unix::*;

/// Containers can be plain processes.
pub(crate) const RUNS_PROCESSES: bool = true;
/// As container images and the label `kubernetes.io/os` name it.
pub(crate) const NAME: &str = "linux";

/// Makes the orphans among the descendants of this process its children, so that none gets away by forking twice.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Makes a command start in a session of its own, and end when this process ends.
pub(crate) fn isolate(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        begin_session()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above.
        if nix::unistd::getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: only system calls that are allowed between fork and exec; nothing is allocated.
    unsafe { command.pre_exec(prepare) };
}

/// All living processes.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    Ok(pids()?.filter_map(process).collect())
}

fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// `None` for a process that is gone, or is a zombie, which is as good as gone.
fn process(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state ppid …: the name may contain anything, also parentheses.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent })
}

/// The value of a variable in the environment that a process was started with.
pub(crate) fn variable_of(pid: i32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// Kills every process whose environment `is_doomed`, and gives how many there were.
pub(crate) fn kill_all(is_doomed: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool) -> io::Result<usize> {
    let mut killed = 0;
    for pid in pids()? {
        // Held before it is looked at: a reused pid can't be mistaken for the process that was looked at.
        let Ok(handle) = pidfd(pid) else { continue };
        if is_doomed(&|name| variable_of(pid, name)) && kill_handle(&handle).is_ok() {
            killed += 1;
        }
    }
    Ok(killed)
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
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

/// How much memory the machine has, in bytes.
pub(crate) fn memory_bytes() -> io::Result<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let kibibytes = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal"))
}
