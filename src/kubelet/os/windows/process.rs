//! Processes by their handles, which, unlike pids, never mean another one.

use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, OwnedHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, HANDLE, INVALID_HANDLE_VALUE, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    GetExitCodeProcess, INFINITE, OpenProcess, PROCESS_QUERY_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE,
    RegisterWaitForSingleObject, TerminateProcess, UnregisterWaitEx, WT_EXECUTEONLYONCE, WaitForSingleObject,
};

use super::{check, owned};

#[link(name = "ntdll", kind = "raw-dylib")]
unsafe extern "system" {
    /// The only call that resumes a process of which one has no thread.
    fn NtResumeProcess(process: HANDLE) -> i32;
}

/// A process by its pid, to wait for it and to end it; `None` when there is none.
pub(super) fn open(pid: u32) -> io::Result<Option<OwnedHandle>> {
    let rights = PROCESS_SYNCHRONIZE | PROCESS_TERMINATE | PROCESS_QUERY_INFORMATION;
    // SAFETY: no pointers.
    match owned(unsafe { OpenProcess(rights, 0, pid) }) {
        Ok(process) => Ok(Some(process)),
        Err(error) if error.raw_os_error() == Some(ERROR_INVALID_PARAMETER.cast_signed()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What it returned; `None` while it lives.
pub(super) fn exit_code(process: BorrowedHandle<'_>) -> io::Result<Option<i32>> {
    exit_code_within(process, Duration::ZERO)
}

/// What it returned; `None` when it lives for longer.
pub(super) fn exit_code_within(process: BorrowedHandle<'_>, time: Duration) -> io::Result<Option<i32>> {
    let millis = u32::try_from(time.as_millis()).unwrap_or(INFINITE);
    // SAFETY: the handle is open.
    if unsafe { WaitForSingleObject(process.as_raw_handle(), millis) } != WAIT_OBJECT_0 {
        return Ok(None);
    }
    let mut code = 0;
    // SAFETY: the handle is open, and the pointer is to a value of the right kind.
    check(unsafe { GetExitCodeProcess(process.as_raw_handle(), &raw mut code) })?;
    Ok(Some(code.cast_signed()))
}

/// Waits for its end.
pub(super) fn wait(process: BorrowedHandle<'_>) {
    // SAFETY: the handle is open. It fails only for a handle that can't be waited for.
    unsafe { WaitForSingleObject(process.as_raw_handle(), INFINITE) };
}

/// Lets a process go on that was started suspended.
pub(super) fn resume(process: BorrowedHandle<'_>) -> io::Result<()> {
    // SAFETY: the handle is open.
    match unsafe { NtResumeProcess(process.as_raw_handle()) } {
        0.. => Ok(()),
        status => Err(io::Error::other(format!("the new process can't be resumed: status {status:#x}"))),
    }
}

/// Ends it. One that has ended already is a success.
pub(super) fn terminate(process: BorrowedHandle<'_>, code: u32) -> io::Result<()> {
    // SAFETY: the handle is open.
    match check(unsafe { TerminateProcess(process.as_raw_handle(), code) }) {
        // It is about to end.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Waits for the end of a process, without a thread for each.
pub(super) async fn ended(process: OwnedHandle) -> io::Result<()> {
    let (tell, ended) = oneshot::channel::<()>();
    let _wait = Wait::start(process, tell)?;
    // Nobody drops the other end without having sent.
    ended.await.map_err(io::Error::other)
}

/// A wait of the system's own threads for the end of a process.
struct Wait {
    handle: HANDLE,
    /// Used by the callback, at most once.
    tell: *mut Option<oneshot::Sender<()>>,
    /// Stays open for as long as it is waited for.
    _process: OwnedHandle,
}

// SAFETY: a wait may be ended by any thread, and the sender may be dropped by any.
unsafe impl Send for Wait {}

impl Wait {
    fn start(process: OwnedHandle, tell: oneshot::Sender<()>) -> io::Result<Self> {
        let mut wait = Self { handle: std::ptr::null_mut(), tell: Box::into_raw(Box::new(Some(tell))), _process: process };
        let (handle, waited, context) = (&raw mut wait.handle, wait._process.as_raw_handle(), wait.tell.cast_const().cast());
        // SAFETY: what the callback uses lives until the wait is over; see drop.
        check(unsafe { RegisterWaitForSingleObject(handle, waited, Some(has_ended), context, INFINITE, WT_EXECUTEONLYONCE) })?;
        Ok(wait)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: registered before. INVALID_HANDLE_VALUE asks to wait for a callback that runs just now.
            unsafe { UnregisterWaitEx(self.handle, INVALID_HANDLE_VALUE) };
        }
        // SAFETY: made by Box::into_raw, and no callback runs or will.
        drop(unsafe { Box::from_raw(self.tell) });
    }
}

unsafe extern "system" fn has_ended(tell: *mut c_void, _: bool) {
    // SAFETY: the context of the wait, which lives until this has returned, and which nobody else looks at before.
    if let Some(tell) = unsafe { (*tell.cast::<Option<oneshot::Sender<()>>>()).take() } {
        // Nobody waits any more when this fails.
        let _gone = tell.send(());
    }
}
