use prost_types::Duration;

/// The units, in milliseconds.
const UNITS: [(&str, f64); 4] = [("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0), ("h", 3_600_000.0)];

/// A length of time as people write it: numbers with units, `90s`, `1.5s`, `1h30m`, `250ms`. It is kept to the millisecond.
pub(super) fn read(text: &str) -> Option<Duration> {
    let (mut rest, mut millis) = (text, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(number);
        let unit = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        millis += amount.parse::<f64>().ok()? * factor;
        rest = after;
    }
    let millis = (!text.is_empty() && millis < i64::MAX as f64).then_some(millis.round() as i64)?;
    Some(Duration { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_people_write_it_and_as_it_is_printed() {
        for (text, millis) in [("90s", 90_000), ("1.5s", 1_500), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("1.500s", 1_500)] {
            let read = read(text).unwrap_or_else(|| panic!("{text} is a duration"));
            assert_eq!(read.seconds * 1_000 + i64::from(read.nanos) / 1_000_000, millis, "{text}");
            assert_eq!(super::read(&read.to_string()), Some(read), "{read} as printed");
        }
        for text in ["", "5", "s", "5x", "1.2.3s", "-5s", "5 s", "99999999999999999999h"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
