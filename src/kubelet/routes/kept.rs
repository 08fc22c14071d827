//! The routes of this machine on its disk, for a kubelet that can't ask: after a reboot without an apiserver pods reach services as they last were.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Newest, Route, RouteTable, Wanted, next};
use crate::api::{Kind, ObjectKey};
use crate::kubelet::kept::{self, Unsynced};

/// A table is kept at most this often: of what changes more often the last one counts.
const KEEP_DELAY: Duration = Duration::from_secs(1);

/// What can't be kept is tried again after this.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The file that routes are kept in.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub(crate) path: PathBuf,
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
        match kept::read::<KeptRoutes>(&self.path) {
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
        let (path, file) = (self.path.clone(), KeptRoutes::from_kept(kept));
        match tokio::task::spawn_blocking(move || kept::write(&path, &file)).await {
            Ok(Ok(())) => {
                self.unsynced.add(self.path.clone());
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
    use tokio::sync::watch;

    use super::*;
    use crate::api::Revision;
    use crate::tasks::Tasks;

    fn table(backend: u16) -> Arc<RouteTable> {
        let route = Route { service: ObjectKey::new(Kind::Service, "default", "web"), backends: vec![([127, 0, 0, 1], backend).into()] };
        Arc::new([(([127, 96, 0, 1], 80).into(), route)].into_iter().collect())
    }

    fn wanted(backend: u16) -> Option<Arc<Wanted>> {
        Some(Arc::new(Wanted { revision: Revision(backend.into()), table: table(backend) }))
    }

    /// Waits until these are the routes that another kubelet would find.
    async fn until_kept(keeper: &Keeper, backend: u16) {
        while keeper.read().is_none_or(|kept| kept.table != table(backend)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_kept_is_tried_again_and_the_last_table_is_kept_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper { path: folder.path().join("later/routes.binpb"), unsynced: Arc::default() };
        let (wish, newest) = watch::channel(wanted(1));
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("routes keep", keeper.clone().run("127.96.0.0/12".into(), "c1".into(), newest, tasks.token()));
        wish.send_replace(wanted(2));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(keeper.read(), None);
        std::fs::create_dir(folder.path().join("later")).unwrap();
        tokio::time::timeout(Duration::from_secs(600), until_kept(&keeper, 2)).await.expect("another try");
        // Less than the time between two.
        wish.send_replace(wanted(3));
        tokio::time::timeout(Duration::from_secs(600), until_kept(&keeper, 3)).await.expect("the next one");
        wish.send_replace(wanted(4));
        tasks.shutdown(Duration::from_secs(60)).await;
        assert_eq!(keeper.read().map(|kept| kept.table), Some(table(4)));
    }

    #[test]
    fn the_next_kubelet_finds_the_routes_as_they_were_last_kept_and_damaged_ones_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper { path: folder.path().join("routes.binpb"), unsynced: Arc::default() };
        assert_eq!(keeper.read(), None);
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let route = |name: &str, backends: &[&str]| Route {
            service: ObjectKey::new(Kind::Service, "default", name),
            backends: backends.iter().map(|backend| address(backend)).collect(),
        };
        let table =
            [(address("127.96.0.1:80"), route("web", &["127.0.0.1:20001", "10.0.0.2:20002"])), (address("[fd00::1]:80"), route("db", &[]))];
        let kept = Kept { service_cidr: "127.96.0.0/12".into(), cluster_id: "c1".into(), table: Arc::new(table.into_iter().collect()) };
        kept::write(&keeper.path, &KeptRoutes::from_kept(&kept)).unwrap();
        assert_eq!(keeper.read(), Some(kept));
        let whole = std::fs::read(&keeper.path).unwrap();
        for damaged in [&b""[..], &whole[..whole.len() / 2], &[0xff; 100]] {
            std::fs::write(&keeper.path, damaged).unwrap();
            assert_eq!(keeper.read(), None);
        }
    }
}
