//! Commands in containers: what their clients and nodes send each other, passed on as it is.

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::SetOnce;
use tonic::{Response, Status, Streaming};

use super::{Responses, Wanted, Workloads, next};
use crate::api::v1::exec_request::Message as Said;
use crate::api::v1::exec_response::Message as Told;
use crate::api::v1::tunnel_request::Message;
use crate::api::v1::{CloseStdin, ExecRequest, ExecResponse, TunnelResponse, open_tunnel, tunnel_response};
use crate::apiserver::node::first_message;
use crate::apiserver::tunnels::Asked;
use crate::error::{Error, Result};

/// The most bytes of input in one message.
const MAX_INPUT: usize = 64 * 1024;

pub(super) async fn exec(workloads: &Workloads, mut inbound: Streaming<ExecRequest>) -> Result<Response<Responses<ExecResponse>>, Status> {
    let Some(Said::Start(mut start)) = first_message(&mut inbound).await?.message else {
        return Err(Error::invalid("start", "must be the first message").into());
    };
    if start.command.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("start.command", "must name a program").into());
    }
    let wanted = Wanted { namespace: &mut start.namespace, pod: &start.pod, pod_uid: &mut start.pod_uid, container: &mut start.container };
    let node = workloads.locate(wanted).await.map_err(|error| error.within("start"))?;
    let fault = Arc::new(SetOnce::new());
    let asked = workloads.open(&node, open_tunnel::Request::Exec(start), inputs(inbound, fault.clone())).await?;
    let running = Running { asked, fault, stopping: workloads.0.stopping.clone(), has_ended: false };
    Ok(Response::new(Box::pin(stream::try_unfold(running, |mut running| async move {
        let told = running.next().await?;
        Ok(told.map(|told| (ExecResponse { message: Some(told) }, running)))
    }))))
}

/// What the node is sent of what a client sends. The end of that is the end of the input.
fn inputs(inbound: Streaming<ExecRequest>, fault: Arc<SetOnce<Error>>) -> impl Stream<Item = Result<TunnelResponse, Status>> + Send {
    let to_node = |said| TunnelResponse { message: Some(tunnel_response::Message::Exec(ExecRequest { message: Some(said) })) };
    let said = inbound.map(move |request| {
        let said = request?.message;
        check(said).map(to_node).map_err(|error| {
            // Nothing is sent after the first one.
            let _is_first = fault.set(error.clone());
            error.into()
        })
    });
    said.chain(stream::iter([Ok(to_node(Said::CloseStdin(CloseStdin {})))]))
}

fn check(said: Option<Said>) -> Result<Said> {
    let fits = |size: u32| u16::try_from(size).is_ok();
    match said {
        None => Err(Error::invalid("message", "must be one of the known ones")),
        Some(Said::Start(_)) => Err(Error::invalid("start", "must be the first message, and only that")),
        Some(Said::Stdin(data)) if data.len() > MAX_INPUT => Err(Error::invalid("stdin", format!("must be at most {MAX_INPUT} bytes"))),
        Some(Said::TerminalSize(size)) if !fits(size.columns) || !fits(size.rows) => {
            Err(Error::invalid("terminal_size", "must be at most 65535 columns and rows"))
        }
        Some(said) => Ok(said),
    }
}

struct Running {
    asked: Asked,
    /// What is wrong with what the client sent.
    fault: Arc<SetOnce<Error>>,
    stopping: tokio_util::sync::CancellationToken,
    has_ended: bool,
}

impl Running {
    async fn next(&mut self) -> Result<Option<Told>, Status> {
        // It has begun: nobody may take this for one that was not done.
        let stopping = || Error::Unavailable("the apiserver is shutting down, and the command was ended".to_owned());
        let message = tokio::select! {
            message = next(&mut self.asked) => message,
            fault = self.fault.wait() => return Err(fault.clone().into()),
            () = self.stopping.cancelled() => return Err(stopping().into()),
        };
        match message? {
            Some(Message::Exec(ExecResponse { message: Some(told) })) if !self.has_ended => {
                self.has_ended = matches!(told, Told::End(_));
                Ok(Some(told))
            }
            None if self.has_ended => Ok(None),
            _ => Err(Error::Unavailable("the node ended the stream before the command had ended".to_owned()).into()),
        }
    }
}
