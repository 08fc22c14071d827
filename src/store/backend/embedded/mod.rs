//! One folder of files, no server.
//!
//! - `log-<revision>`: the log's segments, each named after its first revision. The last one is appended to: one record and one sync for each batch.
//! - `checkpoint-<revision>`: every object as of that revision. A start reads the newest one and the log after it.
//! - `tail`: how far the log was durable, see [`tail::Tail`].
//! - `LOCK`: locked while an apiserver uses the folder.
//! - `*.unfinished`: gets its real name when it is complete.
//!
//! Opening refuses whatever is not as it was written, and changes nothing then. There is one exception: a last record that was cut short and had never
//! been acknowledged is dropped, since that is what a crash in the middle of a write leaves.

mod checkpoint;
mod disk;
mod load;
mod log;
mod record;
mod rows;
mod tail;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use disk::{Disk, RealDisk};
use load::{Contents, Found};
use log::Log;

use super::{Backend, Loaded, OpenError};
use crate::api::Revision;
use crate::error::Result;
use crate::store::{Commit, History, Snapshot};

/// The default backend: a folder.
pub struct Embedded {
    folder: PathBuf,
    limits: Limits,
    disk: Arc<dyn Disk>,
    /// Held as long as this lives.
    _lock: File,
    opened: Option<Opened>,
}

/// When files are cut.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// A segment that is this large is followed by a new one.
    segment_bytes: u64,
    /// A checkpoint is made when this much of the log is not in the last one, or as much as the state is large if that is more.
    checkpoint_bytes: u64,
    /// At close it is made when a start would have to read this much of the log again.
    close_bytes: u64,
}

const LIMITS: Limits = Limits { segment_bytes: 16 << 20, checkpoint_bytes: 64 << 20, close_bytes: 1 << 20 };

struct Opened {
    cluster_id: String,
    log: Log,
    /// The revision of the newest checkpoint; zero if there is none.
    checkpoint: Revision,
    /// How much of the log is not in it.
    uncovered: u64,
    /// After a failed checkpoint: none before `uncovered` is more than this.
    postponed: u64,
    running: Option<Running>,
}

/// A checkpoint in the making.
struct Running {
    revision: Revision,
    /// How much of the log it will cover.
    covers: u64,
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Embedded {
    /// Takes a folder, which is made if it isn't there. It is this one's alone until this is dropped.
    ///
    /// # Errors
    /// When another apiserver has it, or it can't be written to.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk), folder.into(), LIMITS)
    }

    fn open_on(disk: Arc<dyn Disk>, folder: PathBuf, limits: Limits) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&folder).map_err(|source| OpenError::Io { path: folder.clone(), doing: "make the folder", source })?;
        let path = folder.join("LOCK");
        let failed = |source| OpenError::Io { path: path.clone(), doing: "lock", source };
        let lock = disk.create(&path).map_err(failed)?.file;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder, limits, disk, _lock: lock, opened: None }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn make_new(&self) -> io::Result<()> {
        let first = Revision::ZERO.next();
        Log::create_segment(&*self.disk, &self.folder, &uuid::Uuid::new_v4().to_string(), first)?;
        self.disk.sync_folder(&self.folder)
    }

    /// Makes the folder ready to be written to, now that all of it has been read and is right.
    fn begin(&self, found: Found, contents: &Contents) -> io::Result<Opened> {
        let (older, checkpoint) = match found.checkpoints.as_slice() {
            [older @ .., newest] => (older, *newest),
            [] => (&[][..], Revision::ZERO),
        };
        let Contents { cluster_id, durable, replayed, .. } = contents;
        let disk = Arc::clone(&self.disk);
        let log = Log::resume(disk, &self.folder, cluster_id, self.limits.segment_bytes, found.segments, *durable)?;
        // Only now: a folder that can't be written to is refused before.
        for unneeded in found.unfinished.into_iter().chain(older.iter().map(|revision| checkpoint_path(&self.folder, *revision))) {
            self.disk.remove(&unneeded)?;
        }
        Ok(Opened { cluster_id: cluster_id.clone(), log, checkpoint, uncovered: *replayed, postponed: 0, running: None })
    }
}

