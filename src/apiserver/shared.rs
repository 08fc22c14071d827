//! What an apiserver does because others share its store: it keeps a lease, looks at theirs, and knows which of them speaks for a node.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::peers::{Peers, Told};
use super::readiness;
use super::sessions::Sessions;
use super::writer::Writer;
use super::writes::Change;
use crate::api::v1::{Lease, LeaseSpec, Node, NodeSession, Object, Selector};
use crate::api::{Kind, Matcher, ObjectKey, Resource as _, Revision, SYSTEM_NAMESPACE};
use crate::error::{Error, Result};
use crate::store::Stored;
use crate::watch::{Cursor, Hub, Start};

/// How often a lease is renewed while it lasts.
const RENEWALS_PER_LEASE: u32 = 3;
/// How often sessions are ended while the own lease has run out, since one may just have begun.
const LAPSED_PAUSE: Duration = Duration::from_millis(100);
/// How long nobody has renewed a lease that anybody may remove: its apiserver ended unprepared.
const REMOVE_AFTER: Duration = Duration::from_secs(600);
/// Between two words to the others about routes.
const PAUSE: Duration = Duration::from_millis(20);
/// The annotations of a lease that tell [`Told`].
const APPLIED: &str = "bluebird/routes-applied";
const AWAITED: &str = "bluebird/routes-awaited";

/// One of several apiservers on a store.
#[derive(Debug)]
pub(super) struct Shared {
    /// The name of its lease.
    id: String,
    /// Where it can be reached, for people.
    url: String,
    /// How long a lease has to be seen unchanged before its apiserver counts as gone.
    lease: Duration,
    writer: Writer,
    peers: Mutex<Peers>,
    nodes: Mutex<HashMap<String, Known>>,
    own: Mutex<Own>,
}

/// The own lease.
#[derive(Debug)]
struct Own {
    /// When the request was sent that last renewed it.
    renewed: Instant,
    told: Told,
}

/// What a node's object says, so that it is decoded only when it changes.
#[derive(Clone, Debug)]
struct Known {
    version: Revision,
    counts_as_alive: bool,
    is_called_silent: bool,
    apiserver: Option<String>,
}

enum Wake {
    /// It is time to renew the lease.
    Due,
    /// There may be something to tell, or to hear.
    News,
}

