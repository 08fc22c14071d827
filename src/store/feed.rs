use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::Thread;
use std::time::Duration;

use tokio::time::Instant;

use super::{Commit, History, Snapshot};
use crate::api::Revision;
use crate::error::Result;

/// The state as it is and the commits that led there: what the committer publishes and everybody else reads. A handle.
#[derive(Clone)]
pub struct Feed(Arc<Published>);

struct Published {
    state: RwLock<Snapshot>,
    history: RwLock<History>,
    /// Since when the history's time goes on, and from where.
    since: (Instant, Duration),
    /// Whether commits are heard of as they happen.
    current: AtomicBool,
    closed: AtomicBool,
    /// How often the history has let go of something for its age, without a commit.
    expirations: AtomicU64,
    followers: Mutex<Vec<Thread>>,
}

impl Feed {
    pub(super) fn new(state: Snapshot, history: History) -> Self {
        let (current, closed) = (AtomicBool::new(true), AtomicBool::new(false));
        let since = (Instant::now(), history.passed());
        Self(Arc::new(Published {
            state: RwLock::new(state),
            history: RwLock::new(history),
            since,
            current,
            closed,
            expirations: AtomicU64::new(0),
            followers: Mutex::default(),
        }))
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.state.read().expect(UNPOISONED).clone()
    }

    /// The current revision. Every commit up to it can be read with [`Feed::after`].
    pub fn revision(&self) -> Revision {
        self.0.state.read().expect(UNPOISONED).revision()
    }

    /// The commits after a revision, in order, at most `limit` of them. Whoever reads a commit here finds the state to show it, and the other way round.
    ///
    /// # Errors
    /// [`crate::error::Error::Compacted`] when the history no longer reaches back that far.
    pub fn after(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<Commit>>> {
        self.0.history.read().expect(UNPOISONED).after(revision, limit)
    }

    /// The oldest revision that can be resumed from.
    pub fn oldest(&self) -> Revision {
        self.0.history.read().expect(UNPOISONED).oldest()
    }

    /// Whether commits are heard of as they happen. If not, nobody can say that nothing has happened.
    pub fn is_current(&self) -> bool {
        self.0.current.load(Ordering::Acquire)
    }

    /// Says whether commits are heard of as they happen, for a backend that may lose touch.
    pub(crate) fn set_current(&self, current: bool) {
        self.0.current.store(current, Ordering::Release);
    }

    /// Whether there will be no more commits.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Unparks a thread after every batch of commits and when the feed closes.
    pub fn follow(&self, follower: Thread) {
        self.0.followers.lock().expect(UNPOISONED).push(follower);
    }

    /// Undoes [`Feed::follow`].
    pub fn unfollow(&self, follower: &Thread) {
        self.0.followers.lock().expect(UNPOISONED).retain(|thread| thread.id() != follower.id());
    }

    pub(super) fn publish(&self, state: Snapshot, commits: Vec<Arc<Commit>>) {
        let replaced = {
            let passed = self.passed();
            let mut history = self.0.history.write().expect(UNPOISONED);
            history.pass(passed);
            for commit in commits {
                history.push(commit);
            }
            // Under the lock of the history, so that nobody reads a commit there that the state doesn't show yet.
            std::mem::replace(&mut *self.0.state.write().expect(UNPOISONED), state)
        };
        // Outside of the locks: this may free a large part of an old state.
        drop(replaced);
        self.wake();
    }

    /// Shows a newer state without the commits that led there: whoever is behind learns that the history is gone.
    pub(super) fn begin_anew(&self, state: Snapshot) {
        let replaced = {
            let mut history = self.0.history.write().expect(UNPOISONED);
            history.begin_anew(state.revision());
            std::mem::replace(&mut *self.0.state.write().expect(UNPOISONED), state)
        };
        drop(replaced);
        self.wake();
    }

    /// Lets go of the history that has become too old. Returns whether there was any.
    pub(super) fn expire(&self) -> bool {
        let passed = self.passed();
        let is_shorter = self.0.history.write().expect(UNPOISONED).pass(passed);
        if is_shorter {
            self.0.expirations.fetch_add(1, Ordering::Release);
            self.wake();
        }
        is_shorter
    }

    /// How often the history has let go of something for its age alone. Followers are told of that, too.
    pub fn expirations(&self) -> u64 {
        self.0.expirations.load(Ordering::Acquire)
    }

    fn passed(&self) -> Duration {
        let (began, passed) = self.0.since;
        passed + began.elapsed()
    }

    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        for follower in self.0.followers.lock().expect(UNPOISONED).iter() {
            follower.unpark();
        }
    }
}

const UNPOISONED: &str = "nothing panics while holding it";

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("revision", &self.revision()).finish_non_exhaustive()
    }
}
