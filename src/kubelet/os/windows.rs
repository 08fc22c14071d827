//! Windows. The process runtime isn't here yet: a node says so by lacking the capability `runtime.process`, and every part of the runtime
//! answers `Unsupported`.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

use super::{Process, Reaped};

/// Containers can't be plain processes yet.
pub(crate) const RUNS_PROCESSES: bool = false;
/// As container images and the label `kubernetes.io/os` name it.
pub(crate) const NAME: &str = "windows";
/// Variables of the kubelet that a container gets, where they are set: without some of them programs do not start.
pub(crate) const INHERITED_VARIABLES: &[&str] = &[
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
/// What stands between the folders of PATH.
pub(crate) const PATH_SEPARATOR: &str = ";";
/// PATH for a kubelet that has none.
pub(crate) const DEFAULT_PATH: &str = r"C:\Windows\system32;C:\Windows";

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the process runtime does not exist on Windows yet"))
}

/// By which one process wakes another.
#[derive(Debug)]
pub(crate) struct Bell(());

impl Bell {
    pub(crate) fn open(_: &Path) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn wait(&self, _: Option<Duration>) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn ring_at_child_end(&self) -> io::Result<()> {
        unsupported()
    }
}

/// The kubelet's bell. Without shims nobody rings it.
#[derive(Debug)]
pub(crate) struct AsyncBell(());

impl AsyncBell {
    pub(crate) fn open(_: &Path) -> io::Result<Self> {
        Ok(Self(()))
    }

    pub(crate) async fn heard(&self) -> io::Result<Vec<u8>> {
        std::future::pending().await
    }
}

pub(crate) fn make_bell(_: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn ring(_: &Path, _: &str) -> io::Result<bool> {
    unsupported()
}

pub(crate) async fn silence(_: &Path) -> io::Result<()> {
    unsupported()
}

/// A folder below the user's own data folder is the user's own already.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

pub(crate) fn detach() -> io::Result<()> {
    unsupported()
}

pub(crate) fn adopt_orphans() -> io::Result<()> {
    unsupported()
}

pub(crate) fn isolate(_: &mut Command) {}

pub(crate) fn reap() -> io::Result<Reaped> {
    unsupported()
}

pub(crate) fn ask_to_end(_: i32) -> io::Result<()> {
    unsupported()
}

pub(crate) fn kill(_: i32) -> io::Result<()> {
    unsupported()
}

pub(super) fn processes() -> io::Result<Vec<Process>> {
    unsupported()
}

pub(crate) fn variable_of(_: i32, _: &str) -> Option<String> {
    None
}

/// Without a process runtime there is nothing to kill.
pub(crate) fn kill_all(_: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool) -> io::Result<usize> {
    Ok(0)
}

/// The machine's own name.
pub(crate) fn hostname() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default().to_lowercase()
}

/// The kernel's own version.
pub(crate) fn kernel_version() -> String {
    std::env::var("OS").unwrap_or_default()
}

/// How much memory the machine has, in bytes.
pub(crate) fn memory_bytes() -> io::Result<u64> {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut status: MEMORYSTATUSEX = unsafe { std::mem::zeroed() };
    status.dwLength = std::mem::size_of::<MEMORYSTATUSEX>() as u32;
    // SAFETY: the structure says its own size.
    if unsafe { GlobalMemoryStatusEx(&raw mut status) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status.ullTotalPhys)
}

/// Waits until somebody asks this program to end.
pub(super) async fn end_signal() -> io::Result<&'static str> {
    tokio::signal::ctrl_c().await?;
    Ok("Ctrl-C")
}
