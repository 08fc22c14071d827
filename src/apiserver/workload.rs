//! `WorkloadService`: asks the node of a pod for a stream, and passes it on.

mod exec;
mod port_forward;
mod top;

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::generated::workload_service_server::WorkloadService;
use super::node::Nodes;
use super::stopping_error;
use super::tunnels::Asked;
use crate::api::v1::tunnel_request::Message;
use crate::api::v1::{
    ExecRequest, ExecResponse, LogsRequest, LogsResponse, ObjectRef, ObjectRefusal, OpenTunnel, Pod, PortForwardRequest,
    PortForwardResponse, TopRequest, TopResponse, TunnelResponse, open_tunnel,
};
use crate::api::{Kind, ObjectKey, Resource as _};
use crate::error::{Error, Result};

/// How long a node may take to open a tunnel.
const OPEN_TUNNEL: Duration = Duration::from_secs(5);
/// The seconds since 1970 of the years that a timestamp may be in.
const TIMES: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The service.
#[derive(Debug)]
pub(super) struct Workloads(pub(super) Arc<Nodes>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl WorkloadService for Workloads {
    type LogsStream = Responses<LogsResponse>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let mut request = request.into_inner();
        check(&request)?;
        let LogsRequest { namespace, pod, pod_uid, container, .. } = &mut request;
        let node = self.locate(Wanted { namespace, pod, pod_uid, container }).await?;
        let asked = self.open(&node, open_tunnel::Request::Logs(request), stream::pending()).await?;
        let nodes = self.0.clone();
        let pieces = stream::try_unfold(asked, move |mut asked| {
            let stopping = nodes.stopping.clone();
            async move {
                let piece = stopping.run_until_cancelled(next(&mut asked)).await.unwrap_or_else(|| Err(stopping_error().into()))?;
                match piece {
                    Some(Message::Logs(piece)) => Ok(Some((piece, asked))),
                    // As older kubelets send them.
                    Some(Message::Data(data)) => Ok(Some((LogsResponse { data, ..Default::default() }, asked))),
                    Some(_) => Err(Error::Unavailable("the node sent something else than a log".to_owned()).into()),
                    None => Ok(None),
                }
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    type ExecStream = Responses<ExecResponse>;

    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        exec::exec(self, request.into_inner()).await
    }

    type PortForwardStream = Responses<PortForwardResponse>;

    async fn port_forward(&self, request: Request<Streaming<PortForwardRequest>>) -> Result<Response<Self::PortForwardStream>, Status> {
        port_forward::port_forward(self, request.into_inner()).await
    }

    async fn top(&self, request: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        Ok(Response::new(top::top(&self.0, request.into_inner()).await?))
    }
}

/// What of a request tells the container, to be completed.
pub(super) struct Wanted<'a> {
    pub(super) namespace: &'a mut String,
    pub(super) pod: &'a str,
    pub(super) pod_uid: &'a mut String,
    pub(super) container: &'a mut String,
}

impl Workloads {
    /// Completes the request with what the node needs to know, and tells which node that is.
    pub(super) async fn locate(&self, request: Wanted<'_>) -> Result<String> {
        if request.pod.is_empty() {
            return Err(Error::invalid("pod", "must not be empty"));
        }
        let key = ObjectKey::new(Kind::Pod, request.namespace, request.pod);
        let stored = self.0.writer.store.current().await?.get(&key).cloned().ok_or_else(|| Error::not_found(&key))?;
        let pod = Pod::from_object(stored.decode()).ok_or_else(|| Error::not_found(&key))?;
        if !request.pod_uid.is_empty() && *request.pod_uid != pod.meta().uid {
            return Err(Error::not_found(&key));
        }
        key.namespace().clone_into(request.namespace);
        request.pod_uid.clone_from(&pod.meta().uid);
        let spec = pod.spec.unwrap_or_default();
        if request.container.is_empty() {
            let names: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
            let [name] = names.as_slice() else {
                return Err(Error::invalid("container", format!("must name one of the pod's containers: {}", names.join(", "))));
            };
            (*name).clone_into(request.container);
        } else if !spec.all_containers().any(|container| container.name == *request.container) {
            let container = ObjectRef { kind: "Container".to_owned(), namespace: String::new(), name: request.container.clone() };
            return Err(Error::NotFound(container));
        }
        match spec.node_name.as_str() {
            "" => Err(Error::Precondition(format!("{key} has no node yet; its events say why"))),
            node => Ok(node.to_owned()),
        }
    }

    /// Asks a node for a stream and waits until it has opened it. When this fails the node does nothing of what was asked for.
    pub(super) async fn open(
        &self,
        node: &str,
        request: open_tunnel::Request,
        to_node: impl Stream<Item = Result<TunnelResponse, Status>> + Send + 'static,
    ) -> Result<Asked> {
        if let Some(apiserver) = self.0.elsewhere(node) {
            return Err(Error::Elsewhere { node: node.to_owned(), apiserver });
        }
        let mut asked = self.0.tunnels.ask(to_node)?;
        self.0.sessions.open_tunnel(node, OpenTunnel { tunnel_id: asked.id.clone(), request: Some(request) })?;
        let late = |_| Error::NotDone(format!("node {node:?} did not answer within {} s", OPEN_TUNNEL.as_secs()));
        let opened = tokio::time::timeout(OPEN_TUNNEL, asked.opened());
        self.0.stopping.run_until_cancelled(opened).await.ok_or_else(stopping_error)?.map_err(late)??;
        Ok(asked)
    }
}

/// Refuses what no log can have.
fn check(request: &LogsRequest) -> Result<()> {
    if request.since_time.is_some_and(|time| !TIMES.contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos)) {
        return Err(Error::invalid("since_time", "must be a time of the years 1 to 9999"));
    }
    let Some(after) = &request.after else { return Ok(()) };
    if request.pod_uid.is_empty() || request.container.is_empty() {
        return Err(Error::invalid("after", "is a position in one log: say whose, with pod_uid and container"));
    }
    match after.file {
        0 => Err(Error::invalid("after.file", "must be at least 1")),
        _ => Ok(()),
    }
}

/// The next message out of a tunnel; `None` at its end.
pub(super) async fn next(asked: &mut Asked) -> Result<Option<Message>, Status> {
    match asked.next().await? {
        Some(Message::Refusal(ObjectRefusal { code, message })) => {
            let code = Some(Code::from_i32(code)).filter(|code| *code != Code::Ok).unwrap_or(Code::Unknown);
            Err(Status::new(code, message))
        }
        other => Ok(other),
    }
}
