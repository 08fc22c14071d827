use std::sync::Arc;

use tokio::sync::oneshot;

use super::record::LogRecord;
use crate::api::Revision;
use crate::api::v1::event::Type;
use crate::error::Result;
use crate::store::transaction::{check_total, key_of, stamp};
use crate::store::{Commit, Committed, Event, Snapshot, Stored, Transaction, View, Write};
use crate::time::Clock;

/// One durable write takes no more transactions when it has this many bytes of objects.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// And not more than this many.
const BATCH_TRANSACTIONS: usize = 1024;

/// Transactions that were decided in memory, on top of all that was decided before, and wait for the disk.
pub(in crate::store) struct Batch {
    /// As it will be when this batch and those before it are durable.
    pub(in crate::store) state: Snapshot,
    /// Of its objects.
    pub(super) bytes: usize,
    pub(in crate::store) commits: Vec<Arc<Commit>>,
    /// The commits, encoded.
    pub(super) record: LogRecord,
    /// Not given when this is dropped: nobody hears of what did not land.
    pub(super) answers: Vec<(Answer, Result<Committed>)>,
    /// Whether there is something to do even if there is no transaction: the history has become shorter.
    pub(super) compacts: bool,
}

/// Whom to tell what has become of a transaction.
pub(super) type Answer = oneshot::Sender<Result<Committed>>;

/// What is given when this is dropped, as whoever has it may end before.
pub(super) struct Answers(pub(super) Vec<(Answer, Result<Committed>)>);

impl Batch {
    /// Begins with a state.
    pub(in crate::store) fn new(state: &Snapshot) -> Self {
        Self::on(state, LogRecord::default())
    }

    /// Begins with a state; the record is an empty one.
    pub(super) fn on(state: &Snapshot, record: LogRecord) -> Self {
        let (commits, answers) = (Vec::new(), Vec::new());
        Self { state: state.clone(), bytes: 0, commits, record, answers, compacts: false }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && !self.compacts
    }

    /// Whether it takes no more transactions.
    pub(super) fn is_full(&self) -> bool {
        self.answers.len() >= BATCH_TRANSACTIONS || self.bytes >= BATCH_BYTES
    }

    /// Does one transaction in memory. A failed one leaves no trace, but its answer waits for the disk too: what it was judged by has to be
    /// durable and visible before anybody hears of it.
    pub(super) fn run(&mut self, transaction: Transaction, answer: Answer, clock: &Clock) {
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
        let commit = Commit { revision, time: clock.now(), events };
        self.record.push(&commit);
        self.commits.push(Arc::new(commit));
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

impl Drop for Answers {
    fn drop(&mut self) {
        for (answer, outcome) in self.0.drain(..) {
            // Whoever asked may have gone away; the commit stands.
            let _ = answer.send(outcome);
        }
    }
}
