use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::oneshot;

use crate::api::Revision;

/// Who waits until the feed shows a revision.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    reached: Revision,
    closed: bool,
    at: BTreeMap<Revision, Vec<oneshot::Sender<()>>>,
}

impl Arrivals {
    /// Returns when the feed shows a revision; false when it never will.
    pub(super) async fn wait(&self, revision: Revision) -> bool {
        let arrival = {
            let mut waiting = self.0.lock().expect(UNPOISONED);
            if waiting.reached >= revision || waiting.closed {
                return waiting.reached >= revision;
            }
            let (tell, arrival) = oneshot::channel();
            let there = waiting.at.entry(revision).or_default();
            // Of those who gave up waiting for a revision that never came nothing is left when the next one comes.
            there.retain(|one| !one.is_closed());
            there.push(tell);
            arrival
        };
        arrival.await.is_ok()
    }

    /// The feed shows everything up to this revision.
    pub(super) fn reach(&self, revision: Revision) {
        let arrived = {
            let mut waiting = self.0.lock().expect(UNPOISONED);
            waiting.reached = waiting.reached.max(revision);
            let later = waiting.at.split_off(&revision.next());
            std::mem::replace(&mut waiting.at, later)
        };
        for waiter in arrived.into_values().flatten() {
            // It may have given up.
            let _ = waiter.send(());
        }
    }

    /// There will be no more revisions.
    pub(super) fn close(&self) {
        let mut waiting = self.0.lock().expect(UNPOISONED);
        waiting.closed = true;
        waiting.at.clear();
    }
}

const UNPOISONED: &str = "nothing panics while holding it";

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn each_waits_for_its_revision_and_no_longer() {
        let arrivals = Arrivals::default();
        let mut waiters: Vec<_> = [3, 5, 5, 9].map(|revision| Box::pin(arrivals.wait(Revision(revision)))).into();
        let mut ready = |arrivals: &Arrivals, reached: u64| {
            arrivals.reach(Revision(reached));
            waiters.iter_mut().map(|waiter| waiter.as_mut().now_or_never()).collect::<Vec<_>>()
        };
        assert_eq!(ready(&arrivals, 0), [None; 4]);
        let mut more = Box::pin(arrivals.wait(Revision(4)));
        assert_eq!(more.as_mut().now_or_never(), None);
        arrivals.reach(Revision(6));
        assert_eq!(more.now_or_never(), Some(true));
        assert_eq!(arrivals.wait(Revision(6)).now_or_never(), Some(true));
        drop(waiters);
        let mut last = Box::pin(arrivals.wait(Revision(7)));
        assert_eq!(last.as_mut().now_or_never(), None);
        arrivals.close();
        assert_eq!(last.now_or_never(), Some(false));
        assert_eq!(arrivals.wait(Revision(6)).now_or_never(), Some(true));
    }
}
