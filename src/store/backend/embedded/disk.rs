use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// The operations that change a disk, so that a test can fail each of them.
pub(super) trait Disk: Send + Sync {
    /// Makes an empty file, whatever was there.
    fn create(&self, path: &Path) -> io::Result<DiskFile>;
    /// Opens a file that is there, to write to it.
    fn open(&self, path: &Path) -> io::Result<DiskFile>;
    /// Writes from an offset on, all of it.
    fn write(&self, file: &DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything that was written to the file would survive a power failure.
    fn sync(&self, file: &DiskFile) -> io::Result<()>;
    /// Cuts the file off.
    fn truncate(&self, file: &DiskFile, len: u64) -> io::Result<()>;
    /// Gives a file another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns when the names in a folder would survive a power failure.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// An open file and its name.
pub(super) struct DiskFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// The machine's disk.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        Ok(DiskFile { path: path.to_owned(), file: File::create(path)? })
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        Ok(DiskFile { path: path.to_owned(), file: OpenOptions::new().write(true).open(path)? })
    }

    fn write(&self, file: &DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = &file.file;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn truncate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        file.file.set_len(len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Windows doesn't open folders; there the file system's own journal orders the names.
        if cfg!(windows) { Ok(()) } else { File::open(folder)?.sync_all() }
    }
}
