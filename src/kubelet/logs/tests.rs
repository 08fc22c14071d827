use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use prost_types::Timestamp;
use tempfile::TempDir;

use super::reader::Reader;
use super::record::time_text;
use crate::api::v1::{LogPosition, LogsRequest};

mod chance;

#[cfg(all(test, unix))]
mod unix;

/// A container's log as a shim writes it.
struct Log {
    folder: TempDir,
    attempt: u32,
    /// How many files of this run are full.
    full: u64,
    /// The seconds since 1970.
    now: i64,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), attempt: 0, full: 0, now: 1_795_276_800 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.attempt))
    }

    fn write(&mut self, text: &[u8]) {
        File::options().create(true).append(true).open(self.path()).unwrap().write_all(text).unwrap();
    }

    fn record(&mut self, tag: char, text: &[u8]) {
        let time = time_text(&Timestamp { seconds: self.now, nanos: 5 });
        let time = std::str::from_utf8(&time).unwrap();
        self.write(&[format!("{time} stdout {tag} ").as_bytes(), text, b"\n"].concat());
    }

    fn line(&mut self, text: &str) {
        self.record('F', text.as_bytes());
    }

    fn rotate(&mut self) {
        self.full += 1;
        fs::rename(self.path(), self.folder.path().join(format!("{}.log.{}", self.attempt, self.full))).unwrap();
    }

    fn restart(&mut self) {
        self.attempt += 1;
        self.full = 0;
        self.write(b"");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    fn begin(&self, request: LogsRequest) -> Reader {
        Reader::begin(self.folder.path().to_owned(), self.attempt, &request).unwrap()
    }

    fn follow(&self) -> Reader {
        self.begin(LogsRequest { follow: true, ..Default::default() })
    }

    fn resume(&self, after: LogPosition) -> Reader {
        self.begin(LogsRequest { follow: true, after: Some(after), ..Default::default() })
    }

    /// Everything that a request is answered with.
    fn read(&self, request: LogsRequest) -> String {
        let mut reader = self.begin(request);
        let mut text = drain(&mut reader);
        text.extend(reader.finish().unwrap().map(|rest| String::from_utf8(rest.data).unwrap()));
        text
    }

    fn tail(&self, lines: u32) -> String {
        self.read(LogsRequest { tail_lines: Some(lines), ..Default::default() })
    }
}

/// What there is to be read now. `[gap]` stands where something is missing.
fn drain(reader: &mut Reader) -> String {
    let mut text = String::new();
    while let Some(piece) = reader.read().unwrap() {
        assert!(piece.data.len() <= super::MAX_PIECE);
        let data = String::from_utf8(piece.data).unwrap();
        match (piece.gap, data.strip_prefix('\n')) {
            (None, _) => text.push_str(&data),
            (Some(_), Some(rest)) => text.push_str(&format!("\n[gap]{rest}")),
            (Some(_), None) => text.push_str(&format!("[gap]{data}")),
        }
    }
    text
}

/// Three files of a run, and one of the run before.
fn rotated() -> Log {
    let mut log = Log::new();
    log.line("old");
    log.restart();
    for (number, line) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        log.line(line);
        log.now += 10;
        if number % 2 == 1 {
            log.rotate();
        }
    }
    log
}

#[test]
fn a_log_is_read_over_its_files() {
    let log = rotated();
    assert_eq!(log.read(LogsRequest::default()), "a\nb\nc\nd\ne\nf\n");
    let times = log.read(LogsRequest { timestamps: true, tail_lines: Some(2), ..Default::default() });
    assert_eq!(times, "2026-11-21T16:00:40.000000005Z e\n2026-11-21T16:00:50.000000005Z f\n");
}

#[test]
fn a_tail_is_read_from_the_end_over_files() {
    let mut log = rotated();
    for (lines, expected) in [(0, ""), (1, "f\n"), (2, "e\nf\n"), (3, "d\ne\nf\n"), (6, "a\nb\nc\nd\ne\nf\n"), (99, "a\nb\nc\nd\ne\nf\n")] {
        assert_eq!(log.tail(lines), expected);
    }
    log.remove("1.log.1");
    assert_eq!(log.tail(99), "c\nd\ne\nf\n");
    log.write(b"half a li");
    assert_eq!((log.tail(1).as_str(), log.tail(2).as_str()), ("half a li", "f\nhalf a li"));
}

