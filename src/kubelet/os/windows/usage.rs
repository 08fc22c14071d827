//! What processes and the machine use, as the system counts it.

use std::collections::HashMap;
use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::path::Path;
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_NO_MORE_FILES, FILETIME};
use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, GetSystemTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_VM_READ,
};

use super::{check, owned, wide};
use crate::kubelet::os::usage::{DiskUsage, MachineUsage, ProcessUsage};

/// What is known of a process besides.
struct Looked {
    usage: ProcessUsage,
    /// When it began, as the system counts.
    began: u64,
}

/// All processes that this one may look at.
pub(super) fn processes() -> io::Result<Vec<ProcessUsage>> {
    let looked: HashMap<i32, Looked> = pids()?.into_iter().filter_map(|(pid, parent)| Some((pid, look(pid, parent)?))).collect();
    let parent = |child: &Looked| {
        // One that began later has only got the number of the one that started it.
        let is_it = looked.get(&child.usage.parent).is_some_and(|parent| parent.began <= child.began);
        if is_it { child.usage.parent } else { 0 }
    };
    Ok(looked.values().map(|child| ProcessUsage { parent: parent(child), ..child.usage }).collect())
}

/// The numbers of all processes and of those that started them.
fn pids() -> io::Result<Vec<(i32, i32)>> {
    // SAFETY: no pointers.
    let snapshot = owned(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) })?;
    let mut entry = PROCESSENTRY32W { dwSize: size_of::<PROCESSENTRY32W>() as u32, ..PROCESSENTRY32W::default() };
    let mut found = Vec::new();
    // SAFETY: the handle is open, and the structure says its own size.
    let mut next = check(unsafe { Process32FirstW(snapshot.as_raw_handle(), &raw mut entry) });
    loop {
        match next {
            Ok(()) => found.push((entry.th32ProcessID.cast_signed(), entry.th32ParentProcessID.cast_signed())),
            Err(error) if error.raw_os_error() == Some(ERROR_NO_MORE_FILES.cast_signed()) => return Ok(found),
            Err(error) => return Err(error),
        }
        // SAFETY: as before.
        next = check(unsafe { Process32NextW(snapshot.as_raw_handle(), &raw mut entry) });
    }
}

/// `None` for a process that is gone, or may not be looked at.
fn look(pid: i32, parent: i32) -> Option<Looked> {
    // SAFETY: no pointers.
    let process = owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_VM_READ, 0, pid.cast_unsigned()) }).ok()?;
    let [began, _, kernel, user] = times(&process).ok()?;
    let cpu = duration(kernel + user);
    let usage = ProcessUsage { pid, parent, cpu, cpu_of_ended_children: Duration::ZERO, memory: memory(&process).ok()? };
    Some(Looked { usage, began })
}

/// When a process began, as the system counts; `None` for one that is gone, or may not be looked at. One that has ended is there for as long as anybody, as
/// its shim, has a handle of it: until then nobody else has its number.
pub(super) fn began(pid: i32) -> Option<u64> {
    // SAFETY: no pointers.
    let process = owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid.cast_unsigned()) }).ok()?;
    times(&process).ok().map(|[began, ..]| began)
}

/// When it began and ended, and for how long it was on processors in the kernel and outside.
fn times(process: &OwnedHandle) -> io::Result<[u64; 4]> {
    let mut times = [FILETIME::default(); 4];
    let [began, ended, kernel, user] = &mut times;
    // SAFETY: the handle is open, and the pointers are to values of the right kind.
    check(unsafe { GetProcessTimes(process.as_raw_handle(), &raw mut *began, &raw mut *ended, &raw mut *kernel, &raw mut *user) })?;
    Ok(times.map(number))
}

fn memory(process: &OwnedHandle) -> io::Result<u64> {
    let bytes = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
    let mut counters = PROCESS_MEMORY_COUNTERS { cb: bytes, ..PROCESS_MEMORY_COUNTERS::default() };
    // SAFETY: the handle is open, and the buffer is as large as is said.
    check(unsafe { K32GetProcessMemoryInfo(process.as_raw_handle(), &raw mut counters, bytes) })?;
    Ok(counters.WorkingSetSize as u64)
}

/// The machine.
pub(super) fn machine() -> io::Result<MachineUsage> {
    let (mut idle, mut kernel, mut user) = (FILETIME::default(), FILETIME::default(), FILETIME::default());
    // SAFETY: the pointers are to values of the right kind.
    check(unsafe { GetSystemTimes(&raw mut idle, &raw mut kernel, &raw mut user) })?;
    let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..MEMORYSTATUSEX::default() };
    // SAFETY: the structure says its own size.
    check(unsafe { GlobalMemoryStatusEx(&raw mut status) })?;
    // The time of the kernel has the idle time in it.
    let cpu = duration((number(kernel) + number(user)).saturating_sub(number(idle)));
    Ok(MachineUsage { cpu, memory: status.ullTotalPhys.saturating_sub(status.ullAvailPhys) })
}

/// The file system that a folder is on.
pub(super) fn disk(folder: &Path) -> io::Result<DiskUsage> {
    let (mut total, mut free) = (0, 0);
    let path = wide(&folder.to_string_lossy());
    // SAFETY: the text ends with a zero, and the pointers are to values of the right kind or null, which is allowed.
    check(unsafe { GetDiskFreeSpaceExW(path.as_ptr(), std::ptr::null_mut(), &raw mut total, &raw mut free) })?;
    Ok(DiskUsage { used: total.saturating_sub(free), total })
}

fn number(time: FILETIME) -> u64 {
    u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)
}

/// From units of 100 ns.
fn duration(units: u64) -> Duration {
    Duration::from_nanos(units.saturating_mul(100))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_began_and_none_by_nothing() {
        let me = std::process::id().cast_signed();
        assert!(began(me).is_some_and(|time| began(me) == Some(time)));
        let mut other = Command::new("cmd.exe").args(["/c", "set /p line="]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = other.id().cast_signed();
        assert!(began(pid).is_some_and(|time| Some(time) > began(me)));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(began(-1), None);
    }
}
