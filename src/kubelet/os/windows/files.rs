//! What files need that somebody else may have open.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use same_file::Handle;

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

/// Whether the file that is open is the one at this path now.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = Handle::from_file(file.try_clone()?)?;
    match Handle::from_path(path) {
        Ok(now) => Ok(open == now),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_in_use(error: &io::Error) -> bool {
    use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION};
    error.raw_os_error().is_some_and(|code| [ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION].contains(&code.cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_place_of_another_one_is_not_that() {
        let folder = tempfile::tempdir().unwrap();
        let (place, elsewhere) = (folder.path().join("lock"), folder.path().join("elsewhere"));
        std::fs::write(&elsewhere, "").unwrap();
        let file = File::create(&place).unwrap();
        assert!(is_at(&file, &place).unwrap());
        assert!(!is_at(&file, &elsewhere).unwrap());
        assert!(!is_at(&file, &folder.path().join("nowhere")).unwrap());
    }
}
