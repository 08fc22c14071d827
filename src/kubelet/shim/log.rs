//! The log of one run: records in the format of Kubernetes' container logs, `TIME STREAM TAG TEXT`, in files that never get too large.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost_types::Timestamp;

use super::lines::Tag;
use super::log_files::{LogFile, LogLimits, log_files};
use crate::kubelet::os::{Host, Os};

/// What is written with one call: more is of no use.
const BATCH: usize = 32 * 1024;

/// A log that is written. A disk that takes nothing holds nobody up: what is lost then is counted, and said when there is room again.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    present: LogFile,
    limits: LogLimits,
    file: File,
    /// Of the present file, in bytes.
    size: u64,
    /// Of the last file of this run that became full.
    number: u32,
    loss: Option<Loss>,
}

#[derive(Debug)]
struct Loss {
    bytes: u64,
    why: String,
}

/// From which of its two outputs a container's words come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

impl Log {
    /// Opens the log of a run, and removes what is too old of the container's others.
    pub(super) fn open(folder: &Path, attempt: u32, limits: LogLimits) -> io::Result<Self> {
        let present = LogFile::present(attempt);
        let file = create(folder, present)?;
        let size = file.metadata()?.len();
        let log = Self { folder: folder.to_owned(), present, limits, file, size, number: 0, loss: None };
        log.prune()?;
        Ok(log)
    }

    /// Adds one record. It is written with the next [`Log::flush`]; `batch` keeps what is not written yet and belongs to no other log meanwhile.
    pub(super) fn add(&mut self, batch: &mut Vec<u8>, time: &str, source: Source, tag: Tag, text: &[u8]) {
        let length = PREFIX + text.len() + 1;
        let before = self.size + batch.len() as u64;
        if before > 0 && before + length as u64 > self.limits.max_bytes {
            self.flush(batch);
            if self.size > 0
                && let Err(error) = self.rotate()
            {
                return self.lose(text.len() as u64 + u64::from(tag == Tag::Full), &error);
            }
        }
        write_record(batch, time, source, tag, text);
        if batch.len() >= BATCH {
            self.flush(batch);
        }
    }

    /// Writes what was added, and before it what was lost.
    pub(super) fn flush(&mut self, batch: &mut Vec<u8>) {
        if !batch.is_empty() {
            match self.find_file().and_then(|()| self.tell_loss(&batch[..PREFIX_TIME])) {
                Ok(()) => self.write(batch),
                Err(error) => self.lose(text_bytes(batch), &error),
            }
            batch.clear();
        }
    }

    /// True if something was lost and could not be said yet.
    pub(super) fn has_loss(&self) -> bool {
        self.loss.is_some()
    }

    /// What was lost and could not be said, for people.
    pub(super) fn loss(&self) -> Option<String> {
        self.loss.as_ref().map(|loss| format!("{} bytes of output were lost: {}", loss.bytes, loss.why))
    }

    /// Says what was lost, if there is room by now.
    pub(super) fn tell(&mut self, time: &str) {
        if let Err(error) = self.tell_loss(time.as_bytes()) {
            self.lose(0, &error);
        }
    }

