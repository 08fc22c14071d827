use tempfile::TempDir;

use super::*;

#[cfg(all(test, unix))]
mod unix;

const TIME: &str = "2026-11-21T15:59:08.123456789Z";

struct Fixture {
    folder: TempDir,
    batch: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), batch: Vec::new() }
    }

    fn open(&self, attempt: u32, max_bytes: u64, max_files: u32) -> Log {
        Log::open(self.folder.path(), attempt, LogLimits { max_bytes, max_files }).unwrap()
    }

    fn add(&mut self, log: &mut Log, text: &str) {
        log.add(&mut self.batch, TIME, Source::Stdout, Tag::Full, text.as_bytes());
    }

    /// All files, from the oldest to the newest, with what is in them.
    fn files(&self) -> Vec<(String, String)> {
        let files = log_files(self.folder.path()).unwrap().into_iter().map(|file| file.path(self.folder.path()));
        files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())).collect()
    }
}

fn record(text: &str) -> String {
    format!("{TIME} stdout F {text}\n")
}

#[test]
fn a_time_is_written_to_the_nanosecond_always_of_the_same_length() {
    for (seconds, nanos, expected) in
        [(1_795_276_748, 123_456_789, TIME), (0, 0, "1970-01-01T00:00:00.000000000Z"), (0, 5_000_000, "1970-01-01T00:00:00.005000000Z")]
    {
        assert_eq!(stamp(&Timestamp { seconds, nanos }), expected);
        assert_eq!(expected.len(), PREFIX_TIME);
    }
}

#[test]
fn a_record_says_when_where_from_and_whether_its_line_goes_on() {
    let mut fixture = Fixture::new();
    let mut log = fixture.open(0, 1000, 2);
    log.add(&mut fixture.batch, TIME, Source::Stdout, Tag::Partial, b"a ");
    log.add(&mut fixture.batch, TIME, Source::Stdout, Tag::Full, b"line");
    log.add(&mut fixture.batch, TIME, Source::Stderr, Tag::Full, b"");
    log.flush(&mut fixture.batch);
    let expected = format!("{TIME} stdout P a \n{TIME} stdout F line\n{TIME} stderr F \n");
    assert_eq!(fixture.files(), [("0.log".to_owned(), expected)]);
}

#[test]
fn a_full_file_gets_the_next_number_and_the_newest_files_stay() {
    let mut fixture = Fixture::new();
    let size = record("x").len() as u64;
    let mut log = fixture.open(0, 2 * size, 3);
    for text in "abcdefghi".chars() {
        fixture.add(&mut log, &text.to_string());
    }
    log.flush(&mut fixture.batch);
    let two = |a: &str, b: &str| record(a) + &record(b);
    let expected = [("0.log.3", two("e", "f")), ("0.log.4", two("g", "h")), ("0.log", record("i"))];
    assert_eq!(fixture.files(), expected.map(|(name, text)| (name.to_owned(), text)));

    // The next run begins a file of its own, which counts.
    drop(log);
    let mut log = fixture.open(1, 2 * size, 3);
    fixture.add(&mut log, "j");
    log.flush(&mut fixture.batch);
    let expected = [("0.log.4", two("g", "h")), ("0.log", record("i")), ("1.log", record("j"))];
    assert_eq!(fixture.files(), expected.map(|(name, text)| (name.to_owned(), text)));
}

#[test]
fn a_record_that_is_larger_than_a_file_may_be_has_one_for_itself() {
    let mut fixture = Fixture::new();
    let mut log = fixture.open(0, 50, 9);
    let long = "x".repeat(100);
    for text in [long.as_str(), "y", long.as_str()] {
        fixture.add(&mut log, text);
    }
    log.flush(&mut fixture.batch);
    let expected = [("0.log.1", record(&long)), ("0.log.2", record("y")), ("0.log", record(&long))];
    assert_eq!(fixture.files(), expected.map(|(name, text)| (name.to_owned(), text)));
}

#[test]
fn numbers_go_on_where_an_earlier_writer_of_the_run_stopped() {
    let mut fixture = Fixture::new();
    for text in ["a", "b"] {
        let mut log = fixture.open(0, 1, 9);
        fixture.add(&mut log, text);
        log.flush(&mut fixture.batch);
    }
    let expected = [("0.log.1", record("a")), ("0.log", record("b"))];
    assert_eq!(fixture.files(), expected.map(|(name, text)| (name.to_owned(), text)));
}
