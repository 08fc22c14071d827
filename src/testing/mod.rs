//! A cluster in one process, for anybody's tests: a real apiserver with its controllers and scheduler, real kubelets with real processes, and
//! faults on demand.
//!
//! ```
//! use bluebird::api::Resource;
//! use bluebird::api::v1::{Service, ServicePort, ServiceSpec};
//! use bluebird::testing::TestCluster;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let mut cluster = TestCluster::builder().start().await;
//!
//! let mut service = Service::default();
//! service.meta_mut().name = "web".into();
//! service.spec = Some(ServiceSpec { ports: vec![ServicePort { port: 80, ..Default::default() }], ..Default::default() });
//! cluster.client().create(service).await?;
//!
//! cluster.restart_apiserver().await;
//! let address = cluster
//!     .wait_for("the service to have an address", |state| {
//!         let service = state.get::<Service>("default", "web")?;
//!         let address = service.spec.as_ref()?.cluster_ip.clone();
//!         (!address.is_empty()).then_some(address)
//!     })
//!     .await;
//! assert!(address.starts_with("127."));
//!
//! cluster.finish().await;
//! # Ok::<(), bluebird::error::Error>(()) }).unwrap();
//! ```
//!
//! A test waits for a *level* ([`TestCluster::wait_for`]), never for a time. It ends with [`TestCluster::finish`], which checks what must hold in
//! every cluster: watchers that were resumed over all faults saw exactly what the history says, and no process is left.

mod builder;
pub(crate) mod cable;
mod etcd;
mod node;
mod ports;
pub(crate) mod shim;
mod witness;

use std::time::Duration;

use tempfile::TempDir;

pub use builder::Builder;
pub use cable::{Cable, Link};
pub use etcd::Etcd;
pub use ports::free_port;
pub use witness::Witness;

use crate::api::condition;
use crate::api::v1::Selector;
use crate::api::v1::{ConditionStatus, Node};
use crate::apiserver;
use crate::client::{Cache, Client};
use crate::cluster::ControlPlane;
use crate::tasks::Tasks;
use crate::time::Clock;
use node::TestNode;

/// How long a test's own tasks get to end.
const GRACE: Duration = Duration::from_secs(5);
/// How often to look where nobody tells of changes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A cluster for one test. See the [module](self).
///
/// Its methods panic when the cluster does not do what it must: they are assertions. A panic names the seed.
#[derive(Debug)]
pub struct TestCluster {
    seed: u64,
    deadline: Duration,
    clock: Clock,
    config: apiserver::Config,
    control_plane: Option<ControlPlane>,
    /// Between the test's clients and the apiserver.
    cable: Cable,
    nodes: Vec<TestNode>,
    client: Client,
    cache: Cache,
    witness: Witness,
    tasks: Tasks,
    /// The last field: whatever uses it is gone before it.
    folder: TempDir,
}

impl TestCluster {
    /// A cluster to be. By default it has no kubelet, which is all that a test of a controller needs.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client over TCP.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where other clients connect. It stays the same when the apiserver is restarted.
    pub fn url(&self) -> String {
        self.cable.url()
    }

    /// Everything there is in the cluster, kept up to date by a watch.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What the test's random choices begin with. Another run with the environment variable `BLUEBIRD_SEED` set to it makes the same ones.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A source of random choices that the seed decides. Each call begins anew.
    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    /// A folder that is removed with the cluster.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Waits until `reached` finds what it looks for in the state of the cluster; looks again after every change.
    ///
    /// # Panics
    /// After the deadline, saying for what it waited and what there was instead.
    pub async fn wait_for<T>(&self, what: &str, mut reached: impl FnMut(&Cache) -> Option<T>) -> T {
        let mut revisions = self.cache.revisions();
        let search = async {
            loop {
                revisions.mark_unchanged();
                if let Some(found) = reached(&self.cache) {
                    return found;
                }
                revisions.changed().await.expect("the cache lives as long as the cluster");
            }
        };
        match tokio::time::timeout(self.deadline, search).await {
            Ok(found) => found,
            Err(_) => panic!("waited {:?} in vain for {what}; there is:\n{}", self.deadline, self.describe()),
        }
    }

