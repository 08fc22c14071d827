//! Where a service prints to: it has neither console nor pipes, so it gets a file, which stays small.

use std::fs::{self, File};
use std::io;
use std::os::windows::io::IntoRawHandle as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use windows_sys::Win32::System::Console::{STD_ERROR_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle};

use super::{check, privacy};

/// A file that has become larger is moved to another one, in the place of what was there.
const MAX_BYTES: u64 = 16 << 20;
/// How often it is looked at.
const LOOKS: Duration = Duration::from_secs(60);

/// From now on what this process prints goes to this file, which is made with its folder when it isn't there. The one before is kept beside it, as `NAME.1`.
pub(super) fn begin(log: &Path) -> io::Result<()> {
    if let Some(folder) = log.parent() {
        privacy::make_folder(folder)?;
    }
    keep_small(log, MAX_BYTES)?;
    let file = File::options().append(true).create(true).open(log)?;
    // It stays open for as long as this process lives.
    let file = file.into_raw_handle();
    for which in [STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: the handle is open, and nobody closes it.
        check(unsafe { SetStdHandle(which, file) })?;
    }
    let log = log.to_owned();
    // With an ordinary stack: copying a file runs what virus scanners have put in its way.
    std::thread::Builder::new().name("log".to_owned()).spawn(move || look_after(&log)).map(drop)
}

#[allow(clippy::disallowed_methods, reason = "nothing tells when a file has grown, and it may grow a little more")]
fn look_after(log: &Path) {
    loop {
        std::thread::sleep(LOOKS);
        if let Err(error) = keep_small(log, MAX_BYTES) {
            tracing::warn!(%error, log = %log.display(), "this log can't be kept small");
        }
    }
}

/// A copy, since a file that is open can't have another name. What is printed in that very moment may be lost.
fn keep_small(log: &Path, max_bytes: u64) -> io::Result<()> {
    match fs::metadata(log) {
        Ok(found) if found.len() > max_bytes => {
            fs::copy(log, before(log))?;
            // Whoever writes there appends.
            File::options().write(true).open(log)?.set_len(0)
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn before(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_log_that_has_become_large_is_moved_beside_itself_while_it_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("kubelet.log");
        keep_small(&log, 4).unwrap();
        let mut file = File::options().append(true).create(true).open(&log).unwrap();
        for (line, now, moved) in [("one\n", "one\n", None), ("two\n", "", Some("one\ntwo\n")), ("three\n", "", Some("three\n"))] {
            file.write_all(line.as_bytes()).unwrap();
            keep_small(&log, 4).unwrap();
            assert_eq!(fs::read_to_string(&log).unwrap(), now);
            assert_eq!(fs::read_to_string(before(&log)).ok().as_deref(), moved);
        }
    }
}
