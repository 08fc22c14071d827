//! `WorkloadService`: asks the node of a pod for a stream, and passes it on.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tonic::{Code, Request, Response, Status};

use super::generated::workload_service_server::WorkloadService;
use super::node::Nodes;
use super::stopping_error;
use super::tunnels::{Asked, Piece};
use crate::api::v1::{LogsRequest, LogsResponse, ObjectRef, ObjectRefusal, OpenTunnel, Pod, open_tunnel};
use crate::api::{Kind, ObjectKey, Resource as _};
use crate::error::{Error, Result};

/// How long a node may take to open a tunnel.
const OPEN_TUNNEL: Duration = Duration::from_secs(5);
/// The seconds since 1970 of the years that a timestamp may be in.
const TIMES: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The service.
#[derive(Debug)]
pub(super) struct Workloads(pub(super) Arc<Nodes>);

#[tonic::async_trait]
impl WorkloadService for Workloads {
    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogsResponse, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let mut request = request.into_inner();
        let node = self.locate(&mut request).await?;
        let asked = self.open(&node, open_tunnel::Request::Logs(request)).await?;
        let nodes = self.0.clone();
        let pieces = stream::try_unfold(asked, move |mut asked| {
            let stopping = nodes.stopping.clone();
            async move {
                let piece = stopping.run_until_cancelled(next_piece(&mut asked)).await;
                let piece = piece.unwrap_or_else(|| Err(stopping_error().into()))?;
                Ok(piece.map(|piece| (piece, asked)))
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }
}

impl Workloads {
    /// Completes the request with what the node needs to know, and tells which node that is.
    async fn locate(&self, request: &mut LogsRequest) -> Result<String> {
        check(request)?;
        if request.pod.is_empty() {
            return Err(Error::invalid("pod", "must not be empty"));
        }
        let key = ObjectKey::new(Kind::Pod, &request.namespace, &request.pod);
        let stored = self.0.writer.store.current().await?.get(&key).cloned().ok_or_else(|| Error::not_found(&key))?;
        let pod = Pod::from_object(stored.decode()).ok_or_else(|| Error::not_found(&key))?;
        if !request.pod_uid.is_empty() && request.pod_uid != pod.meta().uid {
            return Err(Error::not_found(&key));
        }
        request.namespace = key.namespace().to_owned();
        request.pod_uid = pod.meta().uid.clone();
        let spec = pod.spec.unwrap_or_default();
        if request.container.is_empty() {
            let names: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
            let [name] = names.as_slice() else {
                return Err(Error::invalid("container", format!("must name one of the pod's containers: {}", names.join(", "))));
            };
            request.container = (*name).to_owned();
        } else if !spec.all_containers().any(|container| container.name == request.container) {
            let container = ObjectRef { kind: "Container".to_owned(), namespace: String::new(), name: request.container.clone() };
            return Err(Error::NotFound(container));
        }
        match spec.node_name.as_str() {
            "" => Err(Error::Precondition(format!("{key} has no node yet; its events say why"))),
            node => Ok(node.to_owned()),
        }
    }

    /// Asks a node for a stream and waits until it has opened it.
    async fn open(&self, node: &str, request: open_tunnel::Request) -> Result<Asked> {
        if let Some(apiserver) = self.0.elsewhere(node) {
            return Err(Error::Elsewhere { node: node.to_owned(), apiserver });
        }
        let mut asked = self.0.tunnels.ask()?;
        self.0.sessions.open_tunnel(node, OpenTunnel { tunnel_id: asked.id.clone(), request: Some(request) })?;
        let late = |_| Error::Unavailable(format!("node {node:?} did not answer within {} s", OPEN_TUNNEL.as_secs()));
        let opened = tokio::time::timeout(OPEN_TUNNEL, asked.next());
        let opened = self.0.stopping.run_until_cancelled(opened).await.ok_or_else(stopping_error)?;
        match opened.map_err(late)?? {
            Piece::Opened => Ok(asked),
            piece => Err(Error::internal(format!("a tunnel began with {piece:?}"))),
        }
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

/// The next piece of a log out of a tunnel; `None` at its end.
async fn next_piece(asked: &mut Asked) -> Result<Option<LogsResponse>, Status> {
    loop {
        match asked.next().await? {
            Piece::Opened => {}
            Piece::Logs(piece) => return Ok(Some(piece)),
            // As older kubelets send them.
            Piece::Data(data) => return Ok(Some(LogsResponse { data: data.into(), ..Default::default() })),
            Piece::End => return Ok(None),
            Piece::Refused(ObjectRefusal { code, message }) => {
                let code = Some(Code::from_i32(code)).filter(|code| *code != Code::Ok).unwrap_or(Code::Unknown);
                return Err(Status::new(code, message));
            }
        }
    }
}
