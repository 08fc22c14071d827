//! What a command reads, as the kubelet writes it. The guard has the writing end, too, and lets go of it when it is told to or nothing of the command is left: so the
//! input of a command whose kubelet dies, or whose asker goes away, never looks complete.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe::Sender;

use crate::kubelet::os::unix::guard::CLOSE_INPUT;

/// The kubelet's end.
#[derive(Debug)]
pub(super) struct Input {
    /// `None` once it was closed.
    pipe: Option<Sender>,
    guard: Weak<OwnedWriteHalf>,
}

impl Input {
    pub(super) fn new(pipe: Sender, guard: &Arc<OwnedWriteHalf>) -> Self {
        Self { pipe: Some(pipe), guard: Arc::downgrade(guard) }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.pipe {
            Some(pipe) => Pin::new(pipe).poll_write(context, bytes),
            None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pipe.is_none() {
            return Poll::Ready(Ok(()));
        }
        let told = match self.guard.upgrade() {
            Some(guard) => guard.try_write(&[CLOSE_INPUT]).map(drop),
            None => Err(closed()),
        };
        if told.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            // There is room for a byte: it only isn't known yet.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pipe = None;
        Poll::Ready(told)
    }
}
