use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::Backoff;
use super::endpoint::Patience;
use super::generated::control_plane_service_client::ControlPlaneServiceClient;
use super::generated::maintenance_service_client::MaintenanceServiceClient;
use super::generated::node_service_client::NodeServiceClient;
use super::generated::workload_service_client::WorkloadServiceClient;
use super::incoming::{Incoming, to_error};
use super::servers::{Server, Servers, Used};
use super::top;
use crate::api::v1::{
    self, ApplyRequest, ApplyResponse, BackupRequest, BackupResponse, CreateRequest, DeletePropagation, DeleteRequest, ExecRequest,
    ExecResponse, ExecStart, GetRequest, JoinRequest, JoinResponse, ListRequest, ListResponse, LogsRequest, LogsResponse, Object,
    PortForwardRequest, PortForwardResponse, PortForwardStart, PutMirrorRequest, RemoveMirrorRequest, Selector, SessionRequest,
    SessionResponse, TopRequest, TopResponse, TunnelRequest, TunnelResponse, UpdateRequest, UpdateStatusRequest, WatchRequest,
    WatchResponse, exec_request, port_forward_request, update_status_result,
};
use crate::api::{ObjectKey, Resource, Revision};
use crate::error::{Error, Result};

/// How long a request may take that is answered with one message, and a stream to begin: all servers together.
pub const UNARY_DEADLINE: Duration = Duration::from_secs(30);
/// The largest message that is taken: a revision of the largest transaction and a page of a list stay well below.
const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Clients that lost the same apiserver come to the next ones spread over this time, if there are next ones.
const FAILOVER_SPREAD: Duration = Duration::from_secs(2);
/// A server that proposes to wait for no longer than this is waited for.
const SHORT_WAIT: Duration = Duration::from_millis(500);
/// For how long a request is sent again and again to a server that proposes such waits.
const SHORT_WAITS: Duration = Duration::from_secs(5);
/// How many pieces of input may wait to be sent to a command.
const INPUTS: usize = 4;
/// How often a list is begun anew whose pages another apiserver, or a restarted one, can't go on with.
const LIST_ATTEMPTS: usize = 3;

/// Asks the apiservers of a cluster, one at a time: whichever it asked last, until that one fails; then the next of its list, and so on round.
/// Clones share the list, the place in it, and the connections, which are made when first needed and made again after they broke.
///
/// A request whose server could not be reached, or had answered that nothing of it was done, goes to the next server at once, and so once
/// round the list. One that was sent and never answered goes to the next one only if it is safe to repeat: `get`, `list`, `watch`, `logs`, `top`, `join` and
/// those of mirrors are. `create`, `update`, `update_status`, `apply` and `delete` are not: a repetition could find its own first attempt, or undo what somebody
/// did in between. `exec` goes to another one only if the command was certainly not
/// run; `session` and `tunnel` go to one server only.
///
/// Whoever asks more often than a server lets one client hears when to come back. When that is in a moment, the request waits and is sent again, for a
/// few seconds in all; otherwise, and after that, the answer is [`Error::Exhausted`] with the time, which [`Backoff::delay_after`] waits for.
///
/// # Errors
/// Every method answers what the rpc documents, as an [`Error`]; besides, when no server could do it:
/// [`Error::NotDone`] when it was certainly not done; [`Error::Unavailable`], or [`Error::Timeout`] after [`UNARY_DEADLINE`], when a write may have
/// been done, or may still be.
#[derive(Clone, Debug)]
pub struct Client {
    servers: Arc<Servers>,
    patience: Patience,
}

/// What a delete depends on, and how it goes. The default is an unconditional one in the object's own time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Only the object of this uid.
    pub uid: Option<String>,
    /// Only the object at this version.
    pub resource_version: Option<Revision>,
    /// How long, in seconds, its processes get to stop; 0 removes the object now.
    pub grace_period_seconds: Option<i64>,
    /// What happens to the objects that it owns.
    pub propagation: DeletePropagation,
}

/// The objects of a list, and the one revision that they all show.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// In the order of kind, namespace and name.
    pub objects: Vec<Object>,
    /// Watch from here to go on without a gap.
    pub revision: Revision,
}

/// What is sent through a stream both ways.
type Requests<Q> = stream::Chain<stream::Iter<std::array::IntoIter<Q, 1>>, ReceiverStream<Q>>;

/// Whether a request may be sent again when nobody knows whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Freely,
    OnlyIfNotDone,
}

