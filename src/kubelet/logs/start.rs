//! Where in the log of a run to begin: so many lines before its end, or with the first line that is new enough.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use prost_types::Timestamp;

use super::files::{Files, Place};
use super::lines::{Lines, Next};
use super::record::{MAX_RECORD, Record, TIME, time_text};
use crate::api::v1::LogsRequest;
use crate::time::to_system_time;

/// How much is read at a time from the end of a file: any record fits twice.
const BLOCK: u64 = 2 * MAX_RECORD as u64;

/// By how much the time of a file may lag behind that of its last line.
const SLACK: Duration = Duration::from_secs(1);

/// An offset in a file. They are ordered as what was written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) offset: u64,
}

impl Spot {
    /// The very beginning of what a run has written.
    pub(super) fn first(attempt: u32) -> Self {
        Self { place: Place { attempt, number: 1 }, offset: 0 }
    }
}

/// Where a request says that the log of a run begins.
pub(super) fn spot(folder: &Path, files: &Files, attempt: u32, request: &LogsRequest) -> io::Result<Spot> {
    let oldest = files.of(attempt).next().map(|place| Spot { place, offset: 0 });
    let tail = request.tail_lines.map(|lines| tail(folder, files, attempt, lines)).transpose()?;
    let since = request.since_time.map(|time| since(folder, files, attempt, &time)).transpose()?;
    let shorter = tail.flatten().max(since.flatten());
    Ok(shorter.or(oldest).unwrap_or(Spot::first(attempt)))
}

/// Where the last `lines` lines of a run begin; `None` when it has no file.
fn tail(folder: &Path, files: &Files, attempt: u32, lines: u32) -> io::Result<Option<Spot>> {
    let mut sought = Sought { ends: u64::from(lines) + 1, is_first: true };
    let mut oldest = None;
    for place in files.of(attempt).rev() {
        let Some(found) = Lines::open(folder, place, 0)? else { break };
        let length = found.len()?;
        if let Some(offset) = sought.before(&mut found.file(), length)? {
            return Ok(Some(Spot { place, offset }));
        }
        oldest = Some(Spot { place, offset: 0 });
    }
    Ok(oldest)
}

/// Where the first line of a run is that is not older than `time`, or where it will be; `None` when the run has no file.
fn since(folder: &Path, files: &Files, attempt: u32, time: &Timestamp) -> io::Result<Option<Spot>> {
    let (text, newest) = (time_text(time), files.of(attempt).next_back());
    let mut end = None;
    for place in files.of(attempt) {
        let Some(mut lines) = Lines::open(folder, place, 0)? else { continue };
        // What was last written so early has nothing that is new enough, and needn't be read.
        if Some(place) != newest && lines.file().metadata()?.modified()? + SLACK < to_system_time(time) {
            continue;
        }
        let is_found = skip_older(&mut lines, &text)?;
        end = Some(Spot { place, offset: lines.offset() });
        if is_found {
            break;
        }
    }
    Ok(end)
}

/// Goes to the first line that is not older; false when there is none yet.
fn skip_older(lines: &mut Lines, since: &[u8; TIME]) -> io::Result<bool> {
    let mut begins_line = true;
    loop {
        let (bytes, is_full) = match lines.next()? {
            Next::Line(line) if begins_line && !is_older(line, since) => return Ok(true),
            Next::Line(line) => (line.len() + 1, Record::parse(line).is_full),
            Next::Part(part) => (part.len(), false),
            Next::End(_) => return Ok(false),
        };
        lines.take(bytes);
        begins_line = is_full;
    }
}

/// A line without a time is as old as the one before it, so not the first that is new enough.
fn is_older(line: &[u8], since: &[u8; TIME]) -> bool {
    Record::parse(line).time.is_none_or(|time| time < since.as_slice())
}

/// Looks for the end of the line before those that are wanted, from the end of the newest file on.
struct Sought {
    /// How many ends of lines there are yet to be found.
    ends: u64,
    /// Nothing was looked at yet.
    is_first: bool,
}

impl Sought {
    /// Where the wanted lines begin; `None` when it is not in this file.
    fn before(&mut self, file: &mut (impl Read + Seek), length: u64) -> io::Result<Option<u64>> {
        // Everything from here on was looked at.
        let mut end = length;
        let mut block = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            file.seek(SeekFrom::Start(start))?;
            block.resize((end - start) as usize, 0);
            file.read_exact(&mut block)?;
            match self.in_block(&block, start == 0) {
                Found::At(offset) => return Ok(Some(start + offset as u64)),
                Found::Before(offset) => end = start + offset as u64,
            }
        }
        Ok(None)
    }

    /// Looks through the lines that end in a block, the last one first. The block is the beginning of its file, or begins anywhere.
    fn in_block(&mut self, block: &[u8], is_beginning: bool) -> Found {
        let mut end = block.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        // A line that has no end yet counts as one. What else stands behind the last newline is of a longer line that was counted already.
        if std::mem::take(&mut self.is_first) && (end < block.len() || !last_line(&block[..end]).1.is_full) {
            self.ends -= 1;
        }
        if self.ends == 0 {
            return Found::At(end);
        }
        while end > 0 {
            let (start, record) = last_line(&block[..end]);
            if start == 0 && !is_beginning && end < MAX_RECORD {
                return Found::Before(end);
            }
            self.ends -= u64::from(record.is_full);
            if self.ends == 0 {
                return Found::At(end);
            }
            end = start;
        }
        Found::Before(0)
    }
}

/// What a block has.
enum Found {
    /// The wanted lines begin there.
    At(usize),
    /// They begin before this.
    Before(usize),
}

/// The last of some lines that end with a newline, and where it begins; a full one if there is none.
fn last_line(lines: &[u8]) -> (usize, Record<'_>) {
    let Some(text) = lines.strip_suffix(b"\n") else { return (0, Record::parse(b"")) };
    let start = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (start, Record::parse(&text[start..]))
}
