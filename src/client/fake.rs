//! A small server to test against: the documented behaviour of Watch on a history in memory, with faults on demand.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, ServerStreamingService};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::Client;
use super::servers::{Server, Servers};
use crate::api::v1::{Event, KnownObject, Object, ObjectMeta, ObjectRef, Pod, WatchRequest, WatchResponse, event};
use crate::api::{Kind, ObjectKey, Resource, Revision};
use crate::error::Error;
use crate::tasks::Tasks;

/// Objects on the first pages of an initial state.
const PAGE: usize = 2;

/// A history of pods.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    changes: Vec<Event>,
    compacted: u64,
}

impl History {
    pub(super) fn revision(&self) -> Revision {
        Revision(self.changes.len() as u64)
    }

    /// Creates or changes a pod.
    pub(super) fn put(&mut self, name: &str) {
        let exists = self.state_at(self.revision()).contains_key(&ObjectKey::new(Kind::Pod, "", name));
        self.push(name, if exists { event::Type::Modified } else { event::Type::Added });
    }

    /// Deletes a pod, if there is one.
    pub(super) fn delete(&mut self, name: &str) {
        if self.state_at(self.revision()).contains_key(&ObjectKey::new(Kind::Pod, "", name)) {
            self.push(name, event::Type::Deleted);
        }
    }

