//! Leads a connection from the other end of a tunnel to a port of a pod.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
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
    let mut connection =
        connected.map_err(|error| (Code::FailedPrecondition, format!("nobody answers at port {port} of the node: {error}")))?;
    let (from_pod, to_pod) = connection.split();
    let both = async { tokio::try_join!(send(from_pod, pieces), receive(incoming, to_pod)) };
    let ended = tokio::select! {
        ended = both => ended,
        // Seen also while the pod doesn't read what it was sent.
        () = pieces.closed() => Ok((End::Cut, End::Cut)),
    };
    if let Ok((End::Closed, End::Closed)) = ended {
        #[allow(deprecated, reason = "it is the lingering that may block, and here it is taken back")]
        connection.set_linger(None).map_err(broken)?;
    }
    ended.map(drop)
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Cut,
}

/// Some programs listen on one of them only.
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let connection = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(connection) => connection,
        Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| error)?,
    };
    // A port that nobody listens on may come to meet itself.
    if connection.local_addr()? == connection.peer_addr()? {
        return Err(std::io::ErrorKind::ConnectionRefused.into());
    }
    connection.set_nodelay(true)?;
    // However this ends, unless both sides have closed it, the pod gets a reset: what is cut off must not look complete.
    connection.set_zero_linger()?;
    Ok(connection)
}

fn broken(error: std::io::Error) -> Refusal {
    (Code::Unavailable, format!("the pod has broken the connection: {error}"))
}

/// From the pod, until it sends nothing more.
async fn send(mut from_pod: ReadHalf<'_>, pieces: &mpsc::Sender<TunnelRequest>) -> Result<End, Refusal> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from_pod.read(&mut buffer).await.map_err(broken)?;
        let told = if count == 0 { Told::Close(ClosePort {}) } else { Told::Data(buffer[..count].to_vec()) };
        let message = tunnel_request::Message::PortForward(PortForwardResponse { message: Some(told) });
        if pieces.send(piece(message)).await.is_err() {
            // Nobody is there to be told.
            return Ok(End::Cut);
        }
        if count == 0 {
            return Ok(End::Closed);
        }
    }
}

/// To the pod, until the other side sends nothing more.
async fn receive(incoming: &mut Incoming<TunnelResponse>, mut to_pod: WriteHalf<'_>) -> Result<End, Refusal> {
    loop {
        let said = match incoming.next().await {
            Ok(Some(TunnelResponse { message: Some(tunnel_response::Message::PortForward(request)) })) => request.message,
            Ok(Some(_)) => None,
            Ok(None) => return Ok(End::Cut),
            Err(error) => return Err((Code::Cancelled, error.to_string())),
        };
        match said {
            Some(Said::Data(data)) => to_pod.write_all(&data).await.map_err(broken)?,
            Some(Said::Close(_)) => return to_pod.shutdown().await.map(|()| End::Closed).map_err(broken),
            Some(Said::Start(_)) | None => {}
        }
    }
}
