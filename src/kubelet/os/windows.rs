//! Windows. The process runtime isn't here yet: a node says so by lacking the capability `runtime.process`, and every part of the runtime
//! answers `Unsupported`.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

use super::{Heard, Os, Process, Reaped, Streams, TerminalSize, Wiring};
use crate::kubelet::shim::files::{Cause, Run};

/// Windows.
#[derive(Debug)]
pub(crate) struct Host;

impl Os for Host {
    const RUNS_PROCESSES: bool = false;
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

    type Bell = Bell;
    type AsyncBell = AsyncBell;
    type Guarded = Guarded;

    fn make_bell(_: &Path) -> io::Result<()> {
        unsupported()
    }

    fn ring(_: &Path, _: &str) -> io::Result<bool> {
        unsupported()
    }

    async fn silence(_: &Path) -> io::Result<()> {
        unsupported()
    }

    /// A folder below the user's own data folder is the user's own already.
    fn make_private_folder(path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    /// As private as its folder.
    fn create_private_file(path: &Path) -> io::Result<File> {
        File::create(path)
    }

    fn detach() -> io::Result<()> {
        unsupported()
    }

    fn adopt_orphans() -> io::Result<()> {
        unsupported()
    }

    fn spawn(_: &mut Command, _: &str) -> io::Result<i32> {
        unsupported()
    }

    fn guard(_: &[String]) -> io::Result<()> {
        unsupported()
    }

    fn reap() -> io::Result<Reaped> {
        unsupported()
    }

    fn ask_to_end(_: i32) -> io::Result<()> {
        unsupported()
    }

    fn kill(_: i32) -> io::Result<()> {
        unsupported()
    }

    fn processes() -> io::Result<Vec<Process>> {
        unsupported()
    }

    fn variable_of(_: i32, _: &str) -> Option<String> {
        None
    }

    /// Without a process runtime there is nothing to kill.
    fn kill_all(_: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool) -> io::Result<usize> {
        Ok(0)
    }

    fn hostname() -> String {
        std::env::var("COMPUTERNAME").unwrap_or_default().to_lowercase()
    }

    fn kernel_version() -> String {
        std::env::var("OS").unwrap_or_default()
    }

    fn memory_bytes() -> io::Result<u64> {
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut status: MEMORYSTATUSEX = unsafe { std::mem::zeroed() };
        status.dwLength = std::mem::size_of::<MEMORYSTATUSEX>() as u32;
        // SAFETY: the structure says its own size.
        if unsafe { GlobalMemoryStatusEx(&raw mut status) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(status.ullTotalPhys)
    }

    async fn end_signal() -> io::Result<&'static str> {
        tokio::signal::ctrl_c().await?;
        Ok("Ctrl-C")
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the process runtime does not exist on Windows yet"))
}

/// By which one process wakes another.
#[derive(Debug)]
pub(crate) struct Bell(());

impl super::Bell for Bell {
    type Output = io::PipeReader;

    fn open(_: &Path) -> io::Result<Self> {
        unsupported()
    }

    fn output(&self) -> io::Result<(io::PipeReader, Stdio)> {
        unsupported()
    }

    fn wait(&self, _: &[&io::PipeReader], _: Option<Duration>) -> io::Result<Heard> {
        unsupported()
    }

    fn ring_at_child_end(&self) -> io::Result<()> {
        unsupported()
    }
}

/// The kubelet's bell. Without shims nobody rings it.
#[derive(Debug)]
pub(crate) struct AsyncBell(());

impl super::AsyncBell for AsyncBell {
    fn open(_: &Path) -> io::Result<Self> {
        Ok(Self(()))
    }

    async fn heard(&self) -> io::Result<Vec<u8>> {
        std::future::pending().await
    }
}

/// There can be none yet.
#[derive(Debug)]
pub(crate) enum Guarded {}

impl super::Guarded for Guarded {
    async fn start(_: &Path, _: &Run, _: Wiring) -> io::Result<(Self, Streams)> {
        unsupported()
    }

    async fn ended(&mut self) -> io::Result<Cause> {
        match *self {}
    }

    fn resize(&self, _: TerminalSize) -> io::Result<()> {
        match *self {}
    }
}
