use std::sync::Arc;
use std::time::Duration;

use super::keys::Place;
use super::kv::Fault;
use super::load::{Loaded, TipAt, foreign, load, object, read_cluster};
use super::rpc::event::EventType;
use super::rpc::{Event as Change, KeyValue, RangeRequest, WatchCreateRequest, WatchResponse};
use super::shared::Shared;
use crate::api::v1::event::Type;
use crate::api::{ObjectKey, Revision};
use crate::store::transaction::stamp;
use crate::store::{Commit, Event, Snapshot, Stored, View};
use crate::time::Backoff;

/// Reads what everybody commits and publishes it, in order.
///
/// # Guarantees
/// Each revision of the cluster is one commit, whole, once and in order. What was missed because etcd has compacted it is never passed over: the feed
/// begins anew then, and whoever reads it learns that its history is gone.
pub(super) struct Follower {
    shared: Arc<Shared>,
    state: Snapshot,
    /// Everything up to this revision of etcd is in the state.
    position: i64,
    /// The tip as it is there.
    tip: TipAt,
    /// How often the state was loaded anew since there was a change to follow.
    in_vain: u32,
    /// Changes of one revision of which there may be more to come.
    pending: Vec<Change>,
}

/// Why the changes stopped coming.
enum Stop {
    /// For now. They go on where they were.
    Broken(Fault),
    /// Those that come next are gone.
    Compacted,
    /// For good.
    Senseless(String),
}

