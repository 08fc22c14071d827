use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::v1::{Object, Selector};
use crate::api::{ObjectKey, Revision};
use crate::client::{Cache, Client};
use crate::kubelet::uid::PodUid;
use crate::kubelet::wakes::Wakes;
use crate::tasks::Tasks;

/// How many objects one watch follows: as many selectors as a watch may have.
const SHARE: usize = 64;
/// How long a watch gets to end.
const GRACE: Duration = Duration::from_secs(5);

/// Watches the ConfigMaps and Secrets that pods of this node use, by name, and no others. Without such a pod there is no watch.
#[derive(Debug)]
pub(crate) struct Followed {
    client: Client,
    wakes: Arc<Wakes>,
    tasks: Arc<Tasks>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who uses what.
    users: BTreeMap<ObjectKey, BTreeSet<PodUid>>,
    /// What each pod uses, and whether it has asked in vain.
    pods: BTreeMap<PodUid, User>,
    watches: Vec<Watch>,
}

#[derive(Debug, Default)]
struct User {
    keys: BTreeSet<ObjectKey>,
    waits: bool,
}

/// One watch of a share of the objects.
#[derive(Debug)]
struct Watch {
    keys: BTreeSet<ObjectKey>,
    /// What it is to follow has changed, or has to be as new as now.
    is_due: bool,
    cache: Option<Cache>,
    ended: CancellationToken,
}

impl Followed {
    pub(crate) fn new(client: Client, wakes: Arc<Wakes>, tasks: Arc<Tasks>) -> Arc<Self> {
        Arc::new(Self { client, wakes, tasks, state: Mutex::default() })
    }

    /// A pod uses these. It shall see them no older than of that revision.
    pub(crate) fn use_by(&self, uid: &PodUid, keys: BTreeSet<ObjectKey>, since: Revision) {
        let mut state = self.lock();
        for key in &keys {
            state.users.entry(key.clone()).or_default().insert(uid.clone());
            state.add(key, since);
        }
        state.pods.insert(uid.clone(), User { keys, waits: false });
    }

    /// A pod is gone.
    pub(crate) fn forget(&self, uid: &PodUid) {
        let mut state = self.lock();
        let Some(user) = state.pods.remove(uid) else { return };
        for key in user.keys {
            state.drop_user(&key, uid);
        }
    }

    /// Lets the watches follow what the pods use since the last time.
    pub(crate) fn settle(self: &Arc<Self>) {
        let mut state = self.lock();
        state.watches.retain(|watch| {
            if watch.keys.is_empty() {
                watch.ended.cancel();
            }
            !watch.keys.is_empty()
        });
        for watch in state.watches.iter_mut().filter(|watch| watch.is_due) {
            watch.is_due = false;
            let selectors = watch.keys.iter().map(selector).collect();
            match &watch.cache {
                Some(cache) => cache.follow(selectors),
                None => watch.cache = Some(self.start(selectors, watch.ended.clone())),
            }
        }
    }

    /// An object as it is, or was at that revision or later, `None` inside if there is none. `None` outside: nobody knows yet, and the pod is woken
    /// when somebody does.
    pub(crate) fn look(&self, uid: &PodUid, key: &ObjectKey, since: Revision) -> Option<Option<Arc<Object>>> {
        let mut state = self.lock();
        let cache = state.watch_of(key).and_then(|watch| watch.cache.as_ref());
        let found = cache.filter(|cache| shows(cache, key) && cache.revision() >= since).map(|cache| cache.get_object(key));
        if found.is_none()
            && let Some(user) = state.pods.get_mut(uid)
        {
            user.waits = true;
        }
        found
    }

    fn start(self: &Arc<Self>, selectors: Vec<Selector>, ended: CancellationToken) -> Cache {
        let own = Tasks::new(ended.clone());
        let cache = Cache::start(self.client.clone(), selectors, &own);
        let (mut changes, mut revisions, followed) = (cache.subscribe(), cache.revisions(), Arc::downgrade(self));
        // It may have the first state already.
        revisions.mark_changed();
        own.spawn("configuration", async move {
            loop {
                let changed = tokio::select! {
                    changed = changes.next() => changed,
                    reached = revisions.changed() => reached.ok().map(|()| BTreeSet::new()),
                };
                let (Some(changed), Some(followed)) = (changed, followed.upgrade()) else { return };
                followed.wake(&changed);
            }
        });
        let token = self.tasks.token();
        self.tasks.spawn("configuration", async move {
            tokio::select! { () = ended.cancelled() => {}, () = token.cancelled() => {} }
            own.shutdown(GRACE).await;
        });
        cache
    }

    /// Wakes who uses these, and who waits.
    fn wake(&self, changed: &BTreeSet<ObjectKey>) {
        let mut state = self.lock();
        let users: BTreeSet<PodUid> = changed.iter().filter_map(|key| state.users.get(key)).flatten().cloned().collect();
        for (uid, user) in &mut state.pods {
            if std::mem::take(&mut user.waits) || users.contains(uid) {
                self.wakes.pod(uid);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn watch_of(&self, key: &ObjectKey) -> Option<&Watch> {
        self.watches.iter().find(|watch| watch.keys.contains(key))
    }

    /// One of the watches follows the object, and will be as new as that revision.
    fn add(&mut self, key: &ObjectKey, since: Revision) {
        if let Some(watch) = self.watches.iter_mut().find(|watch| watch.keys.contains(key)) {
            watch.is_due |= watch.cache.as_ref().is_none_or(|cache| cache.revision() < since);
            return;
        }
        let index = self.watches.iter().position(|watch| watch.keys.len() < SHARE).unwrap_or_else(|| {
            self.watches.push(Watch { keys: BTreeSet::new(), is_due: true, cache: None, ended: CancellationToken::new() });
            self.watches.len() - 1
        });
        let watch = &mut self.watches[index];
        watch.is_due = true;
        watch.keys.insert(key.clone());
    }

    fn drop_user(&mut self, key: &ObjectKey, uid: &PodUid) {
        let Some(users) = self.users.get_mut(key) else { return };
        users.remove(uid);
        if users.is_empty() {
            self.users.remove(key);
            for watch in &mut self.watches {
                watch.is_due |= watch.keys.remove(key);
            }
        }
    }
}

/// Whether a cache has the object if there is one.
fn shows(cache: &Cache, key: &ObjectKey) -> bool {
    cache.followed().is_some_and(|selectors| selectors.contains(&selector(key)))
}

fn selector(key: &ObjectKey) -> Selector {
    let (kind, namespace, name) = (key.kind().to_string(), key.namespace().to_owned(), key.name().to_owned());
    Selector { kind, namespace, name, ..Selector::default() }
}

#[cfg(test)]
mod tests;
