use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Commit;
use crate::api::Revision;
use crate::error::Error;
use crate::time::elapsed;

/// How far back a watch can resume: as far as all limits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// How long ago it may be, not counting the time in which no apiserver ran.
    pub age: Duration,
    /// The most revisions.
    pub revisions: usize,
    /// The most memory, in bytes.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    /// An hour, 100,000 revisions, 64 MiB.
    fn default() -> Self {
        Self { age: Duration::from_secs(60 * 60), revisions: 100_000, bytes: 64 * 1024 * 1024 }
    }
}

/// The last commits, in order: every one after the oldest revision. Their numbers may have gaps.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    commits: VecDeque<Kept>,
    bytes: usize,
    /// How much time has passed that counts. It never goes back, whatever the machine's clock does.
    passed: Duration,
    /// Everything after this revision is here.
    oldest: Revision,
}

#[derive(Debug)]
struct Kept {
    commit: Arc<Commit>,
    /// How much time had passed when it was made.
    at: Duration,
}

impl History {
    /// Knows nothing but that `revision` is the current one: nothing before it, and everything after it that will be pushed.
    pub(super) fn new(limits: HistoryLimits, revision: Revision) -> Self {
        Self { limits, commits: VecDeque::new(), bytes: 0, passed: Duration::ZERO, oldest: revision }
    }

    /// Says which revision is the current one while no commit is kept: what is pushed next is the first one after it.
    pub(super) fn reach(&mut self, revision: Revision) {
        if self.commits.is_empty() {
            self.oldest = revision;
        }
    }

    /// Forgets every commit up to a revision that is newer than all of them.
    pub(super) fn begin_anew(&mut self, revision: Revision) {
        self.commits.clear();
        self.bytes = 0;
        self.oldest = revision;
    }

    /// Appends a commit and lets go of what exceeds the limits.
    pub(super) fn push(&mut self, commit: Arc<Commit>) {
        self.bytes += commit.bytes();
        self.commits.push_back(Kept { commit, at: self.passed });
        self.let_go();
    }

    /// Appends a commit of an earlier run. So much time has passed since the one before as the machine's clock had shown, unless that was set back.
    pub(super) fn recall(&mut self, commit: Arc<Commit>) {
        if let Some(before) = self.commits.back() {
            self.passed += elapsed(&before.commit.time, &commit.time);
        }
        self.push(commit);
    }

    /// How much time has passed that counts.
    pub(super) fn passed(&self) -> Duration {
        self.passed
    }

    /// Says how much time has passed, and lets go of what has become too old. Returns whether that was anything.
    pub(super) fn pass(&mut self, passed: Duration) -> bool {
        self.passed = self.passed.max(passed);
        self.let_go()
    }

    fn let_go(&mut self) -> bool {
        let before = self.oldest;
        while let Some(first) = self.commits.front()
            && (self.commits.len() > self.limits.revisions || self.bytes > self.limits.bytes || self.passed - first.at > self.limits.age)
        {
            self.bytes -= first.commit.bytes();
            self.oldest = first.commit.revision;
            self.commits.pop_front();
        }
        self.oldest != before
    }

    /// The oldest revision that can be resumed from.
    pub fn oldest(&self) -> Revision {
        self.oldest
    }

