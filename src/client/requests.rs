use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::endpoint::endpoint;
use super::generated::control_plane_service_client::ControlPlaneServiceClient;
use super::generated::node_service_client::NodeServiceClient;
use super::generated::workload_service_client::WorkloadServiceClient;
use super::incoming::{Incoming, to_error};
use crate::api::v1::{
    self, ApplyRequest, ApplyResponse, CreateRequest, DeletePropagation, DeleteRequest, GetRequest, JoinRequest, JoinResponse, ListRequest,
    ListResponse, LogsRequest, LogsResponse, Object, Selector, SessionRequest, SessionResponse, TunnelRequest, UpdateRequest,
    UpdateStatusRequest, WatchRequest, WatchResponse, update_status_result,
};
use crate::api::{ObjectKey, Resource, Revision};
use crate::error::{Error, Result};

/// How long a request may take that is answered with one message, and a stream to begin.
pub const UNARY_DEADLINE: Duration = Duration::from_secs(30);
/// The largest message that is taken: a revision of the largest transaction and a page of a list stay well below.
const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// Asks the apiserver. Clones share one connection, which is made when first needed and made again after it broke.
///
/// # Errors
/// Every method answers what the rpc documents, as an [`Error`]; besides, [`Error::Unavailable`] while the server can't be reached and
/// [`Error::Timeout`] when it did not answer within [`UNARY_DEADLINE`]. A write that fails with one of these two may have been done.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    server: Arc<str>,
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

impl Client {
    /// A client of the server at `http://HOST:PORT`, `HOST:PORT` or `unix:/PATH`. It connects when first used.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything that is no such address.
    pub fn new(server: &str) -> Result<Self> {
        Ok(Self { channel: endpoint(server)?.connect_lazy(), server: server.into() })
    }

    /// A client over a channel that exists, for instance within the apiserver's own process.
    pub fn from_channel(channel: Channel) -> Self {
        Self { channel, server: "the apiserver".into() }
    }

    /// The server's address, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Creates an object.
    pub async fn create<R: Resource>(&self, object: R) -> Result<R> {
        typed(self.create_object(object.into_object()).await?)
    }

    /// Creates an object of any kind.
    pub async fn create_object(&self, object: Object) -> Result<Object> {
        let request = CreateRequest { object: Some(object), dry_run: false };
        present(self.unary(self.control_plane().create(request)).await?.object)
    }

    /// Reads an object. The namespace is ignored for kinds that live in none.
    pub async fn get<R: Resource>(&self, namespace: &str, name: &str) -> Result<R> {
        typed(self.get_object(&ObjectKey::new(R::KIND, namespace, name)).await?)
    }

    /// Reads an object of any kind.
    pub async fn get_object(&self, key: &ObjectKey) -> Result<Object> {
        let request = GetRequest { r#ref: Some(key.to_ref()) };
        present(self.unary(self.control_plane().get(request)).await?.object)
    }

    /// Reads all objects of a kind in a namespace, or in all namespaces if it is empty.
    pub async fn list<R: Resource>(&self, namespace: &str) -> Result<Vec<R>> {
        let selector = Selector { kind: R::KIND.to_string(), namespace: namespace.to_owned(), ..Default::default() };
        self.list_objects(selector).await?.objects.into_iter().map(typed).collect()
    }

    /// Reads all objects that a selector matches: every page of one list.
    pub async fn list_objects(&self, selector: Selector) -> Result<Listed> {
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

    /// Reads one page of a list.
    pub async fn list_page(&self, request: ListRequest) -> Result<ListResponse> {
        self.unary(self.control_plane().list(request)).await
    }

    /// Replaces the spec and the free metadata of an object.
    pub async fn update<R: Resource>(&self, object: R) -> Result<R> {
        typed(self.update_object(object.into_object()).await?)
    }

    /// Replaces the spec and the free metadata of an object of any kind.
    pub async fn update_object(&self, object: Object) -> Result<Object> {
        let request = UpdateRequest { object: Some(object), dry_run: false };
        present(self.unary(self.control_plane().update(request)).await?.object)
    }

    /// Replaces statuses, each on its own: one answer for each object, in their order.
    pub async fn update_status(&self, objects: Vec<Object>) -> Result<Vec<Result<Object>>> {
        let asked = objects.len();
        let results = self.unary(self.control_plane().update_status(UpdateStatusRequest { objects })).await?.results;
        if results.len() != asked {
            return Err(Error::internal(format!("{asked} statuses were answered with {} results", results.len())));
        }
        Ok(results.into_iter().map(|result| status_result(result.result)).collect())
    }

    /// Makes all objects be as given, at one revision, or none of them.
    pub async fn apply(&self, objects: Vec<Object>, field_manager: &str, dry_run: bool) -> Result<ApplyResponse> {
        let request = ApplyRequest { objects, field_manager: field_manager.to_owned(), dry_run };
        self.unary(self.control_plane().apply(request)).await
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
        present(self.unary(self.control_plane().delete(request)).await?.object)
    }

    /// Streams changes. Most want a [`super::Cache`] instead, which also survives a broken connection.
    pub async fn watch(&self, request: WatchRequest) -> Result<Incoming<WatchResponse>> {
        self.stream(self.control_plane().watch(request)).await
    }

    /// Registers a node.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinResponse> {
        self.unary(self.node_service().join(request)).await
    }

    /// Opens the node session.
    pub async fn session(&self, requests: impl Stream<Item = SessionRequest> + Send + 'static) -> Result<Incoming<SessionResponse>> {
        self.stream(self.node_service().session(requests)).await
    }

    /// Sends a tunnelled stream; returns when all of it was taken. It has no deadline: a log may be followed for days.
    pub async fn tunnel(&self, requests: impl Stream<Item = TunnelRequest> + Send + 'static) -> Result<()> {
        self.node_service().tunnel(requests).await.map(drop).map_err(|status| to_error(status, &self.server))
    }

    /// Streams a container's log.
    pub async fn logs(&self, request: LogsRequest) -> Result<Incoming<LogsResponse>> {
        let mut service = WorkloadServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        self.stream(service.logs(request)).await
    }

    fn control_plane(&self) -> ControlPlaneServiceClient<Channel> {
        ControlPlaneServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn node_service(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn stream<T>(&self, call: impl Future<Output = Result<Response<tonic::Streaming<T>>, Status>>) -> Result<Incoming<T>> {
        Ok(Incoming::new(self.unary(call).await?, self.server.clone()))
    }

    async fn unary<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
        match tokio::time::timeout(UNARY_DEADLINE, call).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(|status| to_error(status, &self.server)),
            Err(_) => Err(Error::Timeout(format!("{} did not answer within {} s", self.server, UNARY_DEADLINE.as_secs()))),
        }
    }
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
