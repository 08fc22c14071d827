//! Windows. A shim puts itself into a job object, and so does the system with everything that it starts: when the shim dies, whatever ends
//! it, all of that ends with it. So nothing has to be found by marks in environments, which nobody can read here.

mod bell;
mod break_trial;
mod children;
mod console;
mod files;
mod guarded;
mod job;
mod limits;
mod output;
mod pipe;
mod privacy;
mod process;
mod pseudo_console;
mod raw_terminal;
mod service;
mod service_log;
mod terminal;
mod usage;
mod version;
mod volume;

use std::fs::File;
use std::io;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::core::BOOL;

use raw_terminal::RawTerminal;

use super::fence::Places;
use super::usage::{DiskUsage, MachineUsage, ProcessUsage};
use super::{Access, Files, Os, Process, Reaped};
use crate::api::capability;
use crate::kubelet::shim::CONTAINER_VARIABLE;
use crate::kubelet::shim::files::Run;

/// How often the size of the console is looked at while somebody wants to know it.
const RESIZES: Duration = Duration::from_millis(250);

/// Windows.
#[derive(Debug)]
pub(crate) struct Host;

impl Os for Host {
    const CAPABILITIES: &'static [&'static str] = &["runtime.process", "windows-job-objects"];

    fn try_out(root: &Path, program: &Path) -> Vec<&'static str> {
        let mut found = volume::mounts(root);
        if pseudo_console::can_be_had() {
            found.push("exec.tty");
        }
        if break_trial::arrives(program) {
            found.extend([capability::STOP_ASK, capability::STOP_CTRL_BREAK]);
        }
        match privacy::is_private(&root.join("pods")) {
            Ok(true) => found.push(capability::PRIVATE_SECRETS),
            Ok(false) => tracing::warn!(root = %root.display(), "others can look into the folders of pods: this node takes no Secrets"),
            Err(error) => tracing::warn!(%error, "who can look into the folders of pods can't be known: this node takes no Secrets"),
        }
        found
    }

    const NAME: &'static str = "windows";
    /// Without some of them programs do not start.
    const INHERITED_VARIABLES: &'static [&'static str] = &[
        "HOME",
        "USER",
        "LANG",
        "TZ",
        "TMPDIR",
        "SystemRoot",
        "SystemDrive",
        "windir",
        "ComSpec",
        "PATHEXT",
        "TEMP",
        "TMP",
        "USERPROFILE",
        "APPDATA",
        "LOCALAPPDATA",
        "ProgramData",
        "ProgramFiles",
    ];
    const PATH_SEPARATOR: &'static str = ";";
    const DEFAULT_PATH: &'static str = r"C:\Windows\system32;C:\Windows";

    type Bell = bell::Bell;
    type AsyncBell = bell::AsyncBell;
    type Guarded = guarded::Guarded;
    type RawTerminal = RawTerminal;

    fn make_bell(path: &Path) -> io::Result<()> {
        bell::make(path)
    }

    fn ring(path: &Path, word: &str) -> io::Result<bool> {
        bell::ring(path, word)
    }

    async fn silence(path: &Path) -> io::Result<()> {
        bell::silence(path).await
    }

    fn make_private_folder(path: &Path) -> io::Result<()> {
        privacy::make_folder(path)
    }

    /// As private as its folder.
    fn create_private_file(path: &Path) -> io::Result<File> {
        File::create(path)
    }

    fn write_files(folder: &Path, files: &Files, _: Access<'_>) -> io::Result<()> {
        volume::write_files(folder, files)
    }

    fn has_files(folder: &Path) -> bool {
        volume::has_files(folder)
    }

    fn link(folder: &Path, path: &str, target: &Path, _: Option<&str>) -> io::Result<()> {
        volume::link(folder, path, target)
    }

    fn remove_folder(path: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn replace(old: &Path, new: &Path) -> io::Result<()> {
        files::replace(old, new)
    }

    fn is_at(file: &File, path: &Path) -> io::Result<bool> {
        files::is_at(file, path)
    }

    /// The kubelet has started it with a console of its own and, where that is allowed, outside of the kubelet's job.
    fn detach() -> io::Result<()> {
        console::prepare()?;
        children::become_guard()
    }

    /// They can't get away: see [`children`].
    fn adopt_orphans() -> io::Result<()> {
        Ok(())
    }

    fn spawn(command: &mut Command, run: &Run) -> io::Result<i32> {
        children::spawn(command, run)
    }

    fn places(_: &Path) -> Places {
        Places { without: limits::enforced(), ..Places::default() }
    }

    /// In a terminal: otherwise a job of the kubelet guards a command, and no process.
    fn guard(arguments: &[String]) -> io::Result<()> {
        terminal::guard(arguments)
    }

    fn play(role: &str) -> Option<i32> {
        break_trial::play(role)
    }

    fn spawn_shim(command: &mut tokio::process::Command) -> io::Result<tokio::process::Child> {
        children::spawn_shim(command)
    }

    fn supervised<E: From<io::Error> + Send + 'static>(log: &Path, run: impl FnOnce() -> Result<(), E> + Send + 'static) -> Result<(), E> {
        service::run(log, run)
    }

    fn raw_terminal() -> io::Result<Option<RawTerminal>> {
        RawTerminal::begin()
    }

    /// A console tells nobody; so it is looked at from time to time.
    fn terminal_resizes() -> io::Result<impl Stream<Item = ()> + Send + 'static> {
        let times = tokio::time::interval(RESIZES);
        Ok(stream::unfold(times, |mut times| async move {
            times.tick().await;
            Some(((), times))
        }))
    }

    fn reap() -> io::Result<Reaped> {
        children::reap()
    }

    fn ask_to_end(main: i32) -> io::Result<()> {
        console::send_break(main)
    }

    fn ask_to_end_by_break(main: i32) -> io::Result<()> {
        console::send_break(main)
    }

    /// All of its container with it.
    fn kill(pid: i32) -> io::Result<()> {
        children::kill(pid)
    }

    fn start_time(pid: i32) -> Option<u64> {
        usage::began(pid)
    }

    /// Those that this process guards; nobody needs others.
    fn processes() -> io::Result<Vec<Process>> {
        children::processes()
    }

    /// Environments can't be read here; but a shim knows its containers.
    fn variable_of(pid: i32, name: &str) -> Option<String> {
        if name == CONTAINER_VARIABLE { children::container_of(pid) } else { None }
    }

    /// What had a mark has ended with its shim.
    fn kill_all(_: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool) -> io::Result<Vec<i32>> {
        Ok(Vec::new())
    }

    fn process_usage() -> io::Result<Vec<ProcessUsage>> {
        usage::processes()
    }

    fn machine_usage() -> io::Result<MachineUsage> {
        usage::machine()
    }

    fn disk_usage(folder: &Path) -> io::Result<DiskUsage> {
        usage::disk(folder)
    }

    /// What could be killed so has ended with its shim.
    fn kill_if(_: i32, _: impl FnOnce() -> bool) -> io::Result<bool> {
        Ok(false)
    }

    fn hostname() -> String {
        std::env::var("COMPUTERNAME").unwrap_or_default().to_lowercase()
    }

    fn kernel_version() -> String {
        version::kernel()
    }

    fn memory_bytes() -> io::Result<u64> {
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut status: MEMORYSTATUSEX = unsafe { std::mem::zeroed() };
        status.dwLength = std::mem::size_of::<MEMORYSTATUSEX>() as u32;
        // SAFETY: the structure says its own size.
        check(unsafe { GlobalMemoryStatusEx(&raw mut status) })?;
        Ok(status.ullTotalPhys)
    }

    async fn end_signal() -> io::Result<&'static str> {
        tokio::select! {
            signal = console::end_signal() => signal,
            control = service::end_control() => Ok(control),
        }
    }
}

/// What the system says by zero is an error.
fn check(result: BOOL) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A new handle, which nobody else closes; or the error that the system says by none.
fn owned(handle: HANDLE) -> io::Result<OwnedHandle> {
    match handle.is_null() || handle == INVALID_HANDLE_VALUE {
        true => Err(io::Error::last_os_error()),
        // SAFETY: only what the system has just opened for the caller is given to this function.
        false => Ok(unsafe { OwnedHandle::from_raw_handle(handle) }),
    }
}

/// As the system takes text.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
