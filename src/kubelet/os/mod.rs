//! Everything that differs from one operating system to another. Each file offers the same names; what a system lacks it says by
//! [`RUNS_PROCESSES`], its `capabilities`, or `io::ErrorKind::Unsupported`.

use std::io;
use std::path::Path;

#[cfg(unix)]
mod unix;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::*;

/// Waits until somebody asks this program to end: SIGINT or SIGTERM, or Ctrl-C. Gives the name of what it was.
///
/// # Errors
/// What the system says when it can't be waited for.
pub async fn asked_to_end() -> io::Result<&'static str> {
    end_signal().await
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!("BlueBird runs on Linux, macOS and Windows; another system needs a file in src/kubelet/os");

/// A process, as far as telling whose it is needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
}

/// What [`reap`] found.
#[cfg_attr(windows, expect(dead_code, reason = "there is nothing to reap before there is a process runtime"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaped {
    /// A child ended by returning a code.
    Exited {
        /// Which.
        pid: i32,
        /// What it returned.
        code: i32,
    },
    /// A child was ended by a signal.
    Signaled {
        /// Which.
        pid: i32,
        /// The signal's number.
        signal: i32,
    },
    /// There are children, and they live.
    AllAlive,
    /// There are no children, and so no descendants.
    NoChildren,
}

/// All living descendants of a process, parents before their children.
pub(crate) fn descendants(ancestor: i32) -> io::Result<Vec<Process>> {
    let all = processes()?;
    let mut found = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            found.push(*process);
            parents.push(process.pid);
        }
    }
    Ok(found)
}

/// Writes a whole file, so that a reader sees the old content or the new one, and nothing in between.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, path)
}