#[test]
fn a_tail_counts_lines_and_not_their_pieces() {
    let mut log = Log::new();
    let long = "x".repeat(16 * 1024);
    log.line("first");
    for _ in 0..40 {
        log.record('P', long.as_bytes());
    }
    log.line("end of long");
    log.line("last");
    let whole = format!("{}end of long\nlast\n", long.repeat(40));
    assert_eq!(log.tail(1), "last\n");
    assert!(log.tail(2) == whole && log.tail(3) == format!("first\n{whole}"));
    log.record('P', b"begun");
    assert_eq!(log.tail(1), "begun");
    assert_eq!(log.tail(2), "last\nbegun");
}

#[test]
fn a_tail_comes_over_what_is_no_record_however_long() {
    let mut log = Log::new();
    let long = "y".repeat(300_000);
    log.line("first");
    log.write(format!("{long}\n").as_bytes());
    log.line("last");
    assert_eq!(log.tail(1), "last\n");
    assert!(log.tail(2) == format!("{long}\nlast\n"));
    assert!(log.tail(3) == format!("first\n{long}\nlast\n"));
}

#[test]
fn a_log_begins_with_the_first_line_that_is_new_enough_and_goes_on_as_it_was_written() {
    let mut log = rotated();
    let began = log.now - 60;
    // The clock is set back by an hour.
    log.now -= 3_600;
    log.line("g");
    let since = |seconds, nanos| log.read(LogsRequest { since_time: Some(Timestamp { seconds, nanos }), ..Default::default() });
    assert_eq!(since(began, 0), "a\nb\nc\nd\ne\nf\ng\n");
    assert_eq!(since(began, 6), "b\nc\nd\ne\nf\ng\n");
    assert_eq!(since(began + 20, 5), "c\nd\ne\nf\ng\n");
    assert_eq!(since(began + 25, 0), "d\ne\nf\ng\n");
    assert_eq!(since(began + 50, 0), "f\ng\n");
    assert_eq!(since(began + 500, 0), "");
    let both = LogsRequest { since_time: Some(Timestamp { seconds: began + 25, nanos: 0 }), tail_lines: Some(3), ..Default::default() };
    assert_eq!(log.read(both.clone()), "e\nf\ng\n");
    assert_eq!(log.read(LogsRequest { tail_lines: Some(99), ..both }), "d\ne\nf\ng\n");
}

#[test]
fn a_line_in_pieces_is_one_line_with_one_time() {
    let mut log = Log::new();
    log.record('P', b"one ");
    log.rotate();
    log.record('P', b"two ");
    log.record('F', b"three");
    log.record('P', b"open");
    let request = LogsRequest { timestamps: true, ..Default::default() };
    assert_eq!(log.read(request), "2026-11-21T16:00:00.000000005Z one two three\n2026-11-21T16:00:00.000000005Z open");
}

#[test]
fn bytes_are_kept_as_they_are() {
    let mut log = Log::new();
    let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    log.record('F', &bytes);
    let mut reader = log.begin(LogsRequest::default());
    assert_eq!(reader.read().unwrap().unwrap().data, [&bytes[..], b"\n"].concat());
    assert_eq!(reader.read().unwrap(), None);
}

#[test]
fn a_follower_goes_on_over_rotations_and_runs() {
    let mut log = Log::new();
    let mut reader = log.follow();
    assert_eq!(drain(&mut reader), "");
    log.line("a");
    assert_eq!(drain(&mut reader), "a\n");
    log.line("b");
    log.rotate();
    log.line("c");
    log.rotate();
    log.line("d");
    assert_eq!(drain(&mut reader), "b\nc\nd\n");
    log.record('P', b"begun");
    log.restart();
    assert_eq!(drain(&mut reader), "begun\n");
    log.line("e");
    log.rotate();
    assert_eq!(drain(&mut reader), "e\n");
}

