use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::follow::went_back;
use super::load::revision_of;
use super::rpc::RangeRequest;
use super::shared::Shared;
use crate::api::Revision;
use crate::error::{Error, Result};

/// Asks etcd for the current revision, once for all who want to know it at the same time.
#[derive(Debug)]
pub(super) struct Tip(mpsc::Sender<Answer>);

type Answer = oneshot::Sender<Result<Revision>>;

/// How many may wait to be answered together; further ones wait for a place.
const WAITING: usize = 1024;

impl Tip {
    /// Returns what asks, too: somebody has to run it.
    pub(super) fn new(shared: Arc<Shared>) -> (Self, impl Future<Output = ()> + Send) {
        let (tip, mut waiting) = mpsc::channel::<Answer>(WAITING);
        let asks = async move {
            let mut answers = Vec::new();
            while waiting.recv_many(&mut answers, WAITING).await > 0 {
                // Whoever comes from here on may have been told of something that this answer won't have, and waits for the next one.
                let current = current(&shared).await;
                for answer in answers.drain(..) {
                    // Whoever asked may have gone.
                    let _ = answer.send(current.clone());
                }
            }
        };
        (Self(tip), asks)
    }

    /// A revision that has everything in it that anybody was told of before the call.
    pub(super) async fn get(&self) -> Option<Result<Revision>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

async fn current(shared: &Shared) -> Result<Revision> {
    let known = shared.feed.revision();
    let request = RangeRequest { key: shared.keys.tip(), ..Default::default() };
    let tip = shared.kv.range(request).await.map_err(|fault| Error::NotDone(format!("can't read the current state: {fault}")))?;
    let now = tip.header.map_or(0, |header| header.revision);
    if now.cast_unsigned() < known.0 {
        shared.give_up(went_back(Revision(now.cast_unsigned()), known));
        return Err(Error::NotDone(shared.ended()));
    }
    Ok(tip.kvs.first().map(revision_of).unwrap_or_default())
}
