//! The requests of a connection, all in its own task. A task for each would cost more than most requests take, and a hop between threads; and what
//! they answer at the same time is there when the connection looks for it.

use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::{CatchUnwind, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::task::coop::{has_budget_remaining, unconstrained};

/// The requests under way on one connection. They end with this at the latest.
#[derive(Default)]
pub(super) struct Streams {
    begun: Begun,
    running: FuturesUnordered<CatchUnwind<AssertUnwindSafe<Stream>>>,
}

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;
type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Where a connection leaves new requests.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Vec<Stream>>>);

impl Begun {
    fn take(&self) -> Vec<Stream> {
        std::mem::take(&mut self.0.lock().expect("nothing panics while holding it"))
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Begun {
    fn execute(&self, stream: F) {
        self.0.lock().expect("nothing panics while holding it").push(Box::pin(stream));
    }
}

impl Streams {
    /// Where their connection is to leave new ones.
    pub(super) fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// Polls the requests and their connection, until neither has more to do at once. A panic in a request ends the connection.
    pub(super) fn poll(&mut self, mut connection: Pin<&mut impl Future<Output = Outcome>>, context: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            while let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(context) {
                if ended.is_err() {
                    tracing::error!("a request panicked; its connection ends");
                    return Poll::Ready(Err("a request panicked".into()));
                }
            }
            // A watch that looks for what it has to send among very much takes all that a task may do in a turn. The socket is served all the same.
            let outcome = match has_budget_remaining() {
                true => connection.as_mut().poll(context),
                false => pin!(unconstrained(connection.as_mut())).poll(context),
            };
            let begun = self.begun.take();
            if outcome.is_ready() || begun.is_empty() {
                return outcome;
            }
            self.running.extend(begun.into_iter().map(|stream| AssertUnwindSafe(stream).catch_unwind()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::poll;
    use hyper::rt::Executor as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_sees_at_once_what_the_requests_that_it_brought_have_answered() {
        let (mut streams, answers) = (Streams::default(), Arc::new(AtomicUsize::new(0)));
        let (begun, seen) = (streams.begun(), Arc::clone(&answers));
        let mut connection = std::pin::pin!(poll_fn(move |_| match seen.load(Ordering::Relaxed) {
            3 => Poll::Ready(Ok(())),
            _ => {
                for _ in 0..3 {
                    let answers = Arc::clone(&answers);
                    begun.execute(async move {
                        answers.fetch_add(1, Ordering::Relaxed);
                    });
                }
                Poll::Pending
            }
        }));
        let served = std::pin::pin!(poll_fn(|context| streams.poll(connection.as_mut(), context)));
        assert!(matches!(poll!(served), Poll::Ready(Ok(()))));
    }

    #[tokio::test]
    async fn a_request_that_takes_all_the_time_there_is_does_not_hold_up_the_socket() {
        let mut streams = Streams::default();
        streams.begun().execute(async {
            loop {
                tokio::task::coop::consume_budget().await;
            }
        });
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"ping").await.unwrap();
        let mut connection = pin!(async move {
            // So that the request has begun.
            tokio::task::yield_now().await;
            server.read_exact(&mut [0; 4]).await?;
            Ok(())
        });
        let mut turns = 0;
        let served = poll_fn(|context| {
            turns += 1;
            assert!(turns <= 2, "the socket is not served in its turn");
            streams.poll(connection.as_mut(), context)
        });
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_panics_ends_its_connection_and_no_more() {
        let mut streams = Streams::default();
        streams.begun().execute(pending());
        streams.begun().execute(async { panic!("on purpose") });
        let mut connection = std::pin::pin!(pending());
        let outcome = poll_fn(|context| streams.poll(connection.as_mut(), context)).await;
        assert_eq!(outcome.map_err(|error| error.to_string()), Err("a request panicked".to_owned()));
    }
}
