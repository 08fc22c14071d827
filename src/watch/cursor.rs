use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::filter::Filter;
use super::hub::{Subscription, Topics, ended};
use super::pages::Pages;
use super::{Known, Start};
use crate::api::Revision;
use crate::error::{Error, Result};
use crate::store::Commit;

/// A watch: where somebody stands in the sequence of commits. One that nobody reads costs nothing but its place in its topics.
#[derive(Debug)]
pub struct Cursor {
    topics: Arc<Topics>,
    filter: Filter,
    /// Everything up to this revision has been sent.
    position: Revision,
    phase: Phase,
    subscriptions: Vec<Subscription>,
    /// Commits that came in while others, before them, may not have been there yet.
    pending: Vec<Arc<Commit>>,
    /// When it has to say where it stands, if it has sent nothing until then.
    bookmark_at: Instant,
    _counted: Counted,
}

/// A piece of a watch's stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Events, each encoded as an `events` field of a WatchResponse: tag, length, `Event`. Shared with every other watch that sends them.
    /// None at all is a bookmark.
    pub records: Vec<Bytes>,
    /// Everything up to this revision has been sent; zero while the initial state is incomplete.
    pub revision: Revision,
    /// Whether this completes the initial state.
    pub synced: bool,
}

/// Where the next events come from.
#[derive(Debug)]
enum Phase {
    /// From a snapshot.
    Initial(Box<Pages>),
    /// From the history, until there is no more; then live.
    Replaying,
    /// From the topics.
    Live,
    /// From the history, for the last time: the store has closed.
    Ending,
}

/// What ended a wait.
enum Wake {
    Commit(Arc<Commit>),
    /// It is time to say that nothing happens.
    Silence,
    /// Some commits were pushed out of a channel before they were read.
    Lagged,
    Closed,
}

/// A silent watch says where it stands when this time has passed: a second less than the API promises.
const BOOKMARK_AFTER: Duration = Duration::from_secs(9);
/// A batch takes no further commit beyond this many bytes…
const BATCH_BYTES: usize = 1024 * 1024;
/// … or events.
const BATCH_EVENTS: usize = 1000;
/// How many commits are read from the history at once.
const REPLAY_COMMITS: usize = 256;

impl Cursor {
    pub(super) fn new(topics: &Arc<Topics>, filter: Filter, start: Start) -> Result<Self> {
        // Listens before it looks at the state, so that nothing falls in between.
        let subscriptions = subscribe(topics, &filter)?;
        let feed = &topics.feed;
        let from_state = |known| (Revision::ZERO, Phase::Initial(Box::new(Pages::new(feed.snapshot(), &filter, known))));
        // Due at once: whoever watches from now on has to know from when, and whoever was away that nothing else has happened.
        let mut is_due = false;
        let (position, phase) = match start {
            Start::Now => {
                is_due = true;
                (feed.revision(), Phase::Live)
            }
            Start::Initial => from_state(Known::default()),
            Start::Difference { known, after: None } => from_state(known),
            Start::After(requested) | Start::Difference { after: Some(requested), .. } => {
                let current = feed.revision();
                if requested > current {
                    return Err(Error::Future { requested, current });
                }
                is_due = requested < current;
                match (feed.after(requested, 0), start) {
                    (Err(Error::Compacted { .. }), Start::Difference { known, .. }) => from_state(known),
                    (reaches, _) => reaches.map(|_| (requested, Phase::Replaying))?,
                }
            }
        };
        let patience = if is_due { Duration::ZERO } else { BOOKMARK_AFTER };
        let (topics, bookmark_at) = (Arc::clone(topics), Instant::now() + patience);
        Ok(Self { topics, filter, position, phase, subscriptions, pending: Vec::new(), bookmark_at, _counted: Counted::begin() })
    }