    /// Forgets all changes up to now.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision().0;
    }

    fn push(&mut self, name: &str, change: event::Type) {
        let resource_version = self.revision().next().0;
        let metadata = ObjectMeta { name: name.into(), resource_version, ..Default::default() };
        let object = Pod { metadata: Some(metadata), ..Default::default() }.into_object();
        self.changes.push(Event { r#type: change.into(), object: Some(object) });
    }

    /// What there was at a revision.
    pub(super) fn state_at(&self, revision: Revision) -> BTreeMap<ObjectKey, Arc<Object>> {
        let mut state = BTreeMap::new();
        for change in &self.changes[..revision.0 as usize] {
            let object = change.object.clone().expect("every change has an object");
            let key = object.key().expect("every object is a pod");
            match change.r#type() {
                event::Type::Deleted => state.remove(&key),
                _ => state.insert(key, Arc::new(object)),
            };
        }
        state
    }

    /// The messages that a watch begins with.
    pub(super) fn answer(&self, request: &WatchRequest) -> Result<Vec<WatchResponse>, Error> {
        match (request.send_initial, request.from_revision) {
            (true, _) if !request.known.is_empty() => Ok(self.difference(&request.known)),
            (true, _) => Ok(self.initial()),
            (false, 0) => Ok(Vec::new()),
            (false, from) if from < self.compacted => Err(Error::Compacted { requested: Revision(from), oldest: Revision(self.compacted) }),
            (false, from) if from > self.revision().0 => Err(Error::Future { requested: Revision(from), current: self.revision() }),
            (false, from) => Ok(self.after(from)),
        }
    }

    /// One message for each change after a revision.
    pub(super) fn after(&self, from: u64) -> Vec<WatchResponse> {
        let changes = self.changes.iter().enumerate().skip(from as usize);
        changes.map(|(index, change)| WatchResponse { events: vec![change.clone()], revision: index as u64 + 1, synced: false }).collect()
    }

    fn initial(&self) -> Vec<WatchResponse> {
        let added = |object: &Arc<Object>| Event { r#type: event::Type::Added.into(), object: Some((**object).clone()) };
        self.paged(self.state_at(self.revision()).values().map(added).collect())
    }

    fn difference(&self, known: &[KnownObject]) -> Vec<WatchResponse> {
        let mut known: BTreeMap<_, _> =
            known.iter().filter_map(|known| Some((key_of(known.r#ref.as_ref()?), known.resource_version))).collect();
        let mut events = Vec::new();
        for (key, object) in self.state_at(self.revision()) {
            let change = match known.remove(&key) {
                Some(version) if version == object.meta().resource_version => continue,
                Some(_) => event::Type::Modified,
                None => event::Type::Added,
            };
            events.push(Event { r#type: change.into(), object: Some((*object).clone()) });
        }
        events.extend(known.into_keys().map(|key| {
            let metadata = ObjectMeta { name: key.name().into(), resource_version: self.revision().0, ..Default::default() };
            let object = Pod { metadata: Some(metadata), ..Default::default() }.into_object();
            Event { r#type: event::Type::Deleted.into(), object: Some(object) }
        }));
        self.paged(events)
    }

    fn paged(&self, events: Vec<Event>) -> Vec<WatchResponse> {
        let mut pages: Vec<_> = events.chunks(PAGE).map(|events| WatchResponse { events: events.to_vec(), ..Default::default() }).collect();
        pages.push(WatchResponse { revision: self.revision().0, synced: true, ..Default::default() });
        pages
    }
}

fn key_of(reference: &ObjectRef) -> ObjectKey {
    ObjectKey::new(Kind::Pod, &reference.namespace, &reference.name)
}

/// A channel to a server that answers every request with a function, over in-memory connections, and the serving itself, which ends when the channel
/// is gone.
pub(super) fn serve<A, F>(answer: A) -> (Channel, impl Future<Output = ()> + Send)
where
    A: Fn(axum::extract::Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<Body>> + Send + 'static,
{
    let (connections, incoming) = tokio::sync::mpsc::unbounded_channel();
    let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
    let routes = Routes::from(axum::Router::new().fallback(answer));
    let serving = async move {
        if let Err(error) = tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await {
            tracing::error!(%error, "a fake server ended");
        }
    };
    let connector = tower::service_fn(move |_: http::Uri| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let sent = connections.send(theirs).map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        std::future::ready(sent.map(|()| hyper_util::rt::TokioIo::new(ours)))
    });
    (Endpoint::from_static("http://fake").connect_with_connector_lazy(connector), serving)
}

/// Serves a history over in-memory connections.
#[derive(Clone)]
pub(super) struct FakeServer(Arc<Shared>);

struct Shared {
    history: Arc<Mutex<History>>,
    revision: Arc<watch::Sender<u64>>,
    /// Cancelled to end all present streams.
    streams: Mutex<CancellationToken>,
    requests: Mutex<Vec<(Instant, WatchRequest)>>,
    is_stopping: AtomicBool,
}

impl FakeServer {
    pub(super) fn new() -> Self {
        Self::serving(Arc::default(), Arc::new(watch::Sender::new(0)))
    }

    /// Another server of the same history.
    pub(super) fn beside(&self) -> Self {
        Self::serving(self.0.history.clone(), self.0.revision.clone())
    }

    fn serving(history: Arc<Mutex<History>>, revision: Arc<watch::Sender<u64>>) -> Self {
        let (streams, requests, is_stopping) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { history, revision, streams, requests, is_stopping }))
    }

    /// A client of this server.
    pub(super) fn client(&self, tasks: &Tasks) -> Client {
        Self::client_of(&[self], tasks)
    }

    /// A client of several servers.
    pub(super) fn client_of(servers: &[&FakeServer], tasks: &Tasks) -> Client {
        Client::from_servers(Servers::new(servers.iter().map(|server| server.server(tasks)).collect()))
    }

    fn server(&self, tasks: &Tasks) -> Server {
        let (served, token) = (self.clone(), tasks.token());
        let (channel, serving) = serve(move |request| {
            let watching = Watching(served.clone());
            async move { Grpc::new(ProstCodec::<WatchResponse, WatchRequest>::default()).server_streaming(watching, request).await }
        });
        tasks.spawn("fake server", async move {
            token.run_until_cancelled(serving).await;
        });
        Server::new("a fake", channel.clone(), Arc::new(move |_| channel.clone()))
    }

    /// Ends all streams, and does nothing any more.
    pub(super) fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
        self.cut();
    }

    /// Changes the history and tells all streams.
    pub(super) fn change(&self, change: impl FnOnce(&mut History)) -> Revision {
        let mut history = self.history();
        change(&mut history);
        self.0.revision.send_replace(history.revision().0);
        history.revision()
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.0.history.lock().expect("no panic while held")
    }

    /// Ends all present streams as a server does that shuts down.
    pub(super) fn cut(&self) {
        let mut streams = self.0.streams.lock().expect("no panic while held");
        std::mem::take(&mut *streams).cancel();
    }

    /// What was asked for so far.
    pub(super) fn requests(&self) -> Vec<WatchRequest> {
        self.timed_requests().into_iter().map(|(_, request)| request).collect()
    }

    /// What was asked for so far, and when.
    pub(super) fn timed_requests(&self) -> Vec<(Instant, WatchRequest)> {
        self.0.requests.lock().expect("no panic while held").clone()
    }

    fn watch(&self, request: WatchRequest) -> Result<Messages, Status> {
        self.0.requests.lock().expect("no panic while held").push((Instant::now(), request.clone()));
        if self.0.is_stopping.load(Ordering::Relaxed) {
            return Err(Error::NotDone("shutting down".into()).into());
        }
        let history = self.history();
        let begin = history.answer(&request)?;
        let seen = history.revision().0;
        drop(history);
        let cut = self.0.streams.lock().expect("no panic while held").clone();
        let begin = stream::iter(begin.into_iter().map(Ok));
        Ok(Box::pin(begin.chain(self.live(seen)).take_until(cut.cancelled_owned()).chain(stream::once(shut_down()))))
    }

    fn live(&self, seen: u64) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + use<> {
        let (server, revisions) = (self.clone(), self.0.revision.subscribe());
        stream::unfold((server, revisions, seen), |(server, mut revisions, seen)| async move {
            let now = *revisions.wait_for(|revision| *revision > seen).await.ok()?;
            let messages: Vec<_> = server.history().after(seen).into_iter().map(Ok).collect();
            Some((stream::iter(messages), (server, revisions, now)))
        })
        .flatten()
    }
}

async fn shut_down() -> Result<WatchResponse, Status> {
    Err(Error::Unavailable("shutting down".into()).into())
}

type Messages = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

struct Watching(FakeServer);

impl ServerStreamingService<WatchRequest> for Watching {
    type Response = WatchResponse;
    type ResponseStream = Messages;
    type Future = std::future::Ready<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<WatchRequest>) -> Self::Future {
        std::future::ready(self.0.watch(request.into_inner()).map(Response::new))
    }
}
