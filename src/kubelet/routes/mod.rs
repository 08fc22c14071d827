//! Makes services reachable on this machine: `observe` (services and slices → table), then a router that applies differences of tables.
//!
//! A router acknowledges ([`Routes::applied`]) a revision only when it holds: no connection begun after that goes to a backend that had left by then.
//! The kubelet's session passes that on, so that no process is asked to stop while some router still leads to it.

mod balancer;
mod proxy;
mod standby;
mod state;
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use standby::LOCK_PORT;
pub use state::State;
pub use table::{Change, Route, RouteTable, difference, routes};

use crate::api::v1::{EndpointSlice, Service};
use crate::api::{Kind, Revision};
use crate::client::Cache;
use crate::error::{Error, Result};
use crate::tasks::Tasks;

/// A running router.
#[derive(Clone, Debug)]
pub struct Routes {
    applied: watch::Receiver<Revision>,
    state: watch::Receiver<State>,
}

/// The newest table, and the revision up to which it takes everything into account.
#[derive(Debug)]
struct Wanted {
    revision: Revision,
    table: Arc<RouteTable>,
}

type Newest = watch::Receiver<Option<Arc<Wanted>>>;

impl Routes {
    /// Starts a router for the services and endpoint slices of the cache.
    ///
    /// Errors: Invalid when `service_cidr` is not an address range. Everything that can get better shows in [`Routes::state`].
    pub fn start(cache: Cache, service_cidr: &str, cluster_id: &str, tasks: &Tasks) -> Result<Routes> {
        let (wanted, newest) = watch::channel(None);
        let routes = Self::follow(newest, service_cidr, cluster_id, tasks)?;
        let token = tasks.token();
        tasks.spawn("routes observe", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = observe(cache, wanted) => {}
            }
        });
        Ok(routes)
    }

    fn follow(newest: Newest, service_cidr: &str, cluster_id: &str, tasks: &Tasks) -> Result<Routes> {
        let lock = standby::lock_address(service_cidr)
            .ok_or_else(|| Error::invalid("service_cidr", format!("{service_cidr:?} is not an address range like 127.96.0.0/12")))?;
        let (applied, applied_seen) = watch::channel(Revision::ZERO);
        let (state, state_seen) = watch::channel(State::Starting);
        let router = Router { newest, lock, cluster_id: cluster_id.to_owned(), applied, state };
        tasks.spawn("routes", router.run(tasks.token()));
        Ok(Routes { applied: applied_seen, state: state_seen })
    }

    /// The revision as of which every service and endpoint slice is in effect here. A router that stands by forwards nothing, so for it that is
    /// what it has seen.
    pub fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.clone()
    }

    /// What it does at the moment.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

/// Turns what the cache holds into tables, anew whenever a service or slice has changed.
async fn observe(cache: Cache, wanted: watch::Sender<Option<Arc<Wanted>>>) {
    let mut revisions = cache.revisions();
    let mut changes = cache.subscribe();
    let mut table = Arc::default();
    if !cache.synced().await {
        return;
    }
    loop {
        revisions.mark_unchanged();
        // The revision first: what is read after it may be newer than it says, never older.
        let revision = cache.revision();
        let changed = changes.next().now_or_never().flatten().unwrap_or_default();
        if changed.iter().any(|key| matches!(key.kind(), Kind::Service | Kind::EndpointSlice)) {
            let (services, slices) = (cache.list::<Service>(), cache.list::<EndpointSlice>());
            table = Arc::new(routes(services.iter().map(|service| &**service), slices.iter().map(|slice| &**slice)));
        }
        wanted.send_replace(Some(Arc::new(Wanted { revision, table: table.clone() })));
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

struct Router {
    newest: Newest,
    lock: SocketAddr,
    cluster_id: String,
    applied: watch::Sender<Revision>,
    state: watch::Sender<State>,
}

impl Router {
    async fn run(mut self, token: CancellationToken) {
        let Some(lock) = token.run_until_cancelled(self.stand_by()).await else { return };
        self.state.send_replace(State::Active { unbound: Default::default() });
        tracing::info!(lock = %self.lock, "routing services on this machine");
        let mut proxy = proxy::Proxy::new(token.clone(), self.state.clone());
        tokio::select! {
            () = token.cancelled() => {}
            () = self.route(&mut proxy) => {}
            never = lock.serve() => match never {},
        }
        drop(lock);
        proxy.shutdown().await;
    }

    /// Acknowledges what it sees until it is this router's turn.
    async fn stand_by(&mut self) -> standby::Lock {
        let Router { newest, lock, cluster_id, applied, state } = self;
        let acknowledge = async {
            while let Some(wanted) = next(newest).await {
                applied.send_replace(wanted.revision);
            }
            std::future::pending().await
        };
        tokio::select! {
            lock = standby::acquire(*lock, cluster_id, state) => lock,
            never = acknowledge => never,
        }
    }

    /// Applies table after table; returns when there will be no more.
    async fn route(&mut self, proxy: &mut proxy::Proxy) {
        self.newest.mark_changed();
        while let Some(wanted) = next(&mut self.newest).await {
            proxy.apply(&wanted.table);
            self.applied.send_replace(wanted.revision);
        }
    }
}

/// The newest table after a change; `None` when there will be no more.
async fn next(newest: &mut Newest) -> Option<Arc<Wanted>> {
    loop {
        newest.changed().await.ok()?;
        if let Some(wanted) = newest.borrow_and_update().clone() {
            return Some(wanted);
        }
    }
}
