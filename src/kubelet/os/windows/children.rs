//! The containers of a shim: each in a job of its own, inside the job of the shim.

use std::io;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use windows_sys::Win32::System::SystemServices::JOB_OBJECT_MSG_JOB_MEMORY_LIMIT;
use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, CREATE_SUSPENDED, GetCurrentProcess,
};

use super::bell::{Signal, thread};
use super::job::{Job, News, Told};
use super::process;
use crate::kubelet::os::{Process, Reaped};
use crate::kubelet::shim::files::Run;

/// What a killed process seems to have returned: what shells say of one that was ended by signal 9.
pub(super) const KILLED: u32 = 137;

/// This process and all that it starts. It dies with this process, whatever ends that.
static GUARD: OnceLock<Job> = OnceLock::new();
/// What is told of it, and of containers with a limit of memory.
static NEWS: OnceLock<News> = OnceLock::new();
/// What rings at the end of any process in it.
static SIGNAL: OnceLock<Arc<Signal>> = OnceLock::new();
static CONTAINERS: Mutex<Vec<Container>> = Mutex::new(Vec::new());
/// How many bookmarks among the news were asked for, and how many have been passed.
static BOOKMARKS: Mutex<(usize, usize)> = Mutex::new((0, 0));
static PASSED: Condvar = Condvar::new();
/// A message of no job's: what was told before it has been taken note of.
const BOOKMARK: u32 = u32::MAX;

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
    /// It has a limit of memory.
    may_starve: bool,
    /// It was ended at that limit.
    is_starved: bool,
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
    let fresh = News::new()?;
    let news = NEWS.get_or_init(|| fresh);
    guard()?.tell(news, 0)?;
    let told = SIGNAL.get_or_init(|| signal).clone();
    thread("descendants", move || {
        while let Ok(piece) = news.wait() {
            note(piece);
            told.ring();
        }
        eprintln!("this shim isn't told of ended processes any more");
    })
}

/// A container at its limit of memory ends as a whole, as it does on other systems: here the system only refuses it more.
fn note(piece: Told) {
    match piece.message {
        JOB_OBJECT_MSG_JOB_MEMORY_LIMIT => {
            let mut containers = containers();
            let Some(container) = containers.iter_mut().find(|container| container.pid.cast_unsigned() as usize == piece.key) else {
                return;
            };
            container.is_starved = true;
            if let Err(error) = container.job.terminate(KILLED) {
                eprintln!("container {} is at its limit of memory and can't be ended: {error}", container.name);
            }
        }
        BOOKMARK => {
            let (_, passed) = &mut *BOOKMARKS.lock().unwrap_or_else(PoisonError::into_inner);
            *passed += 1;
            PASSED.notify_all();
        }
        _ => {}
    }
}

/// Waits until everything is taken note of that jobs have told so far.
fn catch_up() -> io::Result<()> {
    let Some(news) = NEWS.get() else { return Ok(()) };
    let mut bookmarks = BOOKMARKS.lock().unwrap_or_else(PoisonError::into_inner);
    news.post(Told { message: BOOKMARK, key: 0 })?;
    bookmarks.0 += 1;
    let mine = bookmarks.0;
    drop(PASSED.wait_while(bookmarks, |(_, passed)| *passed < mine));
    Ok(())
}

