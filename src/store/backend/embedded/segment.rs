use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Instant;

use super::disk::{Disk, DiskFile};
use super::log::End;
use super::record::file_head;
use super::rows::{HeaderRow, Role};
use super::spare::Spare;
use super::{segment_path, unfinished};
use crate::api::Revision;

/// The log's last file. Records are written over zeros that are on the disk already: a sync of a file that doesn't grow has no metadata to write.
pub(super) struct Segment {
    /// The revision that it begins with.
    pub(super) first: Revision,
    file: DiskFile,
    /// How far it is written and synced.
    durable: u64,
    /// From `durable` up to here it has nothing but zeros, on the disk too.
    zeros: u64,
}

/// Why a record was not appended.
pub(super) enum Failure {
    /// Nothing of it is in the file.
    NotWritten(io::Error),
    /// Nobody knows what is in the file: what was being done, and how that failed.
    Unknown(&'static str, io::Error),
}

impl Segment {
    /// Makes one that begins with a revision, out of a spare if there is one. It has its name only when its header is durable; the name itself is not yet.
    ///
    /// # Errors
    /// As the disk says; then there is none.
    pub(super) fn create(disk: &dyn Disk, folder: &Path, cluster_id: &str, first: Revision, spare: Option<Spare>) -> io::Result<Self> {
        let path = segment_path(folder, first);
        let header = HeaderRow { cluster_id: cluster_id.to_owned(), role: Role::Log.into(), revision: first.0 };
        let head = file_head(&header);
        let durable = head.len() as u64;
        let (file, zeros) = match spare {
            Some(spare) => (spare.file, spare.len),
            None => (disk.create(&unfinished(&path))?, durable),
        };
        disk.write(&file, 0, &head)?;
        disk.sync(&file)?;
        disk.rename(&file.path, &path)?;
        Ok(Self { first, file: DiskFile { path, ..file }, durable, zeros: zeros.max(durable) })
    }

    /// Goes on at the end of one; what is beyond is cut off.
    ///
    /// # Errors
    /// As the disk says.
    pub(super) fn open(disk: &dyn Disk, folder: &Path, first: Revision, end: End) -> io::Result<Self> {
        let End { durable, zeros } = end;
        let file = disk.open(&segment_path(folder, first))?;
        if file.file.metadata()?.len() != zeros {
            disk.truncate(&file, zeros)?;
        }
        // Also when nothing was cut off: what was read may not have reached the disk before a crash, and is about to be shown.
        disk.sync(&file)?;
        Ok(Self { first, file, durable, zeros })
    }

    /// How much of it is written and synced, in bytes.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Writes a record at the end and syncs it. The buffer is the same afterwards. A segment that is too small grows to a multiple of `step`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn append(&mut self, disk: &dyn Disk, record: &mut Vec<u8>, step: u64) -> Result<(), Failure> {
        let durable = self.durable + record.len() as u64;
        let written = if durable <= self.zeros {
            disk.write(&self.file, self.durable, record).map(|()| self.zeros)
        } else {
            self.grow(disk, record, durable, durable.next_multiple_of(step))
        };
        let zeros = written.or_else(|error| self.take_back(disk, error))?;
        let begun = Instant::now();
        disk.sync(&self.file).map_err(|error| Failure::Unknown("sync", error))?;
        metrics::histogram!("bluebird_store_sync_seconds").record(begun.elapsed());
        (self.durable, self.zeros) = (durable, zeros);
        Ok(())
    }

    /// Writes a record with zeros behind it, or without them when there is no space. Returns how far the zeros go.
    fn grow(&self, disk: &dyn Disk, record: &mut Vec<u8>, durable: u64, zeros: u64) -> io::Result<u64> {
        let len = record.len();
        record.resize(len + (zeros - durable) as usize, 0);
        let written = disk.write(&self.file, self.durable, record);
        record.truncate(len);
        match written {
            Ok(()) => Ok(zeros),
            Err(error) if is_full(&error) => disk.write(&self.file, self.durable, record).map(|()| durable),
            Err(error) => Err(error),
        }
    }

    fn take_back(&mut self, disk: &dyn Disk, error: io::Error) -> Result<u64, Failure> {
        match disk.truncate(&self.file, self.durable) {
            Ok(()) => {
                self.zeros = self.durable;
                Err(Failure::NotWritten(error))
            }
            Err(error) => Err(Failure::Unknown("cut off what was half written", error)),
        }
    }
}

/// Whether there was no space for what should be written.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
