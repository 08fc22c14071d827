//! Serves what containers wrote, through tunnels that the apiserver asks for.
//!
//! A log is a row of files, which shims write: see [`files`] and [`record`]. A [`Reader`] reads it from where `start` says; a position in it outlives everything but
//! the files, so that a follower whose connection breaks goes on exactly where it was.

mod files;
mod lines;
mod reader;
mod record;
mod start;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use files::Files;
use prost::Message;
use reader::Reader;
use tokio::sync::mpsc;

use super::pods::Finished;
use super::root::Root;
use super::shim::files::PodFolder;
use super::tunnel::Refusal;
use super::uid::PodUid;
use crate::api::v1::{LogsRequest, LogsResponse, Pod, TunnelRequest, tunnel_request};

/// The most bytes in one piece, as the tunnel documents.
const MAX_PIECE: usize = 64 * 1024;
/// The shortest and the longest wait before the end of a log that somebody follows is looked at again. Nothing is looked at while nobody does.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Serves logs out of the pods' folders.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    root: Arc<Root>,
    finished: Arc<Finished>,
}

impl Logs {
    pub(crate) fn new(root: Arc<Root>, finished: Arc<Finished>) -> Self {
        Self { root, finished }
    }

    /// Sends what is asked for, to its end or until nobody listens any more.
    pub(crate) async fn produce(&self, request: LogsRequest, pieces: &mpsc::Sender<TunnelRequest>) -> Result<(), Refusal> {
        let (uid, folder, container) = self.find(&request)?;
        let folder = folder.logs(&container);
        let attempt = choose_attempt(&Files::list(&folder, None).map_err(unreadable)?, request.previous);
        let attempt = attempt.ok_or_else(|| (tonic::Code::NotFound, format!("container {container} has no previous run")))?;
        let follow = request.follow && !request.previous;
        let begin = move || Reader::begin(folder, attempt, &LogsRequest { follow, ..request });
        let reader = blocking(begin).await.map_err(unreadable)?;
        self.send(reader, follow.then_some(&uid), pieces).await.map_err(unreadable)
    }

    /// Sends what is read, and goes on until a pod that is `followed` has ended.
    async fn send(&self, mut reader: Reader, followed: Option<&PodUid>, pieces: &mpsc::Sender<TunnelRequest>) -> io::Result<()> {
        let mut wait = Wait::new();
        let mut has_told = false;
        loop {
            // Asked before the read: what was written before the end is read after it.
            let is_last = followed.is_none_or(|uid| self.finished.contains(uid) || !self.root.pod(uid).path().exists());
            let (returned, piece) = blocking(move || reader.read().map(|piece| (reader, piece))).await?;
            reader = returned;
            let piece = match piece {
                Some(piece) => {
                    wait.is_over();
                    piece
                }
                None if is_last => break,
                None if has_told => {
                    wait.sleep().await;
                    continue;
                }
                None => {
                    has_told = true;
                    LogsResponse { position: Some(reader.position()), ..Default::default() }
                }
            };
            if pieces.send(logs(piece)).await.is_err() {
                return Ok(());
            }
        }
        if let Some(rest) = blocking(move || reader.finish()).await? {
            // Nobody is there to be told when this fails.
            let _gone = pieces.send(logs(rest)).await;
        }
        Ok(())
    }

    fn find(&self, request: &LogsRequest) -> Result<(PodUid, PodFolder, String), Refusal> {
        let not_found = |what: String| (tonic::Code::NotFound, what);
        let gone = || not_found(format!("pod {} has nothing on this node", request.pod));
        let uid = PodUid::new(&request.pod_uid).ok_or_else(gone)?;
        let folder = self.root.pod(&uid);
        let pod = std::fs::read(folder.pod()).ok().and_then(|bytes| Pod::decode(bytes.as_slice()).ok()).ok_or_else(gone)?;
        let names: Vec<&str> = pod.spec.iter().flat_map(|spec| spec.all_containers()).map(|container| container.name.as_str()).collect();
        let main: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.as_str()).collect();
        let container = match (request.container.as_str(), main.as_slice()) {
            ("", [only]) => *only,
            ("", several) => {
                let message = format!("pod {} has several containers; name one of {}", request.pod, several.join(", "));
                return Err((tonic::Code::InvalidArgument, message));
            }
            (name, _) if names.contains(&name) => name,
            (name, _) => {
                return Err(not_found(format!("pod {} has no container {name}; there are {}", request.pod, names.join(", "))));
            }
        };
        Ok((uid, folder, container.to_owned()))
    }
}

/// Which run is asked for; the first one to be if there is none yet, and `None` if there is none before it.
fn choose_attempt(files: &Files, previous: bool) -> Option<u32> {
    let newest = files.newest();
    match previous {
        true => files.places().map(|place| place.attempt).filter(|attempt| Some(*attempt) != newest).max(),
        false => Some(newest.unwrap_or(0)),
    }
}

fn logs(piece: LogsResponse) -> TunnelRequest {
    TunnelRequest { message: Some(tunnel_request::Message::Logs(piece)) }
}

/// How long to wait before the end of a log is looked at again: the longer the quieter it is.
struct Wait(Duration);

impl Wait {
    fn new() -> Self {
        Self(SHORTEST_WAIT)
    }

    /// Something came.
    fn is_over(&mut self) {
        self.0 = SHORTEST_WAIT;
    }

    async fn sleep(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }
}

fn unreadable(error: io::Error) -> Refusal {
    tracing::warn!(%error, "a log can't be read");
    (tonic::Code::Unavailable, "the log can't be read; the kubelet's log tells more".to_owned())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
