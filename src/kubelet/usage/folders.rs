//! How many bytes the folders of pods take on the disk.

use std::collections::HashMap;
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::kubelet::os::{Host, Os};
use crate::kubelet::uid::PodUid;

/// How long after one count the next one begins at the earliest.
const PAUSE: Duration = Duration::from_secs(30);
/// And how many times longer than the count itself has taken, so that it costs a hundredth of a core at most.
const REST: u32 = 100;

/// The sizes, as far as they are known.
pub(super) type Sizes = Arc<HashMap<PodUid, u64>>;

/// Counts from time to time, beside everything else: a folder may have any number of files. Dropping it ends what is being counted.
#[derive(Debug, Default)]
pub(super) struct Folders {
    known: Sizes,
    counting: Option<Counting>,
    /// Not before this.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Counting {
    task: JoinHandle<(HashMap<PodUid, u64>, Duration)>,
    _ends: DropGuard,
}

impl Folders {
    /// What was counted last.
    pub(super) async fn sizes(&mut self) -> Sizes {
        if let Some(Counting { task, .. }) = self.counting.take_if(|counting| counting.task.is_finished()) {
            match task.await {
                Ok((sizes, took)) => {
                    self.known = Arc::new(sizes);
                    self.next = Some(Instant::now() + PAUSE.max(took * REST));
                }
                Err(error) => tracing::error!(%error, "the folders of pods can't be counted"),
            }
        }
        self.known.clone()
    }

    /// Counts again, if it is time to.
    pub(super) fn look_again(&mut self, pods: Vec<(PodUid, PathBuf)>) {
        if self.counting.is_some() || self.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let token = CancellationToken::new();
        let is_over = token.clone();
        let task = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let sizes = pods.into_iter().filter_map(|(uid, folder)| Some((uid, size(&folder, &|| is_over.is_cancelled())?))).collect();
            (sizes, began.elapsed())
        });
        self.counting = Some(Counting { task, _ends: token.drop_guard() });
    }
}

/// The bytes of all that is in a folder; what links lead to is elsewhere. `None` when it can't be looked at, or it is over.
fn size(folder: &Path, is_over: &impl Fn() -> bool) -> Option<u64> {
    let mut total = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(&next) {
            Ok(entries) => entries,
            // It went away meanwhile, or has become something else, or is nobody's business.
            Err(_) if next != folder => continue,
            Err(_) => return None,
        };
        for entry in entries {
            if is_over() {
                return None;
            }
            // One that went away meanwhile takes nothing.
            let Ok((bytes, is_folder)) = entry.and_then(|entry| look(&entry)) else { continue };
            total += bytes;
            folders.extend(is_folder);
        }
    }
    Some(total)
}

/// What an entry takes itself, and its path if it is a folder.
fn look(entry: &DirEntry) -> io::Result<(u64, Option<PathBuf>)> {
    // Of a link itself.
    let metadata = entry.metadata()?;
    Ok((Host::bytes_on_disk(&metadata), metadata.is_dir().then(|| entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_what_is_in_it_and_not_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let empty = size(folder.path(), &|| false).unwrap();
        std::fs::create_dir_all(folder.path().join("logs/main")).unwrap();
        std::fs::write(folder.path().join("logs/main/0.log"), vec![7; 300_000]).unwrap();
        let full = size(folder.path(), &|| false).unwrap();
        assert!((300_000..600_000).contains(&(full - empty)), "{empty}, {full}");
        assert_eq!(size(&folder.path().join("none"), &|| false), None);
        assert_eq!(size(folder.path(), &|| true), None);
    }
}
