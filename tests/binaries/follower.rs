//! A client of a real apiserver that sees every change.

use bluebird::client::{Cache, Client};
use bluebird::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use super::program::DEADLINE;

/// A client, and a cache of everything. Dropping it ends both.
pub(crate) struct Follower {
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) tasks: Tasks,
}

impl Follower {
    /// Waits until an apiserver answers there.
    pub(crate) async fn connect(url: &str) -> Follower {
        let client = Client::new(url).expect("a URL");
        let tasks = Tasks::new(CancellationToken::new());
        let cache = Cache::start(client.clone(), Vec::new(), &tasks);
        let synced = tokio::time::timeout(DEADLINE, cache.synced()).await;
        assert!(synced.unwrap_or_else(|_| panic!("no apiserver answers at {url}")));
        Follower { client, cache, tasks }
    }

    /// Waits until `look` finds what it looks for in the cluster.
    pub(crate) async fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Cache) -> Option<T>) -> T {
        let mut revisions = self.cache.revisions();
        let search = async {
            loop {
                revisions.mark_unchanged();
                if let Some(found) = look(&self.cache) {
                    return found;
                }
                revisions.changed().await.expect("the cache lives as long as the test");
            }
        };
        tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}