    /// The commits after a revision, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the history no longer reaches back that far.
    pub fn after(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<Commit>>, Error> {
        if revision < self.oldest {
            return Err(Error::Compacted { requested: revision, oldest: self.oldest });
        }
        let start = self.commits.partition_point(|kept| kept.commit.revision <= revision);
        Ok(self.commits.range(start..).take(limit).map(|kept| Arc::clone(&kept.commit)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(revisions: usize, bytes: usize, upto: u64) -> History {
        let mut history = History::new(HistoryLimits { revisions, bytes, ..HistoryLimits::default() }, Revision::ZERO);
        for revision in 1..=upto {
            history.push(Arc::new(Commit { revision: Revision(revision), time: Default::default(), events: Box::default() }));
        }
        history
    }

    fn after(history: &History, revision: u64) -> Result<Vec<u64>, Error> {
        Ok(history.after(Revision(revision), 3)?.iter().map(|commit| commit.revision.0).collect())
    }

    #[test]
    fn what_follows_a_revision_comes_in_order_and_in_pieces() {
        let history = history(100, usize::MAX, 5);
        assert_eq!(after(&history, 0), Ok(vec![1, 2, 3]));
        assert_eq!(after(&history, 3), Ok(vec![4, 5]));
        assert_eq!(after(&history, 5), Ok(vec![]));
    }

    #[test]
    fn beyond_either_limit_the_oldest_goes_and_asking_for_it_says_so() {
        let one = Commit { revision: Revision(1), time: Default::default(), events: Box::default() }.bytes();
        for history in [history(2, usize::MAX, 5), history(100, 2 * one, 5)] {
            assert_eq!(after(&history, 3), Ok(vec![4, 5]));
            assert_eq!(after(&history, 2), Err(Error::Compacted { requested: Revision(2), oldest: Revision(3) }));
        }
    }

    #[test]
    fn revisions_that_never_were_can_be_resumed_from_if_nothing_after_them_is_missing() {
        let mut history = History::new(HistoryLimits { revisions: 2, bytes: usize::MAX, ..HistoryLimits::default() }, Revision(5));
        for revision in [9, 20, 21] {
            history.push(Arc::new(Commit { revision: Revision(revision), time: Default::default(), events: Box::default() }));
        }
        assert_eq!((history.oldest(), after(&history, 9), after(&history, 15)), (Revision(9), Ok(vec![20, 21]), Ok(vec![20, 21])));
        assert_eq!(after(&history, 8), Err(Error::Compacted { requested: Revision(8), oldest: Revision(9) }));
        let mut history = History::new(HistoryLimits::default(), Revision(5));
        history.push(Arc::new(Commit { revision: Revision(9), time: Default::default(), events: Box::default() }));
        assert_eq!((history.oldest(), after(&history, 5)), (Revision(5), Ok(vec![9])));
    }

    #[test]
    fn a_limit_of_nothing_keeps_nothing_and_the_current_revision_can_still_be_resumed_from() {
        let history = history(0, 0, 5);
        assert_eq!(after(&history, 5), Ok(vec![]));
        assert!(after(&history, 4).is_err());
    }

    /// A commit of a moment that the machine's clock showed.
    fn at(revision: u64, seconds: i64) -> Arc<Commit> {
        let time = prost_types::Timestamp { seconds, nanos: 0 };
        Arc::new(Commit { revision: Revision(revision), time, events: Box::default() })
    }

    const HOUR: u64 = 3600;

    fn of_an_hour() -> History {
        History::new(HistoryLimits::default(), Revision::ZERO)
    }

    #[test]
    fn what_is_older_than_the_limit_goes_also_when_nothing_is_committed() {
        let mut history = of_an_hour();
        history.push(at(1, 0));
        assert!(!history.pass(Duration::from_secs(HOUR / 2)));
        history.push(at(2, 0));
        assert!(!history.pass(Duration::from_secs(HOUR)));
        assert!(history.pass(Duration::from_secs(HOUR + 1)));
        assert_eq!((history.oldest(), after(&history, 1)), (Revision(1), Ok(vec![2])));
        assert!(history.pass(Duration::from_secs(2 * HOUR)));
        assert_eq!((history.oldest(), after(&history, 2)), (Revision(2), Ok(vec![])));
    }

    #[test]
    fn commits_of_an_earlier_run_are_as_old_as_they_are_apart_however_long_nothing_ran() {
        let mut history = of_an_hour();
        for (revision, seconds) in [(1, 0), (2, 2000), (3, 4000), (4, 4001)] {
            history.recall(at(revision, seconds));
        }
        assert_eq!(history.oldest(), Revision(1), "the first is more than an hour older than the last");
        assert_eq!(history.passed(), Duration::from_secs(4001));
        // It goes on from there, whatever the clock shows now.
        history.push(at(5, 1_000_000));
        assert_eq!(history.oldest(), Revision(1));
        history.pass(Duration::from_secs(2000 + HOUR + 1));
        assert_eq!(history.oldest(), Revision(2));
    }

    #[test]
    fn a_clock_that_jumps_neither_drops_everything_nor_keeps_anything_for_ever() {
        let jump = 10 * HOUR as i64;
        for jump in [jump, -jump] {
            let mut live = of_an_hour();
            let mut recalled = of_an_hour();
            for revision in 1..=10 {
                let commit = at(revision, revision as i64 + if revision > 5 { jump } else { 0 });
                live.push(Arc::clone(&commit));
                recalled.recall(commit);
            }
            assert_eq!(live.oldest(), Revision::ZERO, "a running apiserver doesn't go by the clock");
            // Read again after a jump forward it looks as if the time had passed, but what was committed after the jump stays.
            assert_eq!(recalled.oldest(), if jump > 0 { Revision(5) } else { Revision::ZERO });
            for mut history in [live, recalled] {
                let passed = history.passed() + Duration::from_secs(HOUR + 10);
                assert!(history.pass(passed));
                assert_eq!(history.oldest(), Revision(10));
            }
        }
    }
}
