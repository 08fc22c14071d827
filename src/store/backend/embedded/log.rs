use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, DiskFile};
use super::record::LogRecord;
use super::segment::{Failure, Segment, is_full};
use super::spare::{Making, Spare};
use super::tail::Tail;
use super::{Limits, segment_path, tail_path};
use crate::api::Revision;
use crate::error::{Error, Result};

/// The end of the log, where it is written.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    cluster_id: String,
    limits: Limits,
    /// The first revisions of all segments, in order; the last one is written to.
    segments: Vec<Revision>,
    current: Segment,
    /// What comes after it, once it is half full.
    pub(super) next: Option<Making>,
    tail: DiskFile,
    /// After a failure that leaves unknown what is on disk.
    read_only: bool,
    /// After a failure to remove a segment, until there is a new one.
    keeps_all: bool,
}

/// How far the log's last segment goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    /// How much of it counts, in bytes.
    pub(super) durable: u64,
    /// How far it goes on from there with nothing but zeros.
    pub(super) zeros: u64,
}

/// How long to wait for space on a full disk before trying again.
const FULL_RETRY: Duration = Duration::from_secs(5);

impl Log {
    /// Goes on writing at the end of the last segment; what is beyond is cut off.
    pub(super) fn resume(
        disk: Arc<dyn Disk>,
        folder: &Path,
        cluster_id: &str,
        limits: Limits,
        segments: Vec<Revision>,
        end: End,
    ) -> io::Result<Self> {
        let last = *segments.last().expect("a log has a segment");
        let current = Segment::open(&*disk, folder, last, end)?;
        let tail = disk.create(&tail_path(folder))?;
        let (folder, cluster_id) = (folder.to_owned(), cluster_id.to_owned());
        let (next, read_only, keeps_all) = (None, false, false);
        let log = Self { disk, folder, cluster_id, limits, segments, current, next, tail, read_only, keeps_all };
        log.note_tail();
        Ok(log)
    }

    /// Writes a record and syncs it. Returns its size.
    pub(super) fn append(&mut self, record: &mut LogRecord) -> Result<u64> {
        if self.read_only {
            return Err(read_only());
        }
        let Some((first, bytes)) = record.seal() else { return Ok(0) };
        let len = bytes.len() as u64;
        if self.current.first < first && self.current.durable() + len > self.limits.segment_bytes {
            self.rotate(first)?;
        }
        self.current.append(&*self.disk, bytes, self.limits.step_bytes).map_err(|failure| self.not_appended(failure))?;
        metrics::counter!("bluebird_store_log_bytes_total").increment(len);
        self.note_tail();
        self.prepare_next();
        Ok(len)
    }

    fn not_appended(&mut self, failure: Failure) -> Error {
        match failure {
            Failure::NotWritten(error) => {
                tracing::warn!(file = %self.current.path().display(), %error, "can't write; nothing of it is kept");
                not_written(&error)
            }
            Failure::Unknown(doing, error) => self.give_up(doing, &error),
        }
    }

    /// Goes on in a new segment. When there is no space for one, the old one has to do.
    fn rotate(&mut self, first: Revision) -> Result<()> {
        let spare = self.take_spare();
        match Segment::create(&*self.disk, &self.folder, &self.cluster_id, first, spare) {
            // From here on the old segment must not be written to any more: the new one claims this revision.
            Ok(segment) => self.current = segment,
            Err(error) => {
                tracing::warn!(%error, "can't begin a new log segment; going on in the old one");
                return Ok(());
            }
        }
        self.disk.sync_folder(&self.folder).map_err(|error| self.give_up("begin a new log segment", &error))?;
        self.segments.push(first);
        self.keeps_all = false;
        self.note_tail();
        Ok(())
    }

    /// Begins to make the next segment when it is time, so that it is there when this one is full.
    fn prepare_next(&mut self) {
        if self.next.is_some() || self.current.durable() < self.limits.segment_bytes / 2 {
            return;
        }
        match Making::begin(Arc::clone(&self.disk), &self.folder, self.limits.segment_bytes) {
            Ok(making) => self.next = Some(making),
            Err(error) => tracing::warn!(%error, "can't prepare the next log segment; it will grow instead"),
        }
    }

    /// The file for the next segment, unless it isn't ready: then the segment grows as it is written.
    fn take_spare(&mut self) -> Option<Spare> {
        let made = self.next.take_if(|making| making.is_finished())?.finish();
        made.inspect_err(|error| tracing::warn!(%error, "can't prepare the next log segment; it grows instead")).ok()
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

    fn note_tail(&self) {
        Tail { segment: self.current.first, len: self.current.durable() }.write(&*self.disk, &self.tail);
    }

    fn give_up(&mut self, doing: &str, error: &io::Error) -> Error {
        tracing::error!(file = %self.current.path().display(), %error, "can't {doing}; the store is read-only until a restart");
        self.read_only = true;
        read_only()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The folder is free when this is gone, so nobody may still write to it.
        if let Some(making) = self.next.take() {
            making.cancel(&*self.disk);
        }
    }
}

fn read_only() -> Error {
    Error::Unavailable(
        "the disk failed in a way that leaves unknown what it holds; the store is read-only until the apiserver is restarted".into(),
    )
}

fn not_written(error: &io::Error) -> Error {
    if is_full(error) {
        Error::Exhausted { message: format!("the disk is full, nothing was written: {error}"), retry_after: Some(FULL_RETRY) }
    } else {
        Error::Unavailable(format!("the disk can't be written, nothing was: {error}"))
    }
}
