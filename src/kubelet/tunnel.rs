//! A tunnel: a stream that the apiserver has asked for, on a connection of its own.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::logs::Logs;
use super::runtime::Execs;
use super::{exec, forward};
use crate::api::v1::{ObjectRefusal, OpenTunnel, TunnelRequest, TunnelResponse, open_tunnel, tunnel_request};
use crate::client::{Client, Incoming};
use crate::error::Result;

/// The most pieces that wait to be sent through one tunnel.
const PIECES: usize = 4;
/// How many commands may run for people at the same time; probes don't count.
const MAX_COMMANDS: usize = 100;
/// How many logs may be read at the same time: each has an open file and a connection.
const MAX_LOGS: usize = 1_000;
/// How many connections may lead to ports of pods.
const MAX_CONNECTIONS: usize = 1_000;

/// Why something can't be had, as the code of a gRPC status and a sentence.
pub(crate) type Refusal = (tonic::Code, String);

/// What can be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Tunnels {
    logs: Logs,
    execs: Arc<Execs>,
    readers: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Tunnels {
    pub(crate) fn new(logs: Logs, execs: Arc<Execs>) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { logs, execs, readers: places(MAX_LOGS), commands: places(MAX_COMMANDS), connections: places(MAX_CONNECTIONS) }
    }

    /// Serves one tunnel, to its end on either side. `client` asks the server that asked for the tunnel.
    pub(crate) async fn serve(self, tunnel: OpenTunnel, client: Client) {
        let (pieces, outgoing) = mpsc::channel(PIECES);
        let first = piece(tunnel_request::Message::TunnelId(tunnel.tunnel_id));
        let opened = async {
            // Fails only when the call has failed, which says why.
            let _sent = pieces.send(first).await;
            std::future::pending::<()>().await;
        };
        let opened = tokio::select! {
            opened = client.tunnel(ReceiverStream::new(outgoing)) => opened,
            () = opened => return,
        };
        let ended = match opened {
            Ok(incoming) => self.answer(tunnel.request, pieces, incoming).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel was ended by the other side");
        }
    }

    /// Sends what is asked for, or why it can't be had; and waits until all of it was taken.
    async fn answer(
        &self,
        request: Option<open_tunnel::Request>,
        pieces: mpsc::Sender<TunnelRequest>,
        mut incoming: Incoming<TunnelResponse>,
    ) -> Result<()> {
        let served = match request {
            Some(open_tunnel::Request::Logs(request)) => {
                match place(&self.readers, || format!("{MAX_LOGS} logs of this node are read already")) {
                    Ok(_place) => tokio::select! {
                        served = self.logs.produce(request, &pieces) => served,
                        // A reader of logs says nothing.
                        ended = incoming.next() => return ended.map(drop),
                    },
                    Err(refusal) => Err(refusal),
                }
            }
            Some(open_tunnel::Request::Exec(start)) => {
                match place(&self.commands, || format!("{MAX_COMMANDS} commands run on this node already")) {
                    Ok(_place) => exec::serve(&self.execs, start, &pieces, &mut incoming).await,
                    Err(refusal) => Err(refusal),
                }
            }
            Some(open_tunnel::Request::PortForward(start)) => {
                match place(&self.connections, || format!("{MAX_CONNECTIONS} connections lead to this node already")) {
                    Ok(_place) => forward::serve(start, &pieces, &mut incoming).await,
                    Err(refusal) => Err(refusal),
                }
            }
            None => Err((tonic::Code::Unimplemented, "this kubelet doesn't know what is asked for".to_owned())),
        };
        if let Err((code, message)) = served {
            let refusal = tunnel_request::Message::Refusal(ObjectRefusal { code: code.into(), message });
            // Nobody is there to be told when this fails.
            let _gone = pieces.send(piece(refusal)).await;
        }
        drop(pieces);
        while incoming.next().await?.is_some() {}
        Ok(())
    }
}

/// A place among those who are served at the same time.
fn place(places: &Semaphore, why_none: impl Fn() -> String) -> std::result::Result<SemaphorePermit<'_>, Refusal> {
    places.try_acquire().map_err(|_| (tonic::Code::ResourceExhausted, why_none()))
}

/// The message as it is sent.
pub(crate) fn piece(message: tunnel_request::Message) -> TunnelRequest {
    TunnelRequest { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_when_all_places_are_taken_is_told_so_until_one_is_free() {
        let places = Semaphore::new(2);
        let taken = (place(&places, String::new).unwrap(), place(&places, String::new).unwrap());
        let refusal = place(&places, || "all are taken".to_owned()).unwrap_err();
        assert_eq!(refusal, (tonic::Code::ResourceExhausted, "all are taken".to_owned()));
        drop(taken.1);
        assert!(place(&places, String::new).is_ok());
    }
}
