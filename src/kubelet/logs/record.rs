//! The lines of a log file: `TIME STREAM TAG TEXT`, as container runtimes write them for Kubernetes.
//!
//! The tag is `F` at the end of a line of output, and `P` where more of the same line follows in later records.

use prost_types::Timestamp;

/// How long a time is: `2026-11-21T15:59:08.123456789Z`, always in this form, so that times are ordered as text.
pub(super) const TIME: usize = 30;
/// What stands for the time of a line that has none.
pub(super) const NO_TIME: [u8; TIME] = *b"1970-01-01T00:00:00.000000000Z";
/// No record is longer: a text of 16 KiB and what comes before it.
pub(super) const MAX_RECORD: usize = 32 * 1024;

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record<'a> {
    /// When it was written; `None` for a line that is no record, which is passed on as it is.
    pub(super) time: Option<&'a [u8]>,
    /// Whether it ends a line of output.
    pub(super) is_full: bool,
    /// What was written, without the newline.
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a line, given without its newline. What is no record, since somebody else wrote it or a disk lost its beginning, is a text.
    pub(super) fn parse(line: &'a [u8]) -> Self {
        Self::read(line).unwrap_or(Self { time: None, is_full: true, text: line })
    }

    fn read(line: &'a [u8]) -> Option<Self> {
        let (time, rest) = line.split_at_checked(TIME)?;
        let rest = rest.strip_prefix(b" stdout ").or_else(|| rest.strip_prefix(b" stderr "))?;
        let (is_full, text) = match rest {
            [b'F', b' ', text @ ..] => (true, text),
            [b'P', b' ', text @ ..] => (false, text),
            _ => return None,
        };
        is_time(time).then_some(Self { time: Some(time), is_full, text })
    }
}

/// The form in which times are compared with those of records.
pub(super) fn time_text(time: &Timestamp) -> [u8; TIME] {
    let text = time.to_string();
    let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
    format!("{seconds}.{fraction:0<9}Z").into_bytes().try_into().unwrap_or(NO_TIME)
}

/// Whether a record may begin so whose text has not begun.
pub(super) fn is_beginning(line: &[u8]) -> bool {
    line.len() < TIME + b" stdout F ".len() && is_time(&line[..line.len().min(TIME)])
}

/// Whether it is one, as far as it goes.
fn is_time(text: &[u8]) -> bool {
    text.iter().zip(NO_TIME).all(|(letter, form)| if form.is_ascii_digit() { letter.is_ascii_digit() } else { *letter == form })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &[u8] = b"2026-11-21T15:59:08.123456789Z";

    #[test]
    fn a_record_has_a_time_a_tag_and_any_bytes() {
        let line = [AT, b" stdout F a \xff\0b"].concat();
        assert_eq!(Record::parse(&line), Record { time: Some(AT), is_full: true, text: b"a \xff\0b" });
        let line = [AT, b" stderr P "].concat();
        assert_eq!(Record::parse(&line), Record { time: Some(AT), is_full: false, text: b"" });
    }

    #[test]
    fn what_is_no_record_is_passed_on_as_it_is() {
        for rest in [&b" stdout X a"[..], b" stdout F", b" other F a", b"stdout F a", b""] {
            let line = [AT, rest].concat();
            assert_eq!(Record::parse(&line), Record { time: None, is_full: true, text: &line });
        }
        for line in [&b"just words"[..], b"", b"2026-11-21T15:59:08.12345678 Z stdout F a"] {
            assert_eq!(Record::parse(line), Record { time: None, is_full: true, text: line });
        }
    }

    #[test]
    fn times_have_one_form_and_so_are_ordered_as_text() {
        let text = |seconds, nanos| String::from_utf8(time_text(&Timestamp { seconds, nanos }).into()).unwrap();
        assert_eq!(text(0, 0).as_bytes(), NO_TIME);
        assert_eq!(text(1_795_276_748, 123_456_789), "2026-11-21T15:59:08.123456789Z");
        assert_eq!(text(1_795_276_748, 120_000_000), "2026-11-21T15:59:08.120000000Z");
        assert_eq!(text(1_795_276_748, 1), "2026-11-21T15:59:08.000000001Z");
        assert_eq!(text(-1, 999_999_999), "1969-12-31T23:59:59.999999999Z");
    }
}
