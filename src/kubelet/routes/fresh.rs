//! Connections of which the backend may not have taken notice yet. One that stops closes its listener, and with it whatever it has not accepted: so no backend
//! counts as let go of while it has such connections.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// After this a connection whose backend has said nothing is taken for one that it knows: it may have nothing to say.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// The router's end of a connection to a backend, which is fresh until that has said something, or for [`FRESH`].
pub(super) struct Backend {
    pub(super) stream: TcpStream,
    fresh: Option<(TaskTrackerToken, Pin<Box<Sleep>>)>,
}

impl Backend {
    pub(super) fn new(stream: TcpStream, token: TaskTrackerToken) -> Self {
        Self { stream, fresh: Some((token, Box::pin(tokio::time::sleep(FRESH)))) }
    }
}

impl AsyncRead for Backend {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_old = |fresh: &mut (TaskTrackerToken, Pin<Box<Sleep>>)| fresh.1.as_mut().poll(context).is_ready();
        if read.is_ready() || self.fresh.as_mut().is_some_and(is_old) {
            self.fresh = None;
        }
        read
    }
}

impl AsyncWrite for Backend {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
