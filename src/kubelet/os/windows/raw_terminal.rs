//! The console that this program itself is used in.

use std::io;

use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, ENABLE_ECHO_INPUT, ENABLE_LINE_INPUT, ENABLE_PROCESSED_INPUT, ENABLE_VIRTUAL_TERMINAL_INPUT,
    ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, GetStdHandle, STD_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetConsoleMode,
};

/// As both sides were before, to be so again when this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    input: CONSOLE_MODE,
    output: Option<CONSOLE_MODE>,
}

impl RawTerminal {
    /// `None` when standard input is no console.
    pub(crate) fn begin() -> io::Result<Option<Self>> {
        let Some(input) = mode(STD_INPUT_HANDLE) else { return Ok(None) };
        let cooked = ENABLE_ECHO_INPUT | ENABLE_LINE_INPUT | ENABLE_PROCESSED_INPUT;
        set_mode(STD_INPUT_HANDLE, (input & !cooked) | ENABLE_VIRTUAL_TERMINAL_INPUT)?;
        let raw = Self { input, output: mode(STD_OUTPUT_HANDLE) };
        if let Some(output) = raw.output {
            set_mode(STD_OUTPUT_HANDLE, output | ENABLE_VIRTUAL_TERMINAL_PROCESSING)?;
        }
        Ok(Some(raw))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A console that is gone needs nothing.
        let _restored = set_mode(STD_INPUT_HANDLE, self.input);
        if let Some(output) = self.output {
            let _restored = set_mode(STD_OUTPUT_HANDLE, output);
        }
    }
}

/// `None` for what is no console.
fn mode(which: STD_HANDLE) -> Option<CONSOLE_MODE> {
    let mut mode = 0;
    // SAFETY: the pointer is to a value of the kind that is written; what is no handle is refused.
    (unsafe { GetConsoleMode(GetStdHandle(which), &raw mut mode) } != 0).then_some(mode)
}

fn set_mode(which: STD_HANDLE, mode: CONSOLE_MODE) -> io::Result<()> {
    // SAFETY: no pointers; what is no handle is refused.
    match unsafe { SetConsoleMode(GetStdHandle(which), mode) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
