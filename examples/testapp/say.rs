//! Writes to standard output and standard error, each piece at once.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::{Result, told};

/// How much is written at once where there is much.
const PIECE: usize = 64 * 1024;

pub(crate) fn line(text: &str) -> Result {
    raw(format!("{text}\n").as_bytes())
}

pub(crate) fn error_line(text: &str) -> Result {
    told(std::io::stderr().write_all(format!("{text}\n").as_bytes()), "standard error")
}

/// Past the buffer of the standard library, which would hold back what has no newline.
fn raw(bytes: &[u8]) -> Result {
    let mut out = std::io::stdout().lock();
    told(out.write_all(bytes).and_then(|()| out.flush()), "standard output")
}

pub(crate) fn variable(name: &str) -> Result {
    match std::env::var(name) {
        Ok(value) => line(&format!("{name}={value}")),
        Err(error) => line(&format!("{name}: {error}")),
    }
}

pub(crate) fn environment() -> Result {
    let mut all: Vec<_> = std::env::vars_os().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
    all.sort();
    all.iter().try_for_each(|variable| line(variable))
}

pub(crate) fn folder() -> Result {
    line(&told(std::env::current_dir(), "the folder")?.display().to_string())
}

/// How much there is to read on standard input.
pub(crate) fn input() -> Result {
    let mut bytes = Vec::new();
    told(std::io::stdin().read_to_end(&mut bytes), "standard input")?;
    line(&format!("{} bytes on standard input", bytes.len()))
}

/// `line 1`, `line 2`, …; without a pause when nothing is said per second.
pub(crate) fn lines(count: u64, per_second: u64) -> Result {
    let began = Instant::now();
    for number in 1..=count {
        line(&format!("line {number}"))?;
        if let Some(due) = (number * 1000).checked_div(per_second) {
            std::thread::sleep(Duration::from_millis(due).saturating_sub(began.elapsed()));
        }
    }
    Ok(())
}

/// So many letters, and no newline.
pub(crate) fn long_line(length: usize) -> Result {
    let piece = [b'x'; PIECE];
    let mut left = length;
    while left > 0 {
        let now = left.min(PIECE);
        raw(&piece[..now])?;
        left -= now;
    }
    Ok(())
}

/// Every byte that there is, in order.
pub(crate) fn bytes() -> Result {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    raw(&all)
}