    /// Begins a new file if somebody has removed the present one, or given it another name: what would be written there nobody would find.
    fn find_file(&mut self) -> io::Result<()> {
        if self.present.path(&self.folder).try_exists()? {
            return Ok(());
        }
        // As if it had become full: whoever has read it looks for the next one.
        self.number = self.next_number()?;
        self.file = create(&self.folder, self.present)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    fn tell_loss(&mut self, time: &[u8]) -> io::Result<()> {
        let Some(loss) = self.loss() else { return Ok(()) };
        let text = format!("bluebird: {loss}");
        let mut record = Vec::new();
        write_record(&mut record, &String::from_utf8_lossy(time), Source::Stderr, Tag::Full, text.as_bytes());
        if self.size > 0 && self.size + record.len() as u64 > self.limits.max_bytes {
            self.rotate()?;
        }
        self.append(&record).map_err(|(_, error)| error)?;
        self.loss = None;
        Ok(())
    }

    fn write(&mut self, batch: &[u8]) {
        if let Err((written, error)) = self.append(batch) {
            self.lose(text_bytes(&batch[written..]), &error);
        }
    }

    /// Appends whole records. Those that were written when it fails stay; it gives their length.
    fn append(&mut self, records: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < records.len() {
            match self.file.write(&records[done..]) {
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // A record that was torn would spoil the next one.
                    let whole = memchr::memrchr(b'\n', &records[..done]).map_or(0, |end| end + 1);
                    self.size += whole as u64;
                    let cut = if whole < done { self.file.set_len(self.size) } else { Ok(()) };
                    return Err((whole, cut.err().unwrap_or(error)));
                }
            }
        }
        self.size += records.len() as u64;
        Ok(())
    }

    fn lose(&mut self, bytes: u64, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "no space left on device".to_owned(),
            _ => error.to_string(),
        };
        let before = self.loss.as_ref().map_or(0, |loss| loss.bytes);
        self.loss = Some(Loss { bytes: before + bytes, why });
    }

    /// Begins a new file.
    fn rotate(&mut self) -> io::Result<()> {
        let number = self.next_number()?;
        let full = LogFile { attempt: self.present.attempt, number };
        match std::fs::rename(self.present.path(&self.folder), full.path(&self.folder)) {
            // Somebody has removed it, or the disk was full when it was to be made.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.number = number,
        }
        self.prune()?;
        self.file = create(&self.folder, self.present)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    /// Which number the present file gets when it is full.
    fn next_number(&self) -> io::Result<u32> {
        let known = log_files(&self.folder)?.into_iter().filter(|file| file.attempt == self.present.attempt && *file != self.present);
        Ok(known.map(|file| file.number).max().unwrap_or(0).max(self.number) + 1)
    }

    /// Keeps the newest files only, of which the present one is one.
    fn prune(&self) -> io::Result<()> {
        let mut others = log_files(&self.folder)?;
        others.retain(|file| *file != self.present);
        let too_many = (others.len() + 1).saturating_sub(self.limits.max_files as usize);
        for file in others.into_iter().take(too_many) {
            match std::fs::remove_file(file.path(&self.folder)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `2026-11-21T15:59:08.123456789Z`
const PREFIX_TIME: usize = 30;
/// All that stands before the text.
const PREFIX: usize = PREFIX_TIME + " stdout F ".len();
/// Where the tag stands.
const TAG: usize = PREFIX - 2;

/// A point in time as it stands in a log.
pub(super) fn stamp(now: &Timestamp) -> String {
    let seconds = Timestamp { seconds: now.seconds, nanos: 0 }.to_string();
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), now.nanos)
}

fn write_record(batch: &mut Vec<u8>, time: &str, source: Source, tag: Tag, text: &[u8]) {
    batch.extend_from_slice(time.as_bytes());
    batch.extend_from_slice(match source {
        Source::Stdout => b" stdout ",
        Source::Stderr => b" stderr ",
    });
    batch.extend_from_slice(match tag {
        Tag::Partial => b"P ",
        Tag::Full => b"F ",
    });
    batch.extend_from_slice(text);
    batch.push(b'\n');
}

/// How many bytes of output there are in these records.
fn text_bytes(records: &[u8]) -> u64 {
    let lines = records.split_inclusive(|byte| *byte == b'\n');
    // The newline of a record's own stands for that of a full line.
    lines.map(|line| line.len().saturating_sub(PREFIX + usize::from(line.get(TAG) == Some(&b'P'))) as u64).sum()
}

fn create(folder: &Path, file: LogFile) -> io::Result<File> {
    Host::make_private_folder(folder)?;
    OpenOptions::new().create(true).append(true).open(file.path(folder))
}

#[cfg(test)]
mod tests;
