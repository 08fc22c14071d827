//! How files are divided: 8 bytes that say whose they are, 4 for the format's version, then records. A record is its length (4 bytes), a CRC-32 over length
//! and payload (4 bytes), and the payload; all numbers little-endian. The first record is the [`HeaderRow`]. After the last one there may be zeros.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use prost::Message;

use super::rows::{BatchRow, CommitRow, HeaderRow, Role};
use crate::api::Revision;
use crate::store::{Commit, OpenError};

const MAGIC: &[u8; 8] = b"BLUEBIRD";
const FORMAT: u32 = 1;
const RECORD_HEAD: usize = 8;
/// What a disk writes whole or not at all. A head that lies in two of them may itself be torn, and then its length says nothing.
const SECTOR: u64 = 512;
/// Far more than a batch of commits or a page of a checkpoint has.
const MAX_RECORD: usize = 64 * 1024 * 1024;

/// The beginning of a file.
pub(super) fn file_head(header: &HeaderRow) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    put_record(header, &mut bytes);
    bytes
}

/// Appends a record to a buffer.
pub(super) fn put_record(row: &impl Message, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.reserve(RECORD_HEAD + row.encoded_len());
    buffer.extend_from_slice(&[0; RECORD_HEAD]);
    row.encode_raw(buffer);
    seal(&mut buffer[start..]);
}

/// Fills in the head of a record that ends with these bytes.
fn seal(record: &mut [u8]) {
    let (head, payload) = record.split_at_mut(RECORD_HEAD);
    let (len, crc) = head.split_at_mut(4);
    len.copy_from_slice(&(payload.len() as u32).to_le_bytes());
    crc.copy_from_slice(&checksum(len, payload).to_le_bytes());
}

/// A record of the log in the making: [`BatchRow`], commit by commit.
#[derive(Debug, Default)]
pub(super) struct LogRecord {
    /// The revision of its first commit, if it has one.
    first: Option<Revision>,
    bytes: Vec<u8>,
}

/// A larger buffer than this is not used again.
const KEPT_BUFFER: usize = 1024 * 1024;

impl LogRecord {
    /// Appends a commit.
    pub(super) fn push(&mut self, commit: &Commit) {
        if self.first.is_none() {
            self.first = Some(commit.revision);
            self.bytes.extend_from_slice(&[0; RECORD_HEAD]);
        }
        // An encoded message is its fields one after the other.
        prost::encoding::message::encode(BatchRow::COMMITS, &CommitRow::from(commit), &mut self.bytes);
    }

    /// The first commit's revision, and all bytes; `None` without commits.
    pub(super) fn seal(&mut self) -> Option<(Revision, &mut Vec<u8>)> {
        let first = self.first?;
        seal(&mut self.bytes);
        Some((first, &mut self.bytes))
    }

    /// An empty one that uses this one's memory again.
    pub(super) fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BUFFER);
        Self { first: None, bytes: self.bytes }
    }
}

fn checksum(len: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(len);
    hasher.update(payload);
    hasher.finalize()
}

/// Reads a file record by record.
pub(super) struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    offset: u64,
    len: u64,
    payload: Vec<u8>,
}

/// A record that is not as it was written.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: u64,
    pub(super) what: String,
    /// Whether it looks as if the file's last write was cut short.
    pub(super) torn: bool,
}

