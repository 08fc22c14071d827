//! Requests that are encoded once and then only numbered.

use bytes::Bytes;

/// Digits of a number in a name: all of one width, so that it can be put into an encoded message.
const DIGITS: usize = 10;
/// Stands in a template where the object's number goes.
pub const NUMBER: &str = "##########";
/// Stands in a template where the node's number goes.
pub const NODE: &str = "@@@@@@@@@@";

/// An encoded request in which an object's number and a node's number are still open.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    number_at: Vec<usize>,
    node_at: Vec<usize>,
}

impl Template {
    pub fn new(bytes: Vec<u8>) -> Self {
        let positions = |marker: &str| {
            let windows = bytes.windows(DIGITS).enumerate();
            windows.filter(|(_, window)| *window == marker.as_bytes()).map(|(at, _)| at).collect()
        };
        Self { number_at: positions(NUMBER), node_at: positions(NODE), bytes }
    }

    /// The request for this number and node.
    pub fn fill(&self, number: u64, node: u64) -> Bytes {
        let mut bytes = self.bytes.clone();
        for (places, value) in [(&self.number_at, number), (&self.node_at, node)] {
            let digits = digits(value);
            for at in places {
                bytes[*at..*at + DIGITS].copy_from_slice(&digits);
            }
        }
        bytes.into()
    }
}

fn digits(mut value: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    digits
}

/// The number at the end of a name.
pub fn number_of(name: &[u8]) -> Option<u64> {
    let digits = name.get(name.len().checked_sub(DIGITS)?..)?;
    digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}
