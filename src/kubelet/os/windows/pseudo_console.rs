//! Pseudo consoles: terminals of which this program has one end and the programs in it the other. Older systems have none, so they are looked for when
//! they are needed.

use std::ffi::{CStr, c_void};
use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::io::{AsRawHandle as _, OwnedHandle};
use std::path::Path;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{E_NOTIMPL, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::Console::{COORD, HPCON};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Threading::{
    CREATE_SUSPENDED, CreateProcessW, DeleteProcThreadAttributeList, EXTENDED_STARTUPINFO_PRESENT, InitializeProcThreadAttributeList,
    LPPROC_THREAD_ATTRIBUTE_LIST, PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE, PROCESS_INFORMATION, STARTF_USESTDHANDLES, STARTUPINFOEXW,
    STARTUPINFOW, UpdateProcThreadAttribute,
};
use windows_sys::core::HRESULT;

use super::{check, owned};
use crate::kubelet::os::TerminalSize;

type Create = unsafe extern "system" fn(COORD, HANDLE, HANDLE, u32, *mut HPCON) -> HRESULT;
type Resize = unsafe extern "system" fn(HPCON, COORD) -> HRESULT;
type Close = unsafe extern "system" fn(HPCON);

/// A terminal. When it is dropped whatever is in it loses it; that may wait until what was last written has been read.
#[derive(Debug)]
pub(super) struct PseudoConsole {
    handle: HPCON,
    resize: Resize,
    close: Close,
}

impl PseudoConsole {
    /// One of this size, with what is typed in it and where it is shown. Neither may be overlapped.
    pub(super) fn new(size: TerminalSize, keyboard: OwnedHandle, screen: OwnedHandle) -> io::Result<Self> {
        let (create, resize, close) =
            (function(c"CreatePseudoConsole")?, function(c"ResizePseudoConsole")?, function(c"ClosePseudoConsole")?);
        // SAFETY: these are the signatures of the functions with these names.
        let (create, resize, close) = unsafe {
            (
                std::mem::transmute::<*const c_void, Create>(create),
                std::mem::transmute::<*const c_void, Resize>(resize),
                std::mem::transmute::<*const c_void, Close>(close),
            )
        };
        let mut handle = 0;
        // SAFETY: both handles are open, and the console has copies of its own. The pointer is to a value of the right kind.
        succeeded(unsafe { create(coordinates(size), keyboard.as_raw_handle(), screen.as_raw_handle(), 0, &raw mut handle) })?;
        Ok(Self { handle, resize, close })
    }

    /// Tells the programs in it how large their window is now.
    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        // SAFETY: it is open.
        succeeded(unsafe { (self.resize)(self.handle, coordinates(size)) })
    }

    /// Starts a program in it, suspended, that gets no handle of this process's. The words must need no quotes.
    pub(super) fn spawn(&self, program: &Path, words: &[&str]) -> io::Result<OwnedHandle> {
        let words: String = words.iter().map(|word| format!(" {word}")).collect();
        let quote = || "\"".encode_utf16();
        let mut line: Vec<u16> =
            quote().chain(program.as_os_str().encode_wide()).chain(quote()).chain(words.encode_utf16()).chain([0]).collect();
        let attributes = Attributes::of(self)?;
        let startup = STARTUPINFOEXW {
            StartupInfo: STARTUPINFOW {
                cb: size_of::<STARTUPINFOEXW>() as u32,
                // Without them it would have those of this process, where it has any.
                dwFlags: STARTF_USESTDHANDLES,
                hStdInput: INVALID_HANDLE_VALUE,
                hStdOutput: INVALID_HANDLE_VALUE,
                hStdError: INVALID_HANDLE_VALUE,
                ..STARTUPINFOW::default()
            },
            lpAttributeList: attributes.list(),
        };
        let mut started = PROCESS_INFORMATION::default();
        let (none, flags) = (std::ptr::null(), EXTENDED_STARTUPINFO_PRESENT | CREATE_SUSPENDED);
        // SAFETY: the line ends with a zero; the startup information says its own size, and the attributes live until this has returned.
        check(unsafe {
            CreateProcessW(
                std::ptr::null(),
                line.as_mut_ptr(),
                none,
                none,
                0,
                flags,
                std::ptr::null(),
                std::ptr::null(),
                (&raw const startup).cast(),
                &raw mut started,
            )
        })?;
        drop(owned(started.hThread)?);
        owned(started.hProcess)
    }
}

