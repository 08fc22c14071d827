//! Who asks for how much: each client has an account of its requests and watches, whatever number of connections it has.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::limits::Limits;
use super::serve::MAX_CONNECTIONS;
use crate::error::{Error, Result};

/// What is counted as one client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// Everybody on this machine who comes over TCP, from whichever loopback address.
    Machine,
    /// Everybody who comes from an address, whatever the port. Of an IPv6 address the first half counts: a machine has all the others below it.
    Address(IpAddr),
    /// Everybody who comes over the unix socket.
    #[allow(dead_code, reason = "not every system serves on a socket")]
    Socket,
    /// The kubelet of a node, wherever it is and whoever else is there.
    Node(Box<str>),
}

/// How many accounts there may be: a connection has its address's and may have a node's, and as many again are remembered.
const MOST: usize = 4 * MAX_CONNECTIONS;
/// What a refused request hears at least, and twice that at most, so that all who were refused don't come back at once. A full burst must last longer.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// What a refused watch hears at least, and twice that at most: how soon another one ends is anybody's guess.
const WATCH_WAIT: Duration = Duration::from_secs(1);
/// How often the log tells of a client that is being refused.
const TELL: Duration = Duration::from_secs(10);

/// The accounts of all clients.
///
/// An account is kept while somebody has it, and then until it says no more than a new one would, so that nobody gets another burst by connecting
/// again; there are never more than [`MOST`], so beyond that the accounts that nobody has are forgotten before their time.
#[derive(Debug)]
pub(super) struct Accounts {
    limits: Limits,
    /// After so long an account that nobody has used has its whole burst again.
    refill: Duration,
    entries: Mutex<HashMap<Origin, Entry>>,
}

#[derive(Debug)]
struct Entry {
    account: Arc<Account>,
    /// Since when nobody was seen to have it.
    left: Option<Instant>,
    /// When the log last told that this client was refused something.
    told: Option<Instant>,
}

impl Accounts {
    pub(super) fn new(limits: Limits) -> Self {
        let refill = quota(limits).map_or(Duration::ZERO, |quota| quota.burst_size_replenished_in());
        Self { limits, refill, entries: Mutex::default() }
    }

    /// The account of a client.
    pub(super) fn of(&self, origin: Origin) -> Arc<Account> {
        let mut entries = self.lock();
        if entries.len() >= MOST && !entries.contains_key(&origin) {
            entries.retain(|_, entry| entry.is_in_use());
        }
        let new = |origin: &Origin| Entry { account: Arc::new(Account::new(origin.clone(), self.limits)), left: None, told: None };
        let entry = entries.entry(origin).or_insert_with_key(new);
        entry.left = None;
        entry.account.clone()
    }

    /// Forgets who has gone, and tells the log who is being refused. Called every second or so.
    pub(super) fn keep_up(&self, now: Instant) {
        let mut entries = self.lock();
        entries.retain(|origin, entry| {
            entry.tell(origin, now);
            match entry.is_in_use() {
                true => entry.left = None,
                false => _ = entry.left.get_or_insert(now),
            }
            entry.left.is_none_or(|left| now.saturating_duration_since(left) < self.refill)
        });
        // Many may have come at once, and not again.
        if entries.capacity() > 4 * entries.len().max(1_000) {
            entries.shrink_to_fit();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Entry>> {
        self.entries.lock().expect("no panic while held")
    }
}

impl Entry {
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.account) > 1
    }

    fn tell(&mut self, client: &Origin, now: Instant) {
        let is_early = self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL);
        if is_early || self.account.refused.load(Ordering::Relaxed) == 0 {
            return;
        }
        let refused = self.account.refused.swap(0, Ordering::Relaxed);
        tracing::warn!(%client, refused, "a client asks for more than its limits and is refused");
        self.told = Some(now);
    }
}

/// What one client has and had, over all its connections.
#[derive(Debug)]
pub(super) struct Account {
    origin: Origin,
    limits: Limits,
    /// `None`: there is no limit.
    requests: Option<RateLimiter<NotKeyed, InMemoryState, Elapsed, NoOpMiddleware<Duration>>>,
    watches: AtomicUsize,
    /// Since the log told last.
    refused: AtomicU64,
}

/// A watch that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct CountedWatch(Arc<Account>);

impl Drop for CountedWatch {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    fn new(origin: Origin, limits: Limits) -> Self {
        let requests = quota(limits).map(|quota| RateLimiter::direct_with_clock(quota, Elapsed(Instant::now())));
        Self { origin, limits, requests, watches: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }

    /// Counts a request. One that is refused is not counted: who asks too often gets what it may have, and no less.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when it comes too soon.
    pub(super) fn request(&self) -> Result<()> {
        let Some(requests) = &self.requests else { return Ok(()) };
        requests.check().map_err(|early| {
            let wait = early.wait_time_from(requests.clock().now()).max(SHORTEST_WAIT);
            let message = format!("{} sends more than {} requests a second; slow down", self.origin, self.limits.requests);
            self.refusal("requests", message, spread(wait))
        })
    }

    /// Counts a watch.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when there are as many as there may be.
    pub(super) fn begin_watch(self: &Arc<Self>) -> Result<CountedWatch> {
        let most = self.limits.watches;
        let fits = |watches| (most == 0 || watches < most).then_some(watches + 1);
        match self.watches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(CountedWatch(self.clone())),
            Err(watches) => {
                let message = format!("{} has {watches} watches already; end some", self.origin);
                Err(self.refusal("watches", message, watch_wait()))
            }
        }
    }

    fn refusal(&self, limit: &'static str, message: String, retry_after: Duration) -> Error {
        metrics::counter!("bluebird_client_refusals_total", "limit" => limit).increment(1);
        self.refused.fetch_add(1, Ordering::Relaxed);
        Error::Exhausted { message, retry_after: Some(retry_after) }
    }
}

/// When a watch that was refused may be tried again.
pub(super) fn watch_wait() -> Duration {
    spread(WATCH_WAIT)
}

/// All who are refused at the same moment hear something different.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64())
}

/// `None`: there is no limit.
fn quota(limits: Limits) -> Option<Quota> {
    let requests = NonZeroU32::new(limits.requests)?;
    Some(Quota::per_second(requests).allow_burst(NonZeroU32::new(limits.burst).unwrap_or(NonZeroU32::MIN)))
}

/// The time since an account was made, by a clock that nobody sets.
#[derive(Clone, Debug)]
struct Elapsed(Instant);

impl Clock for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Origin::Machine,
            IpAddr::V6(address) => Origin::Address(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()),
            address => Origin::Address(address),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Machine => f.write_str("this machine"),
            Origin::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
            Origin::Address(address) => address.fmt(f),
            Origin::Socket => f.write_str("the unix socket"),
            Origin::Node(node) => write!(f, "node {node}"),
        }
    }
}

#[cfg(test)]
mod tests;
