use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// The operations that change a disk, so that a test can fail each of them.
pub(super) trait Disk: Send + Sync {
    /// Makes an empty file, whatever was there.
    fn create(&self, path: &Path) -> io::Result<DiskFile>;
    /// Opens a file to write at its end.
    fn open(&self, path: &Path) -> io::Result<DiskFile>;
    /// Writes at the current position, all of it.
    fn write(&self, file: &mut DiskFile, bytes: &[u8]) -> io::Result<()>;
    /// Writes from the beginning on, over what is there.
    fn overwrite(&self, file: &mut DiskFile, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything that was written to the file would survive a power failure.
    fn sync(&self, file: &DiskFile) -> io::Result<()>;
    /// Cuts the file off and goes to its end.
    fn truncate(&self, file: &mut DiskFile, len: u64) -> io::Result<()>;
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
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(DiskFile { path: path.to_owned(), file })
    }

    fn write(&self, file: &mut DiskFile, bytes: &[u8]) -> io::Result<()> {
        file.file.write_all(bytes)
    }

    fn overwrite(&self, file: &mut DiskFile, bytes: &[u8]) -> io::Result<()> {
        file.file.seek(SeekFrom::Start(0))?;
        file.file.write_all(bytes)
    }

    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn truncate(&self, file: &mut DiskFile, len: u64) -> io::Result<()> {
        file.file.set_len(len)?;
        file.file.seek(SeekFrom::Start(len)).map(drop)
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