impl Drop for PseudoConsole {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it any more.
        unsafe { (self.close)(self.handle) };
    }
}

/// Whether there are terminals here, as far as this process has found by trying: some systems have no such functions, and Wine's can't be resized.
pub(super) fn can_be_had() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(try_out)
}

fn try_out() -> bool {
    let sizes = [(80, 25), (100, 30)].map(|(columns, rows)| TerminalSize { columns, rows });
    let tried = io::pipe().and_then(|typed| Ok((typed, io::pipe()?))).and_then(|((keyboard, _typing), (shown, screen))| {
        let console = PseudoConsole::new(sizes[0], keyboard.into(), screen.into())?;
        let resized = console.resize(sizes[1]);
        // Before the console, which would wait until its last has been read; what nobody can read any more it doesn't wait for.
        drop(shown);
        resized
    });
    if let Err(error) = &tried {
        tracing::info!(%error, "this system has no terminals for commands in containers");
    }
    tried.is_ok()
}

fn function(name: &CStr) -> io::Result<*const c_void> {
    // SAFETY: both names end with a zero, and the library is in every process.
    let found = unsafe { GetProcAddress(GetModuleHandleA(c"kernel32.dll".as_ptr().cast()), name.as_ptr().cast()) };
    found.map(|found| found as *const c_void).ok_or_else(unsupported)
}

fn succeeded(result: HRESULT) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        E_NOTIMPL => Err(unsupported()),
        failed => Err(io::Error::other(format!("the pseudo console failed: {failed:#x}"))),
    }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this Windows can't do that with pseudo consoles")
}

fn coordinates(size: TerminalSize) -> COORD {
    let within = |count: u16| i16::try_from(count.max(1)).unwrap_or(i16::MAX);
    COORD { X: within(size.columns), Y: within(size.rows) }
}

/// What a process is told of the console that it is started in.
struct Attributes(Vec<usize>);

impl Attributes {
    fn of(console: &PseudoConsole) -> io::Result<Self> {
        let (mut bytes, none) = (0, std::ptr::null_mut());
        // SAFETY: without a list it says how large one has to be, and fails.
        unsafe { InitializeProcThreadAttributeList(none, 1, 0, &raw mut bytes) };
        let mut buffer = vec![0_usize; bytes.div_ceil(size_of::<usize>())];
        // SAFETY: the buffer is as large as was asked for.
        check(unsafe { InitializeProcThreadAttributeList(buffer.as_mut_ptr().cast(), 1, 0, &raw mut bytes) })?;
        let attributes = Self(buffer);
        let (which, console, size) = (PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE as usize, console.handle as *const c_void, size_of::<HPCON>());
        // SAFETY: the list was made for one attribute; this one is the handle itself.
        check(unsafe { UpdateProcThreadAttribute(attributes.list(), 0, which, console, size, none, std::ptr::null()) })?;
        Ok(attributes)
    }

    fn list(&self) -> LPPROC_THREAD_ATTRIBUTE_LIST {
        self.0.as_ptr().cast_mut().cast()
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialized.
        unsafe { DeleteProcThreadAttributeList(self.list()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_any_size_has_one_that_the_system_takes() {
        let taken = [(0, 0), (80, 25), (u16::MAX, 1)].map(|(columns, rows)| {
            let taken = coordinates(TerminalSize { columns, rows });
            (taken.X, taken.Y)
        });
        assert_eq!(taken, [(1, 1), (80, 25), (i16::MAX, 1)]);
    }
}
