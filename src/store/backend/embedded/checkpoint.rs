use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::Disk;
use super::record::{Reader, file_head, put_record};
use super::rows::{FooterRow, HeaderRow, ObjectRow, PageRow, Role};
use super::{checkpoint_path, unfinished};
use crate::api::Revision;
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
    let header = HeaderRow { cluster_id: cluster_id.to_owned(), role: Role::Checkpoint.into(), revision: state.revision().0 };
    let head = file_head(&header);
    disk.write(&file, 0, &head)?;
    let mut offset = head.len() as u64;
    let mut objects = state.iter().peekable();
    let mut buffer = Vec::new();
    loop {
        if cancelled.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the store was stopped"));
        }
        let mut page = PageRow::default();
        let mut bytes = 0;
        while bytes < PAGE_BYTES
            && let Some(stored) = objects.next()
        {
            bytes += stored.bytes.len();
            page.objects.push(ObjectRow::from(stored));
        }
        let last = objects.peek().is_none();
        page.footer = last.then(|| FooterRow { objects: state.len() as u64 });
        buffer.clear();
        put_record(&page, &mut buffer);
        disk.write(&file, offset, &buffer)?;
        offset += buffer.len() as u64;
        if last {
            return disk.sync(&file);
        }
    }
}

/// Reads a checkpoint: whose it is, and the state.
pub(super) fn read(path: &Path, revision: Revision) -> Result<(String, Snapshot), OpenError> {
    let (mut reader, header) = Reader::open(path)?;
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
