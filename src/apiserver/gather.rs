//! What many streams of a connection have to say at the same time goes out in one system call. By itself HTTP/2 makes one or two for each message: it
//! flushes after every large frame, and the task of a connection runs as soon as the first of its streams has something to say.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::listen::Transport;

/// So much is gathered at most; whoever has more to say waits until the other side has taken some.
const GATHERED: usize = 64 * 1024;
/// What is at least so large is not worth a copy.
const LARGE: usize = 8 * 1024;

/// The bytes of a connection. To flush them does nothing: they go out when the [`Outlet`] says so, or when they are many.
pub(super) struct Gathering(Arc<Mutex<Inner>>);

/// Lets out what a connection has gathered, whenever the connection has nothing more to do.
pub(super) struct Outlet {
    inner: Arc<Mutex<Inner>>,
    /// The other tasks that were ready with the connection's have had their turn: among them are its streams, which may have more to say.
    has_waited: bool,
}

struct Inner {
    io: Box<dyn Transport>,
    gathered: BytesMut,
}

/// A transport that gathers, and its outlet.
pub(super) fn gather(io: Box<dyn Transport>) -> (Gathering, Outlet) {
    let inner = Arc::new(Mutex::new(Inner { io, gathered: BytesMut::new() }));
    (Gathering(Arc::clone(&inner)), Outlet { inner, has_waited: false })
}

impl Outlet {
    /// Polls the connection over the [`Gathering`], and then lets out what it has written.
    pub(super) fn poll<T>(&mut self, cx: &mut Context<'_>, connection: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let outcome = connection(cx);
        let mut inner = lock(&self.inner);
        if inner.gathered.is_empty() {
            self.has_waited = false;
        } else if outcome.is_pending() && !self.has_waited {
            self.has_waited = true;
            // To the end of the queue.
            cx.waker().wake_by_ref();
        } else if inner.poll_let_out(cx).is_ready() {
            // An error is seen again by the connection, at its next write or read.
            self.has_waited = false;
        }
        outcome
    }
}

impl Inner {
    /// Writes everything that was gathered.
    fn poll_let_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        // An idle connection keeps nothing.
        self.gathered = BytesMut::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if len >= LARGE || self.gathered.len() >= GATHERED {
            ready!(self.poll_let_out(cx))?;
        }
        if len >= LARGE {
            return Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        }
        for slice in slices {
            self.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(len))
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().expect("only the connection's own task has it")
}

impl AsyncRead for Gathering {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_gather(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_gather(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_let_out(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Counts how often something is written.
    struct Counting(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Counting {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let written = Pin::new(&mut self.0).poll_write(cx, bytes);
            if written.is_ready() {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
            written
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    fn counting(buffer: usize) -> (Box<dyn Transport>, DuplexStream, Arc<AtomicUsize>) {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let writes = Arc::new(AtomicUsize::new(0));
        (Box::new(Counting(ours, Arc::clone(&writes))), theirs, writes)
    }

    /// Serves a connection that does as it is told.
    async fn serve<T>(outlet: &mut Outlet, connection: impl Future<Output = T>) -> T {
        let mut connection = std::pin::pin!(connection);
        std::future::poll_fn(|cx| outlet.poll(cx, |cx| connection.as_mut().poll(cx))).await
    }

    #[tokio::test]
    async fn what_is_written_while_a_connection_has_something_to_do_goes_out_in_one_write() {
        let (io, mut client, writes) = counting(1 << 20);
        let (mut gathering, mut outlet) = gather(io);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let connection = async {
            for _ in 0..10 {
                gathering.write_all(&[7; 1000]).await.unwrap();
                gathering.flush().await.unwrap();
            }
            ended.await.unwrap();
        };
        let reader = async {
            let mut received = vec![0; 10_000];
            client.read_exact(&mut received).await.unwrap();
            end.send(()).unwrap();
            received
        };
        let ((), received) = tokio::join!(serve(&mut outlet, connection), reader);
        assert_eq!((received, writes.load(Ordering::Relaxed)), (vec![7; 10_000], 1));
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_holds_the_connection_up_and_not_the_memory() {
        let (io, mut client, _) = counting(1000);
        let (mut gathering, mut outlet) = gather(io);
        let written = AtomicUsize::new(0);
        let connection = async {
            for number in 0..1000_u32 {
                gathering.write_all(&[number as u8; 1000]).await.unwrap();
                written.fetch_add(1000, Ordering::Relaxed);
            }
            gathering.shutdown().await.unwrap();
        };
        let mut connection = std::pin::pin!(serve(&mut outlet, connection));
        // Nobody reads: it gets as far as there is space, and no further.
        assert!(futures_util::poll!(connection.as_mut()).is_pending() && futures_util::poll!(connection.as_mut()).is_pending());
        let held_up_at = written.load(Ordering::Relaxed);
        assert!((GATHERED..=GATHERED + 4000).contains(&held_up_at), "{held_up_at}");
        let reader = async {
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(connection, reader);
        assert!(
            received.len() == 1_000_000 && received.chunks(1000).zip(0..).all(|(chunk, number): (_, u32)| chunk == [number as u8; 1000])
        );
    }

    #[tokio::test]
    async fn large_and_small_writes_keep_their_order_and_the_last_words_of_a_connection_go_out() {
        let (io, mut client, _) = counting(1 << 20);
        let (mut gathering, mut outlet) = gather(io);
        serve(&mut outlet, async {
            for len in [1, LARGE, 2, 3 * LARGE, 3] {
                gathering.write_all(&vec![len as u8; len]).await.unwrap();
            }
        })
        .await;
        drop((gathering, outlet));
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        let expected: Vec<u8> = [1, LARGE, 2, 3 * LARGE, 3].into_iter().flat_map(|len| vec![len as u8; len]).collect();
        assert_eq!(received, expected);
    }
}
