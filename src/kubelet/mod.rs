//! Makes one machine match the desired state: observe → plan → apply → report.
//!
//! - `plan` decides, purely; `phase` and `status` say what became of it. `observe` turns objects and files into what they decide on.
//! - `pods` acts on the plans, woken by `run`; `runtime` runs containers, each pod guarded by a [`shim`] that outlives the kubelet.
//! - `session` keeps the connection: heartbeats, acknowledgements of routes; logs and commands go through a `tunnel` each; `usage` is measured while somebody wants to know it. `report` sends statuses. `drain` holds stops back until
//!   nobody is led to a pod any more.
//! - `configuration` follows the ConfigMaps and Secrets that pods use; `environment` is what containers are told, `volumes` the files that they find, `told` how a change of
//!   that is noticed.
//! - [`routes`] makes services reachable on this machine. `os` is everything that differs between operating systems.

mod arguments;
mod configuration;
mod drain;
mod environment;
mod exec;
mod forward;
mod kept;
mod lifecycle;
mod limits;
mod logs;
mod node;
mod observe;
mod os;
mod phase;
mod plan;
mod pods;
mod ports;
mod probes;
mod recall;
mod report;
mod root;
pub mod routes;
mod run;
mod runtime;
mod session;
pub mod shim;
mod static_pods;
mod status;
mod told;
mod tunnel;
mod uid;
mod usage;
mod volumes;
mod wakes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

pub use arguments::Arguments;
pub use node::{address_towards, default_node_name};
use os::{AsyncBell, Host, Os};
pub use os::{asked_to_end, raw_terminal, supervised, terminal_resizes};
use pods::{Finished, Links, Pods};
use report::Reporter;
use root::Root;
use shim::log_files::LogLimits;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::v1::Selector;
use crate::api::{Kind, Revision};
use crate::client::{Cache, Client, Recorder};
use crate::error::{Error, Result};
use crate::tasks::Tasks;
use crate::time::Clock;

/// How many pods a node takes by default. A process pod costs about a megabyte, so the 110 of Kubernetes would waste most machines.
pub const DEFAULT_MAX_PODS: u32 = 1_000;
/// The smallest files that logs can be kept in, in bytes: a few of the longest records fit.
pub const MIN_LOG_SIZE: u64 = 64 * 1024;
/// How long the parts of a kubelet get to end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What a kubelet is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name, unique in the cluster.
    pub node_name: String,
    /// Where pods, their logs and the kubelet's identity are kept. One kubelet at a time.
    pub root_dir: PathBuf,
    /// The address at which other nodes reach this one's pods. `None`: loopback.
    pub node_ip: Option<IpAddr>,
    /// The node's labels, besides those that the kubelet sets itself.
    pub labels: BTreeMap<String, String>,
    /// The executable that is run as `<shim_program> shim <pod folder>`, one for each pod, and as `<shim_program> exec-guard …` for each command that is
    /// run in a container besides: any of BlueBird's own.
    pub shim_program: PathBuf,
    /// Whether this node makes services reachable.
    pub routes: bool,
    /// How many pods the scheduler may place here.
    pub max_pods: u32,
    /// When a file of a container's log is full, in bytes; at least [`MIN_LOG_SIZE`].
    pub log_max_size: u64,
    /// How many files of a container's logs are kept, over all its runs; at least 2.
    pub log_max_files: u32,
    /// A folder of manifests whose pods run here whether there is an apiserver or not.
    pub static_pods: Option<PathBuf>,
}

impl Config {
    /// The defaults; the shim is this very executable.
    pub fn new(node_name: impl Into<String>, root_dir: PathBuf) -> Self {
        Self {
            node_name: node_name.into(),
            root_dir,
            node_ip: None,
            labels: BTreeMap::new(),
            shim_program: std::env::current_exe().unwrap_or_else(|_| "kubelet".into()),
            routes: true,
            max_pods: DEFAULT_MAX_PODS,
            log_max_size: LogLimits::default().max_bytes,
            log_max_files: LogLimits::default().max_files,
            static_pods: None,
        }
    }
}

