use std::collections::VecDeque;
use std::sync::Arc;

use super::Commit;
use crate::api::Revision;
use crate::error::Error;

/// How far back a watch can resume: as far as both limits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// The most revisions.
    pub revisions: usize,
    /// The most memory, in bytes.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    /// 100,000 revisions, 64 MiB.
    fn default() -> Self {
        Self { revisions: 100_000, bytes: 64 * 1024 * 1024 }
    }
}

/// The last commits, in order: every one after the oldest revision. Their numbers may have gaps.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    /// Everything after this revision is here.
    oldest: Revision,
}

impl History {
    /// Knows nothing but that `revision` is the current one: nothing before it, and everything after it that will be pushed.
    pub(super) fn new(limits: HistoryLimits, revision: Revision) -> Self {
        Self { limits, commits: VecDeque::new(), bytes: 0, oldest: revision }
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
        self.commits.push_back(commit);
        while self.commits.len() > self.limits.revisions || self.bytes > self.limits.bytes {
            let Some(dropped) = self.commits.pop_front() else { break };
            self.bytes -= dropped.bytes();
            self.oldest = dropped.revision;
        }
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
        let start = self.commits.partition_point(|commit| commit.revision <= revision);
        Ok(self.commits.iter().skip(start).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(revisions: usize, bytes: usize, upto: u64) -> History {
        let mut history = History::new(HistoryLimits { revisions, bytes }, Revision::ZERO);
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
        let mut history = History::new(HistoryLimits { revisions: 2, bytes: usize::MAX }, Revision(5));
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
}
