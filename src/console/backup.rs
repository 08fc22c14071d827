//! `backup`: a file that is whole, or isn't there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

use super::Console;
use super::args;
use super::failure::{Failure, Result};
use crate::api::v1::BackupResponse;

/// How the name of a file ends that is no backup yet.
const UNFINISHED: &str = ".unfinished";

pub(super) async fn run(console: &mut Console<'_>, args: &args::Backup) -> Result<()> {
    let target = args.file.as_path();
    if target.exists() && !args.force {
        return Err(Failure::Failed(format!("{} exists already; --force replaces it", target.display())));
    }
    let mut unfinished = unfinished(target).map_err(|error| cannot_write(target, &error))?;
    // So that the file is removed, too, when somebody has waited long enough.
    let asked = (console.io.asked_to_end)();
    let done = tokio::select! {
        done = receive(console, &mut unfinished, target) => done?,
        asked = asked => return Err(asked.map_or_else(Failure::from, |()| Failure::Failed("stopped; there is no backup".into()))),
    };
    finish(unfinished, target, args.force).map_err(|error| cannot_write(target, &error))?;
    let BackupResponse { revision, objects, .. } = done;
    writeln!(console.io.out, "{objects} objects at revision {revision} are in {}", target.display())?;
    Ok(())
}

/// Writes the whole backup. Returns the last message.
async fn receive(console: &mut Console<'_>, unfinished: &mut NamedTempFile, target: &Path) -> Result<BackupResponse> {
    let client = console.client()?;
    let mut pieces = client.backup().await?;
    let mut checksum = crc32fast::Hasher::new();
    while let Some(piece) = pieces.next().await? {
        checksum.update(&piece.data);
        unfinished.write_all(&piece.data).map_err(|error| cannot_write(target, &error))?;
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

/// A file without a name of its own yet, for its owner's eyes only: there may be secrets in it. It goes when it is dropped, and if this program is killed, with
/// the next backup to the same name.
fn unfinished(target: &Path) -> io::Result<NamedTempFile> {
    let name = target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file"))?;
    let prefix = format!(".{}.", name.to_string_lossy());
    // In the same folder, since a file can be renamed only within its file system.
    let folder = folder_of(target);
    remove_leftovers(folder, &prefix)?;
    let file = tempfile::Builder::new().prefix(&prefix).suffix(UNFINISHED).tempfile_in(folder)?;
    file.as_file().lock()?;
    Ok(file)
}

/// Removes what nobody writes to any more: whoever does has a lock.
fn remove_leftovers(folder: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_unfinished = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(UNFINISHED));
        if is_unfinished && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Gives the file its name, once all of it is on the disk.
fn finish(unfinished: NamedTempFile, target: &Path, replace: bool) -> io::Result<()> {
    unfinished.as_file().sync_all()?;
    let named = if replace { unfinished.persist(target) } else { unfinished.persist_noclobber(target) };
    named.map_err(|error| error.error)?;
    sync(folder_of(target))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        // Not every system opens folders; there the file system orders the names by itself.
        Err(_) => Ok(()),
    }
}
