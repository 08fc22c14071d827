//! Linux: descendants stay ours (child subreaper), containers die with their shim (death signal), and /proc tells the rest.

mod cgroups;
mod held;
mod program;
mod usage;

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::Stream;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;

use crate::kubelet::shim::files::Run;

use super::fence::Places;
use super::length::Lengths;
use super::usage::{DiskUsage, MachineUsage, ProcessUsage};
use super::{Access, Files, Known, Os, Process, Reaped, unix};

/// Linux.
#[derive(Debug)]
pub(crate) struct Host;

impl Os for Host {
    const CAPABILITIES: &'static [&'static str] = unix::CAPABILITIES;
    const NAME: &'static str = "linux";
    const INHERITED_VARIABLES: &'static [&'static str] = unix::INHERITED_VARIABLES;
    const PATH_SEPARATOR: &'static str = unix::PATH_SEPARATOR;
    const DEFAULT_PATH: &'static str = unix::DEFAULT_PATH;

    type Bell = unix::Bell;
    type AsyncBell = unix::AsyncBell;
    type Guarded = unix::Guarded;
    type RawTerminal = unix::RawTerminal;

    fn adopt_orphans() -> io::Result<()> {
        Ok(nix::sys::prctl::set_child_subreaper(true)?)
    }

    fn spawn(command: &mut Command, run: &Run) -> io::Result<i32> {
        let parent = nix::unistd::getpid();
        let groups = run.fence.iter().map(|folder| group(folder)).collect::<io::Result<Vec<File>>>()?;
        let user = match &run.user {
            Some(user) => {
                let user = unix::user::find(user)?;
                let all = user.groups()?;
                Some((user, all))
            }
            None => None,
        };
        let prepare = move || {
            for group in &groups {
                // Whoever writes this means itself.
                nix::unistd::write(group, b"0")?;
            }
            unix::begin_session()?;
            if let Some((user, all)) = &user {
                // The pipes that it writes to are its own: it may open them again by their names. Nothing else is.
                for output in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                    // SAFETY: both are open in a process that is about to be the program.
                    let output = unsafe { BorrowedFd::borrow_raw(output) };
                    // So is the terminal of a command.
                    if fstat(output)?.st_mode & libc::S_IFMT == libc::S_IFIFO || nix::unistd::isatty(output) == Ok(true) {
                        nix::unistd::fchown(output, Some(user.uid), Some(user.gid))?;
                    }
                }
                nix::unistd::setgroups(all)?;
                nix::unistd::setgid(user.gid)?;
                nix::unistd::setuid(user.uid)?;
            }
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have ended before the line above.
            if nix::unistd::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        // SAFETY: only system calls that are allowed between fork and exec; nothing is allocated.
        unsafe { command.pre_exec(prepare) };
        unix::spawn(command)
    }

    fn lengths() -> Lengths {
        program::lengths()
    }

    fn let_go_of_files() {
        // SAFETY: a system call without pointers; what is closed is this thread's own copy of the table, in which nothing of it is. A kernel before 5.9
        // doesn't know it: then there is no copy either.
        let _kept = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    }

    fn own_program() -> io::Result<PathBuf> {
        Ok("/proc/self/exe".into())
    }

    fn boot_id() -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
    }

    fn why_no_program(file: &Path, word: &str) -> Option<String> {
        program::why_not(file, word)
    }

    fn places(root: &Path) -> Places {
        cgroups::places(root)
    }

    fn processes() -> io::Result<Vec<Process>> {
        Ok(pids()?.filter_map(process).collect())
    }

    fn variable_of(pid: i32, name: &str) -> Option<String> {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        String::from_utf8(value.to_vec()).ok()
    }

    fn kill_all(is_doomed: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool) -> io::Result<Vec<i32>> {
        let mut result = Ok(Vec::new());
        for pid in pids()? {
            // Each is tried; the first error is given.
            match held::kill_if(pid, || is_doomed(&|name| Self::variable_of(pid, name))) {
                Ok(true) => result.iter_mut().for_each(|killed| killed.push(pid)),
                Ok(false) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    fn kill_if(pid: i32, is_doomed: impl FnOnce() -> bool) -> io::Result<bool> {
        held::kill_if(pid, is_doomed)
    }

    /// Clock ticks since the machine was started.
    fn start_time(pid: i32) -> Option<u64> {
        held::start_time(pid)
    }

    fn memory_bytes() -> io::Result<u64> {
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let kibibytes =
            meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kibibytes
            .map(|kibibytes| kibibytes * 1024)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal"))
    }

    fn process_usage() -> io::Result<Vec<ProcessUsage>> {
        usage::processes()
    }

    fn machine_usage() -> io::Result<MachineUsage> {
        usage::machine()
    }

    unix::shared!();

    /// Only a descendant: its number may have become a stranger's since it was seen.
    fn kill(pid: i32) -> io::Result<()> {
        held::kill_if(pid, || is_descendant(pid)).map(drop)
    }

    fn hostname() -> String {
        unix::hostname()
    }

    fn kernel_version() -> String {
        unix::kernel_version()
    }

    async fn end_signal() -> io::Result<&'static str> {
        unix::end_signal().await
    }
}

/// What a process writes to so as to join a control group.
fn group(folder: &Path) -> io::Result<File> {
    let opened = File::options().write(true).open(folder.join("cgroup.procs"));
    // Not as the kind that it is: it would be taken for one of the program's.
    opened.map_err(|error| io::Error::other(format!("its control group {} can't be joined: {error}", folder.display())))
}

fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// `None` for a process that is gone, or is a zombie, which is as good as gone.
fn process(pid: i32) -> Option<Process> {
    let stat = stat(pid)?;
    let mut fields = fields(&stat)?;
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent })
}

fn stat(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// From the state on: `pid (name) state ppid …`, where the name may contain anything, also parentheses.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat[stat.rfind(')')? + 1..].split_whitespace())
}

/// Whether a process was started by this one, or by what this one has started.
fn is_descendant(pid: i32) -> bool {
    let me = std::process::id() as i32;
    let parents = std::iter::successors(process(pid), |child| process(child.parent)).map(|process| process.parent);
    parents.take(DEEPEST).any(|parent| parent == me)
}

/// No tree of processes is deeper: a pid that is used again while it is looked at could make a circle.
const DEEPEST: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_thread_that_lets_go_of_files_holds_none_and_the_others_keep_theirs() {
        let file = File::open("/").unwrap();
        std::thread::scope(|scope| {
            let looked = scope.spawn(|| {
                Host::let_go_of_files();
                fstat(file.as_fd()).map(drop)
            });
            assert_eq!(looked.join().unwrap(), Err(nix::errno::Errno::EBADF));
        });
        fstat(file.as_fd()).unwrap();
    }
}