    /// What comes next: everything that is ready, or, at the latest after ten seconds, a bookmark. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Compacted when the watch was read so slowly that the history no longer reaches back to where it stands; Unavailable when the store
    /// has closed. Both stay so.
    pub async fn next(&mut self) -> Result<Batch> {
        loop {
            let ready = match &self.phase {
                Phase::Initial(_) => self.page(),
                Phase::Replaying | Phase::Ending => self.replay()?,
                Phase::Live => self.take_live().or_else(|| self.bookmark()),
            };
            if let Some(batch) = ready {
                self.bookmark_at = Instant::now() + BOOKMARK_AFTER;
                return Ok(batch);
            }
            if !matches!(self.phase, Phase::Live) {
                tokio::task::consume_budget().await;
            } else if self.pending.is_empty() {
                match self.wait().await {
                    Wake::Commit(commit) => self.keep(commit),
                    Wake::Silence => {}
                    Wake::Lagged => self.catch_up(),
                    Wake::Closed => self.reconnect(),
                }
            }
        }
    }

    fn page(&mut self) -> Option<Batch> {
        let Phase::Initial(pages) = &mut self.phase else { return None };
        let records = pages.next(&self.filter);
        if pages.is_complete() {
            self.position = pages.snapshot.revision();
            self.phase = Phase::Replaying;
            return Some(Batch { records, revision: self.position, synced: true });
        }
        (!records.is_empty()).then_some(Batch { records, revision: Revision::ZERO, synced: false })
    }

    /// Takes from the history. `None` when nothing of it matched, or nothing is left.
    fn replay(&mut self) -> Result<Option<Batch>> {
        let commits = self.topics.feed.after(self.position, REPLAY_COMMITS)?;
        if commits.is_empty() {
            if let Phase::Ending = self.phase {
                return Err(ended());
            }
            self.phase = Phase::Live;
        }
        let (batch, _) = self.gather(&commits);
        Ok(batch)
    }

    /// Takes everything that has come in. `None` when nothing of it matched.
    fn take_live(&mut self) -> Option<Batch> {
        let complete = self.complete();
        let mut received = Ok(());
        for index in 0..self.subscriptions.len() {
            received = received.and_then(|()| self.receive(index));
        }
        match received {
            Ok(()) => self.take_up_to(complete),
            Err(TryRecvError::Closed) => {
                self.reconnect();
                None
            }
            Err(TryRecvError::Lagged(_) | TryRecvError::Empty) => {
                self.catch_up();
                None
            }
        }
    }

    /// Up to which revision everything is in the channels by now, or here. A commit is in all of its topics before the next one is in any; so
    /// nothing is missing before the newest that came in. To be asked before receiving: what comes in afterwards may have a gap before it, in a
    /// channel that has been emptied already.
    fn complete(&self) -> Revision {
        let newest = self.pending.iter().map(|commit| commit.revision).max();
        newest.unwrap_or_default().max(self.topics.published())
    }

