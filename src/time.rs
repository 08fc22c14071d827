//! Wall-clock time as the API writes it. Elapsed time is tokio's; `now` is a parameter wherever something is decided.

mod backoff;
mod steps;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use backoff::Backoff;
use prost_types::Timestamp;
pub use steps::Steps;

/// Tells the wall-clock time; a test brings its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[allow(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that shows whatever `now` says.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        to_timestamp((self.0)())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A point in time as a message.
pub fn to_timestamp(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// `later - earlier`; zero if the clock went back in between.
pub fn elapsed(earlier: &Timestamp, later: &Timestamp) -> Duration {
    millis(later).checked_sub(millis(earlier)).and_then(|ms| u64::try_from(ms).ok()).map_or(Duration::ZERO, Duration::from_millis)
}

/// `time + duration`, to the millisecond.
pub fn after(time: &Timestamp, duration: Duration) -> Timestamp {
    moved(time, i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// The time so many milliseconds later, or earlier.
pub fn moved(time: &Timestamp, by: i64) -> Timestamp {
    let total = millis(time).saturating_add(by);
    Timestamp { seconds: total.div_euclid(1000), nanos: (total.rem_euclid(1000) * 1_000_000) as i32 }
}

/// Milliseconds since 1970.
pub fn millis(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
}

/// A message as a point in time; 1970 for what no clock can show.
pub fn to_system_time(time: &Timestamp) -> SystemTime {
    SystemTime::try_from(*time).unwrap_or(UNIX_EPOCH)
}
