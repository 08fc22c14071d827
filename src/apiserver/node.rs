//! `NodeService`: nodes register, keep a session, and answer with tunnels.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::connection::Connection;
use super::generated::node_service_server::NodeService;
use super::sessions::{Opened, SessionId, Sessions, Silent, response};
use super::shared::{Shared, lapsed};
use super::tunnels::{ToNode, Tunnels};
use super::writer::Writer;
use super::{mirrors, readiness, stopping_error, writes};
use crate::api::v1::{
    Hello, JoinRequest, JoinResponse, Object, PutMirrorRequest, PutMirrorResponse, RemoveMirrorRequest, RemoveMirrorResponse,
    SessionRequest, SessionResponse, TunnelRequest, Welcome, session_request, session_response, tunnel_request,
};
use crate::api::{Kind, ObjectKey, Resource as _, Revision};
use crate::error::{Error, Result};
use crate::store::Stored;

/// How long a stream may take to send its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How many heartbeats fit into the grace period: two may be lost.
pub(super) const HEARTBEATS_PER_GRACE_PERIOD: u32 = 3;
/// How many nodes are marked at once when many fall silent together.
const MARKED_AT_ONCE: usize = 64;

/// The service.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) writer: Writer,
    pub(super) sessions: Sessions,
    pub(super) tunnels: Tunnels,
    pub(super) service_cidr: String,
    pub(super) grace_period: Duration,
    pub(super) stopping: CancellationToken,
    /// `None` where nobody else has the store.
    pub(super) shared: Option<Shared>,
}

impl Nodes {
    /// Every node that was alive when the apiserver last stopped has the grace period to come back. Where others share the store, it may have come
    /// back to them.
    pub(super) fn expect_known_nodes(&self) {
        if let Some(shared) = &self.shared {
            shared.look(&self.sessions, Instant::now());
            return;
        }
        let snapshot = self.writer.store.snapshot();
        let first = ObjectKey::lower_bound(Kind::Node, "");
        let nodes = snapshot.range(&first).take_while(|stored| stored.key.kind() == Kind::Node);
        for node in nodes.filter(|stored| readiness::counts_as_alive(&stored.decode())) {
            self.sessions.expect(node.key.name(), Instant::now());
        }
    }

    /// Marks the nodes that nobody has heard of for the grace period, and sends those away that somebody has deleted.
    pub(super) async fn mark_silent(&self) {
        let snapshot = self.writer.store.snapshot();
        self.sessions.end_unregistered(|key| snapshot.get(key).is_some());
        if let Some(shared) = &self.shared {
            let wronged = shared.look(&self.sessions, Instant::now());
            stream::iter(wronged).for_each_concurrent(MARKED_AT_ONCE, |node| self.take_back(node)).await;
        }
        let silent = self.sessions.silent(Instant::now(), self.grace_period);
        stream::iter(silent).for_each_concurrent(MARKED_AT_ONCE, |silent| self.mark(silent)).await;
    }

    /// Makes sure that a request comes from the kubelet that has the node's session here.
    fn check_session(&self, node: &str, instance_id: &str) -> Result<()> {
        self.sessions.check_instance(node, instance_id)?;
        match self.sessions.instance(node) {
            Some(_) => Ok(()),
            None => Err(Error::Unavailable(format!("this apiserver has no session with node {node:?}"))),
        }
    }

    /// Which other apiserver has a node's session.
    pub(super) fn elsewhere(&self, node: &str) -> Option<String> {
        let shared = self.shared.as_ref()?;
        let node = self.writer.store.snapshot().get(&ObjectKey::new(Kind::Node, "", node))?.decode();
        shared.elsewhere(&node, Instant::now())
    }

    async fn mark(&self, Silent { node, reason }: Silent) {
        let key = ObjectKey::new(Kind::Node, "", &node);
        let is_marked = AtomicBool::new(false);
        let decide = |object: Object| {
            let now = Instant::now();
            // It may have come back while this was decided, here or elsewhere.
            let is_ours = self.shared.as_ref().is_none_or(|shared| shared.may_judge(&object, now));
            let change = match is_ours && self.sessions.is_silent(&node, now, self.grace_period) {
                true => readiness::fell_silent(object, reason, self.grace_period, self.writer.clock.now()),
                false => writes::Change::Nothing,
            };
            is_marked.store(change != writes::Change::Nothing, Ordering::Relaxed);
            Ok(change)
        };
        match self.writer.change(&key, false, decide).await {
            Ok(_) if is_marked.into_inner() => {
                tracing::warn!(node, reason = reason.as_str(), "node is silent");
                self.sessions.settle(&node, Instant::now(), self.grace_period);
                // A session may have begun after this was decided, and have found nothing to correct.
                if self.sessions.instance(&node).is_some() {
                    self.take_back(node).await;
                }
            }
            Ok(_) | Err(Error::NotFound(_)) => self.sessions.settle(&node, Instant::now(), self.grace_period),
            // It stays among the silent ones and is tried again.
            Err(error) => tracing::warn!(node, %error, "can't record that a node is silent"),
        }
    }

