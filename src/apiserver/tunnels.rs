//! Streams from nodes to whoever asked for them, matched by the tunnel's name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::api::v1::{LogsResponse, ObjectRef, ObjectRefusal};
use crate::error::{Error, Result};

/// How many pieces (of 64 KiB at most) may be on their way through one tunnel; then its node waits.
const PIECES: usize = 4;
/// How many tunnels may be asked for and not open yet.
const WAITING_TUNNELS: usize = 1_000;

/// The tunnels that somebody waits for.
#[derive(Clone, Debug, Default)]
pub(super) struct Tunnels(Arc<Mutex<HashMap<String, mpsc::Sender<Piece>>>>);

/// What comes out of a tunnel. A tunnel that ends otherwise than with `End` or `Refused` has broken.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// The node has opened the tunnel.
    Opened,
    /// The next bytes.
    Data(Bytes),
    /// The next piece of a log.
    Logs(LogsResponse),
    /// That was all.
    End,
    /// What was asked for can't be had.
    Refused(ObjectRefusal),
}

/// The asker's end of a tunnel. Dropping it ends the tunnel.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: String,
    pieces: mpsc::Receiver<Piece>,
    tunnels: Tunnels,
}

impl Tunnels {
    /// Begins to wait for a tunnel.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when too many are waited for.
    pub(super) fn ask(&self) -> Result<Asked> {
        let id = uuid::Uuid::new_v4().to_string();
        let (send, pieces) = mpsc::channel(PIECES);
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_TUNNELS {
            let message = format!("{WAITING_TUNNELS} streams wait for their nodes already");
            return Err(Error::Exhausted { message, retry_after: Some(std::time::Duration::from_secs(1)) });
        }
        waiting.insert(id.clone(), send);
        drop(waiting);
        Ok(Asked { id, pieces, tunnels: self.clone() })
    }

    /// The node's end of a tunnel.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody waits for it.
    pub(super) fn open(&self, id: &str) -> Result<mpsc::Sender<Piece>> {
        let nobody = || ObjectRef { kind: "Tunnel".to_owned(), namespace: String::new(), name: id.to_owned() };
        self.lock().remove(id).filter(|tunnel| !tunnel.is_closed()).ok_or_else(|| Error::NotFound(nobody()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<Piece>>> {
        self.0.lock().expect("no panic while held")
    }
}

impl Asked {
    /// The next piece.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the tunnel has broken.
    pub(super) async fn next(&mut self) -> Result<Piece> {
        let broken = || Error::Unavailable("the node went away in the middle of the stream".to_owned());
        self.pieces.recv().await.ok_or_else(broken)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.tunnels.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tunnel_is_opened_once_and_only_while_somebody_waits() {
        let tunnels = Tunnels::default();
        let asked = tunnels.ask().unwrap();
        tunnels.open(&asked.id).unwrap();
        assert!(matches!(tunnels.open(&asked.id), Err(Error::NotFound(_))));
        let given_up = tunnels.ask().unwrap().id.clone();
        assert!(matches!(tunnels.open(&given_up), Err(Error::NotFound(_))));
        assert!(tunnels.lock().is_empty());
    }

    #[tokio::test]
    async fn a_tunnel_that_breaks_does_not_look_like_one_that_ends() {
        let mut asked = Tunnels::default().ask().unwrap();
        let node = asked.tunnels.open(&asked.id).unwrap();
        node.send(Piece::Data(Bytes::from_static(b"half"))).await.unwrap();
        drop(node);
        assert_eq!(asked.next().await, Ok(Piece::Data(Bytes::from_static(b"half"))));
        assert!(matches!(asked.next().await, Err(Error::Unavailable(_))));
    }
}
