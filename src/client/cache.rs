use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::contents::{Changes, Contents};
use super::follow::{Follow, Step};
use super::objects::Keep;
use super::{Backoff, Client};
use crate::api::v1::{Object, Selector, WatchRequest};
use crate::api::{Kind, LabelView, ObjectKey, Resource, Revision};
use crate::error::Error;
use crate::tasks::Tasks;

/// The longest wait before the first new connection.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait before any new connection.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// What the server has of some objects, kept up to date by one watch. Clones share it.
///
/// Guarantees: a reader sees the state of one revision, never a half; revisions only grow, unless the server lost its past; every change
/// of a key is told to every subscriber after it can be read. A broken connection is resumed where it broke; when the history no longer reaches
/// back, what differs from the state that is held is fetched aside and put in place at once, and only that is told. The whole state is fetched again
/// only when the server has lost its past, or what is held would take more than 32 MiB to tell.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    contents: RwLock<Contents>,
    revisions: watch::Sender<Option<Revision>>,
    /// What is to be followed.
    selectors: watch::Sender<Arc<[Selector]>>,
    ended: CancellationToken,
}

impl Cache {
    /// Starts to follow the objects that any of the selectors matches.
    pub fn start(client: Client, selectors: Vec<Selector>, tasks: &Tasks) -> Self {
        Self::start_keeping(client, selectors, Keep::default(), tasks)
    }

    /// As [`Cache::start`], but with less memory where there may be very many objects.
    pub fn start_keeping(client: Client, selectors: Vec<Selector>, keep: Keep, tasks: &Tasks) -> Self {
        let (revisions, selectors) = (watch::Sender::new(None), watch::Sender::new(selectors.into()));
        let shared = Shared { contents: RwLock::default(), revisions, selectors, ended: CancellationToken::new() };
        let cache = Self(Arc::new(shared));
        let token = tasks.token();
        let followed = cache.clone();
        tasks.spawn("cache", async move {
            let ends = followed.0.ended.clone().drop_guard();
            token.run_until_cancelled(followed.run(client, Follow::new(keep))).await;
            drop(ends);
            followed.write().wake_all();
        });
        cache
    }

    /// Follows all objects of these kinds.
    pub fn of_kinds(client: Client, kinds: &[Kind], tasks: &Tasks) -> Self {
        Self::start(client, all_of(kinds), tasks)
    }

    /// From now on follows what any of these selectors matches; none at all would be everything. What isn't held of it is fetched aside; then readers see
    /// it, and nothing any more that none of them matches, as of one revision. Given the same again it only asks the server anew, so that what is read
    /// is soon as new as it is now.
    pub fn follow(&self, selectors: Vec<Selector>) {
        self.0.selectors.send_replace(selectors.into());
    }

    /// What readers see is all that these selectors match: the last that were given or, while that is being fetched, those before. None before the first
    /// whole state.
    pub fn followed(&self) -> Option<Arc<[Selector]>> {
        self.read().selectors()
    }

    /// Waits for the first whole state. False if the cache ended before.
    pub async fn synced(&self) -> bool {
        self.wait(|reached| reached.is_some()).await
    }

    /// Waits until everything up to a revision can be read. False if the cache ended before.
    pub async fn reached(&self, revision: Revision) -> bool {
        self.wait(|reached| *reached >= Some(revision)).await
    }

    /// The revision that readers see; zero before the first whole state. What is read afterwards is at least as new.
    pub fn revision(&self) -> Revision {
        self.read().revision().unwrap_or_default()
    }

    /// The revision that readers see, to wait for. `None` before the first whole state.
    pub fn revisions(&self) -> watch::Receiver<Option<Revision>> {
        self.0.revisions.subscribe()
    }

    /// How often the whole state had to be fetched again because a resume was impossible.
    pub fn relists(&self) -> u64 {
        self.read().relists()
    }

    /// How often only the difference to what was held had to be fetched because the history no longer reached back.
    pub fn bridges(&self) -> u64 {
        self.read().bridges()
    }

    /// An object. The namespace is ignored for kinds that live in none.
    pub fn get<R: Resource>(&self, namespace: &str, name: &str) -> Option<Cached<R>> {
        Cached::new(self.get_object(&ObjectKey::new(R::KIND, namespace, name))?)
    }

