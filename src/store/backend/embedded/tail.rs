use std::path::Path;

use super::disk::{Disk, DiskFile};
use crate::api::Revision;

/// How far the log was durable when it was last written: tells a log that was cut off later from a last write that never finished. It is not
/// synced itself, as it has to survive `kill -9` and not a power failure; so it may be missing, old or torn, and then says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The segment that was written to.
    pub(super) segment: Revision,
    /// How much of it was durable, in bytes.
    pub(super) len: u64,
}

const SIZE: usize = 20;

impl Tail {
    /// Reads the file, if it makes sense.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let bytes: [u8; SIZE] = std::fs::read(path).ok()?.try_into().ok()?;
        let (numbers, crc) = bytes.split_at(16);
        if crc32fast::hash(numbers).to_le_bytes() != crc {
            return None;
        }
        let (segment, len) = numbers.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        Some(Self { segment: Revision(number(segment)), len: number(len) })
    }

    /// Writes the file. A failure only costs the next start some certainty.
    pub(super) fn write(self, disk: &dyn Disk, file: &DiskFile) {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.segment.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        if let Err(error) = disk.write(file, 0, &bytes) {
            tracing::debug!(%error, "can't note how far the log is durable");
        }
    }
}