#[test]
fn without_follow_a_log_ends_where_it_ended_when_it_was_asked_for() {
    let mut log = Log::new();
    log.line("a");
    let mut reader = log.begin(LogsRequest::default());
    log.line("b");
    log.rotate();
    log.line("c");
    // What is in the same file may come with it, and nothing else.
    assert_eq!(drain(&mut reader).strip_prefix("a\n").map(|rest| rest == "b\n" || rest.is_empty()), Some(true));
    assert_eq!(reader.finish().unwrap(), None);
}

#[test]
fn a_run_of_which_nothing_was_read_may_have_lost_its_first_files() {
    let mut log = Log::new();
    log.write(b"");
    let empty = log.follow().position();
    assert_eq!(drain(&mut log.resume(empty)), "");
    log.restart();
    log.line("a");
    assert_eq!(drain(&mut log.resume(empty)), "a\n");
    fs::write(log.folder.path().join("0.log"), "the first or a later one\n").unwrap();
    assert_eq!(drain(&mut log.resume(empty)), "[gap]the first or a later one\na\n");
}

#[test]
fn a_file_that_somebody_has_cut_short_is_a_gap() {
    let mut log = Log::new();
    log.line("a");
    log.line("b");
    let mut reader = log.follow();
    assert_eq!(drain(&mut reader), "a\nb\n");
    let position = reader.position();
    fs::write(log.path(), "").unwrap();
    log.now += 1;
    log.line("c");
    assert_eq!(drain(&mut reader), "[gap]c\n");
    log.line("d");
    assert_eq!(drain(&mut log.resume(position)), "[gap]c\nd\n", "though it is as long as before");
    fs::write(log.path(), "").unwrap();
    log.line("c");
    assert_eq!(drain(&mut log.resume(position)), "[gap]c\n");
    fs::write(log.path(), "some other words that are longer\n").unwrap();
    assert_eq!(drain(&mut log.resume(LogPosition { offset: 3, ..position })), "[gap]some other words that are longer\n");
}

#[test]
fn half_a_record_that_its_writer_takes_back_is_no_gap() {
    let mut log = Log::new();
    log.line("a");
    let length = fs::metadata(log.path()).unwrap().len();
    log.write(b"2026-11-21T16:00:00.000000005Z stdout F ha");
    let mut reader = log.follow();
    assert_eq!(drain(&mut reader), "a\n");
    File::options().write(true).open(log.path()).unwrap().set_len(length).unwrap();
    assert_eq!(drain(&mut reader), "");
    log.line("b");
    assert_eq!(drain(&mut reader), "b\n");
}

#[test]
fn files_that_were_removed_before_a_reader_came_do_not_make_it_read_twice() {
    let mut log = rotated();
    for name in ["1.log.1", "1.log.2", "1.log.3"] {
        log.remove(name);
    }
    log.line("g");
    let mut reader = log.follow();
    assert_eq!(drain(&mut reader), "g\n");
    log.line("h");
    log.rotate();
    log.line("i");
    assert_eq!(drain(&mut reader), "h\ni\n");
}

#[test]
fn a_record_is_read_when_it_is_whole() {
    let mut log = Log::new();
    log.line("a");
    let mut reader = log.follow();
    log.write(b"2026-11-21T16:00:00.000000005Z std");
    assert_eq!(drain(&mut reader), "a\n");
    assert_eq!(reader.finish().unwrap(), None);
    log.write(b"out F b\n");
    assert_eq!(drain(&mut reader), "b\n");
}

#[test]
fn the_log_of_a_container_that_never_ran_is_empty() {
    let nowhere = Path::new("/nowhere/at/all").to_owned();
    for follow in [false, true] {
        let mut reader = Reader::begin(nowhere.clone(), 0, &LogsRequest { follow, tail_lines: Some(3), ..Default::default() }).unwrap();
        assert_eq!(reader.read().unwrap(), None);
        assert_eq!(reader.position(), LogPosition { attempt: 0, file: 1, ..Default::default() });
    }
}

#[test]
fn files_that_were_last_written_too_early_are_not_read() {
    let log = rotated();
    // What is in them is not looked at, so that it shows.
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    for number in 1..=2 {
        let file = File::options().append(true).open(log.folder.path().join(format!("1.log.{number}"))).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let since_time = Some(Timestamp { seconds: log.now - 60, nanos: 0 });
    assert_eq!(log.read(LogsRequest { since_time, ..Default::default() }), "e\nf\n");
}