/// A running kubelet. Dropping it is like [`Kubelet::kill`], without waiting.
#[derive(Debug)]
pub struct Kubelet {
    tasks: Arc<Tasks>,
    reports: Tasks,
    pods: Arc<Mutex<Pods>>,
    /// Locked for as long as any part of the kubelet has it.
    root: Weak<Root>,
    wakes: Arc<wakes::Wakes>,
    stops_all: Arc<AtomicBool>,
    drains: Arc<drain::Drains>,
    refusal: watch::Receiver<Option<Error>>,
    /// Ends the tasks, which hold each other, when the kubelet is dropped.
    _ends: DropGuard,
}

/// Starts a kubelet: it finds its pods again at once and connects in its own time. Whether there is an apiserver doesn't matter.
///
/// # Errors
/// Precondition when the root folder can't be used, or another kubelet uses it; Invalid for a configuration that can't be.
pub async fn start(config: Config, client: Client, clock: Clock) -> Result<Kubelet> {
    let root = Arc::new(Root::open(&config.root_dir)?);
    let held = Arc::downgrade(&root);
    let unusable = |error: std::io::Error| Error::Precondition(format!("the root folder {} can't be used: {error}", root.path().display()));
    let host_ip = config.node_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let shim_program = std::path::absolute(&config.shim_program).map_err(unusable)?;
    let processes = runtime::Processes::new(root.clone(), shim_program.clone(), clock.clone());
    // Some are found by trying, which may take long.
    let (folder, program, places) = (root.path().to_owned(), shim_program.clone(), processes.places().clone());
    let tried = tokio::task::spawn_blocking(move || node::capabilities(&folder, &program, config.routes, &places));
    let capabilities = tried.await.map_err(|error| Error::Precondition(format!("what this node can do can't be found: {error}")))?;
    // What would be refused later is refused now.
    node::node(&config, host_ip, &capabilities, clock.now(), clock.now())?;

    let tasks = Arc::new(Tasks::new(CancellationToken::new()));
    let (token, reports) = (tasks.token(), Tasks::new(CancellationToken::new()));
    let cache = Cache::start(client.clone(), selectors(&config.node_name), &tasks);
    let reporter = Reporter::new(client.clone());
    let execs = runtime::Execs::new(root.clone(), shim_program);
    let (drains, wakes, finished) = (drain::Drains::new(root.has_cluster()), Arc::<wakes::Wakes>::default(), Arc::<Finished>::default());
    let (has_joined, stops_all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let unsynced = Arc::<kept::Unsynced>::default();
    let recorder = Recorder::new(client.clone(), &format!("kubelet/{}", config.node_name), clock.clone(), &tasks);
    let mut statics = static_pods::Watcher::new(config.static_pods.as_deref(), &config.node_name);
    let checker = probes::Checker::new(execs.clone());
    let probes = probes::Probes::new(host_ip, checker, recorder.clone(), wakes.clone(), tasks.clone());
    let links = Links {
        node_name: config.node_name.clone(),
        host_ip,
        capabilities: capabilities.clone(),
        root: root.clone(),
        probes,
        execs: execs.clone(),
        log_limits: LogLimits { max_bytes: config.log_max_size.max(MIN_LOG_SIZE), max_files: config.log_max_files.max(2) },
        processes,
        base_environment: environment::base(|name| std::env::var(name).ok(), std::env::current_exe().ok().as_deref()),
        client: client.clone(),
        cache: cache.clone(),
        followed: configuration::Followed::new(client.clone(), wakes.clone(), tasks.clone()),
        reporter: reporter.clone(),
        recorder: recorder.clone(),
        drains: drains.clone(),
        wakes: wakes.clone(),
        finished: finished.clone(),
        unsynced: unsynced.clone(),
        statics: statics.chosen(),
        has_joined: has_joined.clone(),
        stops_all: stops_all.clone(),
        clock: clock.clone(),
        tasks: tasks.clone(),
    };
    let bell = <Host as Os>::AsyncBell::open(&root.bell()).map_err(unusable)?;
    let pods = Pods::adopt(links).map_err(unusable)?;
    statics.begin(pods.left_statics()).await;
    let pods = Arc::new(Mutex::new(pods));
    let instance_id = root.instance_id()?;
    let mirrors = static_pods::Mirrors {
        node: config.node_name.clone(),
        instance_id: instance_id.clone(),
        client: client.clone(),
        cache: cache.clone(),
        chosen: statics.chosen(),
        finished: finished.clone(),
        has_joined: has_joined.clone(),
        recorder: recorder.clone(),
    };
    let kept_routes = routes::Keeper { root: root.clone(), unsynced: unsynced.clone() };
    let (refuse, refusal) = watch::channel(None);
    let usages = usage::Usages::new();
    let session = session::Session {
        host_ip,
        capabilities,
        instance_id,
        started: clock.now(),
        root: root.clone(),
        client: client.clone(),
        cache: cache.clone(),
        drains: drains.clone(),
        tunnels: tunnel::Tunnels::new(logs::Logs::new(root, finished), execs.clone()),
        wakes: wakes.clone(),
        usages: usages.clone(),
        has_joined,
        clock: clock.clone(),
        tasks: tasks.clone(),
        routes: if config.routes { routes::Routes::start_alone(&kept_routes, &tasks) } else { None },
        kept_routes,
        refusal: refuse,
        config,
    };

    reports.spawn("reporter", reporter.run(reports.token()));
    tasks.spawn("unsynced files", unsynced.run(token.clone()));
    tasks.spawn("bell", run::listen(bell, wakes.clone(), token.clone()));
    tasks.spawn("drains", drains.clone().run(cache.clone(), wakes.clone(), token.clone()));
    let woken = wakes.clone();
    tasks.spawn("static pods", statics.run(recorder, move || woken.all(), token.clone()));
    tasks.spawn("mirrors", mirrors.run(token.clone()));
    tasks.spawn("session", session.run(token.clone()));
    tasks.spawn("usage", usages.run(pods.clone(), token.clone()));
    tasks.spawn("pods", run::run(pods.clone(), cache.subscribe(), wakes.clone(), clock, token.clone()));
    let (woken, ended) = (wakes.clone(), token.clone());
    tasks.spawn("first state", async move {
        if ended.run_until_cancelled(cache.synced()).await == Some(true) {
            woken.all();
        }
    });
    Ok(Kubelet { tasks, reports, pods, root: held, wakes, stops_all, drains, refusal, _ends: token.drop_guard() })
}

/// The pods of the node; and all services and endpoint slices, for the routes, in the same order of revisions.
fn selectors(node_name: &str) -> Vec<Selector> {
    let all = |kind: Kind| Selector { kind: kind.to_string(), ..Selector::default() };
    let pods = Selector { node_name: node_name.to_owned(), ..all(Kind::Pod) };
    vec![pods, all(Kind::Service), all(Kind::EndpointSlice)]
}

impl Kubelet {
    /// Waits until the kubelet can't go on: another one has its name, or its pods are another cluster's. Pods keep running.
    pub async fn refused(&self) -> Error {
        let mut refusal = self.refusal.clone();
        let ended = || Error::internal("the kubelet's session ended without a reason");
        match refusal.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(ended),
            // A part of the kubelet has panicked, or it is being shut down.
            Err(_) => ended(),
        }
    }

    /// Waits until all routers of the cluster have applied a revision. For ever while there is no apiserver.
    pub async fn routed(&self, revision: Revision) {
        self.drains.acknowledgements().reach(revision).await;
    }

    /// Ends the kubelet. Its pods keep running; the next one on the same root folder takes them over.
    pub async fn shutdown(self) {
        self.tasks.shutdown(SHUTDOWN_GRACE).await;
        self.reports.shutdown(SHUTDOWN_GRACE).await;
        self.settle().await;
    }

    /// Ends all pods, each within its grace period, and then the kubelet.
    pub async fn shutdown_and_stop_pods(self) {
        run::stop_all(&self.pods, &self.stops_all, &self.wakes).await;
        self.shutdown().await;
    }

    /// Ends the kubelet unprepared, as `kill -9` would as far as a part of a process can. When this returns its root folder is free.
    pub async fn kill(self) {
        self.tasks.shutdown(Duration::ZERO).await;
        self.reports.shutdown(Duration::ZERO).await;
        self.settle().await;
    }

    /// What has begun in a thread ends: it can't be aborted. Then nobody has the root folder any more.
    async fn settle(self) {
        let (pods, root) = (self.pods, self.root);
        let waited = tokio::task::spawn_blocking(move || {
            drop(pods);
            let began = Instant::now();
            while root.strong_count() > 0 && began.elapsed() < SHUTDOWN_GRACE {
                std::thread::yield_now();
            }
            root.strong_count() == 0
        });
        match waited.await {
            Ok(true) => {}
            Ok(false) => tracing::error!("a part of the kubelet that has ended still holds the root folder"),
            Err(error) => tracing::error!(%error, "the last pass could not be awaited"),
        }
    }
}

