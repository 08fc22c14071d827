//! Makes services reachable on this machine: `observe` (services and slices → table), then a router that applies differences of tables.
//!
//! A router acknowledges ([`Routes::applied`]) a revision only when it holds: no connection begun after that goes to a backend that had left by then, and the
//! backend has taken notice of those that were begun before, as far as that can be seen.
//! The kubelet's session passes that on, so that no process is asked to stop while some router still leads to it.

mod balancer;
mod fresh;
mod kept;
mod proxy;
mod standby;
mod state;
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use kept::Keeper;
pub use standby::LOCK_PORT;
pub use state::State;
pub use table::{Change, Route, RouteTable, difference, routes};

use crate::api::v1::{EndpointSlice, JoinResponse, Service};
use crate::api::{Kind, Revision};
use crate::client::Cache;
use crate::error::{Error, Result};
use crate::tasks::Tasks;

/// A running router.
#[derive(Clone, Debug)]
pub struct Routes {
    wanted: Wish,
    applied: watch::Receiver<Revision>,
    state: watch::Receiver<State>,
    service_cidr: String,
    /// Ends the router.
    token: CancellationToken,
}

/// The newest table, and the revision up to which it takes everything into account.
#[derive(Debug)]
struct Wanted {
    revision: Revision,
    table: Arc<RouteTable>,
}

type Wish = watch::Sender<Option<Arc<Wanted>>>;
type Newest = watch::Receiver<Option<Arc<Wanted>>>;

/// How long a kubelet waits for the apiserver before it routes what was wanted when it last knew: meanwhile pods may have moved.
const PATIENCE: Duration = Duration::from_secs(5);

impl Routes {
    /// Starts a router for what an earlier kubelet has kept, if it has, which counts when nothing newer is known for a while. It acknowledges nothing of that.
    pub(crate) fn start_alone(keeper: &Keeper, tasks: &Tasks) -> Option<Routes> {
        let kept = keeper.read()?;
        let routes = match Self::start(&kept.service_cidr, &kept.cluster_id, tasks) {
            Ok(routes) => routes,
            Err(error) => {
                tracing::warn!(%error, "the kept routes can't be used");
                return None;
            }
        };
        let (token, wanted) = (tasks.token(), routes.wanted.clone());
        tasks.spawn("kept routes", async move {
            if token.run_until_cancelled(tokio::time::sleep(PATIENCE)).await.is_some() && give_kept(&wanted, kept.table) {
                tracing::info!("routing services as they last were: there is no apiserver");
            }
        });
        Some(routes)
    }

    /// Starts a router that doesn't know yet what to route.
    ///
    /// # Errors
    /// Invalid when `service_cidr` is not an address range. Everything that can get better shows in [`Routes::state`].
    pub(crate) fn start(service_cidr: &str, cluster_id: &str, tasks: &Tasks) -> Result<Routes> {
        let lock = standby::lock_address(service_cidr)
            .ok_or_else(|| Error::invalid("service_cidr", format!("{service_cidr:?} is not an address range like 127.96.0.0/12")))?;
        let (wanted, newest) = watch::channel(None);
        let (applied, applied_seen) = watch::channel(Revision::ZERO);
        let (state, state_seen) = watch::channel(State::Starting);
        let router = Router { newest, lock, cluster_id: cluster_id.to_owned(), applied, state };
        let token = tasks.token().child_token();
        tasks.spawn("routes", router.run(token.clone()));
        Ok(Routes { wanted, applied: applied_seen, state: state_seen, service_cidr: service_cidr.to_owned(), token })
    }

    /// The router for another range: this one if it is for that. Otherwise this one ends, and gives back the routing lock of its range.
    ///
    /// # Errors
    /// As [`Routes::start`]; then this one has not ended.
    pub(crate) fn for_range(self, service_cidr: &str, cluster_id: &str, tasks: &Tasks) -> Result<Routes> {
        if self.service_cidr == service_cidr {
            return Ok(self);
        }
        let routes = Self::start(service_cidr, cluster_id, tasks)?;
        tracing::info!(before = self.service_cidr, now = service_cidr, "the range of service addresses is another one");
        self.token.cancel();
        Ok(routes)
    }

    /// From now on routes the services and endpoint slices of the cache, and keeps that for a kubelet that can't ask.
    pub(crate) fn follow(&self, cache: Cache, keeper: Keeper, joined: &JoinResponse, tasks: &Tasks) {
        let (token, wanted) = (tasks.token(), self.wanted.clone());
        let (range, cluster_id) = (joined.service_cidr.clone(), joined.cluster_id.clone());
        tasks.spawn("routes keep", keeper.run(range, cluster_id, wanted.subscribe(), token.clone()));
        tasks.spawn("routes observe", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = observe(cache, wanted) => {}
            }
        });
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

/// The kept table, unless something is wanted already.
fn give_kept(wanted: &Wish, table: Arc<RouteTable>) -> bool {
    wanted.send_if_modified(|wanted| {
        let is_alone = wanted.is_none();
        if is_alone {
            *wanted = Some(Arc::new(Wanted { revision: Revision::ZERO, table }));
        }
        is_alone
    })
}

/// Turns what the cache holds into tables, anew whenever a service or slice has changed.
async fn observe(cache: Cache, wanted: Wish) {
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

    /// Applies table after table, and acknowledges each when who has left with it, or before, can be asked to stop; returns when there will be no more.
    async fn route(&mut self, proxy: &mut proxy::Proxy) {
        self.newest.mark_changed();
        let mut leaving = FuturesOrdered::new();
        loop {
            tokio::select! {
                wanted = next(&mut self.newest) => {
                    let Some(wanted) = wanted else { return };
                    let left = proxy.apply(&wanted.table);
                    let revision = wanted.revision;
                    leaving.push_back(async move {
                        join_all(left.iter().map(TaskTracker::wait)).await;
                        revision
                    });
                }
                Some(revision) = leaving.next() => drop(self.applied.send_replace(revision)),
            }
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
