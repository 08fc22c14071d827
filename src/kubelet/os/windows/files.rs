//! What files need that somebody else may have open.

use std::io;
use std::path::Path;
use std::time::Duration;

/// How long a file that somebody has open is tried again.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// Gives a new file the name of an old one. That can't be while somebody reads the old one, which never takes long.
pub(super) fn replace(old: &Path, new: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match std::fs::rename(new, old) {
            Err(error) if is_in_use(&error) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    std::fs::rename(new, old)
}

fn is_in_use(error: &io::Error) -> bool {
    use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION};
    error.raw_os_error().is_some_and(|code| [ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION].contains(&code.cast_unsigned()))
}
