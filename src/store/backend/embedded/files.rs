use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::disk::{Disk, RealDisk};
use super::load::{Contents, Found};
use super::log::Log;
use super::record::LogRecord;
use super::segment::Segment;
use super::{LIMITS, Limits, checkpoint, checkpoint_path};
use crate::api::Revision;
use crate::error::Result;
use crate::store::backend::OpenError;
use crate::store::{History, Snapshot};

/// The files of a folder. Used by one thread at a time.
///
/// # Guarantees
/// What [`Files::append`] has answered with Ok is there after any crash, whole and in order. Of what it refused nothing is ever seen again, except
/// after an error that leaves the outcome open (see there): then all of it is there after a restart, or nothing.
///
/// # Assumptions
/// `load` is called once, first. Commits are appended in the order of their revisions, without a gap.
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) limits: Limits,
    pub(super) disk: Arc<dyn Disk>,
    /// Held as long as this lives.
    _lock: File,
    pub(super) opened: Option<Opened>,
}

/// What a backend holds.
#[derive(Debug)]
pub(super) struct Loaded {
    /// A random id that the cluster got when its data was created.
    pub(super) cluster_id: String,
    /// Every object, as of the last commit.
    pub(super) state: Snapshot,
}

pub(super) struct Opened {
    cluster_id: String,
    pub(super) log: Log,
    /// The revision of the newest checkpoint; zero if there is none.
    pub(super) checkpoint: Revision,
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

impl Files {
    /// Takes a folder, which is made if it isn't there. It is this one's alone until this is dropped.
    ///
    /// # Errors
    /// When another apiserver has it, or it can't be written to.
    pub(super) fn open(folder: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk), folder.into(), LIMITS)
    }

    pub(super) fn open_on(disk: Arc<dyn Disk>, folder: PathBuf, limits: Limits) -> Result<Self, OpenError> {
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
        Segment::create(&*self.disk, &self.folder, &uuid::Uuid::new_v4().to_string(), first, None)?;
        self.disk.sync_folder(&self.folder)
    }

    /// Makes the folder ready to be written to, now that all of it has been read and is right.
    fn begin(&self, found: Found, contents: &Contents) -> io::Result<Opened> {
        let (older, checkpoint) = match found.checkpoints.as_slice() {
            [older @ .., newest] => (older, *newest),
            [] => (&[][..], Revision::ZERO),
        };
        let Contents { cluster_id, end, replayed, .. } = contents;
        let disk = Arc::clone(&self.disk);
        let log = Log::resume(disk, &self.folder, cluster_id, self.limits, found.segments, *end)?;
        // Only now: a folder that can't be written to is refused before.
        for unneeded in found.unfinished.into_iter().chain(older.iter().map(|revision| checkpoint_path(&self.folder, *revision))) {
            self.disk.remove(&unneeded)?;
        }
        Ok(Opened { cluster_id: cluster_id.clone(), log, checkpoint, uncovered: *replayed, postponed: 0, running: None })
    }
}

impl Files {
    /// Reads the state, and the commits that led there as far as they are kept: they are pushed to `history`, oldest first, the last one being the
    /// state's. An empty place is made a new cluster at revision 0.
    ///
    /// # Errors
    /// Whatever makes the data doubtful; nothing is changed then.
    pub(super) fn load(&mut self, history: &mut History) -> Result<Loaded, OpenError> {
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

    /// Makes the commits of a record durable, all or none.
    ///
    /// # Errors
    /// Exhausted: there was no space, nothing was written, it may be tried again. Unavailable: the same for another reason; or, when the
    /// message says that the store is read-only from now on, the outcome is open and every later append fails too.
    pub(super) fn append(&mut self, record: &mut LogRecord) -> Result<()> {
        let opened = self.opened.as_mut().expect("loaded first");
        opened.uncovered += opened.log.append(record)?;
        Ok(())
    }

    /// Lets go of what neither the state nor a history from `oldest` on needs. Called after every batch; long work is only begun here.
    pub(super) fn compact(&mut self, state: &Snapshot, oldest: Revision) {
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

    /// Ends: waits for work that was begun, and prepares a fast start from `state`. Failing to is logged, as nothing is lost.
    pub(super) fn close(&mut self, state: &Snapshot) {
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
    pub(super) fn finish_checkpoint(&mut self, disk: &dyn Disk, folder: &Path) {
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

impl Drop for Files {
    fn drop(&mut self) {
        // The folder is free when this is gone, so nobody may still write to it.
        if let Some(running) = self.opened.as_mut().and_then(|opened| opened.running.take()) {
            running.cancelled.store(true, Ordering::Release);
            let _ = running.thread.join();
        }
    }
}
