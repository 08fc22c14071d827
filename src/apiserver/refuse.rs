//! Requests that are answered without being looked at.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;

use axum::body::Body;
use axum::http::{Request, Response};
use tonic::Status;

use crate::error::Error;

/// How much of a refused request is taken at most, and thrown away: the largest that there may be.
const MAX_DRAINED: usize = super::watch::MAX_REQUEST_BYTES;

/// Whether requests for a path count against the limit of a client. Nodes speak of themselves without: a node that can't would be taken for dead.
/// Health, reflection and metrics are not ours to refuse: who asks for them wants to know how we are.
pub(super) fn is_counted(path: &str) -> bool {
    path.strip_prefix("/bluebird.v1.").is_some_and(|method| !method.starts_with("NodeService/"))
}

/// Answers with an error once the request has come to its end.
pub(super) async fn refuse<B: hyper::body::Body + Unpin>(request: Request<B>, error: Error) -> Result<Response<Body>, Infallible> {
    drain(request.into_body()).await;
    Ok(Status::from(error).into_http())
}

/// Takes a body and throws it away. A request is not answered before its end: HTTP/2 takes many that were for an attack, and ends the connection.
pub(super) async fn drain(mut body: impl hyper::body::Body + Unpin) {
    let mut drained = 0;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        drained += frame.data_ref().map_or(0, bytes::Buf::remaining);
        if drained > MAX_DRAINED {
            return;
        }
    }
}