/// Does what this program is started for by a kubelet, if that is what it was started for, and ends: `shim FOLDER` guards a pod, `exec-guard …` a command
/// that was started in a container, and `http-get …` asks a container to end.
pub fn play_role(arguments: impl IntoIterator<Item = OsString>) {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let words: Vec<String> = arguments.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
    match arguments.get(1).and_then(|role| role.to_str()) {
        Some("shim") => shim::main(arguments),
        Some(shim::get::ROLE) => shim::get::main(&words),
        Some(os::GUARD_ROLE) => match Host::guard(&words) {
            Ok(()) => std::process::exit(0),
            Err(error) => {
                eprintln!("a command can't be guarded: {error}");
                std::process::exit(1);
            }
        },
        Some(role) => {
            if let Some(code) = Host::play(role) {
                std::process::exit(code);
            }
        }
        None => {}
    }
}

/// How long what threads still do may hold up the end of a program: one that waits for a dead disk may wait for ever, and a supervisor waits for the program.
const LONGEST_END: Duration = Duration::from_secs(2);

/// Runs a program to its end, whatever the threads do that it has started.
///
/// # Errors
/// The program's own, and what the operating system says when it doesn't start threads.
pub fn complete<E: From<std::io::Error>>(program: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(program);
    runtime.shutdown_timeout(LONGEST_END);
    result
}

/// Kills every process that a kubelet with this root folder has started and that still runs, but for the shims, which then end by themselves, and removes
/// their control groups; returns how many there were. For tests, which must leave nothing behind.
///
/// # Errors
/// What the operating system says when it doesn't show its processes, or keeps a control group for longer than a moment.
pub fn kill_processes_of(root_dir: &std::path::Path) -> std::io::Result<usize> {
    let root_dir = match dunce::canonicalize(root_dir) {
        Ok(root_dir) => root_dir,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let killed = runtime::kill_marked(&root_dir, |_| true)?;
    let (places, began) = (Host::places(&root_dir), Instant::now());
    // Who was killed is not gone at once.
    while let Err(error) = places.sweep(|_| false) {
        if began.elapsed() > SHUTDOWN_GRACE {
            return Err(error);
        }
        std::thread::yield_now();
    }
    Ok(killed)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_kubelet_ends_also_while_a_thread_of_its_waits_for_ever() {
        let (_never, waits) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            let program = async {
                tokio::task::spawn_blocking(move || waits.recv());
                Ok::<_, std::io::Error>(())
            };
            ended.send(complete(program).is_ok())
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true), "it has ended");
    }
}
