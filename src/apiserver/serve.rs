//! One port for everything: gRPC, reflection, health and metrics, over HTTP/2 and HTTP/1.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use axum::http::{Method, Request, Response, StatusCode, Version};
use futures_util::future::{Either, TryFutureExt as _};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use super::accounts::{Accounts, Origin};
use super::connection::{self, Connection};
use super::control_plane::ControlPlane;
use super::generated::control_plane_service_server::{ControlPlaneServiceServer, SERVICE_NAME};
use super::listen::{Listener, Transport};
use super::metrics::RpcMetrics;
use super::refuse::{self, refuse};
use super::stopping_error;
use super::watch::{self, Watches};
use super::whole::Whole;
use crate::tasks::Tasks;

/// Answers every method of the control plane but Watch.
pub(super) type ControlPlaneServer = ControlPlaneServiceServer<Arc<ControlPlane>>;

/// The largest request: gRPC's own default, and more than the largest transaction.
pub(super) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// How many connections there may be; further ones are closed at once.
pub(super) const MAX_CONNECTIONS: usize = 10_000;
/// How long to wait before accepting again when the system can't give us another connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How many bytes are under way in each direction of a connection within the process.
const DUPLEX_BYTES: usize = 256 * 1024;
/// How many connections within the process may wait to be accepted.
const WAITING_DUPLEXES: usize = 16;

/// Connects within the process.
#[derive(Clone, Debug)]
pub(super) struct Inside(mpsc::Sender<DuplexStream>);

/// Accepts connections and serves them until `stopping`.
pub(super) fn serve(
    listener: Listener,
    control_plane: ControlPlaneServer,
    routes: Routes,
    watches: Watches,
    accounts: &Arc<Accounts>,
    tasks: &Arc<Tasks>,
) -> Inside {
    let (connect, inside) = mpsc::channel(WAITING_DUPLEXES);
    let stopping = tasks.token();
    let watches = Arc::new(watches);
    let watch = move |request| {
        let watches = Arc::clone(&watches);
        async move { watches.respond(request).await }
    };
    let router = routes.prepare().into_axum_router();
    let app = App {
        control_plane,
        router: router.route(watch::PATH, axum::routing::any(watch)).route("/metrics", axum::routing::get(super::metrics::render)),
        metrics: Arc::new(RpcMetrics::new()),
        stopping: stopping.clone(),
        connection: Arc::new(Connection::inside()),
    };
    // A connection belongs to `tasks` and not to whoever accepted it, so that it can outlive the listener by its last requests.
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let server = Server { app, permits, accounts: accounts.clone(), tasks: Arc::downgrade(tasks), stopping };
    tasks.spawn("accept", server.accept(listener, inside));
    Inside(connect)
}

impl Inside {
    /// A client's channel that needs no socket.
    pub(super) fn channel(&self, endpoint: Endpoint) -> Channel {
        let connect = self.0.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let connect = connect.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
                let stopped = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "the apiserver of this process has stopped");
                connect.send(theirs).await.map_err(stopped)?;
                Ok::<_, io::Error>(TokioIo::new(ours))
            }
        });
        endpoint.connect_with_connector_lazy(connector)
    }
}

struct Server {
    app: App,
    permits: Arc<Semaphore>,
    accounts: Arc<Accounts>,
    tasks: std::sync::Weak<Tasks>,
    stopping: CancellationToken,
}

enum Wake {
    Stopping,
    Outside(io::Result<(Box<dyn Transport>, Origin)>),
    Inside(DuplexStream),
}

impl Server {
    async fn accept(self, listener: Listener, mut inside: mpsc::Receiver<DuplexStream>) {
        loop {
            let wake = tokio::select! {
                biased;
                () = self.stopping.cancelled() => Wake::Stopping,
                Some(stream) = inside.recv() => Wake::Inside(stream),
                accepted = listener.accept() => Wake::Outside(accepted),
            };
            match wake {
                Wake::Stopping => return,
                Wake::Inside(stream) => self.spawn(Box::new(stream), Connection::inside(), None),
                Wake::Outside(Ok((stream, origin))) => match self.permits.clone().try_acquire_owned() {
                    Ok(permit) => self.spawn(stream, Connection::from(origin, &self.accounts), Some(permit)),
                    Err(_) => tracing::warn!(MAX_CONNECTIONS, "too many connections; a new one is closed"),
                },
                Wake::Outside(Err(error)) => {
                    tracing::warn!(%error, "can't accept a connection");
                    self.stopping.run_until_cancelled(tokio::time::sleep(ACCEPT_BACKOFF)).await;
                }
            }
        }
    }

    fn spawn(&self, io: Box<dyn Transport>, connection: Connection, permit: Option<OwnedSemaphorePermit>) {
        let Some(tasks) = self.tasks.upgrade() else { return };
        let connection = Arc::new(connection);
        let app = App { connection: connection.clone(), ..self.app.clone() };
        let stopping = self.stopping.clone();
        tasks.spawn("connection", async move {
            connection::serve(io, app, connection, stopping).await;
            drop(permit);
        });
    }
}

/// Whether a request comes from a gRPC client or asks for a page, and not from a web page of somebody else's in a browser on this machine, which can
/// reach a loopback port and send what it likes over HTTP/1.
fn is_from_a_client<B>(request: &Request<B>) -> bool {
    let content = request.headers().get(CONTENT_TYPE);
    let is_grpc = content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
    let reads_only = request.method() == Method::GET;
    !request.headers().contains_key(ORIGIN) && (reads_only || (is_grpc && request.version() == Version::HTTP_2))
}

/// Whether the service answers it, which knows nothing of watches.
fn is_for_control_plane(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    method.is_some_and(|method| method.starts_with('/')) && path != watch::PATH
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct App {
    /// Asked without the router, since nearly all requests are its.
    control_plane: ControlPlaneServer,
    router: axum::Router,
    metrics: Arc<RpcMetrics>,
    stopping: CancellationToken,
    connection: Arc<Connection>,
}

impl Service<Request<hyper::body::Incoming>> for App {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<hyper::body::Incoming>) -> Self::Future {
        self.connection.used();
        if self.stopping.is_cancelled() {
            let refusal = Status::from(stopping_error()).into_http();
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        if !is_from_a_client(&request) {
            let mut refusal = Response::new(Body::empty());
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        let refusal = match refuse::is_counted(request.uri().path()) {
            true => self.connection.request().err(),
            false => None,
        };
        let began = Instant::now();
        let path = request.uri().clone();
        let metrics = self.metrics.clone();
        request.extensions_mut().insert(self.connection.clone());
        let answer = match (refusal, is_for_control_plane(path.path())) {
            (Some(error), _) => Either::Left(refuse(request, error)),
            (None, true) => Either::Right(Either::Left(self.control_plane.call(request).map_ok(|response| response.map(Body::new)))),
            (None, false) if request.version() == Version::HTTP_2 => {
                Either::Right(Either::Right(Either::Left(Service::call(&mut self.router, request.map(Whole)))))
            }
            (None, false) => Either::Right(Either::Right(Either::Right(Service::call(&mut self.router, request)))),
        };
        Box::pin(async move {
            let response = answer.await?;
            metrics.answered(path.path(), response.headers(), began.elapsed());
            Ok(response)
        })
    }
}
