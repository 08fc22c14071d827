//! One connection: what it may do, and its life from the first byte to the last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::accounts::{Account, Accounts, CountedWatch, Origin, watch_wait};
use super::gather::gather;
use super::listen::Transport;
use super::streams::{Begun, Streams};
use crate::error::{Error, Result};

/// How many watches a connection may have. Whoever needs more opens another connection.
pub(super) const MAX_WATCHES: usize = 1_000;
/// How many requests a connection may have under way, watches included. HTTP/2 makes the client wait with more.
const MAX_STREAMS: u32 = 2_000;
/// How much of one request is taken in before it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How much of all requests of a connection is taken in before it is read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of one response waits in memory when the client is slower than we are, besides one message.
const SEND_BUFFER: usize = 16 * 1024;
/// How large the headers of a request may be.
const MAX_HEADERS: u32 = 16 * 1024;
/// How long a connection may be quiet before the other side is asked whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the other side may take to answer that.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/1 client may take to send the head of a request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How large the buffers of an HTTP/1 connection may become.
const HTTP1_BUFFER: usize = 64 * 1024;

/// How long a connection may be open without a single request.
const FIRST_REQUEST: Duration = Duration::from_secs(60);

/// What is counted for each connection. Every request carries it as an extension.
#[derive(Debug)]
pub(super) struct Connection {
    watches: Arc<Semaphore>,
    is_used: AtomicBool,
    /// Cancelled when it is of no use any more.
    cut: CancellationToken,
    /// `None` within the process: who is there has no limits but the connection's.
    client: Option<Client>,
}

/// Whose a connection is.
#[derive(Debug)]
struct Client {
    accounts: Arc<Accounts>,
    /// By where it comes from.
    account: Arc<Account>,
    /// Once it has carried a node's session.
    node: OnceLock<Arc<Account>>,
}

/// A watch that counts against all its limits until this is dropped.
#[derive(Debug)]
pub(super) struct WatchPermit {
    _of_connection: OwnedSemaphorePermit,
    _of_client: Option<CountedWatch>,
}

impl Connection {
    /// A connection within the process.
    pub(super) fn inside() -> Self {
        Self {
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            is_used: AtomicBool::new(false),
            cut: CancellationToken::new(),
            client: None,
        }
    }

    /// A connection of a client.
    pub(super) fn from(origin: Origin, accounts: &Arc<Accounts>) -> Self {
        let client = Client { accounts: accounts.clone(), account: accounts.of(origin), node: OnceLock::new() };
        Self { client: Some(client), ..Self::inside() }
    }

    /// Notes that a request has come.
    pub(super) fn used(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// From now on it is the node's, and no longer one of many from the same place: a fleet behind one address would get in its own way, and
    /// whoever else is there in the fleet's.
    pub(super) fn carries_session_of(&self, node: &str) {
        if let Some(client) = &self.client {
            client.node.get_or_init(|| client.accounts.of(Origin::Node(node.into())));
        }
    }

    /// Ends it, and everything on it.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Returns once it is clear that nobody asks anything here; never if somebody does.
    async fn is_idle(&self) {
        tokio::time::sleep(FIRST_REQUEST).await;
        if self.is_used.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when the client asks too often.
    pub(super) fn request(&self) -> Result<()> {
        self.account().map_or(Ok(()), |account| account.request())
    }

    /// Counts a watch until the permit is dropped.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when there are as many as there may be, of the connection or of the client.
    pub(super) fn begin_watch(&self) -> Result<WatchPermit> {
        let of_connection = self.watches.clone().try_acquire_owned().map_err(|_| Error::Exhausted {
            message: format!("this connection has {MAX_WATCHES} watches already; end some, or open another connection"),
            retry_after: Some(watch_wait()),
        })?;
        let of_client = self.account().map(Account::begin_watch).transpose()?;
        Ok(WatchPermit { _of_connection: of_connection, _of_client: of_client })
    }

    fn account(&self) -> Option<&Arc<Account>> {
        let client = self.client.as_ref()?;
        Some(client.node.get().unwrap_or(&client.account))
    }
}

/// Serves one connection until either side ends it. Once `stopping` it takes no more requests, and ends with the last one under way.
pub(super) async fn serve<S>(io: Box<dyn Transport>, service: S, info: Arc<Connection>, stopping: CancellationToken)
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let mut streams = Streams::default();
    let builder = builder(streams.begun());
    let (io, mut outlet) = gather(io);
    let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = poll_fn(|cx| outlet.poll(cx, |cx| streams.poll(connection.as_mut(), cx))) => outcome,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            poll_fn(|cx| outlet.poll(cx, |cx| streams.poll(connection.as_mut(), cx))).await
        }
        () = info.is_idle() => return,
        () = info.cut.cancelled() => return,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

fn builder(begun: Begun) -> auto::Builder<Begun> {
    let mut builder = auto::Builder::new(begun);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        // No client of gRPC looks at it.
        .auto_date_header(false);
    builder
}
