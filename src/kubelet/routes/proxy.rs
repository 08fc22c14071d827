//! The portable router: a listener for each route, and a copy loop for each connection.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::balancer::{Balancer, Failure};
use super::fresh::Backend;
use super::state::State;
use super::table::{Change, RouteTable, difference};
use crate::tasks::Tasks;

/// The most connections that one route carries at once. Further ones wait in the listener's queue until one ends.
const MAX_CONNECTIONS: usize = 4096;
/// How long a backend gets to take a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// What is buffered per direction of a connection.
const COPY_BUFFER: usize = 32 * 1024;
/// How long to wait after a failed bind, at first and at most.
const BIND_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long to wait after a failed accept, which mostly means that this process has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long open connections may go on after the router was asked to end.
const DRAIN: Duration = Duration::from_secs(1);

/// The routes in effect. Dropping it ends all of them at once.
pub(super) struct Proxy {
    table: RouteTable,
    routes: HashMap<SocketAddr, OpenRoute>,
    listeners: Tasks,
    state: watch::Sender<State>,
}

struct OpenRoute {
    backends: Backends,
    closed: CancellationToken,
}

type Backends = Arc<Mutex<Balancer>>;

impl Proxy {
    /// Nothing is routed yet; `token` ends it, and `state` is told about listeners that can't be had.
    pub(super) fn new(token: CancellationToken, state: watch::Sender<State>) -> Self {
        Self { table: RouteTable::default(), routes: HashMap::new(), listeners: Tasks::new(token), state }
    }

    /// Makes the routes those of the table, touching only what is different. When it returns no backend that was removed gets a connection
    /// any more, and every new address accepts connections unless it could not be bound. Gives what ends when the removed ones know of all that they were
    /// given.
    pub(super) fn apply(&mut self, table: &RouteTable) -> Vec<TaskTracker> {
        let mut left = Vec::new();
        for change in difference(&self.table, table) {
            match &change {
                Change::Added(frontend, route) => {
                    tracing::info!(%frontend, service = %route.service, backends = ?route.backends, "route added");
                    self.open(*frontend, &route.backends);
                }
                Change::Changed(frontend, route) => {
                    tracing::info!(%frontend, service = %route.service, backends = ?route.backends, "route changed");
                    if let Some(open) = self.routes.get(frontend) {
                        left.extend(locked(&open.backends).set(&route.backends));
                    }
                }
                Change::Removed(frontend) => {
                    tracing::info!(%frontend, "route removed");
                    if let Some(open) = self.routes.remove(frontend) {
                        left.extend(locked(&open.backends).set(&[]));
                        open.closed.cancel();
                    }
                }
            }
            self.table.apply(change);
        }
        left
    }

    /// Closes all listeners and lets open connections go on for a moment.
    pub(super) async fn shutdown(self) {
        self.listeners.shutdown(DRAIN + ACCEPT_RETRY).await;
    }

    fn open(&mut self, frontend: SocketAddr, backends: &[SocketAddr]) {
        let mut balancer = Balancer::default();
        balancer.set(backends);
        let open = OpenRoute { backends: Arc::new(Mutex::new(balancer)), closed: CancellationToken::new() };
        let listener = Listener {
            frontend,
            backends: open.backends.clone(),
            closed: open.closed.clone(),
            ended: self.listeners.token(),
            state: self.state.clone(),
        };
        let first_try = bind(frontend);
        self.listeners.spawn("route", listener.run(first_try));
        self.routes.insert(frontend, open);
    }
}

/// One route's own task.
struct Listener {
    frontend: SocketAddr,
    backends: Backends,
    /// The route was removed: no new connections, the open ones go on.
    closed: CancellationToken,
    /// The whole router ends.
    ended: CancellationToken,
    state: watch::Sender<State>,
}

enum Wake {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    ConnectionOver,
    Close,
}