impl Client {
    /// A client of the servers at `http://HOST:PORT`, `HOST:PORT` or `unix:/PATH`; several of one cluster with commas between. They are used in a random
    /// order, so that many clients of one list spread over it. It connects when first used.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything that is no such list.
    pub fn new(servers: &str) -> Result<Self> {
        let mut addresses: Vec<_> = servers.split(',').collect();
        fastrand::shuffle(&mut addresses);
        Self::with_servers(addresses, Patience::default())
    }

    /// A client of several servers of one cluster, in the order given.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty list, or a wrong address.
    pub fn with_servers<'s>(servers: impl IntoIterator<Item = &'s str>, patience: Patience) -> Result<Self> {
        Ok(Self { servers: Servers::parse(servers, patience)?, patience })
    }

    /// A client over a channel that exists, for instance within the apiserver's own process.
    pub fn from_channel(channel: Channel) -> Self {
        let same = channel.clone();
        Self::from_servers(Servers::new(vec![Server::new("the apiserver", channel, Arc::new(move |_| same.clone()))]))
    }

    /// As [`Client::from_channel`], where there can be several: each call connects once more, as the endpoint says.
    pub fn from_channels(connect: impl Fn(Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        let endpoint = || Endpoint::from_static("http://apiserver.inside");
        let channel = connect(endpoint());
        let connect = Arc::new(move |life| connect(endpoint().executor(life)));
        Self::from_servers(Servers::new(vec![Server::new("the apiserver", channel, connect)]))
    }

    pub(super) fn from_servers(servers: Arc<Servers>) -> Self {
        Self { servers, patience: Patience::default() }
    }

    /// The address of the server that is used now, for messages.
    pub fn server(&self) -> &str {
        &self.servers.now().address
    }

    /// How long it waits for what may be dead.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// A client of the one server that sends a stream, with a connection of its own: what is not read from it holds up nobody else, and it is cut when this
    /// client and its streams are dropped.
    pub fn beside_stream<T>(&self, stream: &Incoming<T>) -> Self {
        Self { servers: Servers::new(vec![stream.from().server().apart()]), patience: self.patience }
    }

    /// How long to wait before a stream that broke is begun again: what `backoff` and the error say; and with several servers a random part of two seconds more,
    /// since all the streams of one server break together.
    pub fn reconnect_delay(&self, backoff: &mut Backoff, error: &Error) -> Duration {
        let delay = backoff.delay_after(error);
        match self.servers.len() {
            1 => delay,
            _ => delay + FAILOVER_SPREAD.mul_f64(fastrand::f64()),
        }
    }

    /// Creates an object.
    pub async fn create<R: Resource>(&self, object: R) -> Result<R> {
        typed(self.create_object(object.into_object()).await?)
    }

    /// Creates an object of any kind.
    pub async fn create_object(&self, object: Object) -> Result<Object> {
        let request = CreateRequest { object: Some(object), dry_run: false };
        present(self.write(request, |channel, request| async move { control_plane(channel).create(request).await }).await?.object)
    }

    /// Reads an object. The namespace is ignored for kinds that live in none.
    pub async fn get<R: Resource>(&self, namespace: &str, name: &str) -> Result<R> {
        typed(self.get_object(&ObjectKey::new(R::KIND, namespace, name)).await?)
    }

    /// Reads an object of any kind.
    pub async fn get_object(&self, key: &ObjectKey) -> Result<Object> {
        let request = GetRequest { r#ref: Some(key.to_ref()) };
        present(self.read(request, |channel, request| async move { control_plane(channel).get(request).await }).await?.object)
    }

    /// Reads all objects of a kind in a namespace, or in all namespaces if it is empty.
    pub async fn list<R: Resource>(&self, namespace: &str) -> Result<Vec<R>> {
        let selector = Selector { kind: R::KIND.to_string(), namespace: namespace.to_owned(), ..Default::default() };
        self.list_objects(selector).await?.objects.into_iter().map(typed).collect()
    }

    /// Reads all objects that a selector matches: every page of one list. It begins anew when the server changes in between.
    pub async fn list_objects(&self, selector: Selector) -> Result<Listed> {
        let mut attempts = 1;
        loop {
            match self.list_once(selector.clone()).await {
                Err(Error::TokenExpired { .. }) if attempts < LIST_ATTEMPTS => attempts += 1,
                outcome => return outcome,
            }
        }
    }

    async fn list_once(&self, selector: Selector) -> Result<Listed> {
        let mut request = ListRequest { selector: Some(selector), ..Default::default() };
        let mut objects = Vec::new();
        loop {
            let page = self.list_page(request.clone()).await?;
            objects.extend(page.objects);
            if page.continue_token.is_empty() {
                return Ok(Listed { objects, revision: Revision(page.revision) });
            }
            request.continue_token = page.continue_token;
        }
    }

    /// Reads one page of a list. [`Error::TokenExpired`] says that its state is gone, or with another apiserver: begin the list anew.
    pub async fn list_page(&self, request: ListRequest) -> Result<ListResponse> {
        self.read(request, |channel, request| async move { control_plane(channel).list(request).await }).await
    }

    /// Replaces the spec and the free metadata of an object.
    pub async fn update<R: Resource>(&self, object: R) -> Result<R> {
        typed(self.update_object(object.into_object()).await?)
    }

    /// Replaces the spec and the free metadata of an object of any kind.
    pub async fn update_object(&self, object: Object) -> Result<Object> {
        let request = UpdateRequest { object: Some(object), dry_run: false };
        present(self.write(request, |channel, request| async move { control_plane(channel).update(request).await }).await?.object)
    }

    /// Replaces statuses, each on its own: one answer for each object, in their order.
    pub async fn update_status(&self, objects: Vec<Object>) -> Result<Vec<Result<Object>>> {
        let asked = objects.len();
        let request = UpdateStatusRequest { objects };
        let answer = self.write(request, |channel, request| async move { control_plane(channel).update_status(request).await }).await?;
        let results = answer.results;
        if results.len() != asked {
            return Err(Error::internal(format!("{asked} statuses were answered with {} results", results.len())));
        }
        Ok(results.into_iter().map(|result| status_result(result.result)).collect())
    }

    /// Makes all objects be as given, at one revision, or none of them.
    pub async fn apply(&self, objects: Vec<Object>, field_manager: &str, dry_run: bool) -> Result<ApplyResponse> {
        self.apply_as(ApplyRequest { objects, field_manager: field_manager.to_owned(), dry_run, ..Default::default() }).await
    }

    /// As [`Client::apply`], with everything that can be asked for.
    pub async fn apply_as(&self, request: ApplyRequest) -> Result<ApplyResponse> {
        self.write(request, |channel, request| async move { control_plane(channel).apply(request).await }).await
    }

    /// Deletes an object and answers its last state; `deletion_time` is set in it if it has to wait.
    pub async fn delete<R: Resource>(&self, namespace: &str, name: &str, options: DeleteOptions) -> Result<R> {
        typed(self.delete_object(&ObjectKey::new(R::KIND, namespace, name), options).await?)
    }

    /// Deletes an object of any kind.
    pub async fn delete_object(&self, key: &ObjectKey, options: DeleteOptions) -> Result<Object> {
        let request = DeleteRequest {
            r#ref: Some(key.to_ref()),
            uid: options.uid.unwrap_or_default(),
            resource_version: options.resource_version.unwrap_or_default().0,
            propagation: options.propagation.into(),
            grace_period_seconds: options.grace_period_seconds,
        };
        present(self.write(request, |channel, request| async move { control_plane(channel).delete(request).await }).await?.object)
    }

    /// Streams changes. Most want a [`super::Cache`] instead, which also survives a broken connection.
    pub async fn watch(&self, request: WatchRequest) -> Result<Incoming<WatchResponse>> {
        self.stream(request, |channel, request| async move { control_plane(channel).watch(request).await }).await
    }

    /// Registers a node.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinResponse> {
        self.read(request, |channel, request| async move { node_service(channel).join(request).await }).await
    }

    /// Shows a static pod of a node.
    pub async fn put_mirror(&self, request: PutMirrorRequest) -> Result<()> {
        self.read(request, |channel, request| async move { node_service(channel).put_mirror(request).await }).await.map(drop)
    }

    /// Removes the mirror of a static pod.
    pub async fn remove_mirror(&self, request: RemoveMirrorRequest) -> Result<()> {
        self.read(request, |channel, request| async move { node_service(channel).remove_mirror(request).await }).await.map(drop)
    }

    /// Opens the node session, with the server that is used now.
    pub async fn session(&self, requests: impl Stream<Item = SessionRequest> + Send + 'static) -> Result<Incoming<SessionResponse>> {
        let used = Used::new(&self.servers);
        let deadline = Instant::now() + UNARY_DEADLINE;
        let stream = attempt(&used, deadline, node_service(used.server().channel.clone()).session(requests)).await?;
        Ok(Incoming::new(stream, used))
    }

    /// Opens a tunnel, once the server knows that somebody waits for it. Only the server that asked for it takes it: see [`Client::beside_stream`]. It has
    /// no deadline: a log may be followed for days.
    pub async fn tunnel(&self, requests: impl Stream<Item = TunnelRequest> + Send + 'static) -> Result<Incoming<TunnelResponse>> {
        let used = Used::new(&self.servers);
        let deadline = Instant::now() + UNARY_DEADLINE;
        let stream = attempt(&used, deadline, node_service(used.server().channel.clone()).tunnel(requests)).await?;
        Ok(Incoming::new(stream, used))
    }

    /// Runs a command in a container, on a connection of its own. What it is to read goes into the sender; dropping that closes its input. Dropping the answers
    /// ends the command. Servers are asked in turn until one has the session of the pod's node, as long as it is certain that none has run the command.
    pub async fn exec(&self, start: ExecStart) -> Result<(mpsc::Sender<ExecRequest>, Incoming<ExecResponse>)> {
        let start = ExecRequest { message: Some(exec_request::Message::Start(start)) };
        self.both_ways(start, |channel, requests| async move { workload_service(channel).exec(requests).await }).await
    }

    /// Opens a connection to a port of a pod, over a connection of its own. Dropping the sender says that nothing more comes; dropping the answers cuts the
    /// connection. Servers are asked as for [`Client::exec`].
    pub async fn port_forward(&self, start: PortForwardStart) -> Result<(mpsc::Sender<PortForwardRequest>, Incoming<PortForwardResponse>)> {
        let start = PortForwardRequest { message: Some(port_forward_request::Message::Start(start)) };
        self.both_ways(start, |channel, requests| async move { workload_service(channel).port_forward(requests).await }).await
    }

    async fn both_ways<Q, T, A>(&self, start: Q, send: impl Fn(Channel, Requests<Q>) -> A) -> Result<(mpsc::Sender<Q>, Incoming<T>)>
    where
        Q: Clone + Send + 'static,
        A: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let mut failures = Vec::new();
        for servers in self.servers.each() {
            let used = Used::new(&Servers::new(vec![servers.now().apart()]));
            let (inputs, requests) = mpsc::channel(INPUTS);
            let requests = stream::iter([start.clone()]).chain(ReceiverStream::new(requests));
            match attempt(&used, Instant::now() + UNARY_DEADLINE, send(used.server().channel.clone(), requests)).await {
                Err(error @ (Error::NotDone(_) | Error::Elsewhere { .. })) => failures.push(error.to_string()),
                answer => return answer.map(|answer| (inputs, Incoming::new(answer, used))),
            }
        }
        failures.dedup();
        Err(Error::NotDone(failures.join("; ")))
    }

    /// Streams a backup.
    pub async fn backup(&self) -> Result<Incoming<BackupResponse>> {
        self.stream(BackupRequest {}, |channel, request| async move { maintenance_service(channel).backup(request).await }).await
    }

    /// Streams a container's log. Servers are asked in turn until one has the session of the pod's node; the one that is used for everything else
    /// stays the same.
    pub async fn logs(&self, request: LogsRequest) -> Result<Incoming<LogsResponse>> {
        let mut failures = Vec::new();
        for servers in self.servers.each() {
            let client = Self { servers, patience: self.patience };
            let logs = client.stream(request.clone(), |channel, request| async move { workload_service(channel).logs(request).await });
            match logs.await {
                Err(error) if error.is_unavailable() => failures.push(error.to_string()),
                answer => return answer,
            }
        }
        failures.dedup();
        Err(Error::Unavailable(failures.join("; ")))
    }

    /// Tells what nodes or pods use. Of nodes that have their sessions with other apiservers those are asked.
    ///
    /// # Errors
    /// What `WorkloadService.Top` documents.
    pub async fn top(&self, request: TopRequest) -> Result<TopResponse> {
        let mut all = self.read(request.clone(), |channel, request| async move { workload_service(channel).top(request).await }).await?;
        for servers in self.servers.each() {
            if !top::is_elsewhere(&all) {
                break;
            }
            let client = Self { servers, patience: self.patience };
            match client.read(request.clone(), |channel, request| async move { workload_service(channel).top(request).await }).await {
                Ok(more) => top::complete(&mut all, more),
                // What it has stays missing, which the answer says.
                Err(error) => tracing::debug!(%error, "one of the apiservers can't be asked what is used"),
            }
        }
        Ok(all)
    }

    async fn stream<Q, T, A>(&self, request: Q, send: impl Fn(Channel, Q) -> A) -> Result<Incoming<T>>
    where
        Q: Clone,
        A: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let (stream, used) = self.ask(Repeat::Freely, request, send).await?;
        Ok(Incoming::new(stream, used))
    }

    async fn read<Q, T, A>(&self, request: Q, send: impl Fn(Channel, Q) -> A) -> Result<T>
    where
        Q: Clone,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(Repeat::Freely, request, send).await.map(|(answer, _)| answer)
    }

    async fn write<Q, T, A>(&self, request: Q, send: impl Fn(Channel, Q) -> A) -> Result<T>
    where
        Q: Clone,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = self.ask(Repeat::OnlyIfNotDone, request, send).await;
        answer.map(|(answer, _)| answer).map_err(|error| match error {
            Error::Unavailable(message) => Error::Unavailable(format!("{message}; whether it was done is not known")),
            Error::Timeout(message) => Error::Timeout(format!("{message}; whether it was done is not known")),
            other => other,
        })
    }

    /// Asks until the answer is another one than to come back in a moment. A server says so only if it has done nothing.
    async fn ask<Q, T, A>(&self, repeat: Repeat, request: Q, send: impl Fn(Channel, Q) -> A) -> Result<(T, Used)>
    where
        Q: Clone,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let began = Instant::now();
        loop {
            let answer = self.ask_round(repeat, began + UNARY_DEADLINE, request.clone(), &send).await;
            match answer.as_ref().err().and_then(Error::retry_after) {
                Some(wait) if wait <= SHORT_WAIT && began.elapsed() + wait <= SHORT_WAITS => sleep(wait).await,
                _ => return answer,
            }
        }
    }

    /// Asks one server after the other, as far as [`Client`] allows, until one answers.
    async fn ask_round<Q, T, A>(&self, repeat: Repeat, deadline: Instant, request: Q, send: &impl Fn(Channel, Q) -> A) -> Result<(T, Used)>
    where
        Q: Clone,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let mut failures = Vec::new();
        for _ in 1..self.servers.len() {
            let used = Used::new(&self.servers);
            match attempt(&used, deadline, send(used.server().channel.clone(), request.clone())).await {
                Err(Error::NotDone(why)) => failures.push(why),
                Err(Error::Unavailable(why)) if repeat == Repeat::Freely => failures.push(why),
                answer => return answer.map(|answer| (answer, used)),
            }
        }
        let used = Used::new(&self.servers);
        match attempt(&used, deadline, send(used.server().channel.clone(), request)).await {
            Err(Error::NotDone(why)) => Err(Error::NotDone(listed(failures, why))),
            Err(Error::Unavailable(why)) => Err(Error::Unavailable(listed(failures, why))),
            answer => answer.map(|answer| (answer, used)),
        }
    }
}

