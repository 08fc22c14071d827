//! Spans of time as people write and read them.

use std::time::Duration;

use prost_types::Timestamp;

use crate::time::elapsed;

/// How long ago something was, as kubectl shows it; `<unknown>` if it has no time.
pub(super) fn age(then: Option<&Timestamp>, now: &Timestamp) -> String {
    then.map_or_else(|| "<unknown>".to_owned(), |then| short(elapsed(then, now)))
}

/// At most two units, and only as exact as matters at that length.
pub(super) fn short(span: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;
    let seconds = span.as_secs();
    let two = |unit: u64, name: &str, next: u64, next_name: &str| match seconds % unit / next {
        0 => format!("{}{name}", seconds / unit),
        rest => format!("{}{name}{rest}{next_name}", seconds / unit),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(DAY, "d", HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// Reads `90s`, `5m`, `1h30m` or `500ms`; a number alone is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time; write for instance 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| digits + length);
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let millis = match &rest[digits..unit_end] {
            "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let span = millis.and_then(|millis| number.checked_mul(millis)).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(span).ok_or_else(wrong)?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_in_kubectl() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (3_600, "60m"),
            (10_860, "3h1m"),
            (36_000, "10h"),
            (190_800, "2d5h"),
            (864_000, "10d"),
            (70_000_000, "2y80d"),
            (300_000_000, "9y"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(age(None, &Timestamp::default()), "<unknown>");
    }

    #[test]
    fn spans_of_time_are_read_with_their_units() {
        for (text, millis) in [("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("7", 7_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5x", "5m6", "-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
