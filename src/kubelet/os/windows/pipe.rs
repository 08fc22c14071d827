//! Named pipes, as far as bells need them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{ERROR_NO_DATA, ERROR_PIPE_BUSY, ERROR_PIPE_CONNECTED};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_FIRST_PIPE_INSTANCE, PIPE_ACCESS_INBOUND, SECURITY_IDENTIFICATION};
use windows_sys::Win32::System::Pipes::{
    ConnectNamedPipe, CreateNamedPipeW, GetNamedPipeServerProcessId, PIPE_REJECT_REMOTE_CLIENTS, PIPE_UNLIMITED_INSTANCES, WaitNamedPipeW,
};

use super::{check, owned, wide};

/// How long whoever rings waits for another one who does, in milliseconds, and how often.
const BUSY_MS: u32 = 500;
const BUSY_TRIES: usize = 10;
const BUFFER_BYTES: u32 = 4096;

/// One end of a named pipe, at which one caller can be awaited.
#[derive(Debug)]
pub(super) struct Listener(OwnedHandle);

impl Listener {
    /// `is_first`: fails if anybody has a pipe of this name.
    pub(super) fn open(name: &str, is_first: bool) -> io::Result<Self> {
        let access = PIPE_ACCESS_INBOUND | if is_first { FILE_FLAG_FIRST_PIPE_INSTANCE } else { 0 };
        let name = wide(name);
        let (mode, count) = (PIPE_REJECT_REMOTE_CLIENTS, PIPE_UNLIMITED_INSTANCES);
        // SAFETY: the name ends with a zero; the null pointer asks for the defaults.
        owned(unsafe { CreateNamedPipeW(name.as_ptr(), access, mode, count, 0, BUFFER_BYTES, 0, std::ptr::null()) }).map(Self)
    }

    /// Waits for a caller; one that is gone already counts.
    pub(super) fn await_caller(&self) -> io::Result<()> {
        // SAFETY: the handle is open; without an OVERLAPPED structure the call waits.
        match check(unsafe { ConnectNamedPipe(self.0.as_raw_handle(), std::ptr::null_mut()) }) {
            Err(error) if !is(&error, ERROR_PIPE_CONNECTED) && !is(&error, ERROR_NO_DATA) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Calls whoever listens; `None` when nobody does.
pub(super) fn call(name: &str) -> io::Result<Option<File>> {
    for _ in 0..BUSY_TRIES {
        match OpenOptions::new().write(true).security_qos_flags(SECURITY_IDENTIFICATION).open(name) {
            Ok(pipe) => return Ok(Some(pipe)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is(&error, ERROR_PIPE_BUSY) => {
                let name = wide(name);
                // SAFETY: the name ends with a zero. Whatever comes of it, the next try tells.
                unsafe { WaitNamedPipeW(name.as_ptr(), BUSY_MS) };
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "whoever listens was busy for too long"))
}

/// The process that listens at the other end.
pub(super) fn listener(pipe: &File) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: the handle is open, and the pointer is to a value of the right kind.
    check(unsafe { GetNamedPipeServerProcessId(pipe.as_raw_handle(), &raw mut pid) })?;
    Ok(pid)
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}
