use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::accounts::Accounts;
use super::control_plane::ControlPlane;
use super::generated::control_plane_service_server::ControlPlaneServiceServer;
use super::generated::maintenance_service_server::MaintenanceServiceServer;
use super::generated::node_service_server::NodeServiceServer;
use super::generated::workload_service_server::WorkloadServiceServer;
use super::listen::Listener;
use super::maintenance::Maintenance;
use super::node::Nodes;
use super::serve::{Inside, MAX_REQUEST_BYTES, serve};
use super::sessions::Sessions;
use super::shared::{self, Shared};
use super::watch::Watches;
use super::workload::Workloads;
use super::writer::Writer;
use super::{Config, Listen, metrics, service_cidr};
use crate::api::{DEFAULT_NAMESPACE, FILE_DESCRIPTOR_SET, SERVICE_CIDR_ANNOTATION};
use crate::error::Error;
use crate::store::{HistoryLimits, OpenError, Options, Store};
use crate::tasks::Tasks;
use crate::time::{Backoff, Clock};
use crate::watch::Hub;

/// A running apiserver.
#[derive(Debug)]
pub struct Apiserver {
    listen: Listen,
    shutdown_grace: Duration,
    inside: Inside,
    health: HealthReporter,
    /// Tells it from the others on the same store. No two have the same, nor has one that is started again.
    id: String,
    nodes: Arc<Nodes>,
    /// Closed at the end; `None` if it is somebody else's.
    store: Option<Store>,
    /// Accepts and serves connections.
    serving: Arc<Tasks>,
    upkeep: Tasks,
}

/// Why an apiserver did not start.
#[derive(Debug)]
pub enum StartError {
    /// The address can be reached by other machines, and nobody said that plaintext is fine there.
    Plaintext(Listen),
    /// The address can't be had.
    Bind {
        /// Which.
        listen: Listen,
        /// What the system says.
        error: io::Error,
    },
    /// The data folder or the etcd can't be used.
    Store(OpenError),
    /// The store refused the first write.
    FirstWrite(Error),
    /// The services of the cluster have their addresses from another range.
    ServiceCidr {
        /// The cluster's.
        cluster: String,
        /// Ours.
        given: String,
    },
}

/// Starts an apiserver: when this returns it answers.
///
/// # Errors
/// Says why it can't, and what to do about it. Nothing runs then.
pub async fn start(config: Config, clock: Clock) -> Result<Apiserver, StartError> {
    let listener = Listener::bind(&config).await?;
    let store = open(&config, clock.clone()).await?;
    match begin(config, listener, &store, store.is_shared(), clock).await {
        Ok(apiserver) => Ok(Apiserver { store: Some(store), ..apiserver }),
        Err(error) => {
            store.close().await;
            Err(error)
        }
    }
}

/// Starts one of several apiservers on a store within this process, which outlives them.
///
/// # Errors
/// As [`start`].
#[cfg(test)]
pub(crate) async fn start_beside(config: Config, store: &Store, clock: Clock) -> Result<Apiserver, StartError> {
    let listener = Listener::bind(&config).await?;
    begin(config, listener, store, true, clock).await
}

async fn begin(config: Config, listener: Listener, store: &Store, is_shared: bool, clock: Clock) -> Result<Apiserver, StartError> {
    let listen = listener.address().map_err(|error| StartError::Bind { listen: config.listen.clone(), error })?;
    let writer = Writer { store: store.clone(), clock };
    let id = shared::new_id();
    let shared = first_writes(&writer, is_shared, &id, listen.url(), &config).await?;
    let serving = Arc::new(Tasks::new(CancellationToken::new()));
    let stopping = serving.token();
    let hub = Hub::new(store);
    let watches = Watches { store: store.clone(), hub: hub.clone(), stopping: stopping.clone() };
    let control_plane = Arc::new(ControlPlane::new(writer.clone()));
    let nodes = Arc::new(Nodes {
        writer,
        sessions: if shared.is_some() { Sessions::of_several() } else { Sessions::default() },
        tunnels: Default::default(),
        service_cidr: config.service_cidr,
        grace_period: config.node_grace_period,
        stopping,
        shared,
    });
    nodes.expect_known_nodes();
    let (health, routes) = routes(&nodes);
    let server = ControlPlaneServiceServer::new(control_plane.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
    let accounts = Arc::new(Accounts::new(config.limits));
    let inside = serve(listener, server, routes, watches, &accounts, &serving);
    let upkeep = Tasks::new(CancellationToken::new());
    upkeep.spawn("upkeep", keep_up(control_plane, nodes.clone(), accounts, upkeep.token()));
    upkeep.spawn("lease", keep_lease(nodes.clone(), hub, upkeep.token()));
    let place = config.etcd.map_or_else(|| config.data_dir.display().to_string(), |etcd| etcd.to_string());
    tracing::info!(revision = store.snapshot().revision().0, store = place, "apiserver starts");
    Ok(Apiserver { listen, shutdown_grace: config.shutdown_grace, inside, health, id, nodes, store: None, serving, upkeep })
}

impl Apiserver {
    /// Where it listens, with the port that was really bound.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// What a client is given to connect: `http://127.0.0.1:7443` or `unix:/path`.
    pub fn url(&self) -> String {
        self.listen.url()
    }

    /// Tells it from the other apiservers on the same store, and from itself before a restart.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether there may be other apiservers on the same store.
    pub fn is_shared(&self) -> bool {
        self.nodes.shared.is_some()
    }

    /// A client's channel within this process; no socket is involved.
    pub fn channel(&self) -> Channel {
        self.inside.channel(Endpoint::from_static("http://apiserver.inside"))
    }

    /// Makes such channels, each a connection of its own, as an endpoint says.
    pub fn channels(&self) -> impl Fn(Endpoint) -> Channel + Send + Sync + 'static {
        let inside = self.inside.clone();
        move |endpoint| inside.channel(endpoint)
    }

    /// Returns why the store has ended by itself, when it does. Nothing can be answered from then on; whoever started this has to end it.
    pub async fn lost_its_store(&self) -> String {
        self.nodes.writer.store.gave_up().await
    }

    /// Stops in order: not ready, no new requests, watches and sessions end with UNAVAILABLE, requests under way get the shutdown grace,
    /// and the store is closed.
    pub async fn shutdown(mut self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.health.clear_service_status("").await;
        self.serving.shutdown(self.shutdown_grace).await;
        self.upkeep.shutdown(self.shutdown_grace).await;
        if let Some(shared) = &self.nodes.shared {
            shared.leave().await;
        }
        if let Some(store) = self.store {
            store.close().await;
        }
        tracing::info!("apiserver has stopped");
    }

    /// Stops at once, as `kill -9` would as far as one process can: connections break, and nothing that waits is written. Its port and folder
    /// are free when this returns.
    pub async fn kill(self) {
        self.serving.abort().await;
        self.upkeep.abort().await;
        if let Some(store) = self.store {
            store.kill();
        }
    }
}