/// Starts a main process: it runs when it is in its job, so that nothing that it starts is outside.
pub(super) fn spawn(command: &mut Command, run: &Run) -> io::Result<i32> {
    let may_starve = run.limits.memory_bytes.is_some();
    let job = Job::within(&run.limits).map_err(|error| io::Error::other(format!("its limits can't be set: {error}")))?;
    // A group of its own can be sent Ctrl-Break.
    let mut child = command.creation_flags(CREATE_SUSPENDED | CREATE_NEW_PROCESS_GROUP).spawn()?;
    let pid = child.id().cast_signed();
    let told = NEWS.get().filter(|_| may_starve).map_or(Ok(()), |news| job.tell(news, pid.cast_unsigned() as usize));
    if let Err(error) = told.and_then(|()| job.assign(child.as_handle())) {
        child.kill()?;
        return Err(error);
    }
    // What is told of it from now on finds it here.
    let mut containers = containers();
    if let Err(error) = process::resume(child.as_handle()) {
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
    containers.push(Container { name: run.container.clone(), pid, process, job, is_reaped: false, may_starve, is_starved: false });
    Ok(pid)
}

/// Starts a shim with a console that nobody sees, for Ctrl-Break, and outside of the job that this process may be in, which it shall outlive. A job
/// that lets nobody go ends its pods with it.
pub(super) fn spawn_shim(command: &mut tokio::process::Command) -> io::Result<tokio::process::Child> {
    for name in SHIM_VARIABLES {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    match command.creation_flags(SHIM | CREATE_BREAKAWAY_FROM_JOB).spawn() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let shim = command.creation_flags(SHIM).spawn()?;
            tracing::warn!("this kubelet is in a job that its shims can't leave: its pods will not outlive that job");
            Ok(shim)
        }
        other => other,
    }
}

/// A console that nobody sees, whether the kubelet has one or is a service, which has none; and nobody's Ctrl-C.
pub(super) const SHIM: u32 = CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP;
/// Parts of the system don't work without them.
const SHIM_VARIABLES: [&str; 3] = ["SystemRoot", "SystemDrive", "windir"];

/// A main process that has ended and was not told yet; else whether anything is left.
pub(super) fn reap() -> io::Result<Reaped> {
    if let Some((pid, code, may_starve)) = next_end()? {
        if may_starve {
            catch_up()?;
        }
        // What ended well in that very moment did what it had to.
        let is_starved = code != 0 && containers().iter().any(|container| container.pid == pid && container.is_starved);
        return Ok(if is_starved { Reaped::OutOfMemory { pid } } else { Reaped::Exited { pid, code } });
    }
    let mut containers = containers();
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

/// The pid and exit code of a main process that has ended, once, and whether it had a limit of memory.
fn next_end() -> io::Result<Option<(i32, i32, bool)>> {
    for container in containers().iter_mut().filter(|container| !container.is_reaped) {
        if let Some(code) = process::exit_code(container.process.as_handle())? {
            container.is_reaped = true;
            return Ok(Some((container.pid, code, container.may_starve)));
        }
    }
    Ok(None)
}

/// What is in this process's job. A main process is its child; what else is in a container's job is the main process's, or this
/// process's when the main process has ended. A kubelet guards nothing, so there is nothing.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    let Some(guard) = GUARD.get() else { return Ok(Vec::new()) };
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
    for pid in guard.members()?.into_iter().map(u32::cast_signed) {
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

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::kubelet::os::fence::Limits;

    /// A program that runs until it can read something, and what it can be sent by.
    fn waiting() -> (Command, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("cmd.exe");
        command.args(["/c", "set /p line="]).stdin(reader).stdout(Stdio::null());
        (command, writer)
    }

    /// The first end that is told.
    fn end() -> Reaped {
        let is_over = |reaped: &Reaped| !matches!(reaped, Reaped::AllAlive | Reaped::NoChildren);
        let ends = std::iter::repeat_with(|| {
            std::thread::yield_now();
            reap().unwrap()
        });
        ends.take(1_000_000).find(is_over).expect("nothing ends")
    }

    #[test]
    fn a_container_whose_job_tells_that_it_is_at_its_limit_of_memory_is_ended_as_out_of_memory_and_others_as_they_end() {
        become_guard().unwrap();
        ring_at_end(Arc::default()).unwrap();
        let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
        let (mut greedy, _held) = waiting();
        let greedy = spawn(&mut greedy, &Run { container: "greedy".into(), limits, ..Run::default() }).unwrap();
        let (mut modest, _held) = waiting();
        let modest = spawn(&mut modest, &Run { container: "modest".into(), limits, ..Run::default() }).unwrap();

        NEWS.get().unwrap().post(Told { message: JOB_OBJECT_MSG_JOB_MEMORY_LIMIT, key: greedy.cast_unsigned() as usize }).unwrap();
        assert_eq!(end(), Reaped::OutOfMemory { pid: greedy });
        kill(modest).unwrap();
        assert_eq!(end(), Reaped::Exited { pid: modest, code: KILLED.cast_signed() });
    }
}