impl Reader {
    /// Opens a file and reads its beginning.
    pub(super) fn open(path: &Path) -> Result<(Self, HeaderRow), OpenError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|source| OpenError::Io { path: path.to_owned(), doing: "open", source })?;
        let input = BufReader::with_capacity(1024 * 1024, file);
        let mut reader = Self { path: path.to_owned(), input, offset: 0, len, payload: Vec::new() };
        let header = reader.read_head()?;
        Ok((reader, header))
    }

    fn read_head(&mut self) -> Result<HeaderRow, OpenError> {
        let mut head = [0; MAGIC.len() + 4];
        if self.len < head.len() as u64 {
            return Err(self.damaged(0, "it is too short to be a file of a store"));
        }
        self.fill(&mut head)?;
        let (magic, format) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(self.damaged(0, "it is not a file of a store"));
        }
        let found = u32::from_le_bytes(format.try_into().expect("4 bytes"));
        if found > FORMAT {
            return Err(OpenError::NewerFormat { file: self.path.clone(), found, known: FORMAT });
        }
        if found == 0 {
            return Err(self.damaged(MAGIC.len() as u64, "there is no format 0"));
        }
        match self.next::<HeaderRow>()? {
            Some(Ok(header)) => Ok(header),
            Some(Err(fault)) => Err(self.damaged(fault.offset, fault.what)),
            None => Err(self.damaged(self.offset, "it has no header")),
        }
    }

    /// Checks that a file is what its name says.
    pub(super) fn expect(&self, header: &HeaderRow, role: Role, revision: u64, cluster_id: Option<&str>) -> Result<(), OpenError> {
        if header.role() != role || header.revision != revision {
            let found = format!("{:?} at revision {}", header.role(), header.revision).to_lowercase();
            return Err(self.damaged(0, format!("by its header it is the {found}, so it was renamed")));
        }
        match cluster_id {
            Some(expected) if expected != header.cluster_id => {
                Err(self.damaged(0, format!("it belongs to cluster {}, the other files to {expected}", header.cluster_id)))
            }
            _ => Ok(()),
        }
    }

    /// The next record; `None` at the end of the file, or when nothing but zeros follow.
    pub(super) fn next<M: Message + Default>(&mut self) -> Result<Option<Result<M, Fault>>, OpenError> {
        let offset = self.offset;
        let fault = |what: String, torn| Ok(Some(Err(Fault { offset, what, torn })));
        let left = self.len - self.offset;
        if left == 0 {
            return Ok(None);
        }
        if left < RECORD_HEAD as u64 {
            if self.only_zeros_follow()? {
                return Ok(None);
            }
            return fault(format!("the file ends within the head of a record, after {left} bytes"), true);
        }
        let mut head = [0; RECORD_HEAD];
        self.fill(&mut head)?;
        let len = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
        let crc = u32::from_le_bytes(head[4..].try_into().expect("4 bytes"));
        if head == [0; RECORD_HEAD] {
            if self.only_zeros_follow()? {
                return Ok(None);
            }
            // Of a write that a power failure cut short, the beginning may be what is missing.
            return fault("there are zeros where a record should begin".to_owned(), true);
        }
        if len > MAX_RECORD {
            return fault(format!("a record of {len} bytes can't be"), false);
        }
        let left = left - RECORD_HEAD as u64;
        if len as u64 > left {
            return fault(format!("the file ends within a record, {left} of {len} bytes after its head"), true);
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(len, 0);
        self.fill(&mut payload)?;
        let decoded = if checksum(&head[..4], &payload) == crc { M::decode(payload.as_slice()).ok() } else { None };
        self.payload = payload;
        match decoded {
            Some(row) => Ok(Some(Ok(row))),
            None => {
                let torn = offset % SECTOR > SECTOR - RECORD_HEAD as u64 || self.only_zeros_follow()?;
                fault("the checksum of the record does not match".to_owned(), torn)
            }
        }
    }

    fn only_zeros_follow(&mut self) -> Result<bool, OpenError> {
        loop {
            let failed = |source| OpenError::Io { path: self.path.clone(), doing: "read", source };
            let bytes = self.input.fill_buf().map_err(failed)?;
            let len = bytes.len();
            if len == 0 || bytes.iter().any(|byte| *byte != 0) {
                return Ok(len == 0);
            }
            self.input.consume(len);
        }
    }

    /// How large the file is, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where the next record begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// An error at this file.
    pub(super) fn damaged(&self, offset: u64, fault: impl Into<String>) -> OpenError {
        OpenError::Damaged { file: self.path.clone(), offset, fault: fault.into() }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), OpenError> {
        let failed = |source: io::Error| OpenError::Io { path: self.path.clone(), doing: "read", source };
        self.input.read_exact(buffer).map_err(failed)?;
        self.offset += buffer.len() as u64;
        Ok(())
    }
}
