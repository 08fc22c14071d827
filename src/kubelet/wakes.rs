use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::uid::PodUid;

/// Which pods are to be looked at. A wake-up carries nothing else: whoever is woken rereads. Bounded by the number of pods.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<PodUid>,
    waiting: BTreeSet<PodUid>,
    all: bool,
}

/// What to look at now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// These, in the order in which they were first woken.
    Pods(Vec<PodUid>),
    /// Those whose time has come.
    Due,
    /// Every one.
    All,
}

impl Wakes {
    /// Look at this pod.
    pub(crate) fn pod(&self, uid: &PodUid) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.insert(uid.clone()) {
            queue.order.push_back(uid.clone());
        }
        self.notify.notify_one();
    }

    /// Look at every pod.
    pub(crate) fn all(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).all = true;
        self.notify.notify_one();
    }

    /// Waits for the next, at most `limit` at once. Cancelling it loses nothing.
    pub(crate) async fn next(&self, limit: usize) -> Woken {
        loop {
            if let Some(woken) = self.take(limit) {
                return woken;
            }
            self.notify.notified().await;
        }
    }

    fn take(&self, limit: usize) -> Option<Woken> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut queue.all) {
            return Some(Woken::All);
        }
        let count = limit.min(queue.order.len());
        let pods: Vec<PodUid> = queue.order.drain(..count).collect();
        for uid in &pods {
            queue.waiting.remove(uid);
        }
        (!pods.is_empty()).then_some(Woken::Pods(pods))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pod_that_is_woken_twice_is_looked_at_once_and_in_turn() {
        let (wakes, a, b) = (Wakes::default(), PodUid::new("a").unwrap(), PodUid::new("b").unwrap());
        wakes.pod(&b);
        wakes.pod(&a);
        wakes.pod(&b);
        assert_eq!(wakes.next(1).await, Woken::Pods(vec![b]));
        assert_eq!(wakes.next(8).await, Woken::Pods(vec![a]));
        assert_eq!(wakes.take(8), None);
    }

    #[tokio::test]
    async fn a_wake_up_for_all_loses_no_single_one() {
        let (wakes, a) = (Wakes::default(), PodUid::new("a").unwrap());
        wakes.pod(&a);
        wakes.all();
        assert_eq!(wakes.next(8).await, Woken::All);
        assert_eq!(wakes.next(8).await, Woken::Pods(vec![a]));
    }
}
