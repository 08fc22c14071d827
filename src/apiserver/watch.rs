//! `Watch`: the hub's cursors as responses. A watch is a cursor; it has no task and no queue of its own.
//!
//! This is the one method that tonic doesn't answer. Its messages come framed from the hub, and a thousand streams that send the same one share its
//! bytes, whereas tonic would copy them into a buffer of each stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use hyper::body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use super::connection::{Connection, WatchPermit};
use super::refuse::drain;
use super::stopping_error;
use super::watch_request::decode;
use super::writer::key_of_ref;
use crate::api::v1::{KnownObject, Selector, WatchRequest};
use crate::api::{Matcher, Revision};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::watch::{Cursor, Hub, Known, Message, Start};

/// Where it is asked for.
pub(super) const PATH: &str = "/bluebird.v1.ControlPlaneService/Watch";
/// The largest request: a client may tell of all that it has.
pub(super) const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;
/// The most selectors in one watch.
pub(super) const MAX_SELECTORS: usize = 64;
/// After how many messages a watch looks whether the apiserver stops.
const MESSAGES_IN_A_ROW: u32 = 8;

/// Begins watches.
#[derive(Debug)]
pub(super) struct Watches {
    pub(super) store: Store,
    pub(super) hub: Hub,
    pub(super) stopping: CancellationToken,
}

impl Watches {
    /// Answers a request: with a stream that ends with an error at some time, or with an error at once.
    pub(super) async fn respond(&self, request: Request) -> Response<Body> {
        match self.begin(request).await {
            Ok(responses) => {
                let mut response = Response::new(Body::new(responses));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                response
            }
            Err(status) => status.into_http(),
        }
    }

    async fn begin(&self, request: Request) -> Result<Responses, Status> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let permit = match connection.map(|connection| connection.begin_watch()).transpose() {
            Ok(permit) => permit,
            Err(error) => {
                drain(request.into_body()).await;
                return Err(error.into());
            }
        };
        let request = decode(request).await?;
        // A watch knows what anybody was told of before it: the state that it begins with, and a revision that another apiserver has told.
        self.store.current().await?;
        let cursor = self.hub.watch(matchers(&request.selectors)?, start(request)?)?;
        let (token, stopping) = (self.stopping.clone(), Box::pin(self.stopping.clone().cancelled_owned()));
        let watch = Watch { cursor, stopping, token, in_a_row: 0, _permit: permit };
        let messages = stream::try_unfold(watch, |mut watch| async move {
            let message = watch.next().await?;
            Ok(Some((message, watch)))
        });
        Ok(Responses { messages: Box::pin(messages), sending: None, has_ended: false })
    }
}

struct Watch {
    cursor: Cursor,
    /// Ready when the apiserver stops. Waits once for as long as the watch lives, and not anew for every message.
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    token: CancellationToken,
    /// How many messages were asked for.
    in_a_row: u32,
    /// Counts against the limits as long as the watch lives.
    _permit: Option<WatchPermit>,
}

impl Watch {
    async fn next(&mut self) -> Result<Message> {
        // Whoever is behind always has something to read.
        self.in_a_row += 1;
        if self.in_a_row.is_multiple_of(MESSAGES_IN_A_ROW) && self.token.is_cancelled() {
            return Err(stopping_error());
        }
        tokio::select! {
            biased;
            message = self.cursor.next() => message,
            () = self.stopping.as_mut() => Err(stopping_error()),
        }
    }
}

/// The body of a response: messages, chunk by chunk, then the error that ends it, as trailers.
struct Responses {
    messages: Pin<Box<dyn Stream<Item = Result<Message>> + Send>>,
    /// What is being sent, and its next chunk.
    sending: Option<(Arc<[Bytes]>, usize)>,
    has_ended: bool,
}

impl hyper::body::Body for Responses {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some((chunks, next)) = &mut self.sending {
                if let Some(chunk) = chunks.get(*next).cloned() {
                    *next += 1;
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                self.sending = None;
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            match ready!(self.messages.as_mut().poll_next(context)) {
                Some(Ok(message)) => self.sending = Some((message.into_chunks(), 0)),
                Some(Err(error)) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(error)))));
                }
                None => self.has_ended = true,
            }
        }
    }
}

fn trailers(error: Error) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unfit) = Status::from(error).add_header(&mut trailers) {
        tracing::error!(error = %unfit, "the end of a watch can't be put into trailers");
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::Internal as i32));
    }
    trailers
}

fn matchers(selectors: &[Selector]) -> Result<Vec<Matcher>> {
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
