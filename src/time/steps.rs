//! Notices that a clock was set: what waits for a time by that clock would come too soon, or an hour late.

use std::time::Instant;

use prost_types::Timestamp;

use super::{millis, moved};

/// What is less, in milliseconds, is drift, or the time between reading two clocks.
const STEP: i64 = 500;

/// Compares the wall clock with one that nobody sets, from look to look.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    wall: Timestamp,
    steady: Instant,
}

impl Steps {
    /// What both clocks show now.
    pub fn since(wall: Timestamp, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// By how many milliseconds the wall clock was set since the last look: forward, or back if negative. 0 if it was not. A machine that slept looks
    /// like one whose clock was set forward where the steady clock sleeps too.
    pub fn look(&mut self, wall: Timestamp, steady: Instant) -> i64 {
        let passed = i64::try_from(steady.saturating_duration_since(self.steady).as_millis()).unwrap_or(i64::MAX);
        let by = millis(&wall).saturating_sub(millis(&moved(&self.wall, passed)));
        *self = Self { wall, steady };
        if (-STEP..=STEP).contains(&by) { 0 } else { by }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_drifts_is_not() {
        let (begun, at) = (Instant::now(), |ms: i64| moved(&Timestamp::default(), 1_000_000 + ms));
        let mut steps = Steps::since(at(0), begun);
        let mut look = |wall, steady| steps.look(at(wall), begun + Duration::from_millis(steady));
        assert_eq!([look(1_000, 1_000), look(31_030, 31_000)], [0, 0]);
        assert_eq!([look(31_030 - 3_600_000, 31_000), look(32_030 - 3_600_000, 32_000)], [-3_600_000, 0]);
        assert_eq!([look(32_030, 32_000), look(32_030, 32_000)], [3_600_000, 0]);
        // A read that came late is made up for by the next one.
        assert_eq!([look(32_030, 33_000), look(33_030, 33_000)], [-1_000, 1_000]);
    }
}
