//! The state of the cluster: in memory, ordered by key, and every change of it on disk before anybody hears of it.
//!
//! A [`Transaction`] goes to the backend, which checks its [`Condition`]s, writes it, moves the state, and answers. In a folder one committer does that,
//! for all that wait with one sync, and while a batch is being synced, the next one is decided on top of it; an etcd decides for all apiservers, and each
//! follows what it has decided. A reader takes a [`Snapshot`] of what is durable and is in nobody's way. The last commits are kept in order, as the
//! [`History`] that watches read through a [`Feed`].

mod backend;
mod backup;
mod commit;
mod feed;
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod snapshot;
mod transaction;
mod view;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use backend::embedded::inspect::Inspected;
pub use backend::embedded::restore::Restored;
pub use backend::{EtcdOptions, OpenError, Tls};
pub use backup::Backup;
pub use commit::{Commit, Event, put_head};
pub use feed::Feed;
pub use history::{History, HistoryLimits};
pub use snapshot::{Snapshot, Stored};
pub use transaction::{Committed, Condition, Transaction, Write};
pub use view::View;

use crate::error::{Error, Result};
use crate::time::Clock;
use backend::{Backend, Embedded, Etcd};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far back a watch can resume.
    pub history: HistoryLimits,
    /// What commits are dated with.
    pub clock: Clock,
}

/// Makes a new store in a folder, which is made if it isn't there, out of a backup; it goes on far above the backup's revision. Blocks.
///
/// # Errors
/// When the backup is damaged, there is a store in the folder already, an apiserver uses it, or it can't be written to. Then there is no store there that was not
/// there before, unless the very last sync failed: then there may be all of it.
pub fn restore(backup: &Path, folder: impl Into<PathBuf>) -> Result<Restored, OpenError> {
    backend::embedded::restore::restore(backup, folder.into())
}

/// Reads a store's folder, or a backup, and checks all of it. Changes nothing; an apiserver may use the folder meanwhile. Blocks.
///
/// # Errors
/// Whatever is wrong with it.
pub fn inspect(path: &Path) -> Result<Inspected, OpenError> {
    backend::embedded::inspect::inspect(path)
}

/// The store. A handle: clones are the same store. When the last one is dropped without [`Store::close`], it stops as [`Store::kill`] does.
#[derive(Clone, Debug)]
pub struct Store(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    feed: Feed,
    cluster_id: String,
    backend: Box<dyn Backend>,
}

impl Store {
    /// Opens the store in a folder, which is made if it isn't there and is this store's alone. Blocks while reading.
    ///
    /// # Errors
    /// When another apiserver has the folder, it can't be written to, or something is wrong with the data. Nothing has been changed then.
    pub fn embedded(folder: impl Into<PathBuf>, options: Options) -> Result<Self, OpenError> {
        let (backend, cluster_id, feed) = Embedded::open(folder, options)?;
        Ok(Self::new(backend, cluster_id, feed))
    }

    /// Opens the store of a cluster in an etcd. Any number of apiservers may do that at the same time.
    ///
    /// # Errors
    /// When etcd can't be reached for a while or refuses us, or there is something that BlueBird did not write.
    pub async fn etcd(etcd: &EtcdOptions, options: Options) -> Result<Self, OpenError> {
        let (backend, cluster_id, feed) = Etcd::open(etcd, options).await?;
        Ok(Self::new(backend, cluster_id, feed))
    }

    fn new(backend: impl Backend + 'static, cluster_id: String, feed: Feed) -> Self {
        Self(Arc::new(Opened { feed, cluster_id, backend: Box::new(backend) }))
    }

    /// The state as far as this apiserver has seen it. Whatever was answered here before is in it.
    pub fn snapshot(&self) -> Snapshot {
        self.0.feed.snapshot()
    }

    /// The state with everything in it that anybody, on any apiserver, was told of before the call: a linearizable read.
    ///
    /// # Errors
    /// Unavailable when that can't be found out.
    pub async fn current(&self) -> Result<Snapshot> {
        self.0.backend.catch_up().await?;
        Ok(self.snapshot())
    }

    /// Begins a backup of the state as it is now.
    ///
    /// # Errors
    /// As [`Store::current`].
    pub async fn backup(&self) -> Result<Backup> {
        Ok(Backup::of(self.cluster_id(), self.current().await?))
    }

    /// Where the commits come from, for watches.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// A random id that the cluster got when its data was created.
    pub fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    /// Whether other apiservers may commit to the same state.
    pub fn is_shared(&self) -> bool {
        self.0.backend.is_shared()
    }

    /// Does all writes of a transaction at one revision, or none. When this returns they are on disk. Dropping the future leaves open whether
    /// they happen.
    ///
    /// # Errors
    /// Invalid beyond the limits of the API; AlreadyExists, Conflict, NotFound by the conditions; Exhausted when the disk is full; NotDone
    /// when an etcd can't be reached, and nothing happened; Unavailable when the disk or etcd fails or the store is closed, and then the writes may
    /// or may not have happened.
    pub async fn commit(&self, mut transaction: Transaction) -> Result<Committed> {
        transaction.measure()?;
        self.0.backend.commit(transaction).await
    }

    /// Lets go of the history that has become too old, in memory and on disk. Commits do so, too: this is for when there are none.
    pub fn expire_history(&self) {
        if self.0.feed.expire() {
            self.0.backend.compact();
        }
    }

    /// Returns why the store can't go on, when it ends by itself: what is in etcd can't be this cluster's any more. A folder that can't be written to
    /// any more still answers reads, and doesn't end.
    pub async fn gave_up(&self) -> String {
        self.0.backend.gave_up().await
    }

    /// Finishes what waits, writes the state away so that the next start is fast, and frees the backend. Later commits, and watches once they
    /// have sent everything, answer Unavailable.
    pub async fn close(&self) {
        self.0.backend.close().await;
    }

    /// Stops at once, as a crash would: what is in the middle of being written is finished, or left open in an etcd; what waits is not begun. A
    /// folder is free when this returns.
    pub fn kill(&self) {
        self.0.backend.kill();
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.backend.kill();
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}
