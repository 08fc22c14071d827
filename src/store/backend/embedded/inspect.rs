use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::Found;
use super::restore;
use crate::api::Revision;
use crate::store::{Commit, History, HistoryLimits, OpenError, Snapshot};

/// What is in a store's folder or in a backup.
#[derive(Debug)]
pub struct Inspected {
    /// The cluster's random id.
    pub cluster_id: String,
    /// Every object.
    pub state: Snapshot,
    /// The commits that are kept, oldest first; none in a backup.
    pub commits: Vec<Arc<Commit>>,
    /// The files and their sizes.
    pub files: Vec<(PathBuf, u64)>,
}

/// Reads a folder or a backup and checks all of it. Changes nothing, and needs no lock: see [`folder`].
pub(in crate::store) fn inspect(path: &Path) -> Result<Inspected, OpenError> {
    if path.is_dir() {
        return folder(path);
    }
    if !path.exists() {
        return Err(OpenError::NoStore { path: path.to_owned() });
    }
    let (cluster_id, state) = restore::read(path)?;
    Ok(Inspected { cluster_id, state, commits: Vec::new(), files: vec![(path.to_owned(), size(path)?)] })
}

/// How often a folder is read while its files keep changing.
const ATTEMPTS: usize = 100;

/// An apiserver may write to the folder meanwhile. Then files come and go, and what is being written just now looks damaged; so damage has to be found twice, in the
/// same place and among the same files. What is read is a state that was there, or whose last commits are about to be.
fn folder(path: &Path) -> Result<Inspected, OpenError> {
    let names = || files(path).map(|files| files.into_iter().map(|(path, _)| path).collect::<Vec<_>>());
    let mut before = None;
    for _ in 1..ATTEMPTS {
        let among = names()?;
        match read(path) {
            Err(error) => {
                let found = (names()? == among).then(|| (error.to_string(), among));
                if found.is_some() && found == before {
                    return Err(error);
                }
                before = found;
            }
            right => return right,
        }
    }
    read(path)
}

fn read(path: &Path) -> Result<Inspected, OpenError> {
    let found = Found::list(path)?;
    if found.is_new(path) {
        return Err(OpenError::NoStore { path: path.to_owned() });
    }
    let all = HistoryLimits { age: std::time::Duration::MAX, revisions: usize::MAX, bytes: usize::MAX };
    let mut history = History::new(all, Revision::ZERO);
    let contents = found.read(path, &mut history)?;
    let commits = history.after(history.oldest(), usize::MAX).unwrap_or_default();
    Ok(Inspected { cluster_id: contents.cluster_id, state: contents.state, commits, files: files(path)? })
}

fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, OpenError> {
    let failed = |source| OpenError::Io { path: folder.to_owned(), doing: "list", source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        match entry.metadata() {
            Ok(metadata) => files.push((entry.path(), metadata.len())),
            // It was removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    files.sort();
    Ok(files)
}

fn size(path: &Path) -> Result<u64, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), doing: "read", source };
    std::fs::metadata(path).map(|metadata| metadata.len()).map_err(failed)
}