    /// Corrects that a node was called silent that has its session here.
    async fn take_back(&self, node: String) {
        let key = ObjectKey::new(Kind::Node, "", &node);
        let decide = |object: Object| {
            let Some(instance_id) = self.sessions.instance(&node).filter(|_| readiness::is_called_silent(&object)) else {
                return Ok(writes::Change::Nothing);
            };
            let session = self.shared.as_ref().map(|shared| shared.session(&instance_id));
            Ok(readiness::came_back(object, session, self.writer.clock.now()))
        };
        match self.writer.change(&key, false, decide).await {
            Ok(_) => tracing::info!(node, "node was called silent, but has its session here"),
            Err(Error::NotFound(_)) => {}
            Err(error) => tracing::warn!(node, %error, "can't record that a node is not silent"),
        }
    }

    /// Takes up a session whose kubelet has said hello.
    async fn begin(self: &Arc<Self>, inbound: &mut Streaming<SessionRequest>) -> Result<Live> {
        let first = first_message(inbound).await?.message;
        let Some(session_request::Message::Hello(Hello { node_name, instance_id, routes })) = first else {
            return Err(Error::invalid("message", "the first message of a session must be hello"));
        };
        let key = ObjectKey::new(Kind::Node, "", &node_name);
        if self.writer.store.current().await?.get(&key).is_none() {
            return Err(Error::not_found(&key));
        }
        if self.shared.as_ref().is_some_and(|shared| shared.has_lapsed(Instant::now())) {
            return Err(lapsed());
        }
        let opened = self.sessions.open(&node_name, &instance_id, routes, Instant::now())?;
        let live = Live { nodes: self.clone(), node: node_name, opened };
        let session = self.shared.as_ref().map(|shared| shared.session(&instance_id));
        let decide = |node: Object| {
            if let Some(shared) = &self.shared {
                shared.check_instance(&node, &instance_id, Instant::now())?;
            }
            Ok(readiness::came_back(node, session.clone(), self.writer.clock.now()))
        };
        self.writer.change(&key, false, decide).await?;
        tracing::info!(node = live.node, "node session begins");
        Ok(live)
    }

    fn welcome(&self) -> SessionResponse {
        let interval = self.grace_period / HEARTBEATS_PER_GRACE_PERIOD;
        let heartbeat_interval = prost_types::Duration::try_from(interval).ok();
        response(session_response::Message::Welcome(Welcome { heartbeat_interval }))
    }
}

/// A session that has begun. Dropping it ends it.
struct Live {
    nodes: Arc<Nodes>,
    node: String,
    opened: Opened,
}

impl Drop for Live {
    fn drop(&mut self) {
        tracing::info!(node = self.node, "node session ends");
        self.nodes.sessions.close(&self.node, self.opened.id, Instant::now());
    }
}

/// One session from its first message to its last, driven by whoever reads the response stream.
struct Session {
    nodes: Arc<Nodes>,
    inbound: Streaming<SessionRequest>,
    connection: Option<Arc<Connection>>,
    live: Option<Live>,
}

enum Wake {
    Ends(Error),
    Sends(session_response::Message),
    Heard(session_request::Message),
    Closed,
}

impl Session {
    /// The next message to the kubelet; `None` when the kubelet has closed the session.
    async fn next(&mut self) -> Result<Option<SessionResponse>> {
        let Some(live) = &mut self.live else {
            let stopping = self.nodes.stopping.clone();
            let begin = stopping.run_until_cancelled(self.nodes.begin(&mut self.inbound));
            let live = begin.await.unwrap_or_else(|| Err(stopping_error()))?;
            if let Some(connection) = &self.connection {
                connection.carries_session_of(&live.node);
            }
            self.live = Some(live);
            return Ok(Some(self.nodes.welcome()));
        };
        loop {
            let Opened { id, outgoing, end } = &mut live.opened;
            let wake = tokio::select! {
                biased;
                why = end => Wake::Ends(why.unwrap_or(Error::Cancelled)),
                () = self.nodes.stopping.cancelled() => Wake::Ends(stopping_error()),
                Some(message) = outgoing.recv() => Wake::Sends(message),
                message = self.inbound.message() => match message {
                    Ok(Some(SessionRequest { message: Some(message) })) => Wake::Heard(message),
                    Ok(Some(SessionRequest { message: None })) => Wake::Ends(Error::invalid("message", "must be one of the known ones")),
                    Ok(None) => Wake::Closed,
                    Err(status) => Wake::Ends(status.into()),
                },
            };
            match wake {
                Wake::Ends(why) => return Err(why),
                Wake::Sends(message) => return Ok(Some(response(message))),
                Wake::Heard(message) => hear(&self.nodes.sessions, &live.node, *id, message)?,
                Wake::Closed => return Ok(None),
            }
        }
    }
}

