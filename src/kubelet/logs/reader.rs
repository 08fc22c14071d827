//! Reads the log of a container on and on, over its files and runs, and knows at each moment where it is.

use std::io;
use std::path::{Path, PathBuf};

use super::MAX_PIECE;
use super::files::{Files, Place};
use super::lines::{Lines, Next};
use super::record::{NO_TIME, Record, TIME, is_beginning};
use super::start::{self, Spot};
use crate::api::v1::{LogGap, LogPosition, LogsRequest, LogsResponse};

/// What gaps are said to be.
const CHANGED: &str = "a log file was cut short or replaced by somebody else: lines may be missing here";
const REMOVED: &str = "older log files were removed before they were read: lines may be missing here";

/// Reads one container's log.
#[derive(Debug)]
pub(super) struct Reader {
    folder: PathBuf,
    at: Spot,
    /// By which the file of `at` is known again, once it is.
    mark: Option<u32>,
    /// The file of `at`, once it is there.
    lines: Option<Lines>,
    /// What was written after that file, seen after all of it had been read: so what was written last to it is still to be read.
    successor: Option<Successor>,
    output: Output,
    /// A newline comes before anything else.
    ends_line: bool,
    /// What is missing before the next piece.
    gap: Option<&'static str>,
    /// Not to be read beyond.
    limit: Option<Spot>,
}

/// The file to read after another one.
#[derive(Clone, Copy, Debug)]
struct Successor {
    place: Place,
    is_gap: bool,
}

impl Reader {
    /// Begins in the log of a run where a request says. Without `follow` what is written from now on is not read.
    pub(super) fn begin(folder: PathBuf, attempt: u32, request: &LogsRequest) -> io::Result<Self> {
        let files = Files::list(&folder, None)?;
        let at = match &request.after {
            Some(after) => Spot { place: Place { attempt: after.attempt, number: after.file }, offset: after.offset },
            None => start::spot(&folder, &files, attempt, request)?,
        };
        let limit = if request.follow { None } else { Some(end_of(&folder, at.place.attempt, &files)?) };
        let gap = if let Some(after) = &request.after { doubt(&folder, after, &files)? } else { None };
        let mark = request.after.map(|after| after.mark).filter(|mark| *mark != 0);
        let in_line = request.after.is_some_and(|after| after.in_line);
        let output = Output { timestamps: request.timestamps, in_line, time: NO_TIME };
        Ok(Self { folder, at, mark, lines: None, successor: None, output, ends_line: false, gap, limit })
    }

    /// Where it stands: what is read next goes on from there.
    pub(super) fn position(&self) -> LogPosition {
        let Spot { place, offset } = self.at;
        let mark = self.mark.unwrap_or_default();
        LogPosition { attempt: place.attempt, file: place.number, offset, in_line: self.output.in_line, mark }
    }

    /// The next piece; `None` when there is nothing more for now, or up to the limit.
    pub(super) fn read(&mut self) -> io::Result<Option<LogsResponse>> {
        while !self.is_at_limit() {
            if self.lines.is_none() {
                match self.open()? {
                    true => continue,
                    false => return Ok(None),
                }
            }
            let data = self.take_lines()?;
            if self.mark.is_none()
                && let Some(lines) = &mut self.lines
            {
                self.mark = lines.mark()?;
            }
            if !data.is_empty() || self.gap.is_some() {
                return Ok(Some(self.piece(data)));
            }
            if self.was_cut_short()? {
                continue;
            }
            match self.successor {
                // Read once more: what was written before the successor began is read after that was seen.
                None => match self.find_successor()? {
                    Some(successor) => self.successor = Some(successor),
                    None => return Ok(None),
                },
                Some(successor) => match self.rest()? {
                    rest if rest.is_empty() => self.go_on_with(successor),
                    rest => return Ok(Some(self.piece(rest))),
                },
            }
        }
        Ok(None)
    }

    /// What stands at the end of a log that nothing more will be read of, without having been ended.
    pub(super) fn finish(&mut self) -> io::Result<Option<LogsResponse>> {
        let rest = if self.is_at_limit() { Vec::new() } else { self.rest()? };
        Ok((!rest.is_empty()).then(|| self.piece(rest)))
    }

    fn is_at_limit(&self) -> bool {
        self.limit.is_some_and(|limit| self.at >= limit)
    }

    fn piece(&mut self, data: Vec<u8>) -> LogsResponse {
        let gap = self.gap.take().map(|message| LogGap { message: message.to_owned() });
        LogsResponse { data, position: Some(self.position()), gap }
    }

    /// Opens the file to read, or the first one after it; false when there is none yet.
    fn open(&mut self) -> io::Result<bool> {
        let wanted = self.at.place;
        let files = Files::list(&self.folder, Some(wanted))?;
        let Some(place) = files.places().find(|place| *place >= wanted) else { return Ok(false) };
        if place != wanted {
            self.go_on_with(Successor { place, is_gap: true });
        }
        // If it is gone meanwhile there is another one to be found.
        let Some(mut lines) = Lines::open(&self.folder, place, self.at.offset)? else { return Ok(true) };
        let mark = lines.mark()?;
        let is_the_same = lines.is_at_a_line()? && (self.mark.is_none() || self.mark == mark);
        (self.lines, self.mark) = (Some(lines), mark);
        if !is_the_same {
            self.begin_anew()?;
        }
        Ok(true)
    }