    /// Waits until `look` finds what it looks for where nobody tells of changes, in files or processes; looks every 10 ms.
    ///
    /// # Panics
    /// After the deadline.
    pub async fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        match tokio::time::timeout(self.deadline, search).await {
            Ok(found) => found,
            Err(_) => panic!("waited {:?} in vain for {what}", self.deadline),
        }
    }

    /// Follows also what these selectors match, from the beginning of the cluster; [`TestCluster::finish`] checks what that watch was sent.
    pub fn watch(&mut self, name: &str, selectors: Vec<Selector>) {
        self.witness.watch(name, self.client.clone(), selectors, &self.tasks);
    }

    /// How often a watch was cut off and resumed.
    pub fn resumes(&self) -> usize {
        self.witness.resumes()
    }

    /// Ends the apiserver, its controllers and its scheduler at once and unprepared.
    pub async fn kill_apiserver(&mut self) {
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.kill().await;
        }
        self.lead_cables(None);
    }

    /// Starts the apiserver again, with the data it had.
    pub async fn start_apiserver(&mut self) {
        assert!(self.control_plane.is_none(), "the apiserver runs");
        let control_plane = builder::control_plane(&self.config, &self.clock).await;
        self.lead_cables(Some(builder::address(&control_plane)));
        self.control_plane = Some(control_plane);
    }

    /// Kills and starts the apiserver.
    pub async fn restart_apiserver(&mut self) {
        self.kill_apiserver().await;
        self.start_apiserver().await;
    }

    /// Breaks every connection to the apiserver once.
    pub fn cut_connections(&self) {
        for cable in self.cables() {
            cable.cut();
        }
    }

    /// Changes the network between the test's clients and the apiserver.
    pub fn set_link(&self, link: Link) {
        self.cable.set_link(link);
    }

    /// Ends the cluster and checks what must hold in every one: every process of every pod is gone once its kubelet has stopped it;
    /// each watch kept its seven guarantees over all faults; the cache has what a list says; every process of every pod is gone once its kubelet has stopped it.
    ///
    /// # Panics
    /// When one of these doesn't hold.
    pub async fn finish(mut self) {
        self.set_link(Link::Good);
        if self.control_plane.is_none() {
            self.start_apiserver().await;
        }
        for node in &mut self.nodes {
            node.cable.set_link(Link::Good);
            node.end().await;
        }
        self.verify().await;
        self.tasks.shutdown(GRACE).await;
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.shutdown().await;
        }
    }

    async fn nodes_ready(&self) {
        for node in 0..self.nodes.len() {
            let name = self.node_name(node);
            let ready = |state: &Cache| {
                let node = state.get::<Node>("", name)?;
                let ready = node.status.as_ref()?.conditions.iter().find(|one| one.r#type == condition::READY)?;
                (ready.status() == ConditionStatus::True).then_some(())
            };
            self.wait_for(&format!("{name} to be ready"), ready).await;
        }
    }

    async fn verify(&self) {
        let listed = self.client.list_objects(Selector::default()).await.expect("the apiserver answers");
        let checks = async {
            self.witness.verify(&self.client).await.unwrap_or_else(|broken| panic!("{broken}"));
            assert!(self.cache.reached(listed.revision).await, "the cache lives as long as the cluster");
        };
        tokio::time::timeout(self.deadline, checks).await.expect("watchers are sent everything in time");
        if self.cache.revision() == listed.revision {
            let cached: Vec<_> =
                self.cache.keys().iter().filter_map(|key| self.cache.get_object(key)).map(|object| (*object).clone()).collect();
            assert_eq!(cached, listed.objects, "the cache has what the list says");
        }
        assert_eq!(self.cache.relists(), 0, "the cache was always resumed");
    }

    fn describe(&self) -> String {
        let object = |key: &crate::api::ObjectKey| self.cache.get_object(key).map(|object| format!("{object:?}\n"));
        self.cache.keys().iter().filter_map(object).collect()
    }

    fn lead_cables(&self, target: Option<std::net::SocketAddr>) {
        for cable in self.cables() {
            cable.lead_to(target);
        }
    }

    fn cables(&self) -> impl Iterator<Item = &Cable> {
        std::iter::once(&self.cable).chain(self.nodes.iter().map(|node| &node.cable))
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the test cluster's seed was {}: repeat with BLUEBIRD_SEED={}", self.seed, self.seed);
        }
    }
}

#[cfg(test)]
mod tests;
