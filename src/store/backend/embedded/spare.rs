use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::disk::{Disk, DiskFile};
use super::unfinished;

/// A file full of zeros, on the disk: what the next segment will be made of.
pub(super) struct Spare {
    pub(super) file: DiskFile,
    pub(super) len: u64,
}

/// A spare in the making, on a thread of its own.
pub(super) struct Making {
    path: PathBuf,
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Spare>>,
}

/// How much is written at once.
const PIECE: usize = 256 * 1024;

impl Making {
    /// Begins to make one.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn begin(disk: Arc<dyn Disk>, folder: &Path, len: u64) -> io::Result<Self> {
        let path = unfinished(&folder.join("log-next"));
        let cancelled = Arc::new(AtomicBool::new(false));
        let (stop, file) = (Arc::clone(&cancelled), path.clone());
        let thread = std::thread::Builder::new().name("bluebird-segment".to_owned()).spawn(move || {
            let made = make(&*disk, &file, len, &stop);
            if made.is_err() {
                // The space is more useful to the log; if this fails too, the next start removes the file.
                let _ = disk.remove(&file);
            }
            made
        })?;
        Ok(Self { path, cancelled, thread })
    }

    /// Whether [`Making::finish`] will not wait.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for it.
    ///
    /// # Errors
    /// As the disk says; then there is none.
    pub(super) fn finish(self) -> io::Result<Spare> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("making the next log segment panicked")))
    }

    /// Stops making it, and removes it.
    pub(super) fn cancel(self, disk: &dyn Disk) {
        self.cancelled.store(true, Ordering::Release);
        if let Ok(Ok(_)) = self.thread.join()
            && let Err(error) = disk.remove(&self.path)
        {
            tracing::debug!(%error, "can't remove a log segment that was not used; the next start does");
        }
    }
}

fn make(disk: &dyn Disk, path: &Path, len: u64, cancelled: &AtomicBool) -> io::Result<Spare> {
    let file = disk.create(path)?;
    let zeros = vec![0; PIECE];
    let mut offset = 0;
    while offset < len {
        if cancelled.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the store was stopped"));
        }
        let piece = zeros.len().min((len - offset) as usize);
        disk.write(&file, offset, &zeros[..piece])?;
        offset += piece as u64;
    }
    disk.sync(&file)?;
    Ok(Spare { file, len })
}
