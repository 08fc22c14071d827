//! Puts a test's cluster together.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::cable::Cable;
use super::node::TestNode;
use super::{TestCluster, Witness, shim};
use crate::apiserver::{self, Listen};
use crate::client::{Cache, Client};
use crate::cluster::ControlPlane;
use crate::kubelet::routes::LOCK_PORT;
use crate::tasks::Tasks;
use crate::time::Clock;

type Configure = Box<dyn FnOnce(&mut apiserver::Config) + Send>;

/// What a test's cluster should be like.
pub struct Builder {
    kubelets: usize,
    seed: Option<u64>,
    deadline: Duration,
    clock: Clock,
    shim: Option<PathBuf>,
    configure: Vec<Configure>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { kubelets: 0, seed: None, deadline: Duration::from_secs(30), clock: Clock::system(), shim: None, configure: Vec::new() }
    }
}

impl Builder {
    /// How many kubelets there are. Default: none.
    pub fn kubelets(mut self, kubelets: usize) -> Self {
        self.kubelets = kubelets;
        self
    }

    /// What random choices begin with. Default: the environment variable `BLUEBIRD_SEED`, or a random one.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long [`TestCluster::wait_for`] waits. Default: 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The wall clock of all parts. Default: the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// BlueBird's kubelet executable, which keeps the pods' processes. Default: the environment variable `BLUEBIRD_SHIM`, or a `kubelet` beside
    /// the test's executable, one folder above it, or in PATH.
    pub fn shim(mut self, executable: impl Into<PathBuf>) -> Self {
        self.shim = Some(executable.into());
        self
    }

    /// Changes the apiserver's configuration before it starts.
    pub fn configure(mut self, change: impl FnOnce(&mut apiserver::Config) + Send + 'static) -> Self {
        self.configure.push(Box::new(change));
        self
    }

    /// Starts the cluster; returns when its kubelets' nodes are ready.
    ///
    /// # Panics
    /// When that is impossible, saying why.
    pub async fn start(self) -> TestCluster {
        let seed = self.seed.or_else(seed_from_environment).unwrap_or_else(|| fastrand::u64(..));
        let folder = TempDir::with_prefix("bluebird-").expect("a temporary folder");
        let mut config = apiserver::Config::new(folder.path().join("data"), Listen::LOCAL);
        config.service_cidr = free_range();
        for change in self.configure {
            change(&mut config);
        }
        let control_plane = control_plane(&config, &self.clock).await;
        let target = address(&control_plane);
        let cable = Cable::new(target).await.expect("a free port");
        let client = Client::new(&cable.url()).expect("a URL");
        let tasks = Tasks::new(CancellationToken::new());
        let cache = Cache::start(client.clone(), Vec::new(), &tasks);
        assert!(cache.synced().await, "the apiserver answers");
        let witness = Witness::start(&client, &tasks).await.expect("the apiserver answers");
        let mut nodes = Vec::new();
        if self.kubelets > 0 {
            let shim = shim::find(self.shim).unwrap_or_else(|why| panic!("{why}"));
            for number in 0..self.kubelets {
                let cable = Cable::new(target).await.expect("a free port");
                let name = format!("node-{number}");
                let mut node = TestNode::new(&name, &folder.path().join(&name), &shim, cable, self.clock.clone());
                node.start().await;
                nodes.push(node);
            }
        }
        let control_plane = Some(control_plane);
        let (deadline, clock) = (self.deadline, self.clock);
        let cluster = TestCluster { seed, deadline, clock, config, control_plane, cable, nodes, client, cache, witness, tasks, folder };
        cluster.nodes_ready().await;
        cluster
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Builder of a test cluster with {} kubelets", self.kubelets)
    }
}

/// Starts the control plane, or says why that is impossible.
pub(super) async fn control_plane(config: &apiserver::Config, clock: &Clock) -> ControlPlane {
    match ControlPlane::start(config.clone(), clock.clone()).await {
        Ok(control_plane) => control_plane,
        Err(error) => panic!("the apiserver of a test cluster does not start: {error}"),
    }
}

/// Where it can be reached over TCP.
pub(super) fn address(control_plane: &ControlPlane) -> SocketAddr {
    match control_plane.listen() {
        Listen::Tcp(address) => *address,
        Listen::Unix(path) => panic!("a test cluster's apiserver has to listen on TCP, not on {}", path.display()),
    }
}

fn seed_from_environment() -> Option<u64> {
    let seed = std::env::var("BLUEBIRD_SEED").ok()?;
    Some(seed.parse().unwrap_or_else(|error| panic!("BLUEBIRD_SEED={seed:?} is no number: {error}")))
}

/// A /24 out of 127.96.0.0/12 in which nobody routes: its first address, where the routing lock of a machine is, can be bound.
fn free_range() -> String {
    loop {
        let (second, third) = (fastrand::u8(96..112), fastrand::u8(..));
        if std::net::TcpListener::bind(SocketAddr::from(([127, second, third, 0], LOCK_PORT))).is_ok() {
            return format!("127.{second}.{third}.0/24");
        }
    }
}