    fn receive(&mut self, subscription: usize) -> Result<(), TryRecvError> {
        loop {
            match self.subscriptions[subscription].receiver().try_recv() {
                Ok(commit) => self.keep(commit),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_up_to(&mut self, complete: Revision) -> Option<Batch> {
        self.pending.sort_by_key(|commit| commit.revision);
        self.pending.dedup_by_key(|commit| commit.revision);
        let mut pending = std::mem::take(&mut self.pending);
        let ready = pending.partition_point(|commit| commit.revision <= complete);
        let (batch, taken) = self.gather(&pending[..ready]);
        pending.drain(..taken);
        if taken == ready {
            self.position = self.position.max(complete);
        }
        // The shared allocation is given back when there is nothing left in it: most cursors are idle most of the time.
        self.pending = if pending.is_empty() { Vec::new() } else { pending };
        batch.map(|batch| Batch { revision: self.position, ..batch })
    }

    fn keep(&mut self, commit: Arc<Commit>) {
        if commit.revision > self.position {
            self.pending.push(commit);
        }
    }

    /// Moves over commits, in order, until the batch is full. Returns it, unless it is empty, and how many commits were taken.
    fn gather(&mut self, commits: &[Arc<Commit>]) -> (Option<Batch>, usize) {
        let (mut records, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for commit in commits {
            let before = records.len();
            self.filter.put_records(commit, &mut records);
            bytes += records[before..].iter().map(Bytes::len).sum::<usize>();
            if before > 0 && (bytes > BATCH_BYTES || records.len() > BATCH_EVENTS) {
                records.truncate(before);
                break;
            }
            self.position = commit.revision;
            taken += 1;
        }
        let batch = Batch { records, revision: self.position, synced: false };
        ((!batch.records.is_empty()).then_some(batch), taken)
    }

    async fn wait(&mut self) -> Wake {
        let deadline = self.bookmark_at;
        let received = match self.subscriptions.as_mut_slice() {
            [one] => tokio::time::timeout_at(deadline, one.receiver().recv()).await,
            many => {
                let receivers = many.iter_mut().map(|subscription| Box::pin(subscription.receiver().recv()));
                tokio::time::timeout_at(deadline, select_all(receivers)).await.map(|(received, _, _)| received)
            }
        };
        match received {
            Ok(Ok(commit)) => Wake::Commit(commit),
            Ok(Err(RecvError::Lagged(_))) => Wake::Lagged,
            Ok(Err(RecvError::Closed)) => Wake::Closed,
            Err(_) => Wake::Silence,
        }
    }

    /// Says where it stands, when it is time to.
    fn bookmark(&self) -> Option<Batch> {
        let live = matches!(self.phase, Phase::Live) && self.pending.is_empty();
        let due = live && Instant::now() >= self.bookmark_at;
        due.then(|| Batch { records: Vec::new(), revision: self.position, synced: false })
    }

    /// Reads on from the history.
    fn catch_up(&mut self) {
        metrics::counter!("bluebird_watch_lagged_total").increment(1);
        self.pending = Vec::new();
        self.phase = Phase::Replaying;
    }

    /// Listens anew where the hub had to close its topics, and reads on from the history.
    fn reconnect(&mut self) {
        self.pending = Vec::new();
        self.phase = match subscribe(&self.topics, &self.filter) {
            Ok(subscriptions) => {
                self.subscriptions = subscriptions;
                Phase::Replaying
            }
            Err(_) => Phase::Ending,
        };
    }
}

fn subscribe(topics: &Arc<Topics>, filter: &Filter) -> Result<Vec<Subscription>> {
    filter.topics().into_iter().map(|topic| topics.subscribe(topic)).collect()
}

/// Counts a watch as long as it lives.
#[derive(Debug)]
struct Counted(());

impl Counted {
    fn begin() -> Self {
        metrics::gauge!("bluebird_watches").increment(1);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("bluebird_watches").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::hub::Hub;
    use super::super::topic::Topic;
    use super::*;
    use crate::api::Matcher;
    use crate::api::v1::Selector;
    use crate::store::HistoryLimits;
    use crate::store::fixtures::{open, pod, put, service, transaction};

    #[tokio::test]
    async fn what_came_in_behind_a_gap_waits_until_the_gap_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), HistoryLimits::default());
        let hub = Hub::new(&store);
        let of_kind = |kind: &str| Matcher::new(&Selector { kind: kind.into(), ..Default::default() }, "").unwrap();
        let mut cursor = hub.watch(vec![of_kind("Pod"), of_kind("Service")], Start::After(Revision::ZERO)).unwrap();
        assert_eq!(cursor.replay(), Ok(None), "now it is live");

        // Both commits come after one topic has been looked at and before the other is: the later one is seen without the earlier one.
        let complete = cursor.complete();
        store.commit(transaction([put(pod("a", "", &[]))])).await.unwrap();
        let last = store.commit(transaction([put(service("s"))])).await.unwrap().revision;
        hub.settle(last).await;
        let services = Topic::covering(&of_kind("Service"));
        let later = cursor.subscriptions.iter().position(|subscription| subscription.topic() == services).unwrap();
        cursor.receive(later).unwrap();
        assert_eq!(cursor.take_up_to(complete), None);
        assert_eq!(cursor.position, Revision::ZERO);

        let batch = cursor.take_live().unwrap();
        assert_eq!((batch.records.len(), batch.revision), (2, last));
    }
}
