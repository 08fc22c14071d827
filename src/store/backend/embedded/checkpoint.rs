use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::Disk;
use super::record::{Reader, file_head, put_record};
use super::rows::{FooterRow, HeaderRow, ObjectRow, PageRow, Role};
use super::{checkpoint_path, unfinished};
use crate::api::{Kind, ObjectKey, Revision};
use crate::store::{OpenError, Snapshot};

/// About how large a page is, in bytes.
const PAGE_BYTES: usize = 256 * 1024;

/// Writes the state to a file of its own, which gets its name when it is complete and durable. Stops early when cancelled.
pub(super) fn write(disk: &dyn Disk, folder: &Path, cluster_id: &str, state: &Snapshot, cancelled: &AtomicBool) -> io::Result<()> {
    let path = checkpoint_path(folder, state.revision());
    let unfinished = unfinished(&path);
    let written = write_pages(disk, &unfinished, cluster_id, state, cancelled);
    if let Err(error) = written {
        // The space is more useful to the log; if this fails too, the next start removes the file.
        let _ = disk.remove(&unfinished);
        return Err(error);
    }
    disk.rename(&unfinished, &path)?;
    disk.sync_folder(folder)
}

fn write_pages(disk: &dyn Disk, path: &Path, cluster_id: &str, state: &Snapshot, cancelled: &AtomicBool) -> io::Result<()> {
    let file = disk.create(path)?;
    let mut offset = 0;
    for piece in Pieces::of(cluster_id, state.clone()) {
        if cancelled.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the store was stopped"));
        }
        disk.write(&file, offset, &piece)?;
        offset += piece.len() as u64;
    }
    disk.sync(&file)
}

/// A checkpoint piece by piece: the beginning of the file, then pages. Holds the state and nothing else in between.
#[derive(Debug)]
pub(in crate::store) struct Pieces {
    pub(in crate::store) state: Snapshot,
    next: Piece,
    /// How many objects are in the pieces so far.
    pub(in crate::store) objects: usize,
    /// How many bytes these objects have.
    pub(in crate::store) bytes: usize,
}

#[derive(Debug)]
enum Piece {
    Head { cluster_id: String },
    PageFrom(ObjectKey),
    End,
}

impl Pieces {
    pub(in crate::store) fn of(cluster_id: &str, state: Snapshot) -> Self {
        Self { state, next: Piece::Head { cluster_id: cluster_id.to_owned() }, objects: 0, bytes: 0 }
    }

    fn page(&mut self, from: &ObjectKey) -> Vec<u8> {
        let mut page = PageRow::default();
        let mut bytes = 0;
        let mut objects = self.state.range(from);
        while bytes < PAGE_BYTES
            && let Some(stored) = objects.next()
        {
            bytes += stored.bytes.len();
            page.objects.push(ObjectRow::from(stored));
        }
        self.next = objects.next().map_or(Piece::End, |stored| Piece::PageFrom(stored.key.clone()));
        if matches!(self.next, Piece::End) {
            page.footer = Some(FooterRow { objects: self.state.len() as u64 });
        }
        self.objects += page.objects.len();
        self.bytes += bytes;
        let mut piece = Vec::new();
        put_record(&page, &mut piece);
        piece
    }
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.next, Piece::End) {
            Piece::Head { cluster_id } => {
                self.next = Piece::PageFrom(ObjectKey::lower_bound(Kind::ALL[0], ""));
                Some(file_head(&HeaderRow { cluster_id, role: Role::Checkpoint.into(), revision: self.state.revision().0 }))
            }
            Piece::PageFrom(key) => Some(self.page(&key)),
            Piece::End => None,
        }
    }
}

/// Reads a checkpoint of this revision, or of any: whose it is, and the state.
pub(super) fn read(path: &Path, revision: Option<Revision>) -> Result<(String, Snapshot), OpenError> {
    let (mut reader, header) = Reader::open(path)?;
    let revision = revision.unwrap_or(Revision(header.revision));
    reader.expect(&header, Role::Checkpoint, revision.0, None)?;
    let mut state = Snapshot::default();
    loop {
        let offset = reader.offset();
        let page = match reader.next::<PageRow>()? {
            Some(Ok(page)) => page,
            Some(Err(fault)) => return Err(reader.damaged(fault.offset, fault.what)),
            None => return Err(reader.damaged(offset, "the file ends before its last page")),
        };
        for row in page.objects {
            let stored = row.into_stored().ok_or_else(|| reader.damaged(offset, "a page holds what is no object"))?;
            state.insert(stored);
        }
        if let Some(footer) = page.footer {
            let complete = footer.objects == state.len() as u64 && reader.next::<PageRow>()?.is_none();
            state.set_revision(revision);
            return if complete {
                Ok((header.cluster_id, state))
            } else {
                Err(reader.damaged(offset, "its objects are not as many as it says"))
            };
        }
    }
}
