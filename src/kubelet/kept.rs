//! Messages kept on disk for a kubelet that can't ask anybody: what is damaged is noticed, and nothing that was written long ago is lost with the power.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::os::{Host, Os};

/// What follows a message: a field that no message has, of four bytes, with the checksum of all before it. Whoever doesn't know it skips it.
const SEAL: [u8; 2] = [0xc5, 0x3e];
const SEAL_BYTES: usize = SEAL.len() + 4;
/// How long a file may wait until it is handed to the disk.
const SYNC_DELAY: Duration = Duration::from_millis(500);

/// Writes a message, so that a reader sees the old one or this one.
pub(crate) fn write(path: &Path, message: &impl Message) -> io::Result<()> {
    let mut bytes = message.encode_to_vec();
    let sum = crc32fast::hash(&bytes);
    bytes.extend(SEAL);
    bytes.extend(sum.to_le_bytes());
    Host::write_atomically(path, &bytes)
}

/// Reads a message; `None` when there is none.
///
/// # Errors
/// `InvalidData` for one that is damaged.
pub(crate) fn read<M: Message + Default>(path: &Path) -> io::Result<Option<M>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {what}", path.display()));
    if bytes.is_empty() {
        return Err(damaged("it is empty"));
    }
    if let Some((message, seal)) = bytes.len().checked_sub(SEAL_BYTES).map(|end| bytes.split_at(end))
        && let Some(sum) = seal.strip_prefix(&SEAL)
        && sum != crc32fast::hash(message).to_le_bytes()
    {
        return Err(damaged("its checksum is another one"));
    }
    // Without a seal it is of a kubelet that made none, or cut short, which shows.
    M::decode(bytes.as_slice()).map(Some).map_err(|error| damaged(&error.to_string()))
}

/// Files that are still to be handed to the disk. Nobody waits for that: what is lost with the power in the moment between is asked for again.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    paths: Mutex<BTreeSet<PathBuf>>,
    wake: Notify,
}

impl Unsynced {
    /// This file was written.
    pub(crate) fn add(&self, path: PathBuf) {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
        self.wake.notify_one();
    }

    /// Hands files to the disk until the token is cancelled, many at once and not while the pods that they are about are being started.
    pub(crate) async fn run(self: Arc<Self>, token: CancellationToken) {
        while token.run_until_cancelled(self.wake.notified()).await.is_some() {
            token.run_until_cancelled(tokio::time::sleep(SYNC_DELAY)).await;
            let paths = std::mem::take(&mut *self.paths.lock().unwrap_or_else(PoisonError::into_inner));
            let synced = tokio::task::spawn_blocking(move || paths.iter().for_each(|path| sync(path))).await;
            if let Err(error) = synced {
                tracing::error!(%error, "files can't be handed to the disk any more");
                return;
            }
        }
    }
}

fn sync(path: &Path) {
    // For writing, since Windows wants that of whoever syncs.
    match std::fs::File::options().write(true).open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a file can't be handed to the disk; it may be lost with the power");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{ObjectMeta, Pod, PodSpec};

    fn pod() -> Pod {
        let metadata = Some(ObjectMeta { name: "web".into(), uid: "u1".into(), ..ObjectMeta::default() });
        Pod { metadata, spec: Some(PodSpec { node_name: "n1".into(), ..PodSpec::default() }), status: None }
    }

    #[test]
    fn a_kept_message_is_read_as_it_was_also_by_whoever_knows_of_no_seal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod");
        assert_eq!(read::<Pod>(&path).unwrap(), None);
        write(&path, &pod()).unwrap();
        assert_eq!(read::<Pod>(&path).unwrap(), Some(pod()));
        assert_eq!(Pod::decode(std::fs::read(&path).unwrap().as_slice()).unwrap(), pod());
        std::fs::write(&path, pod().encode_to_vec()).unwrap();
        assert_eq!(read::<Pod>(&path).unwrap(), Some(pod()), "written by an older kubelet");
    }

    #[test]
    fn whatever_bit_is_flipped_and_wherever_it_is_cut_a_kept_message_is_not_taken_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod");
        write(&path, &pod()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for index in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[index / 8] ^= 1 << (index % 8);
            std::fs::write(&path, &flipped).unwrap();
            let found = read::<Pod>(&path);
            // A flipped seal is no seal any more, and the message is whole.
            assert!(found.is_err() || found.is_ok_and(|found| found == Some(pod())), "bit {index}");
        }
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            // Cut between two fields it is a message that lacks the second: whoever reads it must look for what has to be there.
            let lacks_something = |found: Option<Pod>| found.is_some_and(|found| found.spec.is_none() || found == pod());
            assert!(read::<Pod>(&path).is_err() || read::<Pod>(&path).is_ok_and(lacks_something), "cut to {length} bytes");
        }
    }
}
