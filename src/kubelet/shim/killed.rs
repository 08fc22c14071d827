//! What was killed and doesn't go: a signal that is taken without an error may never be acted on, as by a process that waits for a dead disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After this it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Processes that were killed, and when for the first time.
#[derive(Debug, Default)]
pub(super) struct Killed(BTreeMap<i32, Instant>);

impl Killed {
    /// Forgets those that are not there any more.
    pub(super) fn keep(&mut self, is_there: impl Fn(i32) -> bool) {
        self.0.retain(|pid, _| is_there(*pid));
    }

    /// Takes note of a process that is killed, again or for the first time; a sentence if it should be gone by now.
    pub(super) fn note(&mut self, pid: i32, now: Instant) -> Option<String> {
        let since = *self.0.entry(pid).or_insert(now);
        let is_late = now.saturating_duration_since(since) >= PATIENCE;
        is_late.then(|| format!("process {pid} was killed and is still there after {} s", PATIENCE.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_there_long_after_it_was_killed_is_told_and_not_who_has_its_number_next() {
        let (mut killed, start) = (Killed::default(), Instant::now());
        let mut note = |pid, seconds| killed.note(pid, start + Duration::from_secs(seconds));
        assert_eq!([note(7, 0), note(8, 3), note(7, 4), note(8, 5)], [const { None }; 4]);
        assert_eq!(note(7, 5).as_deref(), Some("process 7 was killed and is still there after 5 s"));
        assert_eq!(note(7, 90), note(7, 5), "the words stay, and with them the status");
        killed.keep(|pid| pid == 8);
        assert_eq!((killed.note(7, start + Duration::from_secs(91)), killed.0.len()), (None, 2));
    }
}
