//! `backup`: a file that is whole, or isn't there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Console;
use super::args;
use super::failure::{Failure, Result};
use crate::api::v1::BackupResponse;

pub(super) async fn run(console: &mut Console<'_>, args: &args::Backup) -> Result<()> {
    let target = args.file.as_path();
    if target.exists() && !args.force {
        return Err(Failure::Failed(format!("{} exists already; --force replaces it", target.display())));
    }
    let mut unfinished = Unfinished::create(target).map_err(|error| cannot_write(target, &error))?;
    // So that the file is removed, too, when somebody has waited long enough.
    let asked = (console.io.asked_to_end)();
    let done = tokio::select! {
        done = receive(console, &mut unfinished, target) => done?,
        asked = asked => return Err(asked.map_or_else(Failure::from, |()| Failure::Failed("stopped; there is no backup".into()))),
    };
    unfinished.finish(target, args.force).map_err(|error| cannot_write(target, &error))?;
    let BackupResponse { revision, objects, .. } = done;
    writeln!(console.io.out, "{objects} objects at revision {revision} are in {}", target.display())?;
    Ok(())
}

/// Writes the whole backup. Returns the last message.
async fn receive(console: &mut Console<'_>, unfinished: &mut Unfinished, target: &Path) -> Result<BackupResponse> {
    let client = console.client()?;
    let mut pieces = client.backup().await?;
    let mut checksum = crc32fast::Hasher::new();
    while let Some(piece) = pieces.next().await? {
        checksum.update(&piece.data);
        unfinished.file.write_all(&piece.data).map_err(|error| cannot_write(target, &error))?;
        if (console.io.terminal)().is_some() {
            write!(console.io.err, "\r{}\x1b[K", progress(&piece))?;
        }
        if let Some(expected) = piece.checksum {
            if (console.io.terminal)().is_some() {
                writeln!(console.io.err)?;
            }
            return if checksum.finalize() == expected {
                Ok(piece)
            } else {
                Err(Failure::Failed("what came is not what was sent; try again".into()))
            };
        }
    }
    Err(Failure::Failed("the backup ended before it was complete; try again".into()))
}

fn progress(piece: &BackupResponse) -> String {
    let BackupResponse { objects, total_objects, bytes, total_bytes, .. } = piece;
    let mebibytes = |bytes: &u64| *bytes as f64 / (1024.0 * 1024.0);
    format!("{objects} of {total_objects} objects, {:.1} of {:.1} MiB", mebibytes(bytes), mebibytes(total_bytes))
}

fn cannot_write(target: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", target.display()))
}

/// The file under another name, which is removed unless it is finished.
struct Unfinished {
    path: PathBuf,
    file: File,
    is_finished: bool,
}

impl Unfinished {
    /// In the same folder, since a file can be renamed only within its file system.
    fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file"))?;
        let name = format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id());
        let path = target.with_file_name(name);
        Ok(Self { file: File::create(&path)?, path, is_finished: false })
    }

    /// Gives the file its name, once all of it is on the disk.
    fn finish(mut self, target: &Path, replace: bool) -> io::Result<()> {
        self.file.sync_all()?;
        if replace {
            fs::rename(&self.path, target)?;
        } else {
            self.link(target)?;
        }
        self.is_finished = true;
        sync_folder_of(target)
    }

    /// Unlike a rename a link never replaces what somebody else has made meanwhile; but not every file system has links.
    fn link(&self, target: &Path) -> io::Result<()> {
        match fs::hard_link(&self.path, target) {
            Ok(()) => fs::remove_file(&self.path),
            Err(_) if !target.exists() => fs::rename(&self.path, target),
            Err(error) => Err(error),
        }
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        // Not every system opens folders; there the file system orders the names by itself.
        Err(_) => Ok(()),
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            // It was said already what went wrong.
            let _ = fs::remove_file(&self.path);
        }
    }
}
