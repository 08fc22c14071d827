//! How the inputs of the fuzz targets are put together, for the targets and for the seeds that they begin with.

pub mod seeds;

use std::path::Path;

/// The first byte of an input of the target `requests`.
pub mod requests {
    /// How many requests there are, of which it says one; the first is a Delete.
    pub const WHATS: u8 = 7;
    /// Set if the object was created by applying it.
    pub const APPLIED: u8 = 0x80;
}

/// Several byte strings as one: each but the last behind its length, in two bytes.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    let (last, parts) = parts.split_last().expect("a part");
    let mut joined = Vec::new();
    for part in parts {
        let part = &part[..part.len().min(u16::MAX.into())];
        joined.extend_from_slice(&(part.len() as u16).to_le_bytes());
        joined.extend_from_slice(part);
    }
    joined.extend_from_slice(last);
    joined
}

/// Takes so many byte strings apart; whatever is not there is empty.
pub fn split<const N: usize>(mut joined: &[u8]) -> [&[u8]; N] {
    let mut next = || {
        let Some((length, rest)) = joined.split_first_chunk() else { return std::mem::take(&mut joined) };
        let (part, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        joined = rest;
        part
    };
    let mut parts = [&[][..]; N];
    for part in parts.iter_mut().take(N - 1) {
        *part = next();
    }
    parts[N - 1] = joined;
    parts
}

/// Makes the lengths and checksums of a store's file right again, as far as there are records, so that what is behind them is reached.
pub fn repair(file: &mut [u8]) {
    const FILE_HEAD: usize = 12;
    const RECORD_HEAD: usize = 8;
    let mut at = FILE_HEAD;
    while let Some(record) = file.get_mut(at..).filter(|rest| rest.len() > RECORD_HEAD) {
        let (head, payload) = record.split_at_mut(RECORD_HEAD);
        let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
        let length = length.min(payload.len());
        head[..4].copy_from_slice(&(length as u32).to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head[..4]);
        checksum.update(&payload[..length]);
        head[4..].copy_from_slice(&checksum.finalize().to_le_bytes());
        at += RECORD_HEAD + length;
    }
}

/// The files of a store that the target `store` makes of its input: the log, the checkpoint and the tail, each if it is not empty.
pub const STORE_FILES: [&str; 3] = ["log-00000000000000000001", "checkpoint-00000000000000000004", "tail"];

/// The file of this name, without the zeros at its end; empty if there is none.
pub fn content(folder: &Path, name: &str) -> Vec<u8> {
    let mut content = std::fs::read(folder.join(name)).unwrap_or_default();
    content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    content
}
