//! The containers of a shim: each in a job of its own, inside the job of the shim.

use std::io;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, CREATE_SUSPENDED, GetCurrentProcess,
};

use super::bell::{Signal, thread};
use super::job::Job;
use super::process;
use crate::kubelet::os::{Process, Reaped};

/// What a killed process seems to have returned: what shells say of one that was ended by signal 9.
pub(super) const KILLED: u32 = 137;

/// This process and all that it starts. It dies with this process, whatever ends that.
static GUARD: OnceLock<Job> = OnceLock::new();
/// What rings at the end of any process in it.
static SIGNAL: OnceLock<Arc<Signal>> = OnceLock::new();
static CONTAINERS: Mutex<Vec<Container>> = Mutex::new(Vec::new());

/// A container that was started and is not known to be gone.
#[derive(Debug)]
struct Container {
    name: String,
    /// The main process.
    pid: i32,
    process: OwnedHandle,
    /// The main process, and all that it starts.
    job: Job,
    /// Its end was told.
    is_reaped: bool,
}

fn containers() -> MutexGuard<'static, Vec<Container>> {
    CONTAINERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn guard() -> io::Result<&'static Job> {
    GUARD.get().ok_or_else(|| io::Error::other("this process guards nothing"))
}

/// Makes this process the guard of all that it will start.
pub(super) fn become_guard() -> io::Result<()> {
    let job = Job::new()?;
    // SAFETY: what stands for the own process needs not be closed.
    job.assign(unsafe { BorrowedHandle::borrow_raw(GetCurrentProcess()) })?;
    GUARD.set(job).map_err(|_| io::Error::other("this process is a guard already"))
}

pub(super) fn ring_at_end(signal: Arc<Signal>) -> io::Result<()> {
    let news = guard()?.news()?;
    let told = SIGNAL.get_or_init(|| signal).clone();
    thread("descendants", move || {
        while news.wait().is_ok() {
            told.ring();
        }
        eprintln!("this shim isn't told of ended processes any more");
    })
}

/// Starts a main process: it runs when it is in its job, so that nothing that it starts is outside.
pub(super) fn spawn(command: &mut Command, name: &str) -> io::Result<i32> {
    let job = Job::new()?;
    // A group of its own can be sent Ctrl-Break.
    let mut child = command.creation_flags(CREATE_SUSPENDED | CREATE_NEW_PROCESS_GROUP).spawn()?;
    let pid = child.id().cast_signed();
    let begun = job.assign(child.as_handle()).and_then(|()| process::resume(child.as_handle()));
    if let Err(error) = begun {
        child.kill()?;
        return Err(error);
    }
    let process = OwnedHandle::from(child);
    if let Some(signal) = SIGNAL.get().cloned() {
        let awaited = process.try_clone()?;
        thread("container", move || {
            process::wait(awaited.as_handle());
            signal.ring();
        })?;
    }
    containers().push(Container { name: name.to_owned(), pid, process, job, is_reaped: false });
    Ok(pid)
}

/// Starts a shim with a console that nobody sees, for Ctrl-Break, and outside of the job that this process may be in, which it shall outlive. A job
/// that lets nobody go ends its pods with it.
pub(super) fn spawn_shim(command: &mut tokio::process::Command) -> io::Result<tokio::process::Child> {
    for name in SHIM_VARIABLES {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let flags = CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP;
    match command.creation_flags(flags | CREATE_BREAKAWAY_FROM_JOB).spawn() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let shim = command.creation_flags(flags).spawn()?;
            tracing::warn!("this kubelet is in a job that its shims can't leave: its pods will not outlive that job");
            Ok(shim)
        }
        other => other,
    }
}

/// Parts of the system don't work without them.
const SHIM_VARIABLES: [&str; 3] = ["SystemRoot", "SystemDrive", "windir"];

/// A main process that has ended and was not told yet; else whether anything is left.
pub(super) fn reap() -> io::Result<Reaped> {
    let mut containers = containers();
    for container in containers.iter_mut().filter(|container| !container.is_reaped) {
        if let Some(code) = process::exit_code(container.process.as_handle())? {
            container.is_reaped = true;
            return Ok(Reaped::Exited { pid: container.pid, code });
        }
    }
    let mut gone = Vec::new();
    for container in containers.iter().filter(|container| container.is_reaped) {
        if container.job.members()?.is_empty() {
            gone.push(container.pid);
        }
    }
    containers.retain(|container| !gone.contains(&container.pid));
    let me = std::process::id();
    match guard()?.members()?.iter().any(|member| *member != me) {
        true => Ok(Reaped::AllAlive),
        false => Ok(Reaped::NoChildren),
    }
}

/// What is in this process's job. A main process is its child; what else is in a container's job is the main process's, or this
/// process's when the main process has ended.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    let me = std::process::id().cast_signed();
    let containers = containers();
    let mut found = Vec::new();
    for container in containers.iter() {
        for pid in container.job.members()?.into_iter().map(u32::cast_signed) {
            let parent = if pid == container.pid || container.is_reaped { me } else { container.pid };
            found.push(Process { pid, parent });
        }
    }
    // A process that is in the outer job alone is one that was about to be put into its own.
    for pid in guard()?.members()?.into_iter().map(u32::cast_signed) {
        if pid != me && !found.iter().any(|process| process.pid == pid) {
            found.push(Process { pid, parent: me });
        }
    }
    Ok(found)
}

/// The container that a process belongs to.
pub(super) fn container_of(pid: i32) -> Option<String> {
    let process = process::open(pid.cast_unsigned()).ok()??;
    containers().iter().find(|container| container.job.has(process.as_handle()).unwrap_or(false)).map(|container| container.name.clone())
}

/// Ends a process and whatever else is in its container, at once: nothing that it starts meanwhile gets away.
pub(super) fn kill(pid: i32) -> io::Result<()> {
    let Some(process) = process::open(pid.cast_unsigned())? else { return Ok(()) };
    for container in containers().iter() {
        if container.job.has(process.as_handle())? {
            return container.job.terminate(KILLED);
        }
    }
    // By now the pid may be another process's.
    match guard()?.has(process.as_handle())? {
        true => process::terminate(process.as_handle(), KILLED),
        false => Ok(()),
    }
}
