use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::Files;
use crate::api::Revision;
use crate::api::v1::event::Type;
use crate::error::Result;
use crate::store::transaction::{check_total, key_of, stamp};
use crate::store::{Commit, Committed, Event, Feed, Snapshot, Stored, Transaction, View, Write, closed};
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

/// Takes transactions, as many at once as wait, and makes them durable and visible, in order.
///
/// # Guarantees
/// A transaction is answered after the files have made it durable and after the state shows it. What they refuse was never
/// visible. The committer never waits for a reader or a watcher.
pub(super) struct Committer {
    feed: Feed,
    state: Snapshot,
    files: Files,
    requests: mpsc::Receiver<Request>,
    clock: Clock,
    killed: Arc<AtomicBool>,
    /// Where those run that wait for answers.
    runtime: Option<Handle>,
}

/// One durable write takes no more transactions when it has this many bytes of objects.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// And not more than this many.
const BATCH_TRANSACTIONS: usize = 1024;

/// Transactions that were done in memory, and wait for the disk.
pub(in crate::store) struct Batch {
    pub(in crate::store) state: Snapshot,
    bytes: usize,
    pub(in crate::store) commits: Vec<Arc<Commit>>,
    answers: Vec<(Answer, Result<Committed>)>,
}

impl Committer {
    pub(super) fn new(feed: Feed, files: Files, requests: mpsc::Receiver<Request>, clock: Clock, killed: Arc<AtomicBool>) -> Self {
        let runtime = Handle::try_current().ok();
        Self { state: feed.snapshot(), feed, files, requests, clock, killed, runtime }
    }

    /// Runs until the store is closed or killed, or all its handles are gone.
    pub(super) fn run(mut self) {
        let closes_feed = ClosesFeed(self.feed.clone());
        let closing = self.serve();
        // In this order: whoever is told that the store is closed finds its folder free and its watches ended.
        drop(self);
        drop(closes_feed);
        if let Some(closing) = closing {
            let _ = closing.send(());
        }
    }

    /// Returns whom to tell that it has ended, if somebody waits for that.
    fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        // Asked before every wait: a batch may have taken the wake-up along.
        while !self.killed.load(Ordering::Acquire) {
            let request = self.requests.blocking_recv()?;
            if self.killed.load(Ordering::Acquire) {
                return None;
            }
            if let Some(closing) = self.take_batch(request) {
                self.requests.close();
                self.files.close(&self.state);
                return Some(closing);
            }
        }
        None
    }

    /// Commits a first request and all that wait behind it. Returns whom to tell when it is time to close.
    fn take_batch(&mut self, first: Request) -> Option<oneshot::Sender<()>> {
        let mut batch = Batch::new(&self.state);
        let mut closing = None;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Commit { transaction, answer } => batch.run(transaction, answer, &self.clock),
                Request::Close { answer } => {
                    closing = Some(answer);
                    break;
                }
                Request::Wake => break,
            }
            let full = batch.answers.len() >= BATCH_TRANSACTIONS || batch.bytes >= BATCH_BYTES;
            next = if full { None } else { self.requests.try_recv().ok() };
        }
        self.finish(batch);
        closing
    }

    fn finish(&mut self, batch: Batch) {
        if !batch.commits.is_empty() {
            if let Err(error) = self.append(&batch.commits) {
                let failed = batch.answers.into_iter().map(|(answer, _)| (answer, Err(error.clone()))).collect();
                return self.tell(failed);
            }
            self.state = batch.state.clone();
            self.feed.publish(batch.state, batch.commits);
        }
        self.tell(batch.answers);
        self.files.compact(&self.state, self.feed.oldest());
    }

    /// Answers from within the runtime, where waking is cheap, and what goes to one connection is written at once.
    fn tell(&self, answers: Vec<(Answer, Result<Committed>)>) {
        let answers = Answers(answers);
        match &self.runtime {
            Some(runtime) if answers.0.len() > 1 => drop(runtime.spawn(async move { drop(answers) })),
            _ => drop(answers),
        }
    }

    fn append(&mut self, commits: &[Arc<Commit>]) -> Result<()> {
        let begun = Instant::now();
        self.files.append(commits)?;
        metrics::histogram!("bluebird_store_append_seconds").record(begun.elapsed());
        metrics::histogram!("bluebird_store_batch_commits").record(commits.len() as f64);
        metrics::counter!("bluebird_store_commits_total").increment(commits.len() as u64);
        Ok(())
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

type Answer = oneshot::Sender<Result<Committed>>;

/// What is given when this is dropped, as whoever has it may end before.
struct Answers(Vec<(Answer, Result<Committed>)>);

impl Drop for Answers {
    fn drop(&mut self) {
        for (answer, outcome) in self.0.drain(..) {
            // Whoever asked may have gone away; the commit stands.
            let _ = answer.send(outcome);
        }
    }
}

impl Batch {
    /// Begins with a state.
    pub(in crate::store) fn new(state: &Snapshot) -> Self {
        Self { state: state.clone(), bytes: 0, commits: Vec::new(), answers: Vec::new() }
    }

    /// Does one transaction in memory. A failed one leaves no trace, but its answer waits for the disk too: what it was judged by has to be
    /// durable and visible before anybody hears of it.
    fn run(&mut self, transaction: Transaction, answer: Answer, clock: &Clock) {
        let outcome = self.apply(transaction, clock);
        self.answers.push((answer, outcome));
    }

    /// Does one transaction in memory, whole or not at all.
    pub(in crate::store) fn apply(&mut self, transaction: Transaction, clock: &Clock) -> Result<Committed> {
        transaction.check(|key| self.state.get(key).map(|stored| stored.revision))?;
        let revision = self.state.revision().next();
        let mut bytes = 0;
        let mut changes = Vec::with_capacity(transaction.writes.len());
        for write in transaction.writes {
            let event = event_of(write, &self.state, revision);
            bytes += event.as_ref().map_or(0, |event| event.object().len());
            changes.push(event);
        }
        // With the objects that it deletes, since one revision has to fit one message of a watch.
        check_total(bytes)?;
        let objects = changes.iter().map(|event| event.as_ref().map(|event| event.stored(revision))).collect();
        let events: Box<[Event]> = changes.into_iter().flatten().collect();
        if events.is_empty() {
            return Ok(Committed { revision: self.state.revision(), objects });
        }
        self.state.apply(&events, revision);
        self.bytes += bytes;
        self.commits.push(Arc::new(Commit { revision, time: clock.now(), events }));
        Ok(Committed { revision, objects })
    }
}

fn event_of(write: Write, state: &Snapshot, revision: Revision) -> Option<Event> {
    match write {
        Write::Put { mut object, .. } => {
            let key = key_of(&object);
            stamp(&mut object, revision);
            let before = state.get(&key).map(|stored| View::of(&stored.bytes));
            let kind = if before.is_some() { Type::Modified } else { Type::Added };
            Some(Event::new(kind, key, &object, before.as_ref()))
        }
        Write::Delete { key, .. } => {
            let mut object = state.get(&key).map(Stored::decode)?;
            stamp(&mut object, revision);
            Some(Event::new(Type::Deleted, key, &object, None))
        }
        Write::Require { .. } => None,
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