    /// An object of any kind.
    pub fn get_object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.read().objects().get(key)
    }

    /// All objects of a kind, in the order of namespace and name.
    pub fn list<R: Resource>(&self) -> Vec<Cached<R>> {
        self.list_in("")
    }

    /// All objects of a kind in one namespace, or in all if it is empty.
    pub fn list_in<R: Resource>(&self, namespace: &str) -> Vec<Cached<R>> {
        self.select(namespace, |_| true)
    }

    /// The objects of a kind in one namespace, or in all if it is empty, whose labels and node are as wanted. What is kept encoded is decoded
    /// only if it is.
    pub fn select<R: Resource>(&self, namespace: &str, matches: impl Fn(&dyn LabelView) -> bool) -> Vec<Cached<R>> {
        let contents = self.read();
        let from = contents.objects().from(ObjectKey::lower_bound(R::KIND, namespace));
        from.take_while(|(key, _)| key.kind() == R::KIND && (namespace.is_empty() || key.namespace() == namespace))
            .filter(|(_, held)| held.shows(&matches))
            .filter_map(|(_, held)| Cached::new(held.object()))
            .collect()
    }

    /// Every key that there is.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.read().objects().keys().cloned().collect()
    }

    /// Tells which keys change. It begins with every key that there is, so that whoever rereads what it tells has seen everything.
    pub fn subscribe(&self) -> Changes {
        Changes::new(self.write().subscribe(), self.0.ended.clone())
    }

    async fn run(&self, client: Client, mut follow: Follow) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut given = self.0.selectors.subscribe();
        let mut selectors = given.borrow_and_update().clone();
        loop {
            let latest = given.borrow_and_update().clone();
            if latest != selectors {
                follow.select_anew();
                selectors = latest;
            }
            let error = tokio::select! {
                error = self.connection(&client, &selectors, &mut follow, &mut backoff) => error,
                _ = given.changed() => {
                    follow.failed(&Error::Cancelled);
                    continue;
                }
            };
            metrics::counter!("bluebird_client_watch_reconnects_total").increment(1);
            let could_resume = follow.is_resuming();
            follow.failed(&error);
            let delay = client.reconnect_delay(&mut backoff, &error);
            if could_resume && !follow.is_resuming() {
                tracing::info!(%error, "a watch can't be resumed; fetching what is needed of the state");
            } else if error.is_retryable() && !matches!(error, Error::Exhausted { .. }) {
                tracing::debug!(%error, ?delay, "a watch broke");
            } else {
                tracing::warn!(%error, ?delay, "a watch was refused");
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// One connection, until it fails.
    async fn connection(&self, client: &Client, selectors: &Arc<[Selector]>, follow: &mut Follow, backoff: &mut Backoff) -> Error {
        let mut incoming = match client.watch(self.request(selectors, follow)).await {
            Ok(incoming) => incoming,
            Err(error) => return error,
        };
        loop {
            let message = match incoming.next_within(client.patience().silence).await {
                Ok(Some(message)) => message,
                Ok(None) => return Error::Unavailable("the server ended the watch".into()),
                Err(error) => return error,
            };
            backoff.reset();
            match follow.message(message) {
                Ok(step) => self.apply(step, selectors),
                Err(error) => return error,
            }
        }
    }

    fn request(&self, selectors: &[Selector], follow: &mut Follow) -> WatchRequest {
        follow.request(selectors, self.read().objects())
    }

    fn apply(&self, step: Step, selectors: &Arc<[Selector]>) {
        let reached = self.write().apply(step, selectors);
        if reached.is_some() {
            self.0.revisions.send_replace(reached);
        }
    }

    async fn wait(&self, mut holds: impl FnMut(&Option<Revision>) -> bool) -> bool {
        let mut revisions = self.revisions();
        self.0.ended.run_until_cancelled(revisions.wait_for(|reached| holds(reached))).await.is_some_and(|reached| reached.is_ok())
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.0.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.0.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.read();
        write!(f, "Cache of {} objects at {:?}", contents.objects().len(), contents.revision())
    }
}

/// Selects all objects of some kinds.
pub fn all_of(kinds: &[Kind]) -> Vec<Selector> {
    kinds.iter().map(|kind| Selector { kind: kind.to_string(), ..Default::default() }).collect()
}

/// An object of a cache, shared with it.
pub struct Cached<R> {
    object: Arc<Object>,
    kind: PhantomData<R>,
}

impl<R: Resource> Cached<R> {
    /// `None` for an object of another kind.
    pub fn new(object: Arc<Object>) -> Option<Self> {
        R::from_object_ref(&object)?;
        Some(Self { object, kind: PhantomData })
    }

    /// The object, whatever its kind.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }
}

impl<R: Resource> Deref for Cached<R> {
    type Target = R;

    fn deref(&self) -> &R {
        R::from_object_ref(&self.object).expect("checked when it was made, and never changed")
    }
}

impl<R> Clone for Cached<R> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), kind: PhantomData }
    }
}

impl<R: Resource + fmt::Debug> fmt::Debug for Cached<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests;
