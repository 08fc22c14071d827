use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use tonic::Status;
use tonic::codec::Streaming;

use crate::error::{Error, Result};

/// Messages that the server streams. Dropping it ends the stream.
pub struct Incoming<T> {
    stream: Streaming<T>,
    server: Arc<str>,
}

impl<T> Incoming<T> {
    pub(super) fn new(stream: Streaming<T>, server: Arc<str>) -> Self {
        Self { stream, server }
    }

    /// The next message; `None` when the server ended the stream in good order.
    ///
    /// # Errors
    /// What the server ended it with, or [`Error::Unavailable`] when the connection broke.
    pub async fn next(&mut self) -> Result<Option<T>> {
        self.stream.message().await.map_err(|status| to_error(status, &self.server))
    }
}

impl<T> fmt::Debug for Incoming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming from {}", self.server)
    }
}

/// What the server said; or, when the connection said it, which server could not be reached and the innermost reason.
pub(super) fn to_error(status: Status, server: &str) -> Error {
    let Some(mut cause) = status.source() else { return Error::from(status) };
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Error::Unavailable(format!("cannot reach {server}: {cause}"))
}