/// Asks one server, which is left for the next one when it can't be asked.
async fn attempt<T>(used: &Used, deadline: Instant, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
    let address = &used.server().address;
    match timeout_at(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let error = to_error(status, address);
            if error.is_unavailable() {
                used.failed();
            }
            Err(error)
        }
        Err(_) => {
            used.failed();
            Err(Error::Timeout(format!("{address} did not answer within {} s", UNARY_DEADLINE.as_secs())))
        }
    }
}

/// Why each server could not be asked, in one message.
fn listed(mut failures: Vec<String>, last: String) -> String {
    failures.push(last);
    failures.dedup();
    failures.join("; ")
}

fn control_plane(channel: Channel) -> ControlPlaneServiceClient<Channel> {
    ControlPlaneServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn node_service(channel: Channel) -> NodeServiceClient<Channel> {
    NodeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn maintenance_service(channel: Channel) -> MaintenanceServiceClient<Channel> {
    MaintenanceServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn workload_service(channel: Channel) -> WorkloadServiceClient<Channel> {
    WorkloadServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn present(object: Option<Object>) -> Result<Object> {
    object.ok_or_else(|| Error::internal("the answer holds no object"))
}

fn typed<R: Resource>(object: Object) -> Result<R> {
    let kind = object.kind();
    R::from_object(object).ok_or_else(|| Error::internal(format!("the answer holds a {kind:?}, not a {}", R::KIND)))
}

fn status_result(result: Option<update_status_result::Result>) -> Result<Object> {
    match result {
        Some(update_status_result::Result::Object(object)) => Ok(object),
        Some(update_status_result::Result::Error(error)) => Err(v1::ObjectError::into(error)),
        None => Err(Error::internal("a status was answered with nothing")),
    }
}
