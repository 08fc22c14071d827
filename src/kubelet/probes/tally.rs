//! What a row of tries says, and when the next one is due. Decides, and does nothing else.

use std::time::Duration;

use crate::api::v1::Probe;

/// The first wait between tries of what has never passed; it doubles up to the period.
const FIRST_EAGER_WAIT: Duration = Duration::from_millis(100);

/// What the tries of one probe have come to.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    /// How the latest tries came out, all the same way, and how many.
    row: (bool, u32),
    /// Whether it passes, as long as no row of tries says otherwise; `None` until the first does.
    verdict: Option<bool>,
}

impl Tally {
    pub(super) fn new(probe: &Probe, verdict: Option<bool>) -> Self {
        let at_least_one = |threshold: u32| threshold.max(1);
        let (success_threshold, failure_threshold) = (at_least_one(probe.success_threshold), at_least_one(probe.failure_threshold));
        Self { success_threshold, failure_threshold, row: (false, 0), verdict }
    }

    /// Counts a try; the new verdict, if it is another one than before.
    pub(super) fn take(&mut self, passed: bool) -> Option<bool> {
        let count = if self.row.0 == passed { self.row.1.saturating_add(1) } else { 1 };
        self.row = (passed, count);
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        if count < threshold || self.verdict == Some(passed) {
            return None;
        }
        self.verdict = Some(passed);
        self.verdict
    }

    /// Whether this is the first failure of a row.
    pub(super) fn fails_anew(&self) -> bool {
        self.row == (false, 1)
    }
}

/// When a probe is tried, as times since its container was taken up.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    period: Duration,
    /// When the next try is due that counts either way.
    regular: Duration,
    /// How long after a try the next one comes that can only let it pass: while it has never passed.
    eager: Option<Duration>,
    /// What the first period is longer by, so that containers that started together are not probed together for ever.
    jitter: Duration,
}

/// A try to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Try {
    /// When, since the container was taken up.
    pub(super) at: Duration,
    /// Whether a failure counts.
    pub(super) counts: bool,
}

impl Rhythm {
    /// For a container that has just started; `is_eager` for what waits to pass for the first time. `chance` is from 0 to 1.
    pub(super) fn new(probe: &Probe, is_eager: bool, chance: f32) -> Self {
        let period = Duration::from_secs(probe.period_seconds.max(1).into());
        let regular = Duration::from_secs(probe.initial_delay_seconds.into());
        Self { period, regular, eager: is_eager.then_some(FIRST_EAGER_WAIT), jitter: period.mul_f32(chance / 2.0) }
    }

    /// For a container that ran before this kubelet did: somewhere within a period.
    pub(super) fn resumed(probe: &Probe, chance: f32) -> Self {
        let period = Duration::from_secs(probe.period_seconds.max(1).into());
        Self { period, regular: period.mul_f32(chance), eager: None, jitter: Duration::ZERO }
    }

    /// The next try, not before `now`.
    pub(super) fn next(&self, now: Duration) -> Try {
        match self.eager.map(|wait| now + wait) {
            Some(at) if self.regular > now && at < self.regular => Try { at, counts: false },
            _ => Try { at: self.regular.max(now), counts: true },
        }
    }

    /// That try was made, and ended now.
    pub(super) fn tried(&mut self, made: Try, now: Duration) {
        if made.counts {
            // A try that took longer than the period is followed by the next one at once, and by no others to make up for it.
            self.regular = (made.at + self.period + std::mem::take(&mut self.jitter)).max(now);
        } else {
            self.eager = self.eager.map(|wait| wait * 2);
        }
    }

    /// It has passed: from now on only the regular tries are made.
    pub(super) fn has_passed(&mut self) {
        self.eager = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(success_threshold: u32, failure_threshold: u32) -> Probe {
        Probe { success_threshold, failure_threshold, period_seconds: 1, ..Probe::default() }
    }

    fn check(mut tally: Tally, tries: &str, expected: &str) {
        let verdicts = tries.chars().map(|outcome| match tally.take(outcome == '+') {
            Some(true) => 'P',
            Some(false) => 'F',
            None => '.',
        });
        assert_eq!(verdicts.collect::<String>(), expected, "{tries}");
    }

    #[test]
    fn a_verdict_changes_when_enough_tries_in_a_row_say_so() {
        check(Tally::new(&probe(1, 3), Some(false)), "--+--+---+", "..P.....FP");
        check(Tally::new(&probe(2, 1), Some(false)), "+-++-++", "...PF.P");
        check(Tally::new(&probe(1, 3), Some(true)), "++--+---", ".......F");
        check(Tally::new(&probe(1, 2), None), "--+", ".FP");
        check(Tally::new(&Probe::default(), None), "-+", "FP");
    }

    #[test]
    fn only_the_first_failure_of_a_row_is_new() {
        let mut tally = Tally::new(&probe(1, 3), Some(true));
        let anew: Vec<bool> = [false, false, true, false].into_iter().map(|passed| (tally.take(passed), tally.fails_anew()).1).collect();
        assert_eq!(anew, [true, false, false, true]);
    }

    /// The first tries of a probe that never passes and takes no time, as `at` in milliseconds, those in brackets counting for nothing.
    fn tries(mut rhythm: Rhythm, count: usize) -> String {
        let mut now = Duration::ZERO;
        let mut shown = Vec::new();
        for _ in 0..count {
            let next = rhythm.next(now);
            now = next.at;
            rhythm.tried(next, now);
            shown.push(if next.counts { format!("{}", now.as_millis()) } else { format!("({})", now.as_millis()) });
        }
        shown.join(" ")
    }

    #[test]
    fn what_has_never_passed_is_tried_sooner_too_which_counts_for_nothing_if_it_fails() {
        let slow = Probe { period_seconds: 2, initial_delay_seconds: 1, ..Probe::default() };
        assert_eq!(tries(Rhythm::new(&slow, false, 0.0), 3), "1000 3000 5000");
        assert_eq!(tries(Rhythm::new(&slow, false, 1.0), 3), "1000 4000 6000");
        let quick = Probe { period_seconds: 2, ..Probe::default() };
        assert_eq!(tries(Rhythm::new(&quick, true, 0.0), 9), "0 (100) (300) (700) (1500) 2000 (3600) 4000 6000");
        assert_eq!(tries(Rhythm::resumed(&quick, 0.5), 3), "1000 3000 5000");
    }

    #[test]
    fn a_try_that_takes_longer_than_the_period_is_followed_by_one_and_no_more() {
        let mut rhythm = Rhythm::new(&probe(1, 3), false, 0.0);
        let first = rhythm.next(Duration::ZERO);
        rhythm.tried(first, Duration::from_secs(7));
        let second = rhythm.next(Duration::from_secs(7));
        assert_eq!(second, Try { at: Duration::from_secs(7), counts: true });
        rhythm.tried(second, Duration::from_secs(7));
        assert_eq!(rhythm.next(Duration::from_secs(7)).at, Duration::from_secs(8));
    }
}
