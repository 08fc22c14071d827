//! What it leaves in files, and what it does by them.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::{Result, say, system, told};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(crate) fn write(path: &str, text: &str) -> Result {
    told(std::fs::write(path, text), path)
}

pub(crate) fn read(path: &str) -> Result {
    say::line(&String::from_utf8_lossy(&told(std::fs::read(path), path)?))
}

/// Who may do what with a file, in octal; where files have no such thing, whether it may be written.
pub(crate) fn mode(path: &str) -> Result {
    let found = told(std::fs::metadata(path), path)?;
    say::line(&system::mode(&found))
}

pub(crate) fn list(folder: &str) -> Result {
    let mut names = Vec::new();
    for entry in told(std::fs::read_dir(folder), folder)? {
        names.push(told(entry, folder)?.file_name().display().to_string());
    }
    names.sort();
    say::line(&names.join(" "))
}

pub(crate) fn wait_for(path: &str) -> Result {
    while !Path::new(path).exists() {
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Waits until a file holds exactly this. It may not be there yet, or for a moment.
pub(crate) fn await_text(path: &str, text: &str) -> Result {
    while std::fs::read(path).map_or(true, |found| found != text.as_bytes()) {
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Ends with `code` in the first `count` runs, which it counts in a file.
pub(crate) fn end_in_first_runs(path: &str, count: u64, code: i32) -> Result {
    let before = std::fs::metadata(path).map_or(0, |found| found.len());
    let mut file = told(OpenOptions::new().create(true).append(true).open(path), path)?;
    told(file.write_all(b"."), path)?;
    if before < count { end(code) } else { Ok(()) }
}

/// Where this run is written down, and the file whose lock says that it runs.
static JOURNAL: Mutex<Option<(File, File)>> = Mutex::new(None);

/// Writes down in a file that this run has begun, and later how it ends: `start PID`, `exit CODE`. A run that begins while another one of the
/// same journal lives writes `double` besides.
pub(crate) fn journal(path: &str) -> Result {
    let lock_path = format!("{path}.lock");
    let lock = told(OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path), &lock_path)?;
    let is_alone = lock.try_lock().is_ok();
    let mut file = told(OpenOptions::new().create(true).append(true).open(path), path)?;
    let double = if is_alone { "" } else { "double\n" };
    told(file.write_all(format!("start {}\n{double}", std::process::id()).as_bytes()), path)?;
    *JOURNAL.lock().map_err(|error| error.to_string())? = Some((file, lock));
    Ok(())
}

/// Ends, and says so in the journal, if there is one.
pub(crate) fn end(code: i32) -> ! {
    if let Ok(mut journal) = JOURNAL.lock()
        && let Some((file, _lock)) = journal.as_mut()
        && let Err(error) = file.write_all(format!("exit {code}\n").as_bytes())
    {
        eprintln!("testapp: the journal can't be written: {error}");
    }
    std::process::exit(code)
}
