use std::sync::OnceLock;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::keys::Keys;
use super::kv::Kv;
use crate::store::{Feed, HistoryLimits, closed};
use crate::time::Clock;

/// What all parts of the backend work with.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kv: Kv,
    pub(super) keys: Keys,
    pub(super) cluster_id: String,
    pub(super) history: HistoryLimits,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) arrivals: Arrivals,
    /// Rung when the follower should have heard something and has not.
    pub(super) stalled: Notify,
    /// Ends everything.
    pub(super) ends: CancellationToken,
    /// Why it ended, if it had to.
    gave_up: OnceLock<String>,
}

impl Shared {
    pub(super) fn new(kv: Kv, keys: Keys, cluster_id: String, history: HistoryLimits, clock: Clock, feed: Feed) -> Self {
        let (arrivals, stalled, ends) = (Arrivals::default(), Notify::new(), CancellationToken::new());
        arrivals.reach(feed.revision());
        Self { kv, keys, cluster_id, history, clock, feed, arrivals, stalled, ends, gave_up: OnceLock::new() }
    }

    /// Stops for good, since what is in etcd makes no sense any more: going on would mean telling clients what isn't true.
    pub(super) fn give_up(&self, why: String) {
        tracing::error!(why, "the store on etcd is given up");
        let _ = self.gave_up.set(why);
        self.end();
    }

    /// Ends everything; the feed is closed when this returns.
    pub(super) fn end(&self) {
        self.ends.cancel();
        self.arrivals.close();
        self.feed.close();
    }

    /// Returns the reason once it was given up.
    pub(super) async fn has_given_up(&self) -> String {
        self.ends.cancelled().await;
        match self.gave_up.get() {
            Some(why) => why.clone(),
            None => std::future::pending().await,
        }
    }

    /// What everybody hears after that.
    pub(super) fn ended(&self) -> String {
        self.gave_up.get().cloned().unwrap_or_else(|| closed().to_string())
    }
}