fn hear(sessions: &Sessions, node: &str, id: SessionId, message: session_request::Message) -> Result<()> {
    sessions.heard(node, id, Instant::now());
    match message {
        session_request::Message::Heartbeat(heartbeat) => sessions.used(node, id, heartbeat.usage, Instant::now()),
        session_request::Message::RoutesApplied(applied) => sessions.routes_applied(node, id, Revision(applied.revision)),
        session_request::Message::AwaitRoutes(awaited) => sessions.await_routes(node, id, Revision(awaited.revision)),
        session_request::Message::Hello(_) => return Err(Error::invalid("hello", "must be the first message, and only that")),
    }
    Ok(())
}

pub(super) async fn first_message<T>(inbound: &mut Streaming<T>) -> Result<T> {
    let late = |_| Error::Timeout(format!("the first message did not come within {} s", FIRST_MESSAGE.as_secs()));
    let first = tokio::time::timeout(FIRST_MESSAGE, inbound.message()).await.map_err(late)??;
    first.ok_or_else(|| Error::invalid("", "the stream ended before its first message"))
}

#[tonic::async_trait]
impl NodeService for Arc<Nodes> {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let JoinRequest { node, instance_id } = request.into_inner();
        let node = node.ok_or_else(|| Error::invalid("node", "must be set"))?;
        if instance_id.is_empty() {
            return Err(Error::invalid("instance_id", "must not be empty").into());
        }
        let name = node.meta().name.clone();
        self.sessions.check_instance(&name, &instance_id)?;
        if let Some(shared) = &self.shared
            && let Some(known) = self.writer.store.current().await?.get(&node.key()).map(Stored::decode)
        {
            shared.check_instance(&known, &instance_id, Instant::now())?;
        }
        self.sessions.expect(&name, Instant::now());
        let object = self.writer.join(node).await?.into_bytes();
        let object = Object::decode(object).map_err(Error::internal)?;
        let cluster_id = self.writer.store.cluster_id().to_owned();
        Ok(Response::new(JoinResponse { object: Some(object), cluster_id, service_cidr: self.service_cidr.clone() }))
    }

    async fn put_mirror(&self, request: Request<PutMirrorRequest>) -> Result<Response<PutMirrorResponse>, Status> {
        let PutMirrorRequest { node_name, instance_id, pod } = request.into_inner();
        let pod = pod.ok_or_else(|| Error::invalid("pod", "must be set"))?;
        mirrors::check(&pod, &node_name)?;
        self.check_session(&node_name, &instance_id)?;
        self.writer.put_mirror(pod).await?;
        Ok(Response::new(PutMirrorResponse {}))
    }

    async fn remove_mirror(&self, request: Request<RemoveMirrorRequest>) -> Result<Response<RemoveMirrorResponse>, Status> {
        let RemoveMirrorRequest { node_name, instance_id, namespace, name, uid } = request.into_inner();
        if name.is_empty() {
            return Err(Error::invalid("name", "must not be empty").into());
        }
        self.check_session(&node_name, &instance_id)?;
        self.writer.remove_mirror(&ObjectKey::new(Kind::Pod, &namespace, &name), &node_name, &uid).await?;
        Ok(Response::new(RemoveMirrorResponse {}))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<SessionRequest>>) -> Result<Response<Self::SessionStream>, Status> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let session = Session { nodes: self.clone(), inbound: request.into_inner(), connection, live: None };
        let responses = stream::try_unfold(session, |mut session| async move {
            let next = session.next().await?;
            Ok(next.map(|response| (response, session)))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    type TunnelStream = ToNode;

    async fn tunnel(&self, request: Request<Streaming<TunnelRequest>>) -> Result<Response<Self::TunnelStream>, Status> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let mut inbound = request.into_inner();
        let Some(tunnel_request::Message::TunnelId(id)) = first_message(&mut inbound).await?.message else {
            return Err(Error::invalid("message", "the first message of a tunnel must be its id").into());
        };
        Ok(Response::new(self.tunnels.open(&id, inbound, connection)?))
    }
}
