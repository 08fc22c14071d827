//! Consoles: by which programs are asked to end.

use std::io;

use windows_sys::Win32::System::Console::{
    AllocConsole, CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent, GetConsoleProcessList, SetConsoleCtrlHandler,
};
use windows_sys::core::BOOL;

use super::check;

/// Makes sure that this process has a console, by which what it starts can be asked to end, and that whatever the console tells does not end it itself.
pub(super) fn prepare() -> io::Result<()> {
    unsafe extern "system" fn ignore(_: u32) -> BOOL {
        1
    }
    let mut pid = 0;
    // SAFETY: the list has room for one, which is all that is asked for.
    if unsafe { GetConsoleProcessList(&raw mut pid, 1) } == 0 {
        // SAFETY: no pointers.
        check(unsafe { AllocConsole() })?;
    }
    // SAFETY: the handler uses nothing.
    check(unsafe { SetConsoleCtrlHandler(Some(ignore), 1) })
}

/// Ctrl-Break for the process group of a container, which has this process's console.
pub(super) fn send_break(group: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, group.cast_unsigned()) })
        .map_err(|error| io::Error::new(error.kind(), format!("Ctrl-Break can't be sent here: {error}")))
}

/// Waits until somebody asks this program to end.
pub(super) async fn end_signal() -> io::Result<&'static str> {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
    let (mut interrupt, mut pause, mut close, mut shutdown) = (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = pause.recv() => "Ctrl-Break",
        _ = close.recv() => "the end of its console",
        _ = shutdown.recv() => "the system's shutdown",
    })
}
