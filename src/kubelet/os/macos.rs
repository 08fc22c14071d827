//! macOS. It has no child subreaper and no death signal: a descendant that leaves both its parent and its session gets away from the
//! shim, and is found by its environment when the pod's processes are swept.

mod usage;

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use futures_util::Stream;
use nix::libc;

use crate::kubelet::shim::files::Run;

use super::length::Lengths;
use super::usage::{DiskUsage, MachineUsage, ProcessUsage};
use super::{Access, Files, Known, Os, Process, Reaped, unix};

/// macOS.
#[derive(Debug)]
pub(crate) struct Host;

impl Os for Host {
    const CAPABILITIES: &'static [&'static str] = unix::CAPABILITIES;
    const NAME: &'static str = "macos";
    const INHERITED_VARIABLES: &'static [&'static str] = unix::INHERITED_VARIABLES;
    const PATH_SEPARATOR: &'static str = unix::PATH_SEPARATOR;
    const DEFAULT_PATH: &'static str = unix::DEFAULT_PATH;

    type Bell = unix::Bell;
    type AsyncBell = unix::AsyncBell;
    type Guarded = unix::Guarded;
    type RawTerminal = unix::RawTerminal;

    /// There is nothing like it here.
    fn adopt_orphans() -> io::Result<()> {
        Ok(())
    }

    fn spawn(command: &mut Command, run: &Run) -> io::Result<i32> {
        let user = match &run.user {
            Some(user) => {
                let user = unix::user::find(user)?;
                let all = user.groups()?;
                Some((user, all))
            }
            None => None,
        };
        let prepare = move || {
            unix::begin_session()?;
            if let Some((user, all)) = &user {
                // Before the others, which give up the right to it. `Command::uid` would leave it with no group but one.
                // SAFETY: there are as many as is said.
                if unsafe { libc::setgroups(all.len() as libc::c_int, all.as_ptr()) } == -1 {
                    return Err(io::Error::last_os_error());
                }
                nix::unistd::setgid(user.gid)?;
                nix::unistd::setuid(user.uid)?;
            }
            Ok(())
        };
        // SAFETY: only system calls that are allowed between fork and exec; nothing is allocated.
        unsafe { command.pre_exec(prepare) };
        unix::spawn(command)
    }

    fn lengths() -> Lengths {
        let all = nix::unistd::sysconf(nix::unistd::SysconfVar::ARG_MAX).ok().flatten().and_then(|all| usize::try_from(all).ok());
        Lengths { all: all.map_or(usize::MAX, |all| all.saturating_sub(unix::LENGTH_APART)), ..Lengths::NO_BOUND }
    }

    fn processes() -> io::Result<Vec<Process>> {
        Ok(pids()?.into_iter().filter_map(process).collect())
    }

    fn variable_of(pid: i32, name: &str) -> Option<String> {
        let mut query = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
        let mut size = 0_usize;
        let (pointer, count) = (query.as_mut_ptr(), query.len() as libc::c_uint);
        // SAFETY: a null buffer asks for the size.
        if unsafe { libc::sysctl(pointer, count, std::ptr::null_mut(), &raw mut size, std::ptr::null_mut(), 0) } != 0 {
            return None;
        }
        let mut arguments = vec![0_u8; size];
        // SAFETY: the buffer is as large as is said.
        if unsafe { libc::sysctl(pointer, count, arguments.as_mut_ptr().cast(), &raw mut size, std::ptr::null_mut(), 0) } != 0 {
            return None;
        }
        arguments.truncate(size);
        let value = arguments.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        String::from_utf8(value.to_vec()).ok()
    }

    fn kill_all(is_doomed: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool) -> io::Result<Vec<i32>> {
        let doomed: Vec<i32> = pids()?.into_iter().filter(|pid| is_doomed(&|name| Self::variable_of(*pid, name))).collect();
        for pid in &doomed {
            kill(*pid)?;
        }
        Ok(doomed)
    }

    /// Its number may change hands between the two: nothing here can hold a process.
    fn kill_if(pid: i32, is_doomed: impl FnOnce() -> bool) -> io::Result<bool> {
        if !is_doomed() {
            return Ok(false);
        }
        kill(pid).map(|()| true)
    }

    /// Microseconds since 1970.
    fn start_time(pid: i32) -> Option<u64> {
        let info = info(pid)?;
        Some(info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec)
    }

    fn memory_bytes() -> io::Result<u64> {
        let mut bytes = 0_u64;
        let mut size = std::mem::size_of::<u64>();
        // SAFETY: the buffer is as large as is said.
        let result = unsafe { libc::sysctlbyname(c"hw.memsize".as_ptr(), (&raw mut bytes).cast(), &raw mut size, std::ptr::null_mut(), 0) };
        if result == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
    }

    fn process_usage() -> io::Result<Vec<ProcessUsage>> {
        Ok(pids()?.into_iter().filter_map(usage::process).collect())
    }

    fn machine_usage() -> io::Result<MachineUsage> {
        usage::machine(Self::memory_bytes()?)
    }

    unix::shared!();

    fn kill(pid: i32) -> io::Result<()> {
        kill(pid)
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

/// Kills one process of ours.
fn kill(pid: i32) -> io::Result<()> {
    unix::done_if_gone(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL))
}

fn pids() -> io::Result<Vec<i32>> {
    // SAFETY: a null buffer asks for the count.
    let count = unsafe { libc::proc_listallpids(std::ptr::null_mut(), 0) };
    // Room for those that start meanwhile.
    let mut pids = vec![0_i32; usize::try_from(count).map_err(|_| io::Error::last_os_error())? + 64];
    let bytes = i32::try_from(std::mem::size_of_val(pids.as_slice())).unwrap_or(i32::MAX);
    // SAFETY: the buffer is as large as is said.
    let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), bytes) };
    pids.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
    Ok(pids)
}

fn process(pid: i32) -> Option<Process> {
    let info = info(pid)?;
    Some(Process { pid, parent: i32::try_from(info.pbi_ppid).ok()? })
}

/// Of a process that lives.
fn info(pid: i32) -> Option<libc::proc_bsdinfo> {
    let size = std::mem::size_of::<libc::proc_bsdinfo>();
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut info: libc::proc_bsdinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is as large as is said.
    let filled = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, (&raw mut info).cast(), i32::try_from(size).ok()?) };
    let is_alive = usize::try_from(filled).ok()? == size && info.pbi_status != libc::SZOMB;
    is_alive.then_some(info)
}
