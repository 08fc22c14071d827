//! Streams between nodes and whoever asked for them, matched by the tunnel's name. Each of the two is given what the other one sends: nothing is kept or
//! moved in between, so that a side which doesn't read holds the other one up and nobody else.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream::{self, Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::connection::Connection;
use crate::api::v1::tunnel_request::Message;
use crate::api::v1::{ObjectRef, TunnelRequest, TunnelResponse};
use crate::error::{Error, Result};

/// The most bytes in one message of a tunnel: 64 KiB of data, and what is around it.
pub(super) const MAX_PIECE: usize = 65 * 1024;
/// How many tunnels may be asked for and not open yet.
const WAITING_TUNNELS: usize = 1_000;

/// What is sent to a node.
pub(super) type ToNode = Pin<Box<dyn Stream<Item = Result<TunnelResponse, Status>> + Send>>;

/// The tunnels.
#[derive(Clone, Debug, Default)]
pub(super) struct Tunnels(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Those that somebody waits for.
    waiting: HashMap<String, Waiting>,
    open: Vec<Open>,
}

/// A tunnel that its node has opened.
#[derive(Debug)]
struct Open {
    left: CancellationToken,
    /// The node has been told, or is gone.
    over: CancellationToken,
    connection: Option<Arc<Connection>>,
    /// The asker had left it already when it was last looked at.
    was_left: bool,
}

/// What somebody who waits leaves for the node.
struct Waiting {
    to_node: ToNode,
    opened: oneshot::Sender<Streaming<TunnelRequest>>,
    end: End,
}

/// How a tunnel ends.
#[derive(Clone, Debug, Default)]
struct End {
    /// The asker has gone away.
    left: CancellationToken,
    /// The asker has taken everything.
    complete: CancellationToken,
}

/// The asker's end of a tunnel. Dropping it ends the tunnel.
pub(super) struct Asked {
    pub(super) id: String,
    opened: Option<oneshot::Receiver<Streaming<TunnelRequest>>>,
    from_node: Option<Streaming<TunnelRequest>>,
    complete: CancellationToken,
    tunnels: Tunnels,
    _left: DropGuard,
}

impl Tunnels {
    /// Begins to wait for a tunnel. When what is to be sent to the node ends, nothing more is sent; when it fails, the tunnel ends.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when too many are waited for.
    pub(super) fn ask(&self, to_node: impl Stream<Item = Result<TunnelResponse, Status>> + Send + 'static) -> Result<Asked> {
        let id = uuid::Uuid::new_v4().to_string();
        let (opened, waits) = oneshot::channel();
        let end = End::default();
        let mut state = self.lock();
        if state.waiting.len() >= WAITING_TUNNELS {
            let message = format!("{WAITING_TUNNELS} streams wait for their nodes already");
            return Err(Error::Exhausted { message, retry_after: Some(std::time::Duration::from_secs(1)) });
        }
        state.waiting.insert(id.clone(), Waiting { to_node: Box::pin(to_node), opened, end: end.clone() });
        drop(state);
        let End { left, complete } = end;
        Ok(Asked { id, opened: Some(waits), from_node: None, complete, tunnels: self.clone(), _left: left.drop_guard() })
    }

    /// The node's end of a tunnel: what is sent to it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody waits for it.
    pub(super) fn open(&self, id: &str, from_node: Streaming<TunnelRequest>, connection: Option<Arc<Connection>>) -> Result<ToNode> {
        let nobody = || Error::NotFound(ObjectRef { kind: "Tunnel".to_owned(), namespace: String::new(), name: id.to_owned() });
        let Waiting { to_node, opened, end } = self.lock().waiting.remove(id).ok_or_else(nobody)?;
        opened.send(from_node).map_err(|_| nobody())?;
        let over = CancellationToken::new();
        self.lock().open.push(Open { left: end.left.clone(), over: over.clone(), connection, was_left: false });
        let sending = Sending { to_node: to_node.fuse(), end, _over: over.drop_guard() };
        Ok(Box::pin(stream::unfold(Some(sending), |sending| async move { sending?.next().await })))
    }

    /// Cuts the connections of tunnels whose nodes can't be told that nobody is at the other end any more, since they don't take what was sent to them.
    pub(super) fn cut_stuck(&self) {
        self.lock().open.retain_mut(|open| {
            if open.was_left && !open.over.is_cancelled() {
                open.connection.iter().for_each(|connection| connection.cut());
            }
            open.was_left = open.left.is_cancelled();
            !open.over.is_cancelled()
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }
}

/// What a node is sent, until either side has enough.
struct Sending {
    to_node: stream::Fuse<ToNode>,
    end: End,
    _over: DropGuard,
}

impl Sending {
    async fn next(mut self) -> Option<(Result<TunnelResponse, Status>, Option<Self>)> {
        tokio::select! {
            biased;
            () = self.end.complete.cancelled() => None,
            () = self.end.left.cancelled() => Some((Err(Error::Cancelled.into()), None)),
            Some(message) = self.to_node.next() => match message {
                Ok(message) => Some((Ok(message), Some(self))),
                Err(_) => Some((Err(Error::Cancelled.into()), None)),
            },
        }
    }
}

impl Asked {
    /// Waits until the node has opened the tunnel. Cancelling this loses nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it went away just then.
    pub(super) async fn opened(&mut self) -> Result<()> {
        if let Some(opened) = &mut self.opened {
            self.from_node = Some(opened.await.map_err(|_| broken())?);
            self.opened = None;
        }
        Ok(())
    }

    /// The next message of the node; `None` when there will be none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the tunnel has broken; Invalid for a message that is too large.
    pub(super) async fn next(&mut self) -> Result<Option<Message>> {
        let from_node = self.from_node.as_mut().ok_or_else(broken)?;
        let Some(request) = from_node.message().await.map_err(|_| broken())? else {
            self.complete.cancel();
            return Ok(None);
        };
        match request.message {
            Some(_) if request.encoded_len() > MAX_PIECE => Err(broken()),
            Some(Message::TunnelId(_)) | None => Err(broken()),
            Some(message) => Ok(Some(message)),
        }
    }
}

fn broken() -> Error {
    Error::Unavailable("the node went away in the middle of the stream".to_owned())
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.tunnels.lock().waiting.remove(&self.id);
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asked({})", self.id)
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}
