use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::disk::{Disk, RealDisk};
use super::files::Files;
use super::load::Found;
use super::segment::Segment;
use super::{LIMITS, checkpoint, checkpoint_path, segment_path, tail_path};
use crate::api::Revision;
use crate::store::{OpenError, Snapshot};

/// How far apart the revisions of a restored cluster are from those of the cluster that was backed up, and of one that was restored from the same backup
/// before. No cluster makes so many commits between a backup and its restore: at 10,000 a second it would take a day. So no revision that a client saw after the
/// backup comes again with another meaning: it is older than the history, which a watch is told with HistoryCompacted.
const RESTORE_GAP: u64 = 1_000_000_000;
/// A restored cluster begins one of so many gaps above, by chance, so that two that were restored from one backup don't meet either; the second may
/// be below the first, whose clients then find that they know a future revision, and read everything anew. Few enough that revisions stay
/// exact as JSON numbers (below 2^53) for dozens of restores one after the other.
const RESTORE_PLACES: u64 = 100_000;
/// A backup of a higher revision is none that a store has made, and there would be no room above it.
const HIGHEST: u64 = (1 << 53) - RESTORE_GAP * RESTORE_PLACES;

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How many objects.
    pub objects: usize,
    /// The revision of the backup.
    pub backup: Revision,
    /// The revision that the cluster goes on from.
    pub now: Revision,
}

/// Makes a new store in a folder out of a backup.
pub(in crate::store) fn restore(backup: &Path, folder: PathBuf) -> Result<Restored, OpenError> {
    restore_on(Arc::new(RealDisk), backup, folder)
}

pub(super) fn restore_on(disk: Arc<dyn Disk>, backup: &Path, folder: PathBuf) -> Result<Restored, OpenError> {
    // All of it is read and checked before anything is touched.
    let (cluster_id, mut state) = read(backup)?;
    let begun = state.revision();
    if begun.0 > HIGHEST {
        let fault = format!("it is of revision {begun}, and no store comes so far");
        return Err(OpenError::DamagedBackup { file: backup.to_owned(), offset: 0, fault });
    }
    let files = Files::open_on(disk, folder, LIMITS)?;
    state.set_revision(Revision(begun.0 + RESTORE_GAP * fastrand::u64(1..=RESTORE_PLACES)));
    files.restore(&cluster_id, &state)?;
    Ok(Restored { objects: state.len(), backup: begun, now: state.revision() })
}

/// Reads a backup: whose it is, and the state.
pub(super) fn read(backup: &Path) -> Result<(String, Snapshot), OpenError> {
    checkpoint::read(backup, None).map_err(|error| match error {
        OpenError::Damaged { file, offset, fault } => OpenError::DamagedBackup { file, offset, fault },
        error => error,
    })
}

/// Is in a folder from before anything is written to it until all is there.
pub(super) fn marker(folder: &Path) -> PathBuf {
    folder.join("RESTORING")
}

impl Files {
    fn restore(&self, cluster_id: &str, state: &Snapshot) -> Result<(), OpenError> {
        let (disk, folder) = (&*self.disk, self.folder.as_path());
        let found = Found::list_any(folder)?;
        if !found.is_new(folder) && !marker(folder).exists() {
            return Err(OpenError::NotEmpty { folder: folder.to_owned() });
        }
        let written = remove_all(disk, folder, &found).and_then(|()| write(disk, folder, cluster_id, state));
        written.map_err(|source| {
            // Without the marker it is a store already, or nothing at all.
            if marker(folder).exists() {
                // The space is more useful to others; if this fails too, the marker stays, and the next try does it.
                let _ = clean_up(disk, folder);
            }
            OpenError::Io { path: folder.to_owned(), doing: "restore to", source }
        })
    }
}

fn write(disk: &dyn Disk, folder: &Path, cluster_id: &str, state: &Snapshot) -> io::Result<()> {
    disk.create(&marker(folder))?;
    disk.sync_folder(folder)?;
    checkpoint::write(disk, folder, cluster_id, state, &AtomicBool::new(false))?;
    Segment::create(disk, folder, cluster_id, state.revision().next(), None)?;
    disk.sync_folder(folder)?;
    // This makes it a store.
    disk.remove(&marker(folder))?;
    disk.sync_folder(folder)
}

fn clean_up(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let found = Found::list_any(folder).map_err(io::Error::other)?;
    remove_all(disk, folder, &found)?;
    // First that, for certain: half a store must not be found without the marker.
    disk.sync_folder(folder)?;
    disk.remove(&marker(folder))
}

/// Removes what an earlier try left behind.
fn remove_all(disk: &dyn Disk, folder: &Path, found: &Found) -> io::Result<()> {
    let segments = found.segments.iter().map(|revision| segment_path(folder, *revision));
    let checkpoints = found.checkpoints.iter().map(|revision| checkpoint_path(folder, *revision));
    let tail = Some(tail_path(folder)).filter(|tail| tail.exists());
    for path in segments.chain(checkpoints).chain(found.unfinished.iter().cloned()).chain(tail) {
        disk.remove(&path)?;
    }
    Ok(())
}
