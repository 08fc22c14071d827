//! Connections to the ports of pods: what their clients and nodes send each other, passed on as it is.

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::SetOnce;
use tonic::{Response, Status, Streaming};

use super::{Responses, Workloads, next};
use crate::api::v1::port_forward_request::Message as Said;
use crate::api::v1::port_forward_response::Message as Told;
use crate::api::v1::tunnel_request::Message;
use crate::api::v1::{
    ClosePort, ObjectRef, Pod, PodPhase, PortForwardRequest, PortForwardResponse, PortForwardStart, Protocol, TunnelResponse, open_tunnel,
    tunnel_response,
};
use crate::api::{Kind, ObjectKey, Resource as _};
use crate::apiserver::node::first_message;
use crate::apiserver::tunnels::Asked;
use crate::error::{Error, Result};

/// The most bytes in one message.
const MAX_DATA: usize = 64 * 1024;

pub(super) async fn port_forward(
    workloads: &Workloads,
    mut inbound: Streaming<PortForwardRequest>,
) -> Result<Response<Responses<PortForwardResponse>>, Status> {
    let Some(Said::Start(mut start)) = first_message(&mut inbound).await?.message else {
        return Err(Error::invalid("start", "must be the first message").into());
    };
    let node = complete(workloads, &mut start).await.map_err(|error| error.within("start"))?;
    let fault = Arc::new(SetOnce::new());
    let asked = workloads.open(&node, open_tunnel::Request::PortForward(start), requests(inbound, fault.clone())).await?;
    let connection = Connection { asked, fault, stopping: workloads.0.stopping.clone(), is_closed: false };
    Ok(Response::new(Box::pin(stream::try_unfold(connection, |mut connection| async move {
        let told = connection.next().await?;
        Ok(told.map(|told| (PortForwardResponse { message: Some(told) }, connection)))
    }))))
}

/// Completes the request with what the node needs to know, and tells which node that is.
async fn complete(workloads: &Workloads, start: &mut PortForwardStart) -> Result<String> {
    if start.pod.is_empty() {
        return Err(Error::invalid("pod", "must not be empty"));
    }
    let key = ObjectKey::new(Kind::Pod, &start.namespace, &start.pod);
    let stored = workloads.0.writer.store.current().await?.get(&key).cloned().ok_or_else(|| Error::not_found(&key))?;
    let pod = Pod::from_object(stored.decode()).ok_or_else(|| Error::not_found(&key))?;
    if !start.pod_uid.is_empty() && start.pod_uid != pod.meta().uid {
        return Err(Error::not_found(&key));
    }
    key.namespace().clone_into(&mut start.namespace);
    start.pod_uid.clone_from(&pod.meta().uid);
    let status = pod.status.unwrap_or_default();
    if matches!(status.phase(), PodPhase::Succeeded | PodPhase::Failed) {
        return Err(Error::Precondition(format!("{key} has ended")));
    }
    match start.port.parse::<u32>() {
        Ok(1..=65_535) => {}
        Ok(_) => return Err(Error::invalid("port", "must be a number from 1 to 65535, or a name")),
        Err(_) if start.port.is_empty() => return Err(Error::invalid("port", "must not be empty")),
        Err(_) => {
            let port = status.ports.iter().find(|port| port.name == start.port);
            let named = || ObjectRef { kind: "Port".to_owned(), namespace: String::new(), name: start.port.clone() };
            let port = port.ok_or_else(|| Error::NotFound(named()))?;
            if port.protocol() == Protocol::Udp {
                return Err(Error::invalid("port", format!("{:?} is a port of UDP; only connections over TCP can be led", start.port)));
            }
            start.port = port.port.to_string();
        }
    }
    match pod.spec.unwrap_or_default().node_name {
        node if node.is_empty() => Err(Error::Precondition(format!("{key} has no node yet; its events say why"))),
        node => Ok(node),
    }
}

/// What the node is sent of what a client sends. The end of that is the end of what comes from the client.
fn requests(
    inbound: Streaming<PortForwardRequest>,
    fault: Arc<SetOnce<Error>>,
) -> impl Stream<Item = Result<TunnelResponse, Status>> + Send {
    let to_node =
        |said| TunnelResponse { message: Some(tunnel_response::Message::PortForward(PortForwardRequest { message: Some(said) })) };
    let said = inbound.map(move |request| {
        let said = match request?.message {
            Some(Said::Data(data)) if data.len() > MAX_DATA => Err(Error::invalid("data", format!("must be at most {MAX_DATA} bytes"))),
            Some(Said::Start(_)) => Err(Error::invalid("start", "must be the first message, and only that")),
            Some(said) => Ok(said),
            None => Err(Error::invalid("message", "must be one of the known ones")),
        };
        said.map(to_node).map_err(|error| {
            // Nothing is sent after the first one.
            let _is_first = fault.set(error.clone());
            error.into()
        })
    });
    said.chain(stream::iter([Ok(to_node(Said::Close(ClosePort {})))]))
}

struct Connection {
    asked: Asked,
    /// What is wrong with what the client sent.
    fault: Arc<SetOnce<Error>>,
    stopping: tokio_util::sync::CancellationToken,
    /// The pod's side has said that it sends nothing more.
    is_closed: bool,
}

impl Connection {
    async fn next(&mut self) -> Result<Option<Told>, Status> {
        let broken = |why: &str| Err(Error::Unavailable(why.to_owned()).into());
        let message = tokio::select! {
            message = next(&mut self.asked) => message?,
            fault = self.fault.wait() => return Err(fault.clone().into()),
            () = self.stopping.cancelled() => return broken("the apiserver is shutting down, and the connection was cut"),
        };
        match message {
            Some(Message::PortForward(PortForwardResponse { message: Some(told) })) if !self.is_closed => {
                self.is_closed = matches!(told, Told::Close(_));
                Ok(Some(told))
            }
            None if self.is_closed => Ok(None),
            _ => broken("the connection broke at the node"),
        }
    }
}
