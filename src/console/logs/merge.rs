//! Several logs as one, in the order of their times. What one container wrote stays in the order in which it did.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::v1::LogsResponse;

/// How long a line of one log waits for older ones of others, and how long others wait for the end of a line that was begun: two nodes are
/// so far apart at most when nothing is wrong.
const LATE: Duration = Duration::from_millis(300);

/// How long the time is that each line begins with.
const TIME: usize = 30;

/// The logs that are merged, as far as they came and were not written yet.
#[derive(Debug)]
pub(super) struct Merge<T> {
    sources: BTreeMap<u64, Source<T>>,
    /// Which log's line was begun and not ended, and when.
    open: Option<(u64, Instant)>,
    timestamps: bool,
    /// There were several logs: lines that were not ended are.
    has_several: bool,
}

/// One log. A piece at a time is held of it; its ticket is dropped when it is written.
#[derive(Debug)]
struct Source<T> {
    prefix: String,
    piece: Option<(Vec<u8>, T)>,
    /// So much of the piece is written.
    written: usize,
    /// Since when its first line waits.
    since: Instant,
    /// The time of the line that comes next, or that was begun.
    time: [u8; TIME],
    in_line: bool,
    gap: Option<String>,
    /// Everything that was written has come: it may be quiet for long.
    is_live: bool,
    is_over: bool,
}

/// What can be done now.
enum Step {
    /// Write the next line, or the next part of it, of this log.
    Write(u64),
    /// End the line that was begun.
    EndLine,
    /// Nothing before this time, or before something comes.
    Wait(Option<Instant>),
}

impl<T> Merge<T> {
    pub(super) fn new(timestamps: bool) -> Self {
        Self { sources: BTreeMap::new(), open: None, timestamps, has_several: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// One log more, of which each line is written with a prefix.
    pub(super) fn add(&mut self, id: u64, prefix: String, now: Instant) {
        let (piece, gap, time) = (None, None, [b'0'; TIME]);
        let source = Source { prefix, piece, written: 0, since: now, time, in_line: false, gap, is_live: false, is_over: false };
        self.sources.insert(id, source);
        self.has_several |= self.sources.len() > 1;
    }

    /// The next piece of a log; the one before it is written.
    pub(super) fn piece(&mut self, id: u64, piece: LogsResponse, ticket: T, now: Instant) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.gap = piece.gap.map(|gap| gap.message).or(source.gap.take());
        source.is_live |= piece.data.is_empty();
        if !piece.data.is_empty() {
            (source.piece, source.written, source.since) = (Some((piece.data, ticket)), 0, now);
            source.look_at_time();
        }
    }

    /// Nobody waits for a log whose connection broke.
    pub(super) fn broken(&mut self, id: u64) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.is_live = true;
        }
    }

    /// Nothing more comes of a log.
    pub(super) fn over(&mut self, id: u64) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.is_over = true;
        }
    }

    /// Writes all that may be written now. Gives when there may be more even if nothing comes.
    pub(super) fn write(&mut self, now: Instant, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Option<Instant>> {
        loop {
            match self.step(now) {
                Step::Write(id) => self.write_line(id, now, out, err)?,
                Step::EndLine => {
                    self.open = None;
                    out.write_all(b"\n")?;
                }
                Step::Wait(until) => return Ok(until),
            }
        }
    }

    fn step(&mut self, now: Instant) -> Step {
        let open = self.open.map(|(open, _)| open);
        self.sources.retain(|id, source| !source.is_over || source.piece.is_some() || open == Some(*id));
        if let Some((id, since)) = self.open {
            return match self.sources.get(&id) {
                Some(source) if source.piece.is_some() => Step::Write(id),
                Some(source) if source.is_over && !self.has_several => {
                    self.open = None;
                    self.step(now)
                }
                Some(source) if source.is_over || now >= since + LATE && source.is_live && self.has_several => Step::EndLine,
                Some(source) if source.is_live && self.has_several => Step::Wait(Some(since + LATE)),
                _ => Step::Wait(None),
            };
        }
        let first = self.sources.iter().filter(|(_, source)| source.piece.is_some()).min_by_key(|(_, source)| source.time);
        let Some((id, first)) = first else { return Step::Wait(None) };
        let quiet: Vec<_> = self.sources.values().filter(|source| source.piece.is_none() && !source.is_over).collect();
        if quiet.is_empty() || now >= first.since + LATE && quiet.iter().all(|source| source.is_live) {
            return Step::Write(*id);
        }
        Step::Wait(quiet.iter().all(|source| source.is_live).then_some(first.since + LATE))
    }

    fn write_line(&mut self, id: u64, now: Instant, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        let Some((data, ticket)) = source.piece.take() else { return Ok(()) };
        let rest = &data[source.written..];
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |newline| newline + 1);
        let line = &rest[..length];
        let goes_on = self.open.take().is_some();
        source.tell_gap(err)?;
        // The end of a line that was ended already, since it took too long, is nothing to write.
        if goes_on || !source.in_line || line != b"\n" {
            if !goes_on {
                out.write_all(source.prefix.as_bytes())?;
            }
            if !goes_on && self.timestamps {
                out.write_all(&source.time)?;
                out.write_all(b" ")?;
            }
            out.write_all(if source.in_line { line } else { text_of(line) })?;
        }
        source.in_line = !line.ends_with(b"\n");
        self.open = source.in_line.then_some((id, now));
        source.tell_gap(err)?;
        source.written += length;
        if source.written < data.len() {
            source.piece = Some((data, ticket));
            source.look_at_time();
        }
        Ok(())
    }
}

impl<T> Source<T> {
    /// Says what is missing, once the line before it has ended.
    fn tell_gap(&mut self, err: &mut dyn Write) -> io::Result<()> {
        match self.gap.take_if(|_| !self.in_line) {
            Some(gap) => writeln!(err, "{}{gap}", self.prefix),
            None => Ok(()),
        }
    }

    fn look_at_time(&mut self) {
        if let Some((data, _)) = &self.piece
            && !self.in_line
            && let Some(time) = time_of(&data[self.written..])
        {
            self.time = time;
        }
    }
}

/// The time that a line begins with; `None` for one of a kubelet that doesn't tell any.
fn time_of(line: &[u8]) -> Option<[u8; TIME]> {
    let (time, rest) = line.split_first_chunk::<TIME>()?;
    (rest.starts_with(b" ") && time[10] == b'T' && time.ends_with(b"Z")).then_some(*time)
}

fn text_of(line: &[u8]) -> &[u8] {
    if time_of(line).is_some() { &line[TIME + 1..] } else { line }
}

#[cfg(test)]
mod tests;
