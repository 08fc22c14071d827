//! `Watch`: the hub's cursors as response streams. A watch is a cursor; it has no task and no queue of its own.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::connection::Connection;
use super::writer::key_of_ref;
use super::{Frame, stopping_error};
use crate::api::v1::{KnownObject, Selector, WatchRequest};
use crate::api::{Matcher, Revision};
use crate::error::{Error, Result};
use crate::watch::{Batch, Cursor, Hub, Known, Start};

/// The most selectors in one watch.
const MAX_SELECTORS: usize = 64;

/// What a client gets.
pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// Begins watches.
#[derive(Debug)]
pub(super) struct Watches {
    pub(super) hub: Hub,
    pub(super) stopping: CancellationToken,
}

impl Watches {
    /// Begins a watch, or says what is wrong with the request.
    pub(super) fn begin(&self, request: Request<WatchRequest>) -> Result<WatchStream> {
        let permit = request.extensions().get::<Arc<Connection>>().map(|connection| connection.begin_watch()).transpose()?;
        let request = request.into_inner();
        let cursor = self.hub.watch(matchers(&request.selectors)?, start(request)?)?;
        let watch = Watch { cursor, stopping: self.stopping.clone(), _permit: permit };
        Ok(Box::pin(stream::try_unfold(watch, |mut watch| async move {
            let frame = watch.next().await?;
            Ok(Some((frame, watch)))
        })))
    }
}

struct Watch {
    cursor: Cursor,
    stopping: CancellationToken,
    /// Counts against the connection's limit as long as the watch lives.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Watch {
    async fn next(&mut self) -> Result<Frame> {
        tokio::select! {
            biased;
            batch = self.cursor.next() => Ok(frame(batch?)),
            () = self.stopping.cancelled() => Err(stopping_error()),
        }
    }
}

fn frame(batch: Batch) -> Frame {
    let mut frame = Frame::new();
    for record in batch.records {
        frame.push_encoded(record);
    }
    frame.push_uint64(2, batch.revision.0);
    frame.push_bool(3, batch.synced);
    frame
}

fn matchers(selectors: &[Selector]) -> Result<Vec<Matcher>> {
    if selectors.len() > MAX_SELECTORS {
        return Err(Error::invalid("selectors", format!("{} selectors; at most {MAX_SELECTORS} are taken", selectors.len())));
    }
    selectors.iter().enumerate().map(|(index, selector)| Matcher::new(selector, &format!("selectors[{index}]"))).collect()
}

fn start(request: WatchRequest) -> Result<Start> {
    let after = (request.from_revision != 0).then_some(Revision(request.from_revision));
    match (request.send_initial, after) {
        (true, Some(_)) => Err(Error::invalid("from_revision", "can't go together with send_initial")),
        (false, None) if !request.known.is_empty() => Err(Error::invalid("known", "needs send_initial or from_revision")),
        (false, None) => Ok(Start::Now),
        (_, after) if !request.known.is_empty() => Ok(Start::Difference { known: known(request.known)?, after }),
        (true, None) => Ok(Start::Initial),
        (false, Some(after)) => Ok(Start::After(after)),
    }
}

fn known(objects: Vec<KnownObject>) -> Result<Known> {
    let object = |(index, known): (usize, KnownObject)| {
        let wrong = |path: &str, message: String| Error::invalid(format!("known[{index}].{path}"), message);
        if known.resource_version == 0 {
            return Err(wrong("resource_version", "must be set".to_owned()));
        }
        let key = key_of_ref(known.r#ref.as_ref()).map_err(|error| error.within(&format!("known[{index}]")))?;
        Ok((key, Revision(known.resource_version)))
    };
    let objects = objects.into_iter().enumerate().map(object).collect::<Result<_>>()?;
    Known::new(objects).map_err(|twice| Error::invalid("known", format!("names {twice} twice")))
}
