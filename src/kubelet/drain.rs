//! No traffic to the dead: a deleted pod is asked to stop only when no router leads to it any more.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::uid::PodUid;
use super::wakes::Wakes;
use crate::api::v1::EndpointSlice;
use crate::api::{Kind, ObjectKey, Revision};
use crate::client::Cache;

/// After this a pod is stopped whoever may still lead to it.
const LONGEST_DRAIN: Duration = Duration::from_secs(5);

/// The pods that wait to be led to by nobody.
#[derive(Debug)]
pub(crate) struct Drains {
    pods: Mutex<BTreeMap<PodUid, Drain>>,
    changed: Notify,
    acknowledgements: Acknowledgements,
    /// There may be slices that name pods here, though none is known yet.
    may_be_listed: bool,
}

/// What all routers have applied: asked and answered through the node session.
#[derive(Debug)]
pub(crate) struct Acknowledgements {
    /// The highest revision that is waited for.
    pub(crate) wanted: watch::Sender<Revision>,
    /// The highest revision that all routers are known to have applied.
    pub(crate) everywhere: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Drain {
    namespace: String,
    deadline: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Some endpoint slice names it.
    Listed,
    /// No endpoint slice names it as of this revision, which not all routers have applied.
    Left(Revision),
    Done,
}

impl Acknowledgements {
    fn want(&self, revision: Revision) {
        self.wanted.send_if_modified(|wanted| {
            let is_newer = *wanted < revision;
            *wanted = revision.max(*wanted);
            is_newer
        });
    }

    /// Asks all routers, and waits until they have applied the revision.
    pub(crate) async fn reach(&self, revision: Revision) {
        let mut everywhere = self.everywhere.subscribe();
        self.want(revision);
        // The sender lives as long as this does.
        let _ = everywhere.wait_for(|known| *known >= revision).await;
    }
}

impl Drains {
    /// `may_be_listed`: this node belongs to a cluster, so that until its slices are known any of them may name any pod here.
    pub(crate) fn new(may_be_listed: bool) -> Arc<Self> {
        let acknowledgements = Acknowledgements { wanted: watch::Sender::default(), everywhere: watch::Sender::default() };
        Arc::new(Self { pods: Mutex::default(), changed: Notify::new(), acknowledgements, may_be_listed })
    }

    /// What the session asks and answers.
    pub(crate) fn acknowledgements(&self) -> &Acknowledgements {
        &self.acknowledgements
    }

    /// Whether nobody leads to the pod any more. The first time begins the wait; the pod is woken at its end.
    pub(crate) fn is_drained(&self, uid: &PodUid, namespace: &str) -> bool {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let drain = pods.entry(uid.clone()).or_insert_with(|| {
            self.changed.notify_one();
            Drain { namespace: namespace.to_owned(), deadline: Instant::now() + LONGEST_DRAIN, stage: Stage::Listed }
        });
        drain.stage == Stage::Done
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Moves every wait forward whenever slices change or routers have acknowledged, until the token is cancelled.
    pub(crate) async fn run(self: Arc<Self>, cache: Cache, wakes: Arc<Wakes>, token: CancellationToken) {
        let mut changes = cache.subscribe();
        let mut everywhere = self.acknowledgements.everywhere.subscribe();
        // A slice that is gone tells no revision any more: this is when it was seen to be.
        let mut vanished: BTreeMap<String, Revision> = BTreeMap::new();
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                () = token.cancelled() => return,
                changed = changes.next() => match changed {
                    Some(changed) => note_vanished(&cache, &changed, &mut vanished),
                    None => return,
                },
                _ = everywhere.changed() => {}
                () = self.changed.notified() => {}
                () = until(deadline) => {}
            }
            for uid in self.advance(&cache, &vanished) {
                wakes.pod(&uid);
            }
        }
    }

    /// Gives the pods whose wait is over now.
    fn advance(&self, cache: &Cache, vanished: &BTreeMap<String, Revision>) -> Vec<PodUid> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.values().all(|drain| drain.stage == Stage::Done) {
            return Vec::new();
        }
        let slices = cache.list::<EndpointSlice>();
        let endpoints = slices.iter().flat_map(|slice| slice.spec.iter()).flat_map(|spec| &spec.endpoints);
        let knows_all = !self.may_be_listed || cache.revision() > Revision::ZERO;
        let listed: HashSet<&str> = endpoints.map(|endpoint| endpoint.pod_uid.as_str()).collect();
        let newest_in = |namespace: &str| {
            let metas = slices.iter().filter_map(|slice| slice.metadata.as_ref()).filter(|meta| meta.namespace == namespace);
            let newest = metas.map(|meta| Revision(meta.resource_version)).max().unwrap_or_default();
            newest.max(vanished.get(namespace).copied().unwrap_or_default())
        };

        let everywhere = *self.acknowledgements.everywhere.borrow();
        let mut done = Vec::new();
        for (uid, drain) in pods.iter_mut() {
            if drain.stage == Stage::Listed && knows_all && !listed.contains(uid.as_str()) {
                let revision = newest_in(&drain.namespace);
                drain.stage = Stage::Left(revision);
                self.acknowledgements.want(revision);
            }
            let is_over = match drain.stage {
                Stage::Done => continue,
                Stage::Left(revision) if revision <= everywhere => true,
                Stage::Left(_) | Stage::Listed => Instant::now() >= drain.deadline,
            };
            if is_over {
                if Instant::now() >= drain.deadline {
                    tracing::warn!(pod = %uid, after = ?LONGEST_DRAIN, stage = ?drain.stage, "not all routers have let go of the pod; it is stopped all the same");
                }
                drain.stage = Stage::Done;
                done.push(uid.clone());
            }
        }
        done
    }

    fn next_deadline(&self) -> Option<Instant> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.values().filter(|drain| drain.stage != Stage::Done).map(|drain| drain.deadline).min()
    }
}

fn note_vanished(cache: &Cache, changed: &std::collections::BTreeSet<ObjectKey>, vanished: &mut BTreeMap<String, Revision>) {
    for key in changed.iter().filter(|key| key.kind() == Kind::EndpointSlice) {
        if cache.get_object(key).is_none() {
            vanished.insert(key.namespace().to_owned(), cache.revision());
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
