//! Puts a test's cluster together.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::cable::Cable;
use super::{TestCluster, Witness};
use crate::apiserver::{self, Listen};
use crate::client::{Cache, Client};
use crate::cluster::ControlPlane;
use crate::kubelet::routes::LOCK_PORT;
use crate::tasks::Tasks;
use crate::time::Clock;

/// What a test's cluster should be like.
pub struct Builder {
    seed: Option<u64>,
    deadline: Duration,
    clock: Clock,
    configure: Vec<Box<dyn FnOnce(&mut apiserver::Config) + Send>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { seed: None, deadline: Duration::from_secs(30), clock: Clock::system(), configure: Vec::new() }
    }
}

impl Builder {
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

    /// Changes the apiserver's configuration before it starts.
    pub fn configure(mut self, change: impl FnOnce(&mut apiserver::Config) + Send + 'static) -> Self {
        self.configure.push(Box::new(change));
        self
    }

    /// Starts the cluster.
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
        let control_plane = Some(control_plane);
        let (deadline, clock) = (self.deadline, self.clock);
        let cluster = TestCluster { seed, deadline, clock, config, control_plane, cable, client, cache, witness, tasks, folder };
        cluster
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Builder of a test cluster")
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
