use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use tokio::time::Instant;

/// How fast watches are woken: a few at a time, the next ones when most of these have had their turn. If thousands were woken at once, whoever writes
/// would have to wait behind all of them for a turn of its own; and those who come later take more in one message.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many were woken and did not have their turn yet.
    called: AtomicUsize,
    hub: OnceLock<Thread>,
    /// How many of them there were when the hub looked last, and since when. Only the hub's thread uses it.
    stalled: Mutex<Option<(usize, Instant)>>,
}

/// The most that may be woken and wait for their turn.
const AT_ONCE: usize = 128;
/// The hub goes on when so few are left of them, …
const FEW: usize = 32;
/// … or when nobody has had a turn for so long: a stream whose client lets it send nothing isn't looked at.
const PATIENCE: Duration = Duration::from_millis(1);

impl Pace {
    /// Who is to be told when there is room again.
    pub(super) fn set_hub(&self, hub: Thread) {
        // Only the first one counts; there is only one.
        let _ = self.hub.set(hub);
    }

    /// How many more may be woken.
    pub(super) fn room(&self) -> usize {
        AT_ONCE.saturating_sub(self.called.load(Ordering::Acquire))
    }

    /// So many are woken now.
    pub(super) fn called(&self, count: usize) {
        if count > 0 {
            self.called.fetch_add(count, Ordering::AcqRel);
            *self.stalled() = None;
        }
    }

    /// One of them has its turn.
    pub(super) fn heard(&self) {
        let before = self.called.fetch_update(Ordering::AcqRel, Ordering::Acquire, |called| called.checked_sub(1));
        if before == Ok(FEW + 1)
            && let Some(hub) = self.hub.get()
        {
            hub.unpark();
        }
    }

    /// Returns when there is room, or news for whoever was unparked for another reason.
    pub(super) fn wait(&self) {
        let before = self.called.load(Ordering::Acquire);
        if before <= FEW {
            return;
        }
        let since = match *self.stalled() {
            Some((called, since)) if called == before => since,
            _ => Instant::now(),
        };
        *self.stalled() = Some((before, since));
        std::thread::park_timeout(PATIENCE.saturating_sub(since.elapsed()));
        // Whoever unparks the hub for another reason doesn't make anybody lose patience.
        if since.elapsed() >= PATIENCE && self.called.load(Ordering::Acquire) == before {
            self.called.store(0, Ordering::Release);
        }
    }

    fn stalled(&self) -> MutexGuard<'_, Option<(usize, Instant)>> {
        self.stalled.lock().expect("nothing panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_in_between_does_not_end_the_patience_with_those_who_were_woken() {
        let pace = Pace::default();
        pace.called(AT_ONCE);
        let begun = Instant::now();
        while pace.room() == 0 {
            // As whoever writes does.
            std::thread::current().unpark();
            pace.wait();
        }
        assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
    }
}
