//! Leads a connection from the other end of a tunnel to a port of a pod.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tonic::Code;

use super::tunnel::{Refusal, piece};
use crate::api::v1::port_forward_request::Message as Said;
use crate::api::v1::port_forward_response::Message as Told;
use crate::api::v1::{ClosePort, PortForwardResponse, PortForwardStart, TunnelRequest, TunnelResponse, tunnel_request, tunnel_response};
use crate::client::Incoming;

/// The most bytes that are passed on at once.
const PIECE: usize = 32 * 1024;

/// Leads the connection until both sides have closed it, or either is gone.
pub(crate) async fn serve(
    start: PortForwardStart,
    pieces: &mpsc::Sender<TunnelRequest>,
    incoming: &mut Incoming<TunnelResponse>,
) -> Result<(), Refusal> {
    let port = start.port.parse().map_err(|_| (Code::InvalidArgument, format!("{:?} is no port", start.port)))?;
    let connected = tokio::select! {
        connected = connect(port) => connected,
        () = pieces.closed() => return Ok(()),
    };
    let connection =
        connected.map_err(|error| (Code::FailedPrecondition, format!("nobody answers at port {port} of the node: {error}")))?;
    let (from_pod, to_pod) = connection.into_split();
    let both = async { tokio::try_join!(send(from_pod, pieces), receive(incoming, to_pod)).map(drop) };
    tokio::select! {
        ended = both => ended,
        // Seen also while the pod doesn't read what it was sent.
        () = pieces.closed() => Ok(()),
    }
}

/// Some programs listen on one of them only.
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let connection = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(connection) => connection,
        Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| error)?,
    };
    connection.set_nodelay(true)?;
    Ok(connection)
}

fn broken(error: std::io::Error) -> Refusal {
    (Code::Unavailable, format!("the pod has broken the connection: {error}"))
}

/// From the pod, until it sends nothing more.
async fn send(mut from_pod: OwnedReadHalf, pieces: &mpsc::Sender<TunnelRequest>) -> Result<(), Refusal> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from_pod.read(&mut buffer).await.map_err(broken)?;
        let told = if count == 0 { Told::Close(ClosePort {}) } else { Told::Data(buffer[..count].to_vec()) };
        let message = tunnel_request::Message::PortForward(PortForwardResponse { message: Some(told) });
        // Nobody is there to be told when this fails, which ends the whole.
        if pieces.send(piece(message)).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}

/// To the pod, until the other side sends nothing more.
async fn receive(incoming: &mut Incoming<TunnelResponse>, mut to_pod: OwnedWriteHalf) -> Result<(), Refusal> {
    loop {
        let said = match incoming.next().await {
            Ok(Some(TunnelResponse { message: Some(tunnel_response::Message::PortForward(request)) })) => request.message,
            Ok(Some(_)) => None,
            Ok(None) => return Ok(()),
            Err(error) => return Err((Code::Cancelled, error.to_string())),
        };
        match said {
            Some(Said::Data(data)) => to_pod.write_all(&data).await.map_err(broken)?,
            Some(Said::Close(_)) => return to_pod.shutdown().await.map_err(broken),
            Some(Said::Start(_)) | None => {}
        }
    }
}
