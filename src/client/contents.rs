//! What a [`super::Cache`] shows, and who is told when it changes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::follow::{Differences, Step};
use super::objects::Objects;
use crate::api::v1::Selector;
use crate::api::{ObjectKey, Revision};

/// Objects as of one revision.
#[derive(Default)]
pub(super) struct Contents {
    objects: Objects,
    /// `None` before the first whole state.
    revision: Option<Revision>,
    /// What the objects are all of.
    selectors: Option<Arc<[Selector]>>,
    relists: u64,
    bridges: u64,
    subscribers: Vec<Weak<Subscription>>,
}

impl Contents {
    pub(super) fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(super) fn revision(&self) -> Option<Revision> {
        self.revision
    }

    pub(super) fn selectors(&self) -> Option<Arc<[Selector]>> {
        self.selectors.clone()
    }

    pub(super) fn relists(&self) -> u64 {
        self.relists
    }

    pub(super) fn bridges(&self) -> u64 {
        self.bridges
    }

    /// Takes a step of a watch with these selectors and tells the subscribers what it changed. Returns the revision that it reached, if any.
    pub(super) fn apply(&mut self, step: Step, selectors: &Arc<[Selector]>) -> Option<Revision> {
        if let Step::Bridge(..) | Step::Replace(..) = step {
            self.selectors = Some(selectors.clone());
        }
        let (changed, revision) = match step {
            Step::Wait => return None,
            Step::Advance(changes, revision) => (self.advance(changes), revision),
            Step::Bridge(differences, revision) => {
                self.bridges += 1;
                (self.advance(differences), revision)
            }
            Step::Replace(objects, revision) => {
                self.relists += u64::from(self.revision.is_some());
                (self.objects.replace(objects), revision)
            }
        };
        self.revision = Some(revision);
        self.tell(&changed);
        Some(revision)
    }

    /// A subscription that begins with every key.
    pub(super) fn subscribe(&mut self) -> Arc<Subscription> {
        let pending = Mutex::new(self.objects.keys().cloned().collect());
        let subscription = Arc::new(Subscription { pending, wake: Notify::new() });
        self.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        self.subscribers.push(Arc::downgrade(&subscription));
        subscription
    }

    /// Lets every subscriber see that the cache has ended.
    pub(super) fn wake_all(&self) {
        self.subscribers.iter().filter_map(Weak::upgrade).for_each(|subscription| subscription.wake.notify_one());
    }

    fn advance(&mut self, changes: Differences) -> Vec<ObjectKey> {
        let mut changed = Vec::with_capacity(changes.len());
        for (key, object) in changes {
            changed.push(key.clone());
            match object {
                Some(object) => self.objects.insert(key, object),
                None => self.objects.remove(&key),
            };
        }
        changed
    }

    fn tell(&mut self, changed: &[ObjectKey]) {
        if changed.is_empty() {
            return;
        }
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(subscription) => {
                subscription.lock().extend(changed.iter().cloned());
                subscription.wake.notify_one();
                true
            }
            None => false,
        });
    }
}

/// The keys that changed since they were last asked for; bounded by the number of keys, however slowly it is read.
pub struct Changes {
    subscription: Arc<Subscription>,
    ended: CancellationToken,
}

pub(super) struct Subscription {
    pending: Mutex<BTreeSet<ObjectKey>>,
    wake: Notify,
}

impl Changes {
    pub(super) fn new(subscription: Arc<Subscription>, ended: CancellationToken) -> Self {
        Self { subscription, ended }
    }

    /// Waits for changes and takes all there are. `None` when the cache has ended. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<BTreeSet<ObjectKey>> {
        loop {
            let changed = std::mem::take(&mut *self.subscription.lock());
            if !changed.is_empty() {
                return Some(changed);
            }
            if self.ended.is_cancelled() {
                return None;
            }
            self.subscription.wake.notified().await;
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Changes, {} pending", self.subscription.lock().len())
    }
}

impl Subscription {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<ObjectKey>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
