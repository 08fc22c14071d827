//! Amounts in the notation of Kubernetes: `2`, `500m`, `1.5Gi`, `1e3`.

use std::fmt;

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoQuantity {
    /// It isn't a number with a known suffix.
    Malformed,
    /// It is below zero.
    Negative,
    /// It is more than 2^63 - 1 of the unit.
    TooLarge,
}

/// An amount of `cpu` in thousandths of a core: `0.5` and `500m` are 500. What is finer is rounded up.
pub fn cpu_millis(text: &str) -> Result<u64, NoQuantity> {
    parse(text)?.times(1000)
}

/// An amount of `memory` in bytes: `1Ki` is 1024. A fraction of a byte is rounded up. Also right for plain counts such as `pods`.
pub fn bytes(text: &str) -> Result<u64, NoQuantity> {
    parse(text)?.times(1)
}

impl std::error::Error for NoQuantity {}

impl fmt::Display for NoQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoQuantity::Malformed => {
                "must be a number, alone or with one of the suffixes n u m k M G T P E (powers of 1000) or Ki Mi Gi Ti Pi Ei (powers of 1024)"
            }
            NoQuantity::Negative => "must not be negative",
            NoQuantity::TooLarge => "is too large: at most 2^63 - 1",
        })
    }
}

/// `digits × 10^ten × 2^two`, exactly.
struct Amount {
    digits: u128,
    ten: i32,
    two: u32,
}

impl Amount {
    /// So many of a unit that is `1 / factor`, rounded up.
    fn times(self, factor: u128) -> Result<u64, NoQuantity> {
        if self.digits == 0 {
            return Ok(0);
        }
        let up = 10u128.checked_pow(self.ten.max(0).unsigned_abs()).ok_or(NoQuantity::TooLarge)?;
        let whole = [up, 1 << self.two, factor].into_iter().try_fold(self.digits, u128::checked_mul).ok_or(NoQuantity::TooLarge)?;
        // A divisor beyond u128 leaves less than one of any number that fits into u128.
        let rounded = 10u128.checked_pow(self.ten.min(0).unsigned_abs()).map_or(1, |down| whole.div_ceil(down));
        u64::try_from(rounded).ok().filter(|amount| *amount <= i64::MAX as u64).ok_or(NoQuantity::TooLarge)
    }
}

fn parse(text: &str) -> Result<Amount, NoQuantity> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(NoQuantity::Malformed);
    }
    let (ten, two) = scale(suffix)?;
    // Zeros at the end of the fraction say nothing and must not overflow.
    let fraction = fraction.trim_end_matches('0');
    let digits = whole.bytes().chain(fraction.bytes()).try_fold(0u128, |digits, byte| {
        digits.checked_mul(10).and_then(|digits| digits.checked_add(u128::from(byte - b'0'))).ok_or(NoQuantity::TooLarge)
    })?;
    if negative && digits != 0 {
        return Err(NoQuantity::Negative);
    }
    let places = i32::try_from(fraction.len()).map_err(|_| NoQuantity::TooLarge)?;
    Ok(Amount { digits, ten: ten - places, two })
}

/// The powers of ten and of two that a suffix stands for.
fn scale(suffix: &str) -> Result<(i32, u32), NoQuantity> {
    Ok(match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        exponent => {
            let exponent = exponent.strip_prefix(['e', 'E']).ok_or(NoQuantity::Malformed)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NoQuantity::Malformed);
            }
            (exponent.parse().map_err(|_| NoQuantity::Malformed)?, 0)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{NoQuantity, bytes, cpu_millis};

    #[test]
    fn cpu_is_read_in_thousandths() {
        for (text, millis) in [("2", 2000), ("0.5", 500), ("500m", 500), (".1", 100), ("1.", 1000), ("1k", 1_000_000), ("+1e-1", 100)] {
            assert_eq!(cpu_millis(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn memory_is_read_in_bytes() {
        for (text, expected) in [
            ("64Mi", 64 << 20),
            ("1G", 1_000_000_000),
            ("1.5Ki", 1536),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("0", 0),
            ("-0", 0),
            ("0.000", 0),
            ("1000m", 1),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_the_unit_is_rounded_up() {
        assert_eq!(cpu_millis("1n"), Ok(1));
        assert_eq!(bytes("0.1"), Ok(1));
        assert_eq!(bytes("1e-300"), Ok(1));
        assert_eq!(bytes("1.0000000000000000000001"), Ok(2));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "m", "1 Gi", "1gi", "1KB", "1.2.3", ".", "--1", "0x10", "1e", "1e1.5", "1e9999", "NaN", "١"] {
            assert_eq!(bytes(text), Err(NoQuantity::Malformed), "{text}");
        }
        assert_eq!(bytes("-1"), Err(NoQuantity::Negative));
    }

    #[test]
    fn too_much_is_an_error_and_no_overflow() {
        for text in ["9223372036854775808", "8Ei", "1e999", "340282366920938463463374607431768211456", "99999999999999999999E"] {
            assert_eq!(bytes(text), Err(NoQuantity::TooLarge), "{text}");
        }
        assert_eq!(cpu_millis("9223372036854775807"), Err(NoQuantity::TooLarge));
    }

    proptest::proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "[-+]?[0-9.]{0,50}[eE]?[-+]?[0-9numkKMGTPEi]{0,5}") {
            let _ = (bytes(&text), cpu_millis(&text));
        }

        #[test]
        fn whole_numbers_are_themselves(number in 0..=i64::MAX as u64) {
            proptest::prop_assert_eq!(bytes(&number.to_string()), Ok(number));
        }

        #[test]
        fn thousandths_are_exact(millis in 0..=u32::MAX) {
            proptest::prop_assert_eq!(cpu_millis(&format!("{millis}m")), Ok(u64::from(millis)));
            proptest::prop_assert_eq!(cpu_millis(&format!("{}.{:03}", millis / 1000, millis % 1000)), Ok(u64::from(millis)));
        }
    }
}
