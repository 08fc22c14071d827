//! One etcd for any number of apiservers. It decides and keeps; every apiserver holds the state in memory as with any other backend, and follows what
//! all of them commit.
//!
//! - [`keys`]: what is where in etcd.
//! - [`kv`], [`login`]: the calls, over members that may fail.
//! - [`txn`]: a transaction as etcd takes it, and etcd's answer.
//! - [`load`], [`follow`]: the state as of some revision, and every change after it.
//! - [`catch_up`]: what makes a read linearizable.
//! - [`compact`]: forgets what the history doesn't need any more.

mod arrivals;
mod catch_up;
mod compact;
mod follow;
pub(in crate::store) mod fuzzing;
mod keys;
mod kv;
mod load;
mod login;
mod options;
mod shared;
mod txn;

#[cfg(test)]
mod tests;

/// etcd's API, generated from proto/rpc.proto.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, rustdoc::all)]
mod rpc {
    include!(concat!(env!("OUT_DIR"), "/etcd/etcdserverpb.rs"));
}

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use options::{EtcdOptions, Tls};

use super::{Backend, OpenError};
use crate::api::Revision;
use crate::error::{Error, Result};
use crate::store::{Committed, Feed, History, Options, Transaction, Write};
use crate::tasks::Tasks;
use crate::time::Backoff;
use catch_up::Tip;
use follow::Follower;
use kv::Fault;
use load::{create, load};
use shared::Shared;
use txn::Guard;

/// How long opening goes on trying to reach etcd.
const OPEN: Duration = Duration::from_secs(15);
/// How long the feed may take to show what etcd has told of.
const ARRIVE: Duration = Duration::from_secs(5);
/// How often a transaction that was judged by a state is judged anew because others commit in between.
const ATTEMPTS: usize = 100;
/// What to do when etcd has no space.
const MAKE_SPACE: &str = "make space there (compact, defragment or raise --quota-backend-bytes), then: etcdctl alarm disarm";
/// How long to wait when etcd has no space, and when it has too much to do.
const FULL_RETRY: Duration = Duration::from_secs(10);
const BUSY_RETRY: Duration = Duration::from_millis(500);
/// How long tasks get to end.
const GRACE: Duration = Duration::from_secs(1);

/// The backend.
#[derive(Debug)]
pub(in crate::store) struct Etcd {
    shared: Arc<Shared>,
    tip: Tip,
    tasks: Tasks,
}