impl Shared {
    /// Takes a lease.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn begin(id: &str, url: String, lease: Duration, writer: Writer) -> Result<Self> {
        let own = Mutex::new(Own { renewed: Instant::now(), told: Told::default() });
        let shared = Self { id: id.to_owned(), url, lease, writer, peers: Mutex::default(), nodes: Mutex::default(), own };
        let sent = shared.publish(&Told::default()).await?;
        lock(&shared.own).renewed = sent;
        Ok(shared)
    }

    /// Gives the lease back: the others need not wait until it has run out.
    pub(super) async fn leave(&self) {
        if let Err(error) = self.remove(&self.id, None).await {
            tracing::info!(%error, "the lease of this apiserver can't be given back and has to run out");
        }
    }

    /// What a node's status says while its session is here.
    pub(super) fn session(&self, instance_id: &str) -> NodeSession {
        NodeSession { apiserver: self.id.clone(), instance_id: instance_id.to_owned() }
    }

    /// Whether this apiserver is the one to say that a node is silent: nobody else who lives has its session. The node has to be one that was read
    /// just now.
    pub(super) fn may_judge(&self, node: &Object, now: Instant) -> bool {
        !self.is_out_of_touch(now) && self.elsewhere(node, now).is_none()
    }

    /// Makes sure that no other kubelet has a session for this node with another apiserver.
    ///
    /// # Errors
    /// Unavailable if one has, or had one until a moment ago, which can't be told apart from here.
    pub(super) fn check_instance(&self, node: &Object, instance_id: &str, now: Instant) -> Result<()> {
        match session_of(node) {
            Some(session) if session.instance_id != instance_id && self.elsewhere(node, now).is_some() => Err(Error::Unavailable(format!(
                "another kubelet is, or was until a moment ago, connected as node {:?}; give this one another --node-name, or wait until that one is gone",
                node.meta().name
            ))),
            _ => Ok(()),
        }
    }

    /// Which apiserver has a node's session, if it is another one that lives, or may live for all that is known here.
    pub(super) fn elsewhere(&self, node: &Object, now: Instant) -> Option<String> {
        let session = session_of(node).filter(|session| session.apiserver != self.id)?;
        // What was seen of its lease may be older than the node.
        self.observe(now);
        let lives = self.is_out_of_touch(now) || self.gone_since(&session.apiserver, now).is_none();
        lives.then(|| session.apiserver.clone())
    }

    /// Whether the others must think by now that this apiserver is gone, since it can't reach the store: then nobody should have a session with it.
    pub(super) fn has_lapsed(&self, now: Instant) -> bool {
        now >= self.lapses_at()
    }

    /// Ends all sessions whenever this apiserver's lease has run out, for ever.
    pub(super) async fn end_lapsed(&self, sessions: &Sessions) {
        loop {
            sleep_until(self.lapses_at()).await;
            if self.has_lapsed(Instant::now()) {
                sessions.end_all(&lapsed());
                sleep(LAPSED_PAUSE).await;
            }
        }
    }

    fn lapses_at(&self) -> Instant {
        lock(&self.own).renewed + self.lease
    }

    fn is_out_of_touch(&self, now: Instant) -> bool {
        now.saturating_duration_since(lock(&self.own).renewed) >= self.missed()
    }

    /// How long it takes until two renewals were missed, which one alone, however late the next one is, does not: what an apiserver hasn't seen of the
    /// others since tells nothing of them.
    fn missed(&self) -> Duration {
        self.lease / RENEWALS_PER_LEASE * 5 / 2
    }

    /// Looks which apiservers live, and expects the nodes that this one may have to judge. Returns those that somebody has called silent although
    /// they have their sessions here.
    pub(super) fn look(&self, sessions: &Sessions, now: Instant) -> Vec<String> {
        let mut wronged = Vec::new();
        if self.is_out_of_touch(now) {
            return wronged;
        }
        let snapshot = self.writer.store.snapshot();
        self.observe(now);
        let mut before = std::mem::take(&mut *lock(&self.nodes));
        let mut nodes = HashMap::with_capacity(before.len());
        for stored in snapshot.range(&ObjectKey::lower_bound(Kind::Node, "")).take_while(|stored| stored.key.kind() == Kind::Node) {
            let name = stored.key.name();
            let known = before.remove(name).filter(|known| known.version == stored.revision).unwrap_or_else(|| known(stored));
            if known.counts_as_alive {
                match known.apiserver.as_deref().filter(|apiserver| *apiserver != self.id) {
                    None => sessions.expect_since(name, now),
                    Some(other) => match self.gone_since(other, now) {
                        Some(since) => sessions.expect_since(name, since),
                        None => sessions.leave_to_others(name),
                    },
                }
            }
            if known.is_called_silent && sessions.instance(name).is_some() {
                wronged.push(name.to_owned());
            }
            nodes.insert(name.to_owned(), known);
        }
        *lock(&self.nodes) = nodes;
        wronged
    }

    /// Keeps the lease, tells the others what they wait for, and passes on what they tell, until the token is cancelled.
    pub(super) async fn keep(&self, sessions: &Sessions, hub: &Hub, token: CancellationToken) {
        let mut due = interval(self.lease / RENEWALS_PER_LEASE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leases = None;
        loop {
            let wake = tokio::select! {
                () = token.cancelled() => return,
                _ = due.tick() => Wake::Due,
                () = sessions.changed() => Wake::News,
                () = leases_changed(&mut leases, hub) => Wake::News,
            };
            let now = Instant::now();
            self.observe(now);
            let others = lock(&self.peers).others(&self.id, self.lease, now);
            if !self.is_out_of_touch(now) {
                sessions.answer(others.applied);
            }
            let told = sessions.told();
            let must_tell = match wake {
                Wake::Due => true,
                Wake::News => lock(&self.own).told.is_outdated(&told, &others),
            };
            if must_tell {
                match timeout(self.lease / RENEWALS_PER_LEASE, self.renew(sessions, told)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "this apiserver's lease can't be renewed"),
                    Err(_) => tracing::warn!("this apiserver's lease can't be renewed in time"),
                }
                sleep(PAUSE).await;
            }
            if let Wake::Due = wake {
                self.remove_old(now).await;
            }
        }
    }

    fn gone_since(&self, apiserver: &str, now: Instant) -> Option<Instant> {
        lock(&self.peers).gone_since(apiserver, self.lease, now)
    }

    fn observe(&self, now: Instant) {
        let snapshot = self.writer.store.snapshot();
        let first = ObjectKey::lower_bound(Kind::Lease, SYSTEM_NAMESPACE);
        let leases =
            snapshot.range(&first).take_while(|stored| stored.key.kind() == Kind::Lease && stored.key.namespace() == SYSTEM_NAMESPACE);
        let heard = leases.map(|stored| (stored.key.name().to_owned(), stored.revision, told_by(&stored.decode()))).collect();
        lock(&self.peers).observe(heard, now);
    }

    /// Renews the lease. When this apiserver was out of touch before, everybody gets the full time anew: that nothing was seen or heard of them
    /// is not to be held against them.
    async fn renew(&self, sessions: &Sessions, told: Told) -> Result<()> {
        let before = lock(&self.own).renewed;
        let sent = self.publish(&told).await?;
        if sent - before >= self.missed() {
            let now = Instant::now();
            lock(&self.peers).begin_anew(now);
            sessions.begin_anew(now);
        }
        // Only now may anybody be judged again.
        *lock(&self.own) = Own { renewed: sent, told };
        Ok(())
    }

    /// Writes the lease. Returns when that was sent.
    async fn publish(&self, told: &Told) -> Result<Instant> {
        let sent = Instant::now();
        let key = lease_key(&self.id);
        let renew = |old: Object| Ok(Change::Put(self.renewed(Lease::from_object(old).unwrap_or_default(), told)));
        match self.writer.change(&key, false, renew).await {
            Err(Error::NotFound(_)) => {
                let mut lease = Lease::default();
                key.name().clone_into(&mut lease.meta_mut().name);
                key.namespace().clone_into(&mut lease.meta_mut().namespace);
                self.writer.create(self.renewed(lease, told), false).await?;
            }
            outcome => drop(outcome?),
        }
        Ok(sent)
    }

    fn renewed(&self, mut lease: Lease, told: &Told) -> Object {
        let now = self.writer.clock.now();
        let spec = lease.spec.get_or_insert_default();
        let acquire_time = spec.acquire_time.or(Some(now));
        let lease_duration_seconds = u32::try_from(self.lease.as_secs()).unwrap_or(u32::MAX).max(1);
        *spec = LeaseSpec {
            holder_identity: self.url.clone(),
            lease_duration_seconds,
            acquire_time,
            renew_time: Some(now),
            lease_transitions: 0,
        };
        for (name, revision) in [(APPLIED, told.applied), (AWAITED, told.awaited)] {
            match revision {
                Some(revision) => lease.meta_mut().annotations.insert(name.to_owned(), revision.to_string()),
                None => lease.meta_mut().annotations.remove(name),
            };
        }
        lease.into_object()
    }

    /// Removes the leases of apiservers that ended unprepared long ago.
    async fn remove_old(&self, now: Instant) {
        let unrenewed = lock(&self.peers).unrenewed(REMOVE_AFTER, now);
        for (id, version) in unrenewed.into_iter().filter(|(id, _)| id.starts_with(ID_PREFIX)) {
            if let Err(error) = self.remove(&id, Some(version)).await {
                tracing::debug!(id, %error, "an old lease can't be removed");
            }
        }
    }

    async fn remove(&self, id: &str, version: Option<Revision>) -> Result<()> {
        let is_meant = |lease: &Object| version.is_none_or(|version| lease.meta().resource_version == version.0);
        let decide = |lease: Object| Ok(if is_meant(&lease) { Change::Remove } else { Change::Nothing });
        match self.writer.change(&lease_key(id), false, decide).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What the names of the leases of apiservers begin with.
const ID_PREFIX: &str = "apiserver-";

/// What a session is refused or ended with whose apiserver must count as gone.
pub(super) fn lapsed() -> Error {
    Error::NotDone("this apiserver has lost its store; connect to another one".to_owned())
}

/// A name for an apiserver that none has, nor had.
pub(super) fn new_id() -> String {
    format!("{ID_PREFIX}{}", uuid::Uuid::new_v4())
}

fn lease_key(id: &str) -> ObjectKey {
    ObjectKey::new(Kind::Lease, SYSTEM_NAMESPACE, id)
}

fn session_of(node: &Object) -> Option<&NodeSession> {
    Node::from_object_ref(node)?.status.as_ref()?.session.as_ref()
}

fn known(stored: &Stored) -> Known {
    let node = stored.decode();
    let apiserver = session_of(&node).map(|session| session.apiserver.clone());
    Known {
        version: stored.revision,
        counts_as_alive: readiness::counts_as_alive(&node),
        is_called_silent: readiness::is_called_silent(&node),
        apiserver,
    }
}

fn told_by(lease: &Object) -> Told {
    let revision = |name: &str| lease.meta().annotations.get(name)?.parse().ok().map(Revision);
    Told { applied: revision(APPLIED), awaited: revision(AWAITED) }
}

/// Waits until an apiserver has changed its lease, or the watch of them has to begin anew; for ever when the store is closed.
async fn leases_changed(leases: &mut Option<Cursor>, hub: &Hub) {
    if leases.is_none() {
        let selector = Selector { kind: Kind::Lease.to_string(), namespace: SYSTEM_NAMESPACE.to_owned(), ..Default::default() };
        *leases = Matcher::new(&selector, "selector").and_then(|matcher| hub.watch(vec![matcher], Start::Now)).ok();
    }
    match leases {
        Some(cursor) => {
            if cursor.next().await.is_err() {
                *leases = None;
            }
        }
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

#[cfg(test)]
mod tests;
