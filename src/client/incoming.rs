use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tonic::Streaming;
use tonic::{ConnectError, Status};

use super::servers::Used;
use crate::error::{Error, Result};

/// Messages that the server streams. Dropping it ends the stream.
pub struct Incoming<T> {
    stream: Streaming<T>,
    from: Used,
}

impl<T> Incoming<T> {
    pub(super) fn new(stream: Streaming<T>, from: Used) -> Self {
        Self { stream, from }
    }

    pub(super) fn from(&self) -> &Used {
        &self.from
    }

    /// The next message; `None` when the server ended the stream in good order.
    ///
    /// # Errors
    /// What the server ended it with, or [`Error::Unavailable`] when the connection broke. When one of them says that the server can't go on,
    /// the client leaves it for its next one.
    pub async fn next(&mut self) -> Result<Option<T>> {
        self.stream.message().await.map_err(|status| {
            let error = to_error(status, &self.from.server().address);
            if error.is_unavailable() {
                self.from.failed();
            }
            error
        })
    }

    /// As [`Incoming::next`], for a stream that is never silent for long.
    ///
    /// # Errors
    /// Besides, [`Error::Timeout`] when nothing has come for so long; the client leaves that server.
    pub async fn next_within(&mut self, silence: Duration) -> Result<Option<T>> {
        match tokio::time::timeout(silence, self.next()).await {
            Ok(next) => next,
            Err(_) => {
                self.from.failed();
                Err(Error::Timeout(format!("{} was silent for {} s", self.from.server().address, silence.as_secs_f64())))
            }
        }
    }
}

impl<T> fmt::Debug for Incoming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming from {:?}", self.from)
    }
}

/// What the server said; or, when the connection said it, which server could not be reached and the innermost reason: as [`Error::NotDone`] if the
/// request was certainly never sent.
pub(super) fn to_error(status: Status, server: &str) -> Error {
    let Some(mut cause) = status.source() else { return Error::from(status) };
    let mut was_sent = true;
    loop {
        let never_sent = cause.is::<ConnectError>() || cause.downcast_ref().is_some_and(hyper::Error::is_canceled);
        was_sent &= !never_sent;
        match cause.source() {
            Some(inner) => cause = inner,
            None => break,
        }
    }
    let message = format!("cannot reach {server}: {cause}");
    if was_sent { Error::Unavailable(message) } else { Error::NotDone(message) }
}