impl Listener {
    async fn run(self, first_try: io::Result<TcpListener>) {
        let Some(listener) = self.bound(first_try).await else { return };
        let mut connections = JoinSet::new();
        loop {
            let wake = tokio::select! {
                () = self.closed.cancelled() => Wake::Close,
                () = self.ended.cancelled() => Wake::Close,
                Some(_) = connections.join_next() => Wake::ConnectionOver,
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => Wake::Accepted(accepted),
            };
            match wake {
                Wake::Accepted(Ok((client, _))) => drop(connections.spawn(forward(client, self.backends.clone()))),
                Wake::Accepted(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Wake::Accepted(Err(error)) => {
                    tracing::warn!(frontend = %self.frontend, %error, "can't accept a connection; trying again in {ACCEPT_RETRY:?}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                Wake::ConnectionOver => {}
                Wake::Close => break,
            }
        }
        drop(listener);
        self.drain(connections).await;
    }

    /// Waits for the open connections; when the router ends, only for a moment.
    async fn drain(&self, mut connections: JoinSet<()>) {
        let over = async { while connections.join_next().await.is_some() {} };
        let deadline = async {
            self.ended.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = over => {}
            () = deadline => {}
        }
    }

    /// The listener, as soon as the address can be had; `None` if nobody wants it any more.
    async fn bound(&self, first_try: io::Result<TcpListener>) -> Option<TcpListener> {
        let mut bound = first_try;
        let mut wait = BIND_RETRY.0;
        loop {
            match bound {
                Ok(listener) => {
                    self.tell(None);
                    return Some(listener);
                }
                Err(error) => {
                    tracing::warn!(frontend = %self.frontend, %error, "can't listen for a service; trying again in {wait:?}");
                    self.tell(Some(error.to_string()));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.closed.cancelled() => break,
                () = self.ended.cancelled() => break,
            }
            wait = (wait * 2).min(BIND_RETRY.1);
            bound = bind(self.frontend);
        }
        self.tell(None);
        None
    }

    fn tell(&self, trouble: Option<String>) {
        self.state.send_if_modified(|state| state.set_unbound(self.frontend, trouble));
    }
}

/// Binds without waiting, so that a route is in effect when [`Proxy::apply`] returns.
fn bind(frontend: SocketAddr) -> io::Result<TcpListener> {
    let socket = match frontend {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // Connections of an earlier listener may still be there. On Windows the option would mean "take it from whoever has it".
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(frontend)?;
    socket.listen(1024)
}

/// One connection, from accept to end.
async fn forward(mut client: TcpStream, backends: Backends) {
    let Some((mut backend, _turn)) = connect(&backends).await else {
        abort(&client);
        return;
    };
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, COPY_BUFFER, COPY_BUFFER).await;
    if copied.is_err() {
        // A stream that was cut must not look like one that came to its end.
        abort(&client);
        abort(&backend.stream);
    }
}

/// A connection to a backend, after trying each at most once.
async fn connect(backends: &Backends) -> Option<(Backend, Turn)> {
    let mut tried = Vec::new();
    loop {
        let address = locked(backends).pick(&tried, Instant::now())?;
        let turn = Turn { backends: backends.clone(), address };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut balancer = locked(backends);
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => {
                let token = balancer.answered(address);
                drop(balancer);
                // It may have been removed meanwhile.
                if let Some(token) = token {
                    return Some((Backend::new(stream, token), turn));
                }
            }
            Err(error) => {
                tracing::debug!(backend = %address, %error, "a backend takes no connection; trying the next");
                let failure = if error.kind() == io::ErrorKind::ConnectionRefused { Failure::Refused } else { Failure::Silent };
                balancer.failed(address, failure, Instant::now());
            }
        }
        tried.push(address);
    }
}

/// A backend's turn: counts as an open connection until dropped.
struct Turn {
    backends: Backends,
    address: SocketAddr,
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.backends).ended(self.address);
    }
}

/// Makes the peer see a reset when the stream is dropped.
fn abort(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection is closed instead of reset");
    }
}

fn locked(backends: &Backends) -> MutexGuard<'_, Balancer> {
    backends.lock().expect("no panic while held")
}
