use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::batch::{Answer, Batch};
use super::landing::{Beside, Landing};
use crate::error::Result;
use crate::store::{Feed, Transaction, closed};
use crate::time::Clock;

/// What the committer is asked to do.
pub(super) enum Request {
    /// Do this transaction, which has been measured.
    Commit { transaction: Transaction, answer: Answer },
    /// End, properly.
    Close { answer: oneshot::Sender<()> },
    /// Look whether it was killed, and whether there is something to let go of.
    Wake,
}

/// Takes transactions in order and decides them in memory; lands what was decided, a batch after the other. While one lands the next one is decided on
/// top of it.
///
/// # Guarantees
/// A transaction is answered after the files have made it durable and after the state shows it, and so is a refusal, as far as what it was judged by. What
/// the files refuse was never visible, nor is anything that was decided on top of it: that is refused for the same reason. The committer never waits for a
/// reader or a watcher.
pub(super) struct Committer {
    feed: Feed,
    requests: mpsc::Receiver<Request>,
    clock: Clock,
    killed: Arc<AtomicBool>,
    /// Was decided and does not land yet.
    batch: Batch,
    /// `None` while a batch lands beside.
    landing: Option<Box<Landing>>,
    beside: Beside,
    /// Whom to tell that it has ended. Nothing more is taken then.
    closing: Option<oneshot::Sender<()>>,
}

/// What there is to do.
enum Wake {
    Request(Request),
    Landed(Box<Landing>, Result<()>),
    /// Nobody is left who could ask, or landing panicked.
    Over,
}

impl Committer {
    pub(super) fn new(
        feed: Feed,
        landing: Landing,
        beside: Beside,
        requests: mpsc::Receiver<Request>,
        clock: Clock,
        killed: Arc<AtomicBool>,
    ) -> Self {
        let batch = Batch::new(&feed.snapshot());
        Self { feed, requests, clock, killed, batch, landing: Some(Box::new(landing)), beside, closing: None }
    }

    /// Runs until the store is closed or killed, or all its handles are gone. Uses the runtime to wait, and nothing else runs there.
    pub(super) fn run(mut self, runtime: &Runtime) {
        let closes_feed = ClosesFeed(self.feed.clone());
        let closing = runtime.block_on(self.serve());
        // In this order: whoever is told that the store is closed finds its folder free and its watches ended.
        drop(self);
        drop(closes_feed);
        if let Some(closing) = closing {
            let _ = closing.send(());
        }
    }

    /// Returns whom to tell that it has ended, if somebody waits for that.
    async fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        // Asked before every wait: a batch may have taken the wake-up along.
        while !self.is_killed() {
            match self.wake().await {
                Wake::Request(request) => self.take(request),
                Wake::Landed(landing, outcome) => self.landed(landing, outcome),
                Wake::Over => return None,
            }
            self.take_what_waits();
            if self.is_killed() {
                return None;
            }
            self.land();
            if let Some(closing) = self.close() {
                return Some(closing);
            }
        }
        None
    }

    /// Closes if it is to, and everything has landed.
    fn close(&mut self) -> Option<oneshot::Sender<()>> {
        let landing = self.landing.as_mut().filter(|_| self.batch.is_empty())?;
        let closing = self.closing.take()?;
        self.requests.close();
        landing.close();
        Some(closing)
    }

    fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    async fn wake(&mut self) -> Wake {
        let (lands, takes) = (self.landing.is_none(), self.takes());
        let wake = tokio::select! {
            biased;
            landed = self.beside.landed(), if lands => landed.map(|(landing, outcome)| Wake::Landed(landing, outcome)),
            request = self.requests.recv(), if takes => request.map(Wake::Request),
            else => None,
        };
        wake.unwrap_or(Wake::Over)
    }

    /// Whether more can be decided now.
    fn takes(&self) -> bool {
        self.closing.is_none() && !self.batch.is_full()
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Commit { transaction, answer } => self.batch.run(transaction, answer, &self.clock),
            Request::Close { answer } => self.closing = Some(answer),
            Request::Wake => self.batch.compacts = true,
        }
    }

    fn take_what_waits(&mut self) {
        while self.takes()
            && let Ok(request) = self.requests.try_recv()
        {
            self.take(request);
        }
    }

    /// Lands what was decided, unless a batch lands already.
    fn land(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let Some(mut landing) = self.landing.take() else { return };
        let next = Batch::on(&self.batch.state, std::mem::take(&mut landing.record));
        let batch = std::mem::replace(&mut self.batch, next);
        if !landing.is_worth_a_thread(&batch) {
            let outcome = landing.land(batch);
            self.landed(landing, outcome);
        } else {
            self.beside.land(landing, batch);
        }
    }

    fn landed(&mut self, landing: Box<Landing>, outcome: Result<()>) {
        if let Err(error) = outcome {
            // What was decided meanwhile rests on what never happened.
            let next = Batch::new(&self.feed.snapshot());
            let batch = std::mem::replace(&mut self.batch, next);
            landing.tell(batch.answers, Some(&error));
        }
        self.landing = Some(landing);
    }
}

/// Tells the watches when the committer ends, however it ends.
struct ClosesFeed(Feed);

impl Drop for ClosesFeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the committer panicked; the store takes no more writes");
        }
        self.0.close();
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.requests.close();
        // What still waits learns that nothing was done with it, instead of waiting for the channel to go away.
        while let Ok(request) = self.requests.try_recv() {
            if let Request::Commit { answer, .. } = request {
                let _ = answer.send(Err(closed()));
            }
        }
    }
}
