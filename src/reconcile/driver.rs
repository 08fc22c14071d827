use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior};

use super::queue::Queue;
use crate::api::ObjectKey;
use crate::client::{Backoff, Cache};
use crate::error::{Error, Result};
use crate::tasks::Tasks;

/// The longest wait after the first failure of a key: most are lost races with a write that is about to arrive.
const FIRST_RETRY: Duration = Duration::from_millis(10);
/// The longest wait after any failure of a key.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Makes one concern of one key right.
///
/// # Guarantees
/// `reconcile` never runs twice at once for one key, and runs after every change that affects the key, once for any number of changes.
///
/// # Assumptions
/// `reconcile` reads what there is and depends on nothing from earlier runs that it can't do without. It is dropped when the driver ends.
pub trait Reconciler: Send + Sync + 'static {
    /// What is looked at on its own.
    type Key: Ord + Clone + Debug + Send + Sync + 'static;
    /// For logs and metrics.
    const NAME: &'static str;

    /// The keys to look at because this object changed, or is gone.
    fn affected(&self, changed: &ObjectKey) -> Vec<Self::Key>;

    /// Reads, decides and acts.
    ///
    /// # Errors
    /// Whatever kept it from that: the driver tries again, later and later.
    fn reconcile(&self, key: Self::Key) -> impl Future<Output = Result<Outcome>> + Send;
}

/// When to look at a key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// When something changes.
    Done,
    /// After this time, or when something changes.
    After(Duration),
}

/// How a driver works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many keys are looked at at once.
    pub concurrency: usize,
    /// How often everything is looked at again, whether it changed or not.
    pub resync: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 16, resync: Duration::from_secs(300) }
    }
}

/// Drives a reconciler by the changes of a cache, from its first whole state on.
pub fn start<R: Reconciler>(reconciler: R, cache: Cache, options: Options, tasks: &Tasks) {
    let token = tasks.token();
    tasks.spawn(R::NAME, async move {
        let work = async {
            if !cache.synced().await {
                return;
            }
            let changes = stream::unfold(cache.subscribe(), |mut changes| async move { Some((changes.next().await?, changes)) });
            drive(reconciler, changes, || cache.keys(), options).await;
        };
        token.run_until_cancelled(work).await;
    });
}

/// Why the driver woke up.
enum Wake<K> {
    Changed(BTreeSet<ObjectKey>),
    Finished(K, Instant, Result<Outcome>),
    Due,
    Resync,
    Ended,
}

struct Driver<R: Reconciler> {
    reconciler: Arc<R>,
    queue: Queue<R::Key>,
    backoffs: BTreeMap<R::Key, Backoff>,
}

async fn drive<R: Reconciler>(
    reconciler: R,
    changes: impl Stream<Item = BTreeSet<ObjectKey>>,
    all: impl Fn() -> Vec<ObjectKey>,
    options: Options,
) {
    let mut driver = Driver { reconciler: Arc::new(reconciler), queue: Queue::new(), backoffs: BTreeMap::new() };
    let mut changes = pin!(changes);
    let mut runs = FuturesUnordered::new();
    let mut resync = tokio::time::interval_at(Instant::now() + options.resync, options.resync);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while driver.queue.running() < options.concurrency
            && let Some(key) = driver.queue.pop(Instant::now())
        {
            let (reconciler, begun) = (driver.reconciler.clone(), Instant::now());
            runs.push(async move { (key.clone(), begun, reconciler.reconcile(key).await) });
        }
        metrics::gauge!("bluebird_reconcile_waiting", "reconciler" => R::NAME).set(driver.queue.len() as f64);
        // Without a free place nothing is due: the end of a run will make one.
        let due = driver.queue.next_due().filter(|_| driver.queue.running() < options.concurrency);
        let wake = tokio::select! {
            Some((key, begun, result)) = runs.next() => Wake::Finished(key, begun, result),
            changed = changes.next() => changed.map_or(Wake::Ended, Wake::Changed),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Wake::Due,
            _ = resync.tick() => Wake::Resync,
        };
        match wake {
            Wake::Changed(keys) => driver.wake(keys),
            Wake::Finished(key, begun, result) => driver.finished(key, begun, result),
            Wake::Due => {}
            Wake::Resync => driver.wake(all()),
            Wake::Ended => return,
        }
    }
}

impl<R: Reconciler> Driver<R> {
    /// All keys of one wake-up are asked for before any is worked on, so that a reconciler that keeps an index has the whole of it.
    fn wake(&mut self, changed: impl IntoIterator<Item = ObjectKey>) {
        let now = Instant::now();
        for object in changed {
            for key in self.reconciler.affected(&object) {
                self.queue.push(key, now);
            }
        }
    }

    fn finished(&mut self, key: R::Key, begun: Instant, result: Result<Outcome>) {
        let now = Instant::now();
        let outcome = if result.is_ok() { "done" } else { "failed" };
        metrics::counter!("bluebird_reconcile_runs_total", "reconciler" => R::NAME, "outcome" => outcome).increment(1);
        metrics::histogram!("bluebird_reconcile_seconds", "reconciler" => R::NAME).record(now - begun);
        match result {
            Ok(outcome) => {
                self.backoffs.remove(&key);
                if let Outcome::After(delay) = outcome {
                    self.queue.push(key.clone(), now + delay);
                }
            }
            Err(error) => {
                let backoff = self.backoffs.entry(key.clone()).or_insert(Backoff::new(FIRST_RETRY, LONGEST_RETRY));
                let delay = backoff.delay_after(&error);
                self.queue.push(key.clone(), now + delay);
                match error {
                    // Somebody else wrote first, and the cache will show it in a moment.
                    Error::Conflict { .. } => tracing::debug!(reconciler = R::NAME, ?key, ?delay, "lost a race; trying again"),
                    error => tracing::warn!(reconciler = R::NAME, ?key, %error, ?delay, "failed; trying again"),
                }
            }
        }
        self.queue.finish(&key);
    }
}

#[cfg(test)]
mod tests;
