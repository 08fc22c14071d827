//! What a shim has to complain of: on its standard error, which is the pod's `shim.log`. A trouble that lasts is told ever more rarely, and the file stays
//! small.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the same is not told again after the first time; from then on longer and longer.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// How many different ones are remembered.
const KNOWN: usize = 32;
/// A file that has become larger is emptied.
const MAX_BYTES: u64 = 64 * 1024;

/// As a process has one standard error, it has one of these.
static SAID: Mutex<Said> = Mutex::new(Said(VecDeque::new()));
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// What is complained of from now on ends in this file, which is there and open already.
pub(super) fn begin(file: PathBuf) {
    let file = FILE.get_or_init(|| file);
    if let Err(error) = keep_small(file) {
        complain(&format!("{} can't be kept small: {error}", file.display()));
    }
}

/// Tells it, unless it has been told lately.
pub(super) fn complain(text: &str) {
    let is_due = SAID.lock().unwrap_or_else(PoisonError::into_inner).is_due(text, Instant::now());
    if is_due {
        // A file that can't be kept small is no reason to be silent.
        let _too_large = FILE.get().map(keep_small);
        tell(text);
    }
}

/// Tells it whatever has been told. Unlike `eprintln` it goes on where the disk of `shim.log` is full, or fails: nobody else can be told then.
pub(super) fn tell(text: &str) {
    let _nobody_to_tell = writeln!(io::stderr(), "{text}");
}

fn keep_small(file: &PathBuf) -> io::Result<()> {
    match std::fs::metadata(file) {
        // Whoever writes there appends.
        Ok(found) if found.len() > MAX_BYTES => File::options().write(true).open(file)?.set_len(0),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What was told lately.
#[derive(Debug)]
struct Said(VecDeque<Complaint>);

#[derive(Debug)]
struct Complaint {
    text: String,
    told: Instant,
    wait: Duration,
}

impl Said {
    /// Whether this is to be told now; it is, then.
    fn is_due(&mut self, text: &str, now: Instant) -> bool {
        let Some(known) = self.0.iter_mut().find(|known| known.text == text) else {
            if self.0.len() == KNOWN {
                self.0.pop_front();
            }
            self.0.push_back(Complaint { text: text.to_owned(), told: now, wait: FIRST_WAIT });
            return true;
        };
        let is_due = now.duration_since(known.told) >= known.wait;
        if is_due {
            (known.told, known.wait) = (now, (known.wait * 4).min(LONGEST_WAIT));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_ever_more_rarely_and_each_trouble_for_itself() {
        let (mut said, start) = (Said(VecDeque::new()), Instant::now());
        let told = |said: &mut Said, text: &str, until: u64| {
            (0..until * 50).filter(|turn| said.is_due(text, start + Duration::from_millis(turn * 20))).count()
        };
        assert_eq!(told(&mut said, "process 1 can't be killed", 9), 1);
        assert_eq!(told(&mut said, "process 2 can't be killed", 9), 1);
        // After 10, 50, 210, 850 and 3410 s, then once an hour.
        let mut day = Said(VecDeque::new());
        assert_eq!(told(&mut day, "the state can't be written", 24 * 60 * 60), 6 + 23);
    }

    #[test]
    fn the_memory_of_complaints_is_bounded() {
        let (mut said, now) = (Said(VecDeque::new()), Instant::now());
        assert!((0..1000).all(|number| said.is_due(&format!("process {number} can't be killed"), now)));
        assert_eq!(said.0.len(), KNOWN);
        assert!(!said.is_due("process 999 can't be killed", now));
    }
}