impl Backend for Embedded {
    fn load(&mut self, history: &mut History) -> Result<Loaded, OpenError> {
        let failed = |source| OpenError::Io { path: self.folder.clone(), doing: "write to", source };
        let mut found = Found::list(&self.folder)?;
        if found.is_new(&self.folder) {
            self.make_new().map_err(failed)?;
            found = Found::list(&self.folder)?;
        }
        let contents = found.read(&self.folder, history)?;
        self.opened = Some(self.begin(found, &contents).map_err(failed)?);
        Ok(Loaded { cluster_id: contents.cluster_id, state: contents.state })
    }

    fn append(&mut self, commits: &[Arc<Commit>]) -> Result<()> {
        let opened = self.opened.as_mut().expect("loaded first");
        opened.uncovered += opened.log.append(commits)?;
        Ok(())
    }

    fn compact(&mut self, state: &Snapshot, oldest: Revision) {
        let due = self.limits.checkpoint_bytes.max(state.bytes() as u64);
        let opened = self.opened.as_mut().expect("loaded first");
        if opened.running.as_ref().is_some_and(|running| running.thread.is_finished()) {
            opened.finish_checkpoint(&*self.disk, &self.folder);
        }
        if opened.running.is_none() && opened.uncovered > due && opened.uncovered > opened.postponed {
            opened.begin_checkpoint(&self.disk, &self.folder, state);
        }
        opened.log.remove_up_to(opened.checkpoint.min(oldest));
    }

    fn close(&mut self, state: &Snapshot) {
        let opened = self.opened.as_mut().expect("loaded first");
        opened.finish_checkpoint(&*self.disk, &self.folder);
        if opened.uncovered > self.limits.close_bytes {
            opened.begin_checkpoint(&self.disk, &self.folder, state);
            opened.finish_checkpoint(&*self.disk, &self.folder);
        }
    }
}

impl Opened {
    fn begin_checkpoint(&mut self, disk: &Arc<dyn Disk>, folder: &Path, state: &Snapshot) {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (disk, folder, cluster_id, state) = (Arc::clone(disk), folder.to_owned(), self.cluster_id.clone(), state.clone());
        let (revision, covers, stop) = (state.revision(), self.uncovered, Arc::clone(&cancelled));
        let write = move || checkpoint::write(&*disk, &folder, &cluster_id, &state, &stop);
        match std::thread::Builder::new().name("bluebird-checkpoint".to_owned()).spawn(write) {
            Ok(thread) => self.running = Some(Running { revision, covers, cancelled, thread }),
            Err(error) => {
                tracing::warn!(%error, "can't start a checkpoint; the log is kept instead");
                self.postponed = self.uncovered + self.uncovered / 8;
            }
        }
    }

    /// Waits for the checkpoint in the making, if there is one.
    fn finish_checkpoint(&mut self, disk: &dyn Disk, folder: &Path) {
        let Some(running) = self.running.take() else { return };
        match running.thread.join() {
            Ok(Ok(())) => {
                let replaced = std::mem::replace(&mut self.checkpoint, running.revision);
                self.uncovered -= running.covers;
                self.postponed = 0;
                tracing::debug!(revision = %self.checkpoint, "made a checkpoint");
                if replaced != Revision::ZERO
                    && replaced != self.checkpoint
                    && let Err(error) = disk.remove(&checkpoint_path(folder, replaced))
                {
                    tracing::warn!(%error, "can't remove an old checkpoint; the next start does");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "can't make a checkpoint; the log is kept instead");
                self.postponed = self.uncovered + self.uncovered / 8;
            }
            Err(_) => {
                tracing::error!("making a checkpoint panicked; the log is kept instead");
                self.postponed = u64::MAX;
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The folder is free when this is gone, so nobody may still write to it.
        if let Some(running) = self.opened.as_mut().and_then(|opened| opened.running.take()) {
            running.cancelled.store(true, Ordering::Release);
            let _ = running.thread.join();
        }
    }
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
