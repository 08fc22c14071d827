use super::Snapshot;
use super::backend::embedded::checkpoint::Pieces;

/// A backup in the making: the state of one revision, as pieces of a file that [`super::restore`] takes. Holds that state and nothing else.
#[derive(Debug)]
pub struct Backup {
    pieces: Pieces,
    checksum: crc32fast::Hasher,
}

impl Backup {
    pub(super) fn of(cluster_id: &str, state: Snapshot) -> Self {
        Self { pieces: Pieces::of(cluster_id, state), checksum: crc32fast::Hasher::new() }
    }

    /// The next piece of the file, at most about 1.25 MiB; `None` after the last one.
    pub fn next_piece(&mut self) -> Option<Vec<u8>> {
        let piece = self.pieces.next()?;
        self.checksum.update(&piece);
        Some(piece)
    }

    /// What is backed up.
    pub fn state(&self) -> &Snapshot {
        &self.pieces.state
    }

    /// How many objects the pieces so far hold.
    pub fn objects(&self) -> usize {
        self.pieces.objects
    }

    /// How many bytes these objects have; all of them have [`Snapshot::bytes`].
    pub fn bytes(&self) -> usize {
        self.pieces.bytes
    }

    /// The CRC-32 of all pieces so far.
    pub fn checksum(&self) -> u32 {
        self.checksum.clone().finalize()
    }
}