    /// As many whole records as one piece may hold, as output.
    fn take_lines(&mut self) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        if std::mem::take(&mut self.ends_line) {
            data.push(b'\n');
        }
        while let Some(lines) = &mut self.lines {
            let (record, length) = match lines.next()? {
                Next::Line(line) => (Record::parse(line), line.len() + 1),
                Next::Part(part) => (Record { time: None, is_full: false, text: part }, part.len()),
                Next::End(_) => break,
            };
            if data.len() + TIME + 1 + record.text.len() + 1 > MAX_PIECE {
                break;
            }
            self.output.write(&record, &mut data);
            lines.take(length);
            self.at.offset = lines.offset();
        }
        Ok(data)
    }

    /// The beginning of a line at the end of the file, as far as it is there; nothing if even its time is not.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        if let Some(lines) = &mut self.lines
            && let Next::End(rest) = lines.next()?
            && !is_beginning(rest)
        {
            let (record, length) = (Record { is_full: false, ..Record::parse(rest) }, rest.len());
            self.output.write(&record, &mut data);
            lines.take(length);
            self.at.offset = lines.offset();
        }
        Ok(data)
    }

    /// Goes back to the beginning of a file that is shorter than what was read of it.
    fn was_cut_short(&mut self) -> io::Result<bool> {
        let Some(lines) = &mut self.lines else { return Ok(false) };
        let length = lines.len()?;
        if length >= lines.end() {
            return Ok(false);
        }
        match length < lines.offset() {
            true => self.begin_anew()?,
            // Its shim has taken back a record that did not fit on the disk.
            false => lines.seek(lines.offset())?,
        }
        Ok(true)
    }

    /// Reads the file from its beginning: it is not what it was.
    fn begin_anew(&mut self) -> io::Result<()> {
        if let Some(lines) = &mut self.lines {
            lines.seek(0)?;
            self.mark = lines.mark()?;
        }
        self.at.offset = 0;
        self.lose(CHANGED);
        Ok(())
    }

    fn find_successor(&mut self) -> io::Result<Option<Successor>> {
        let Some(lines) = &self.lines else { return Ok(None) };
        let files = Files::list(&self.folder, Some(self.at.place))?;
        // Another file has its name, and it has got none with a number: whether there were more in between can't be told.
        if files.has(self.at.place) && lines.is_at(&files.path(self.at.place))? == Some(false) {
            let place = Place { number: self.at.place.number + 1, ..self.at.place };
            return Ok(Some(Successor { place, is_gap: true }));
        }
        let present = self.at.place;
        for place in files.places().filter(|place| *place > present) {
            if place.attempt != self.at.place.attempt {
                // While the last file of a run is there, so are all those of later runs.
                return Ok(Some(Successor { place, is_gap: place.number > 1 || !files.has(self.at.place) }));
            }
            // Its number could not be told when it was opened, since those before it were gone.
            if lines.is_at(&files.path(place))? == Some(true) {
                self.at.place = place;
                continue;
            }
            return Ok(Some(Successor { place, is_gap: place.number > self.at.place.number + 1 }));
        }
        Ok(None)
    }

    fn go_on_with(&mut self, successor: Successor) {
        if successor.place.attempt != self.at.place.attempt {
            self.end_line();
        }
        if successor.is_gap {
            self.lose(REMOVED);
        }
        (self.at, self.mark, self.lines, self.successor) = (Spot { place: successor.place, offset: 0 }, None, None, None);
    }

    fn lose(&mut self, what: &'static str) {
        self.end_line();
        self.gap = Some(what);
    }

    /// What was begun before a gap, or by a run that is over, is no part of what follows.
    fn end_line(&mut self) {
        self.ends_line |= std::mem::take(&mut self.output.in_line);
    }
}

/// What becomes of records.
#[derive(Debug)]
struct Output {
    timestamps: bool,
    /// A line was begun and not ended.
    in_line: bool,
    /// The time of the last record that had one.
    time: [u8; TIME],
}

impl Output {
    fn write(&mut self, record: &Record<'_>, data: &mut Vec<u8>) {
        if let Some(time) = record.time {
            self.time.copy_from_slice(time);
        }
        if self.timestamps && !self.in_line {
            data.extend(self.time);
            data.push(b' ');
        }
        data.extend(record.text);
        if record.is_full {
            data.push(b'\n');
        }
        self.in_line = !record.is_full;
    }
}

/// Of the only file that is left of a run that is over, nobody can tell whether it is the first, if nothing was read of that.
fn doubt(folder: &Path, after: &LogPosition, files: &Files) -> io::Result<Option<&'static str>> {
    let is_only_one = files.newest() > Some(after.attempt) && files.of(after.attempt).count() == 1;
    let may_be_another = after.mark == 0 && is_only_one && end_of(folder, after.attempt, files)?.offset > 0;
    Ok(may_be_another.then_some(REMOVED))
}

/// Where a run's log ends now.
fn end_of(folder: &Path, attempt: u32, files: &Files) -> io::Result<Spot> {
    let Some(place) = files.of(attempt).next_back() else { return Ok(Spot::first(attempt)) };
    let file = Lines::open(folder, place, 0)?;
    Ok(Spot { place, offset: file.map_or(Ok(u64::MAX), |file| file.len())? })
}
