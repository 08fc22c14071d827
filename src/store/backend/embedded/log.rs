use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskFile};
use super::record::{file_head, put_record};
use super::rows::{BatchRow, HeaderRow, Role};
use super::tail::Tail;
use super::{segment_path, tail_path, unfinished};
use crate::api::Revision;
use crate::error::{Error, Result};
use crate::store::Commit;

/// The end of the log, where it is written.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    cluster_id: String,
    segment_bytes: u64,
    /// The first revisions of all segments, in order; the last one is written to.
    segments: Vec<Revision>,
    current: DiskFile,
    durable: u64,
    tail: DiskFile,
    /// After a failure that leaves unknown what is on disk.
    read_only: bool,
    /// After a failure to remove a segment, until there is a new one.
    keeps_all: bool,
    buffer: Vec<u8>,
}

/// How long to wait for space on a full disk before trying again.
const FULL_RETRY: Duration = Duration::from_secs(5);

impl Log {
    /// Goes on writing at the end of the last segment, whose contents are `durable` bytes long; what is beyond is cut off.
    pub(super) fn resume(
        disk: Arc<dyn Disk>,
        folder: &Path,
        cluster_id: &str,
        segment_bytes: u64,
        segments: Vec<Revision>,
        durable: u64,
    ) -> io::Result<Self> {
        let last = *segments.last().expect("a log has a segment");
        let mut current = disk.open(&segment_path(folder, last))?;
        if current.file.metadata()?.len() != durable {
            disk.truncate(&mut current, durable)?;
        }
        // Also when nothing was cut off: what was read may not have reached the disk before a crash, and is about to be shown.
        disk.sync(&current)?;
        let tail = disk.create(&tail_path(folder))?;
        let (folder, cluster_id) = (folder.to_owned(), cluster_id.to_owned());
        let (read_only, keeps_all, buffer) = (false, false, Vec::new());
        let mut log = Self { disk, folder, cluster_id, segment_bytes, segments, current, durable, tail, read_only, keeps_all, buffer };
        log.note_tail();
        Ok(log)
    }

    /// Makes a segment that begins with a revision. It has its name only when its header is durable.
    pub(super) fn create_segment(disk: &dyn Disk, folder: &Path, cluster_id: &str, first: Revision) -> io::Result<u64> {
        let path = segment_path(folder, first);
        let unfinished = unfinished(&path);
        let header = HeaderRow { cluster_id: cluster_id.to_owned(), role: Role::Log.into(), revision: first.0 };
        let head = file_head(&header);
        let mut file = disk.create(&unfinished)?;
        disk.write(&mut file, &head)?;
        disk.sync(&file)?;
        disk.rename(&unfinished, &path)?;
        Ok(head.len() as u64)
    }

    /// Writes commits as one record and syncs it. Returns the record's size.
    pub(super) fn append(&mut self, commits: &[Arc<Commit>]) -> Result<u64> {
        if self.read_only {
            return Err(read_only());
        }
        if self.durable >= self.segment_bytes {
            self.rotate(commits[0].revision)?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        put_record(&BatchRow { commits: commits.iter().map(|commit| commit.as_ref().into()).collect() }, &mut buffer);
        let written = self.write(&buffer);
        let len = buffer.len() as u64;
        if buffer.capacity() <= KEPT_BUFFER {
            self.buffer = buffer;
        }
        written.map(|()| len)
    }

    fn write(&mut self, record: &[u8]) -> Result<()> {
        if let Err(error) = self.disk.write(&mut self.current, record) {
            tracing::warn!(file = %self.current.path.display(), %error, "can't write; nothing of it is kept");
            if let Err(error) = self.disk.truncate(&mut self.current, self.durable) {
                return Err(self.give_up("cut off what was half written", &error));
            }
            return Err(not_written(&error));
        }
        let begun = Instant::now();
        if let Err(error) = self.disk.sync(&self.current) {
            return Err(self.give_up("sync", &error));
        }
        metrics::histogram!("bluebird_store_sync_seconds").record(begun.elapsed());
        metrics::counter!("bluebird_store_log_bytes_total").increment(record.len() as u64);
        self.durable += record.len() as u64;
        self.note_tail();
        Ok(())
    }

    /// Goes on in a new segment. When there is no space for one, the old one has to do.
    fn rotate(&mut self, first: Revision) -> Result<()> {
        let durable = match Self::create_segment(&*self.disk, &self.folder, &self.cluster_id, first) {
            Ok(durable) => durable,
            Err(error) => {
                tracing::warn!(%error, "can't begin a new log segment; going on in the old one");
                return Ok(());
            }
        };
        // From here on the old segment must not be written to any more: the new one claims this revision.
        let path = segment_path(&self.folder, first);
        let opened = self.disk.sync_folder(&self.folder).and_then(|()| self.disk.open(&path));
        self.current = opened.map_err(|error| self.give_up("begin a new log segment", &error))?;
        self.durable = durable;
        self.segments.push(first);
        self.keeps_all = false;
        self.note_tail();
        Ok(())
    }

    /// Removes segments that hold only revisions up to `unneeded`.
    pub(super) fn remove_up_to(&mut self, unneeded: Revision) {
        while let [first, second, ..] = self.segments[..]
            && second <= unneeded.next()
            && !self.keeps_all
        {
            let path = segment_path(&self.folder, first);
            // One after the other, so that never one in the middle is missing.
            match self.disk.remove(&path).and_then(|()| self.disk.sync_folder(&self.folder)) {
                Ok(()) => drop(self.segments.remove(0)),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "can't remove an old log segment");
                    self.keeps_all = true;
                }
            }
        }
    }

    fn note_tail(&mut self) {
        let segment = *self.segments.last().expect("a log has a segment");
        Tail { segment, len: self.durable }.write(&*self.disk, &mut self.tail);
    }

    fn give_up(&mut self, doing: &str, error: &io::Error) -> Error {
        tracing::error!(file = %self.current.path.display(), %error, "can't {doing}; the store is read-only until a restart");
        self.read_only = true;
        read_only()
    }
}

/// A larger buffer than this is not kept for the next batch.
const KEPT_BUFFER: usize = 1024 * 1024;

fn read_only() -> Error {
    Error::Unavailable(
        "the disk failed in a way that leaves unknown what it holds; the store is read-only until the apiserver is restarted".into(),
    )
}

fn not_written(error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::Exhausted { message: format!("the disk is full, nothing was written: {error}"), retry_after: Some(FULL_RETRY) }
        }
        _ => Error::Unavailable(format!("the disk can't be written, nothing was: {error}")),
    }
}
