//! A log file, line by line, in bounded memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use same_file::Handle;

use super::files::{Files, Place};
use super::record::{MAX_RECORD, TIME};

/// How often a file is opened that is renamed just then.
const TRIES: usize = 100;

/// What comes next in a file.
#[derive(Debug, PartialEq)]
pub(super) enum Next<'a> {
    /// A line, without its newline.
    Line(&'a [u8]),
    /// The beginning or the middle of a line that is longer than any record.
    Part(&'a [u8]),
    /// Nothing for now, besides the beginning of a line.
    End(&'a [u8]),
}

/// An open file. It can be read to its end also after it was renamed or removed.
#[derive(Debug)]
pub(super) struct Lines {
    handle: Handle,
    /// What was read of it, of which everything before `taken` was taken.
    buffer: Vec<u8>,
    taken: usize,
    /// Where in the file the buffer's untaken part begins.
    offset: u64,
}

impl Lines {
    /// Opens a file to read it from an offset on; `None` when it is gone.
    pub(super) fn open(folder: &Path, place: Place, offset: u64) -> io::Result<Option<Self>> {
        let Some(handle) = open(folder, place)? else { return Ok(None) };
        let mut lines = Self { handle, buffer: Vec::new(), taken: 0, offset: 0 };
        lines.seek(offset)?;
        Ok(Some(lines))
    }

    /// Goes on from there.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.file().seek(SeekFrom::Start(offset))?;
        self.buffer.clear();
        (self.taken, self.offset) = (0, offset);
        Ok(())
    }

    /// Where the next line begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What comes next, until it is taken.
    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        loop {
            let untaken = &self.buffer[self.taken..];
            if let Some(length) = untaken.iter().position(|byte| *byte == b'\n') {
                return Ok(Next::Line(&self.buffer[self.taken..][..length]));
            }
            if untaken.len() >= MAX_RECORD {
                return Ok(Next::Part(&self.buffer[self.taken..]));
            }
            if !self.fill()? {
                return Ok(Next::End(&self.buffer[self.taken..]));
            }
        }
    }

    /// Goes on behind so many bytes.
    pub(super) fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        self.offset += bytes as u64;
    }

    /// Up to where the file was read.
    pub(super) fn end(&self) -> u64 {
        self.offset + (self.buffer.len() - self.taken) as u64
    }

    /// How long the file is now.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file().metadata()?.len())
    }

    /// A checksum of the file's beginning, by which it is known again; `None` while it is too short.
    pub(super) fn mark(&mut self) -> io::Result<Option<u32>> {
        let mut beginning = [0; TIME];
        let is_there = self.len()? >= TIME as u64;
        if is_there {
            self.file().seek(SeekFrom::Start(0))?;
            self.file().read_exact(&mut beginning)?;
            self.file().seek(SeekFrom::Start(self.end()))?;
        }
        Ok(is_there.then(|| crc32fast::hash(&beginning)))
    }

    /// Whether a line begins where this stands.
    pub(super) fn is_at_a_line(&mut self) -> io::Result<bool> {
        if self.offset == 0 || self.offset > self.len()? {
            return Ok(self.offset == 0);
        }
        let mut before = [0];
        self.file().seek(SeekFrom::Start(self.offset - 1))?;
        self.file().read_exact(&mut before)?;
        self.file().seek(SeekFrom::Start(self.end()))?;
        Ok(before == *b"\n")
    }

    /// Whether the file has this name now; `None` when nothing has it.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<Option<bool>> {
        match Handle::from_path(path) {
            Ok(there) => Ok(Some(there == self.handle)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads more; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + MAX_RECORD, 0);
        let read = self.handle.as_file_mut().read(&mut self.buffer[filled..]);
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }

    pub(super) fn file(&self) -> &File {
        self.handle.as_file()
    }
}

/// Opens the file of a place, whatever its name is; `None` when it is gone.
fn open(folder: &Path, place: Place) -> io::Result<Option<Handle>> {
    for _ in 0..TRIES {
        let path = Files::list(folder, Some(place))?.path(place);
        let opened = Handle::from_path(&path);
        let files = Files::list(folder, Some(place))?;
        // Renamed in between, it may have been opened or the one after it.
        if files.path(place) != path {
            continue;
        }
        match opened {
            Ok(handle) if files.has(place) => return Ok(Some(handle)),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound && files.has(place) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("the log files in {} are renamed faster than they can be opened", folder.display())))
}