async fn open(config: &Config, clock: Clock) -> Result<Store, StartError> {
    let history = HistoryLimits { age: config.history_age, revisions: config.history_revisions, bytes: config.history_bytes };
    let options = Options { history, clock };
    if let Some(etcd) = &config.etcd {
        return Store::etcd(etcd, options).await.map_err(StartError::Store);
    }
    let folder = config.data_dir.clone();
    let open = move || Store::embedded(&folder, options);
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened.map_err(StartError::Store),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// How long a store of several may be out of reach before the first writes: as long as when it is opened.
const FIRST_WRITES: Duration = Duration::from_secs(15);

/// What has to be in the store before anybody is answered. A store of several may be away just now, as when it was opened: it may be starting, too.
async fn first_writes(writer: &Writer, is_shared: bool, id: &str, url: String, config: &Config) -> Result<Option<Shared>, StartError> {
    let prepare = async || {
        writer.create_own_namespaces(is_shared, &config.service_cidr).await.map_err(StartError::FirstWrite)?;
        service_cidr::settle(writer, &config.service_cidr).await
    };
    if !is_shared {
        return prepare().await.map(|()| None);
    }
    let write = async || {
        prepare().await?;
        Shared::begin(id, url.clone(), config.lease_duration, writer.clone()).await.map_err(StartError::FirstWrite)
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let deadline = Instant::now() + FIRST_WRITES;
    loop {
        match write().await {
            Err(StartError::FirstWrite(error @ (Error::NotDone(_) | Error::Unavailable(_)))) if Instant::now() < deadline => {
                tracing::warn!(%error, "the store is out of reach; trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            written => return written.map(Some),
        }
    }
}

fn routes(nodes: &Arc<Nodes>) -> (HealthReporter, Routes) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    let own = "the descriptors were made by the build of this very program";
    let maintenance = Maintenance::new(nodes.writer.store.clone(), nodes.stopping.clone());
    let routes = Routes::new(NodeServiceServer::new(nodes.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(WorkloadServiceServer::new(Workloads(nodes.clone())).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(MaintenanceServiceServer::new(maintenance).max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(health_service)
        .add_service(reflection().build_v1().expect(own))
        .add_service(reflection().build_v1alpha().expect(own));
    (health, routes)
}

/// How often at least the apiserver looks after what time changes.
const UPKEEP: Duration = Duration::from_secs(1);
/// How many times per grace period it looks for silent nodes, at least.
const LOOKS_PER_GRACE_PERIOD: u32 = 10;

async fn keep_up(control_plane: Arc<ControlPlane>, nodes: Arc<Nodes>, accounts: Arc<Accounts>, ends: CancellationToken) {
    let period = UPKEEP.min(nodes.grace_period / LOOKS_PER_GRACE_PERIOD).max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while ends.run_until_cancelled(ticks.tick()).await.is_some() {
        nodes.mark_silent().await;
        control_plane.drop_old();
        accounts.keep_up(Instant::now());
        nodes.tunnels.cut_stuck();
        metrics::upkeep();
    }
}

async fn keep_lease(nodes: Arc<Nodes>, hub: Hub, ends: CancellationToken) {
    if let Some(shared) = &nodes.shared {
        tokio::join!(shared.keep(&nodes.sessions, &hub, ends.clone()), ends.run_until_cancelled(shared.end_lapsed(&nodes.sessions)));
    }
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Plaintext(listen) => write!(
                f,
                "refusing to listen on {listen}: without encryption everybody who can reach that address could read and change the whole cluster. \
                 Listen on a loopback address such as 127.0.0.1:7443 or on unix:/path; or, in a network where that is fine, add --insecure-plaintext"
            ),
            StartError::Bind { listen, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{listen} is taken by another program: stop that one, or choose another address with --listen")
            }
            StartError::Bind { listen, error } => write!(f, "can't listen on {listen}: {error}; choose another address with --listen"),
            StartError::Store(error) => error.fmt(f),
            StartError::FirstWrite(error) => write!(f, "can't write to the store: {error}"),
            StartError::ServiceCidr { cluster, given } => write!(
                f,
                "the services of this cluster have their addresses from {cluster}, and this apiserver was told {given}: start it with --service-cidr {cluster}; or, to change it for the whole cluster, set the annotation {SERVICE_CIDR_ANNOTATION} of the namespace {DEFAULT_NAMESPACE} and start every apiserver anew"
            ),
        }
    }
}
