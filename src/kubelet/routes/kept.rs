//! The routes of this machine on its disk, for a kubelet that can't ask: after a reboot without an apiserver pods reach services as they last were.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Newest, Route, RouteTable, Wanted, next};
use crate::api::{Kind, ObjectKey};
use crate::kubelet::kept::{self, Unsynced};
use crate::kubelet::root::Root;

/// A table is kept at most this often: of what changes more often the last one counts.
const KEEP_DELAY: Duration = Duration::from_secs(1);

/// What can't be kept is tried again after this.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The file that routes are kept in.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub(crate) root: Arc<Root>,
    pub(crate) unsynced: Arc<Unsynced>,
}

/// What is kept: enough to route as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) service_cidr: String,
    pub(super) cluster_id: String,
    pub(super) table: Arc<RouteTable>,
}

impl Keeper {
    /// What an earlier kubelet has kept. What can't be read counts as not kept.
    pub(super) fn read(&self) -> Option<Kept> {
        match kept::read::<KeptRoutes>(&self.root.routes()) {
            Ok(file) => file.map(KeptRoutes::into_kept),
            Err(error) => {
                tracing::warn!(%error, "the kept routes can't be used");
                None
            }
        }
    }

    /// Keeps each table that is wanted from now on, until the token is cancelled, and then the last one.
    pub(super) async fn run(self, service_cidr: String, cluster_id: String, mut newest: Newest, token: CancellationToken) {
        let kept =
            |wanted: &Wanted| Kept { service_cidr: service_cidr.clone(), cluster_id: cluster_id.clone(), table: wanted.table.clone() };
        let mut last = self.read();
        while let Some(Some(wanted)) = token.run_until_cancelled(next(&mut newest)).await {
            let now = kept(&wanted);
            let pause = if last.as_ref() == Some(&now) || self.keep(&now).await {
                last = Some(now);
                KEEP_DELAY
            } else {
                newest.mark_changed();
                RETRY_DELAY
            };
            if token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        let now = newest.borrow().as_deref().map(kept);
        if let Some(now) = now.filter(|now| last.as_ref() != Some(now)) {
            self.keep(&now).await;
        }
    }

    /// True if it is kept.
    async fn keep(&self, kept: &Kept) -> bool {
        let (root, file) = (self.root.clone(), KeptRoutes::from_kept(kept));
        // What is in its place is none of ours.
        let write = move || root.check_place().and_then(|()| kept::write(&root.routes(), &file));
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {
                self.unsynced.add(self.root.routes());
                return true;
            }
            Ok(Err(error)) => tracing::warn!(%error, "the routes can't be kept for the time without an apiserver"),
            Err(error) => tracing::error!(%error, "the routes can't be kept for the time without an apiserver"),
        }
        false
    }
}

/// The file. A kubelet that knows more adds fields.
#[derive(Clone, PartialEq, prost::Message)]
struct KeptRoutes {
    #[prost(string, tag = "1")]
    service_cidr: String,
    #[prost(string, tag = "2")]
    cluster_id: String,
    #[prost(message, repeated, tag = "3")]
    routes: Vec<KeptRoute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeptRoute {
    /// Address and port, as text.
    #[prost(string, tag = "1")]
    frontend: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    name: String,
    /// Addresses and ports, as text.
    #[prost(string, repeated, tag = "4")]
    backends: Vec<String>,
}

impl KeptRoutes {
    fn from_kept(kept: &Kept) -> Self {
        let route = |(frontend, route): (&SocketAddr, &Route)| KeptRoute {
            frontend: frontend.to_string(),
            namespace: route.service.namespace().to_owned(),
            name: route.service.name().to_owned(),
            backends: route.backends.iter().map(SocketAddr::to_string).collect(),
        };
        Self {
            service_cidr: kept.service_cidr.clone(),
            cluster_id: kept.cluster_id.clone(),
            routes: kept.table.iter().map(route).collect(),
        }
    }

    /// What isn't an address is left out.
    fn into_kept(self) -> Kept {
        let route = |route: KeptRoute| {
            let service = ObjectKey::new(Kind::Service, &route.namespace, &route.name);
            let backends = route.backends.iter().filter_map(|backend| backend.parse().ok()).collect();
            Some((route.frontend.parse().ok()?, Route { service, backends }))
        };
        let table = self.routes.into_iter().filter_map(route).collect();
        Kept { service_cidr: self.service_cidr, cluster_id: self.cluster_id, table: Arc::new(table) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_kubelet_finds_the_routes_as_they_were_last_kept_and_damaged_ones_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper { root: Arc::new(Root::open(folder.path()).unwrap()), unsynced: Arc::default() };
        assert_eq!(keeper.read(), None);
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let route = |name: &str, backends: &[&str]| Route {
            service: ObjectKey::new(Kind::Service, "default", name),
            backends: backends.iter().map(|backend| address(backend)).collect(),
        };
        let table =
            [(address("127.96.0.1:80"), route("web", &["127.0.0.1:20001", "10.0.0.2:20002"])), (address("[fd00::1]:80"), route("db", &[]))];
        let kept = Kept { service_cidr: "127.96.0.0/12".into(), cluster_id: "c1".into(), table: Arc::new(table.into_iter().collect()) };
        kept::write(&keeper.root.routes(), &KeptRoutes::from_kept(&kept)).unwrap();
        assert_eq!(keeper.read(), Some(kept));
        let whole = std::fs::read(keeper.root.routes()).unwrap();
        for damaged in [&b""[..], &whole[..whole.len() / 2], &[0xff; 100]] {
            std::fs::write(keeper.root.routes(), damaged).unwrap();
            assert_eq!(keeper.read(), None);
        }
    }
}