impl Etcd {
    /// Reads the cluster's state and follows it from there. Returns the cluster's id and its feed, too.
    ///
    /// # Errors
    /// When etcd can't be reached or refuses us, or what is there was not written by us. At most a new cluster's first keys are there then that were not before.
    pub(in crate::store) async fn open(etcd: &EtcdOptions, options: Options) -> Result<(Self, String, Feed), OpenError> {
        let failed = |fault: Fault| OpenError::Etcd { address: etcd.to_string(), fault: fault.to_string() };
        let kv = etcd.connect().map_err(failed)?;
        let keys = etcd.keys();
        let opening = async {
            patiently(|| create(&kv, &keys, options.clock.now())).await?;
            patiently(|| load(&kv, &keys, options.history.revisions, 0)).await
        };
        let loaded = opening.await.map_err(failed)?;
        let id = loaded.cluster_id.clone();
        let feed = Feed::new(loaded.state.clone(), History::new(options.history, loaded.state.revision()));
        let shared = Arc::new(Shared::new(kv, keys, id.clone(), options.history, options.clock, feed.clone()));
        let (tip, asks) = Tip::new(Arc::clone(&shared));
        let tasks = Tasks::new(shared.ends.clone());
        tasks.spawn("etcd follower", Follower::new(Arc::clone(&shared), loaded).run());
        tasks.spawn("etcd tip", until_end(shared.ends.clone(), asks));
        tasks.spawn("etcd compaction", until_end(shared.ends.clone(), compact::run(Arc::clone(&shared))));
        let this = Self { shared, tip, tasks };
        // The history up to now, so that watches can be resumed at once.
        patiently(|| this.replay()).await.map_err(failed)?;
        Ok((this, id, feed))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed> {
        if transaction.writes.iter().all(|write| matches!(write, Write::Require { .. })) {
            return self.read(&transaction).await;
        }
        let Shared { kv, keys, feed, clock, ends, .. } = &*self.shared;
        for _ in 0..ATTEMPTS {
            let mut state = feed.snapshot();
            let guard = txn::guard(keys, &transaction, &state)?;
            if guard == Guard::Tip {
                self.catch_up().await?;
                state = feed.snapshot();
                txn::judge(&transaction, &state)?;
            }
            let judged_here = guard == Guard::Tip;
            let request = txn::request(keys, &transaction, guard, &state, clock.now());
            let before = state.revision();
            drop(state);
            let response = ends.run_until_cancelled(kv.txn(request)).await.ok_or_else(|| Error::Unavailable(self.shared.ended()))?;
            let response = match response {
                Ok(response) => response,
                Err(fault) => return Err(self.failed(fault, &transaction, before).await),
            };
            if response.succeeded {
                let revision = response.header.as_ref().map_or(0, |header| header.revision).cast_unsigned();
                self.arrive(Revision(revision)).await.map_err(|error| Error::Unavailable(format!("it was written, but {error}")))?;
                return txn::committed(transaction, &response, Revision(revision));
            }
            // Where the state has been judged here, only the tip was compared, and that it has moved says nothing of the objects.
            if !judged_here {
                txn::refusal(keys, &transaction, &response)?;
            }
        }
        Err(Error::NotDone("others commit all the time; try again".to_owned()))
    }

    /// What somebody hears whose transaction failed. It was sent when the state was at least at a revision.
    async fn failed(&self, fault: Fault, transaction: &Transaction, before: Revision) -> Error {
        match fault {
            Fault::Senseless(why) => {
                let open = Error::Unavailable(format!("it may or may not have been written: {why}"));
                self.shared.give_up(why);
                open
            }
            Fault::NoSpace(why) if !self.was_left_out(transaction, before).await => {
                Error::Unavailable(format!("etcd has no space left, and may or may not have written it: {why}; {MAKE_SPACE}"))
            }
            fault => write_error(fault),
        }
    }

    /// Whether none of the commits after a revision can be this transaction, which etcd has answered.
    async fn was_left_out(&self, transaction: &Transaction, after: Revision) -> bool {
        if self.catch_up().await.is_err() {
            return false;
        }
        let commits = self.shared.feed.after(after, usize::MAX);
        commits.is_ok_and(|commits| commits.iter().all(|commit| !txn::may_be(transaction, commit)))
    }

    /// A transaction that writes nothing.
    async fn read(&self, transaction: &Transaction) -> Result<Committed> {
        self.catch_up().await?;
        let state = self.shared.feed.snapshot();
        txn::judge(transaction, &state)?;
        Ok(Committed { revision: state.revision(), objects: vec![None; transaction.writes.len()] })
    }

    async fn catch_up(&self) -> Result<()> {
        let tip = self.tip().await?;
        self.arrive(tip).await.map_err(Error::NotDone)
    }

    /// The current revision.
    async fn tip(&self) -> Result<Revision> {
        let tip = self.shared.ends.run_until_cancelled(self.tip.get()).await.flatten();
        tip.unwrap_or_else(|| Err(Error::NotDone(self.shared.ended())))
    }

    /// Waits until the feed shows what is there now, as long as it comes nearer to that.
    async fn replay(&self) -> Result<(), Fault> {
        let failed = |why| if self.shared.ends.is_cancelled() { Fault::Senseless(why) } else { Fault::NotDone(why) };
        let tip = self.tip().await.map_err(|error| failed(error.to_string()))?;
        loop {
            let before = self.shared.feed.revision();
            match self.arrive(tip).await {
                Err(_) if self.shared.feed.revision() > before => {}
                arrived => return arrived.map_err(failed),
            }
        }
    }

    /// Waits until the feed shows a revision.
    async fn arrive(&self, revision: Revision) -> Result<(), String> {
        let before = self.shared.feed.revision();
        match tokio::time::timeout(ARRIVE, self.shared.arrivals.wait(revision)).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(self.shared.ended()),
            Err(_) => {}
        }
        let now = self.shared.feed.revision();
        if now > before {
            return Err(format!("this apiserver is behind etcd: it has heard of revision {now}, not yet of {revision}"));
        }
        // Whoever listens now: a watch that begins later is not to blame.
        self.shared.stalled.notify_waiters();
        Err(format!("this apiserver hears nothing of etcd's changes since revision {now}"))
    }
}

impl Backend for Etcd {
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed>> {
        Box::pin(self.commit(transaction))
    }

    fn catch_up(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.catch_up())
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn gave_up(&self) -> BoxFuture<'_, String> {
        Box::pin(self.shared.has_given_up())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.end();
            self.tasks.shutdown(GRACE).await;
        })
    }

    fn kill(&self) {
        self.shared.end();
    }
}

async fn until_end(ends: CancellationToken, work: impl Future<Output = ()>) {
    ends.run_until_cancelled(work).await;
}

/// Tries again for a while when etcd can't be reached: it may be starting, too. A certificate doesn't become right by that.
async fn patiently<T, F: Future<Output = Result<T, Fault>>>(attempt: impl Fn() -> F) -> Result<T, Fault> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let deadline = tokio::time::Instant::now() + OPEN;
    loop {
        match attempt().await {
            Err(fault @ (Fault::NotDone(_) | Fault::Open(_) | Fault::Busy(_))) if tokio::time::Instant::now() < deadline => {
                tracing::warn!(%fault, "waiting for etcd");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            outcome => return outcome,
        }
    }
}

/// What somebody hears whose write failed, if etcd has no space: and was not done.
fn write_error(fault: Fault) -> Error {
    match fault {
        Fault::NotDone(why) | Fault::Handshake(why) => Error::NotDone(format!("etcd can't write: {why}")),
        Fault::Open(why) => Error::Unavailable(format!("etcd may or may not have written it: {why}")),
        Fault::NoSpace(why) => {
            let message = format!("etcd has no space left, nothing was written: {why}; {MAKE_SPACE}");
            Error::Exhausted { message, retry_after: Some(FULL_RETRY) }
        }
        Fault::Busy(why) => Error::Exhausted { message: format!("etcd has too much to do: {why}"), retry_after: Some(BUSY_RETRY) },
        Fault::Login(why) | Fault::Refused(why) | Fault::Senseless(why) => Error::NotDone(format!("etcd refuses it: {why}")),
        Fault::Compacted => Error::internal("etcd speaks of compaction in answer to a transaction"),
    }
}
