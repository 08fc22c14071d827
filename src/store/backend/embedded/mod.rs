//! One folder of files, no server.
//!
//! - `log-<revision>`: the log's segments, each named after its first revision. The last one is appended to: one record and one sync for each batch. After
//!   its last record a segment has nothing, or zeros: it is made before it is needed, full of them, since a sync of a file that doesn't grow is faster.
//! - `checkpoint-<revision>`: every object as of that revision. A start reads the newest one and the log after it.
//! - `tail`: how far the log was durable, see [`tail::Tail`].
//! - `RESTORING`: is there while a backup is being restored here, and after one was not finished. Such a folder is no store.
//! - `LOCK`: locked while an apiserver uses the folder.
//! - `*.unfinished`: gets its real name when it is complete.
//!
//! Opening refuses whatever is not as it was written, and changes nothing then. There is one exception: a last record that was cut short and had never
//! been acknowledged is dropped, since that is what a crash in the middle of a write leaves. Of such a write any part may be missing.

pub(in crate::store) mod batch;
pub(in crate::store) mod checkpoint;
mod committer;
mod disk;
mod files;
pub(in crate::store) mod inspect;
mod landing;
mod load;
mod log;
mod record;
pub(in crate::store) mod restore;
mod rows;
mod segment;
mod spare;
mod tail;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use committer::{Committer, Request};
use files::{Files, Loaded};
use landing::{Beside, Landing};

use super::{Backend, OpenError};
use crate::api::Revision;
use crate::error::Result;
use crate::store::{Committed, Feed, History, HistoryLimits, Options, Snapshot, Transaction, closed};

/// The default backend: a folder, and the threads that commit to it: one decides, and where there is something to decide meanwhile, one writes.
#[derive(Debug)]
pub(in crate::store) struct Embedded {
    requests: mpsc::Sender<Request>,
    killed: Arc<AtomicBool>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// When files are cut, and when a thread is worth its while.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// A batch with this many bytes of objects lands beside the committer, which decides the next one meanwhile.
    beside_bytes: usize,
    /// A segment that would become larger is followed by a new one. That one is made beforehand, full of zeros.
    segment_bytes: u64,
    /// A segment that was not made beforehand grows by so much.
    step_bytes: u64,
    /// A checkpoint is made when this much of the log is not in the last one, or as much as the state is large if that is more.
    checkpoint_bytes: u64,
    /// At close it is made when a start would have to read this much of the log again.
    close_bytes: u64,
}

const LIMITS: Limits =
    Limits { beside_bytes: 64 << 10, segment_bytes: 16 << 20, step_bytes: 1 << 20, checkpoint_bytes: 64 << 20, close_bytes: 1 << 20 };

/// How many transactions may wait for the committer; beyond that, who commits waits for a place.
const WAITING_TRANSACTIONS: usize = 1024;

impl Embedded {
    /// Reads what a folder holds and starts the committer. The folder is made if it isn't there, and is this one's alone until this is dropped. Blocks
    /// while reading. Returns the cluster's id and its feed, too.
    ///
    /// # Errors
    /// When another apiserver has the folder, it can't be written to, or something is wrong with the data. Nothing has been changed then.
    pub(in crate::store) fn open(folder: impl Into<PathBuf>, options: Options) -> Result<(Self, String, Feed), OpenError> {
        Self::start(Files::open(folder)?, options)
    }

    fn start(mut files: Files, options: Options) -> Result<(Self, String, Feed), OpenError> {
        let mut history = History::new(options.history, Revision::ZERO);
        let Loaded { cluster_id, state } = files.load(&mut history)?;
        history.reach(state.revision());
        let feed = Feed::new(state, history);
        let (requests, waiting) = mpsc::channel(WAITING_TRANSACTIONS);
        let killed = Arc::new(AtomicBool::new(false));
        let failed = |source| OpenError::Io { path: "the committer's thread".into(), doing: "start", source };
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(failed)?;
        let (landing, beside) = (Landing::new(files, feed.clone()), Beside::start().map_err(failed)?);
        let committer = Committer::new(feed.clone(), landing, beside, waiting, options.clock, Arc::clone(&killed));
        let thread =
            std::thread::Builder::new().name("bluebird-commit".to_owned()).spawn(move || committer.run(&runtime)).map_err(failed)?;
        Ok((Self { requests, killed, committer: Mutex::new(Some(thread)) }, cluster_id, feed))
    }
}

impl Backend for Embedded {
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.requests.send(Request::Commit { transaction, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        })
    }

    fn catch_up(&self) -> BoxFuture<'_, Result<()>> {
        // Whoever was told of a commit was told after the feed showed it.
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn compact(&self) {
        // The committer does so whenever it wakes. A full queue needs no waking.
        let _ = self.requests.try_send(Request::Wake);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            if self.requests.send(Request::Close { answer }).await.is_ok() {
                // The committer may have been closed by somebody else meanwhile: either way it has ended.
                let _ = answered.await;
            }
        })
    }

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

/// What a folder holds, as a start reads it. Changes nothing.
pub(in crate::store) fn read(folder: &Path, limits: HistoryLimits) -> Result<(Snapshot, History), OpenError> {
    let mut history = History::new(limits, Revision::ZERO);
    let contents = load::Found::list(folder)?.read(folder, &mut history)?;
    Ok((contents.state, history))
}

const LOG: &str = "log-";
const CHECKPOINT: &str = "checkpoint-";
const UNFINISHED: &str = ".unfinished";

fn segment_path(folder: &Path, first: Revision) -> PathBuf {
    folder.join(format!("{LOG}{:020}", first.0))
}

fn checkpoint_path(folder: &Path, revision: Revision) -> PathBuf {
    folder.join(format!("{CHECKPOINT}{:020}", revision.0))
}

fn tail_path(folder: &Path) -> PathBuf {
    folder.join("tail")
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension(UNFINISHED.trim_start_matches('.'))
}
