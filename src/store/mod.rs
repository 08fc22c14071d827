//! The state of the cluster: in memory, ordered by key, and every change of it on disk before anybody hears of it.
//!
//! A [`Transaction`] goes to the one committer thread, which takes all that wait, checks their [`Condition`]s, writes them to the [`Backend`]
//! with one sync, moves the state, and answers. A reader takes a [`Snapshot`] and is in nobody's way. The last commits are kept in order, as the
//! [`History`] that watches read through a [`Feed`].

mod backend;
mod commit;
mod committer;
mod feed;
mod history;
mod snapshot;
mod transaction;
mod view;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

pub use backend::{Backend, Embedded, Loaded, OpenError};
pub use commit::{Commit, Event, put_record, record_of};
pub use feed::Feed;
pub use history::{History, HistoryLimits};
pub use snapshot::{Snapshot, Stored};
pub use transaction::{Committed, Condition, Transaction, Write};
pub use view::View;

use crate::error::{Error, Result};
use crate::time::Clock;
use committer::{Committer, Request};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far back a watch can resume.
    pub history: HistoryLimits,
    /// What commits are dated with.
    pub clock: Clock,
}

/// The store. A handle: clones are the same store. When the last one is dropped without [`Store::close`], it stops as [`Store::kill`] does.
#[derive(Clone, Debug)]
pub struct Store(Arc<Running>);

#[derive(Debug)]
struct Running {
    feed: Feed,
    cluster_id: String,
    requests: mpsc::Sender<Request>,
    killed: Arc<AtomicBool>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// How many transactions may wait for the committer; beyond that, who commits waits for a place.
const WAITING_TRANSACTIONS: usize = 1024;

impl Store {
    /// Reads what the backend holds and starts the committer. Blocks while reading.
    ///
    /// # Errors
    /// What is wrong with the backend's data. Nothing has been changed then.
    pub fn open(mut backend: Box<dyn Backend>, options: Options) -> Result<Self, OpenError> {
        let mut history = History::new(options.history, crate::api::Revision::ZERO);
        let Loaded { cluster_id, state } = backend.load(&mut history)?;
        history.reach(state.revision());
        let feed = Feed::new(state, history);
        let (requests, waiting) = mpsc::channel(WAITING_TRANSACTIONS);
        let killed = Arc::new(AtomicBool::new(false));
        let committer = Committer::new(feed.clone(), backend, waiting, options.clock, Arc::clone(&killed));
        let thread = std::thread::Builder::new().name("bluebird-commit".to_owned()).spawn(move || committer.run());
        let thread = thread.map_err(|source| OpenError::Io { path: "the committer's thread".into(), doing: "start", source })?;
        Ok(Self(Arc::new(Running { feed, cluster_id, requests, killed, committer: Mutex::new(Some(thread)) })))
    }

    /// The state as it is now. Whatever was answered before is in it.
    pub fn snapshot(&self) -> Snapshot {
        self.0.feed.snapshot()
    }

    /// Where the commits come from, for watches.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// A random id that the cluster got when its data was created.
    pub fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    /// Does all writes of a transaction at one revision, or none. When this returns they are on disk. Dropping the future does not take
    /// the transaction back.
    ///
    /// # Errors
    /// Invalid beyond the limits of the API; AlreadyExists, Conflict, NotFound by the conditions; Exhausted when the disk is full; Unavailable
    /// when the disk fails or the store is closed, and then the writes may or may not have happened.
    pub async fn commit(&self, mut transaction: Transaction) -> Result<Committed> {
        transaction.measure()?;
        let (answer, answered) = oneshot::channel();
        self.0.requests.send(Request::Commit { transaction, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Finishes what waits, writes the state away so that the next start is fast, and frees the backend. Later commits, and watches once they
    /// have sent everything, answer Unavailable.
    pub async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.requests.send(Request::Close { answer }).await.is_ok() {
            // The committer may have been closed by somebody else meanwhile: either way it has ended.
            let _ = answered.await;
        }
    }

    /// Stops at once, as a crash would: what is in the middle of being written is finished, what waits is not begun. The backend is free when
    /// this returns.
    pub fn kill(&self) {
        self.0.kill();
    }
}

impl Running {
    fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        // Wakes the committer if it is idle. A full queue needs no waking.
        let _ = self.requests.try_send(Request::Wake);
        let thread = self.committer.lock().expect("no panic while held").take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committer had panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}
