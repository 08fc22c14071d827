//! A real apiserver in a temporary folder, and what tests around it need again and again.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::api::condition::{self, READY};
use crate::api::v1::{ConditionStatus, Container, Node, NodeStatus, ObjectMeta, Pod, PodSpec};
use crate::apiserver::{self, Apiserver, Config, Listen};
use crate::client::{Cache, Client};
use crate::error::Error;
use crate::tasks::Tasks;
use crate::time::Clock;

/// Longer than anything here takes; only a test that fails waits so long.
const BOUND: Duration = Duration::from_secs(20);

pub(crate) struct Scene {
    pub(crate) tasks: Tasks,
    client: Client,
    config: Config,
    apiserver: Option<Apiserver>,
    _folder: TempDir,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::start_as(|_| {}).await
    }

    pub(crate) async fn start_as(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::new(folder.path(), Listen::LOCAL);
        change(&mut config);
        let apiserver = apiserver::start(config.clone(), Clock::system()).await.expect("the apiserver starts");
        config.listen = apiserver.listen().clone();
        let client = Client::new(&apiserver.url()).expect("its address is one");
        let tasks = Tasks::new(CancellationToken::new());
        Self { tasks, client, config, apiserver: Some(apiserver), _folder: folder }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client within the apiserver's process.
    pub(crate) fn inside(&self) -> Client {
        Client::from_channel(self.apiserver.as_ref().expect("it runs").channel())
    }

    /// Where the apiserver listens.
    pub(crate) fn address(&self) -> SocketAddr {
        match &self.config.listen {
            Listen::Tcp(address) => *address,
            Listen::Unix(_) => unreachable!("it was told to listen on TCP"),
        }
    }

    pub(crate) async fn kill_and_restart(&mut self) {
        if let Some(apiserver) = self.apiserver.take() {
            apiserver.kill().await;
        }
        self.apiserver = Some(apiserver::start(self.config.clone(), Clock::system()).await.expect("the apiserver starts again"));
    }

    /// Asks again while the apiserver can't be reached.
    pub(crate) async fn retry<T>(&self, ask: impl AsyncFn() -> Result<T, Error>) -> T {
        until("the apiserver answers", async || match ask().await {
            Err(error) if error.is_retryable() => None,
            answer => Some(answer.expect("no other error")),
        })
        .await
    }

    pub(crate) async fn end(mut self) {
        self.tasks.shutdown(BOUND).await;
        if let Some(apiserver) = self.apiserver.take() {
            apiserver.shutdown().await;
        }
    }
}

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// Looks again and again until there is something to see.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    bounded(what, async {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        loop {
            often.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    })
    .await
}

/// Looks at a cache after every change of it until there is something to see.
pub(crate) async fn until_cached<T>(what: &str, cache: &Cache, look: impl Fn(&Cache) -> Option<T>) -> T {
    let mut changes = cache.subscribe();
    bounded(what, async {
        loop {
            if let Some(seen) = look(cache) {
                return seen;
            }
            changes.next().await.expect("the cache lives");
        }
    })
    .await
}

/// A valid pod that no node has to run, since nothing here runs any.
pub(crate) fn pod(name: &str) -> Pod {
    let container = Container { name: "main".into(), command: vec!["true".into()], ..Default::default() };
    let spec = PodSpec { containers: vec![container], ..Default::default() };
    Pod { metadata: Some(ObjectMeta { name: name.into(), ..Default::default() }), spec: Some(spec), status: None }
}

/// A node that is ready and runs processes.
pub(crate) fn node(name: &str, max_pods: u32) -> Node {
    let mut status = NodeStatus { capabilities: vec!["runtime.process".into()], ..Default::default() };
    status.capacity.insert("pods".into(), max_pods.to_string());
    condition::set(&mut status.conditions, READY, ConditionStatus::True, "KubeletReady", "", Clock::system().now());
    Node { metadata: Some(ObjectMeta { name: name.into(), ..Default::default() }), status: Some(status), ..Default::default() }
}

/// Registers a node.
pub(crate) async fn join(client: &Client, node: Node) {
    let request = crate::api::v1::JoinRequest { node: Some(node), instance_id: "test".into() };
    client.join(request).await.expect("the node joins");
}
