use std::time::Duration;

use crate::error::Error;

/// No server is believed that wants more patience than this.
const LONGEST_HINT: Duration = Duration::from_secs(60);

/// How long to wait before the next attempt: doubles from `first` to `longest`, with jitter so that many clients that lost the same server
/// don't come back at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure and says how long to wait now: between half of the present step and all of it.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.step();
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Counts a failure and says how long to wait now: as [`Backoff::next_delay`], and as long at least as the server said that it is of no use to try again.
    pub fn delay_after(&mut self, error: &Error) -> Duration {
        let hint = error.retry_after().unwrap_or_default().min(LONGEST_HINT);
        self.next_delay().max(hint)
    }

    /// It went well: the next failure is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn step(&self) -> Duration {
        let doubled = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.next_delay();
            assert!(delay >= Duration::from_millis(step / 2) && delay <= Duration::from_millis(step), "{delay:?} for a step of {step} ms");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }

    #[test]
    fn nobody_tries_again_before_the_server_said_that_it_makes_sense_unless_that_is_never() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut after = |retry_after| backoff.delay_after(&Error::Exhausted { message: String::new(), retry_after });
        assert!(after(None) <= Duration::from_millis(100));
        assert_eq!(after(Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert!(after(Some(Duration::from_millis(1))) >= Duration::from_millis(200), "a hint never shortens the wait");
        assert_eq!(after(Some(Duration::MAX)), Duration::from_secs(60));
    }

    #[test]
    fn countless_failures_do_not_overflow() {
        let mut backoff = Backoff { failures: u32::MAX, ..Backoff::new(Duration::from_millis(100), Duration::from_secs(10)) };
        assert!(backoff.next_delay() <= Duration::from_secs(10));
    }
}