const REPLACED: &str = "somebody has removed or replaced the cluster's own keys in etcd";

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, loaded: Loaded) -> Self {
        Self { shared, state: loaded.state, position: loaded.at, tip: loaded.tip, in_vain: 0, pending: Vec::new() }
    }

    /// Runs until the store is closed, or what is in etcd makes no sense any more.
    pub(super) async fn run(mut self) {
        let ends = self.shared.ends.clone();
        ends.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        loop {
            let stop = match self.stream(&mut backoff).await {
                Stop::Compacted => self.reload().await,
                stop => stop,
            };
            // Watches are silent meanwhile, so that whoever reads them goes to an apiserver that hears more.
            self.shared.feed.set_current(false);
            // Comes again, whole.
            self.pending.clear();
            match stop {
                Stop::Senseless(why) => return self.shared.give_up(why),
                Stop::Compacted => {}
                Stop::Broken(fault) => {
                    metrics::counter!("bluebird_etcd_watches_broken_total").increment(1);
                    tracing::warn!(%fault, "the watch of etcd broke; it is resumed");
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// One watch, until it stops.
    async fn stream(&mut self, backoff: &mut Backoff) -> Stop {
        let shared = Arc::clone(&self.shared);
        let (key, range_end) = shared.keys.all();
        if let Err(stop) = self.check_tip().await {
            return stop;
        }
        // From what is known already: an etcd that is compacted at the revision after it passes over the deletions of that revision in silence (up to
        // 3.4.32 and 3.5.14).
        let create = WatchCreateRequest { key, range_end, start_revision: self.position, fragment: true };
        let mut changes = match shared.kv.watch(create).await {
            Ok(changes) => changes,
            Err(fault) => return broken(fault),
        };
        loop {
            let received = tokio::select! {
                received = changes.next() => received,
                () = shared.stalled.notified() => {
                    changes.leave();
                    return Stop::Broken(Fault::Open("it was silent, though there was news".to_owned()));
                }
            };
            match received {
                Ok(response) if response.compact_revision > 0 => return Stop::Compacted,
                Ok(response) if response.canceled => return Stop::Broken(Fault::Open(response.cancel_reason)),
                Ok(response) => {
                    backoff.reset();
                    shared.feed.set_current(true);
                    if !response.events.is_empty() {
                        self.in_vain = 0;
                    }
                    if let Err(why) = self.take(response) {
                        return Stop::Senseless(why);
                    }
                }
                Err(fault) => return broken(fault),
            }
        }
    }

    /// Publishes every revision that is complete.
    pub(super) fn take(&mut self, response: WatchResponse) -> Result<(), String> {
        let mut commits = Vec::new();
        for change in response.events {
            let revision = revision_of(&change);
            if self.pending.last().is_some_and(|last| revision_of(last) != revision) {
                commits.extend(self.complete()?);
            }
            if revision > self.position {
                self.pending.push(change);
            }
        }
        if !response.fragment && !self.pending.is_empty() {
            commits.extend(self.complete()?);
        }
        if !commits.is_empty() {
            metrics::counter!("bluebird_store_commits_total").increment(commits.len() as u64);
            self.shared.feed.publish(self.state.clone(), commits);
            self.shared.arrivals.reach(self.state.revision());
        }
        Ok(())
    }

    /// Sees to it that the tip is there as it is known: in an etcd that was restored from a backup and written to since it is another one.
    async fn check_tip(&self) -> Result<(), Stop> {
        let request = RangeRequest { key: self.shared.keys.tip(), revision: self.position, ..Default::default() };
        let response = self.shared.kv.range(request).await.map_err(broken)?;
        let tip = response.kvs.first().map(TipAt::of).unwrap_or_default();
        if tip == self.tip { Ok(()) } else { Err(Stop::Senseless(went_back(tip.revision, self.tip.revision))) }
    }

    /// Makes a commit of the pending changes and moves the state. None if they are nothing of this cluster's.
    fn complete(&mut self) -> Result<Option<Arc<Commit>>, String> {
        let changes = std::mem::take(&mut self.pending);
        self.position = changes.first().map_or(self.position, revision_of);
        let revision = Revision(self.position.cast_unsigned());
        let mut events = Vec::with_capacity(changes.len());
        let mut is_ours = false;
        for change in changes {
            let is_put = change.r#type() == EventType::Put;
            let kv = change.kv.unwrap_or_default();
            match self.shared.keys.read(&kv.key) {
                Some(Place::Object(key)) if is_put => events.push(self.put(key, &kv, revision)?),
                Some(Place::Object(key)) => events.extend(self.deleted(key, revision)),
                Some(Place::Tip) if is_put => {
                    is_ours = true;
                    self.tip = TipAt::of(&kv);
                }
                Some(Place::Cluster) if is_put && read_cluster(&kv.value).as_deref() == Some(&self.shared.cluster_id) => {}
                Some(Place::Tip | Place::Cluster) => {
                    return Err(REPLACED.to_owned());
                }
                Some(Place::Other) => {
                    let key = String::from_utf8_lossy(&kv.key);
                    tracing::warn!(%key, "somebody else writes to etcd below this cluster's prefix; it is left alone");
                }
                None => return Err(foreign(&kv.key).to_string()),
            }
        }
        if !is_ours && events.is_empty() {
            return Ok(None);
        }
        self.state.apply(&events, revision);
        Ok(Some(Arc::new(Commit { revision, time: self.tip.time, events: events.into() })))
    }

    fn put(&self, key: ObjectKey, kv: &KeyValue, revision: Revision) -> Result<Event, String> {
        let mut object = object(&key, kv).map_err(|fault| fault.to_string())?;
        stamp(&mut object, revision);
        let before = self.state.get(&key).map(|stored| View::of(&stored.bytes));
        let kind = if before.is_some() { Type::Modified } else { Type::Added };
        Ok(Event::new(kind, key, &object, before.as_ref()))
    }

    /// The event of an object that is gone. None if there was none: then nothing has changed.
    fn deleted(&self, key: ObjectKey, revision: Revision) -> Option<Event> {
        let mut last = self.state.get(&key).map(Stored::decode)?;
        stamp(&mut last, revision);
        Some(Event::new(Type::Deleted, key, &last, None))
    }

    /// Goes on from the oldest revision that etcd still has. If anything of this cluster was missed, the feed begins anew.
    async fn reload(&mut self) -> Stop {
        let Shared { kv, keys, feed, arrivals, .. } = &*self.shared;
        let loaded = match load(kv, keys, self.shared.history.revisions, self.in_vain).await {
            Ok(loaded) => loaded,
            Err(fault) => return broken(fault),
        };
        self.in_vain += 1;
        let is_older = loaded.at < self.position || loaded.tip.revision < self.tip.revision;
        if is_older || (loaded.tip.revision == self.tip.revision && loaded.tip != self.tip) {
            return Stop::Senseless(went_back(loaded.tip.revision, self.tip.revision));
        }
        if loaded.cluster_id != self.shared.cluster_id {
            return Stop::Senseless(REPLACED.to_owned());
        }
        (self.position, self.tip) = (loaded.at, loaded.tip);
        if loaded.state.revision() > self.state.revision() {
            tracing::warn!(from = %self.state.revision(), to = %loaded.state.revision(), "etcd was compacted behind our back; watches have to start anew");
            self.state = loaded.state;
            feed.begin_anew(self.state.clone());
            arrivals.reach(self.state.revision());
        }
        Stop::Compacted
    }
}

fn broken(fault: Fault) -> Stop {
    match fault {
        Fault::Senseless(why) => Stop::Senseless(why),
        Fault::Compacted => Stop::Compacted,
        fault => Stop::Broken(fault),
    }
}

fn revision_of(change: &Change) -> i64 {
    change.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// What is wrong when etcd has an older commit than it had, or another one.
pub(super) fn went_back(now: Revision, known: Revision) -> String {
    format!(
        "the last commit in etcd is {now}, after {known} was seen, or another one of that number: etcd was replaced or restored from a backup. Restart every apiserver"
    )
}
