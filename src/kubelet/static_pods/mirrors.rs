use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Chosen, StaticPods, is_static, subject};
use crate::api::v1::{EventType, Pod, PutMirrorRequest, RemoveMirrorRequest};
use crate::api::{Kind, ObjectKey, Resource, Revision};
use crate::client::{Backoff, Cache, Cached, Client, Recorder};
use crate::error::Error;
use crate::kubelet::phase;
use crate::kubelet::pods::Finished;
use crate::kubelet::uid::PodUid;

/// The longest wait before the first and before any new attempt.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// What was refused is tried again this often: the namespace may come, or the pod go that has the name.
const REFUSED_RETRY: Duration = Duration::from_secs(20);

/// Shows the static pods to the apiserver, and takes back what is no more.
#[derive(Debug)]
pub(crate) struct Mirrors {
    pub(crate) node: String,
    pub(crate) instance_id: String,
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) chosen: Chosen,
    /// The pods here that have ended for good.
    pub(crate) finished: Arc<Finished>,
    /// Set when the apiserver's cluster is known to be the one whose pods these are.
    pub(crate) has_joined: Arc<AtomicBool>,
    pub(crate) recorder: Recorder,
}

/// What came of a look.
enum Outcome {
    Done,
    /// Something was refused, and will be for a while.
    Refused(BTreeMap<ObjectKey, String>),
    /// The apiserver could not do it now.
    Failed(Error),
}

impl Mirrors {
    /// Makes the mirrors what they should be whenever they or the static pods change, until the token is cancelled.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let mut changes = self.cache.subscribe();
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut told = BTreeMap::new();
        loop {
            let pause = match self.look().await {
                Outcome::Done => None,
                Outcome::Refused(refusals) => {
                    self.tell(&refusals, &mut told);
                    Some(REFUSED_RETRY)
                }
                Outcome::Failed(error) => {
                    tracing::debug!(%error, "the mirrors of static pods can't be brought up to date and are tried again");
                    Some(backoff.delay_after(&error))
                }
            };
            if pause.is_none() {
                backoff.reset();
                told.clear();
            }
            loop {
                let concerns_us = tokio::select! {
                    () = token.cancelled() => return,
                    () = sleep(pause) => true,
                    changed = self.chosen.changed() => match changed {
                        Ok(()) => true,
                        Err(_) => return,
                    },
                    keys = changes.next() => match keys {
                        Some(keys) => keys.iter().any(|key| self.concerns(key)),
                        None => return,
                    },
                };
                if concerns_us {
                    break;
                }
            }
        }
    }

    fn concerns(&self, key: &ObjectKey) -> bool {
        let is_mirror = || self.cache.get::<Pod>(key.namespace(), key.name()).is_some_and(|pod| is_static(&pod));
        key.kind() == Kind::Pod && (self.chosen.borrow().values().any(|pod| pod.key() == *key) || is_mirror())
    }

    /// Nothing is done before it is known what there is.
    async fn look(&mut self) -> Outcome {
        let chosen = self.chosen.borrow_and_update().clone();
        if !self.has_joined.load(Ordering::Acquire) || self.cache.revision() == Revision::ZERO {
            return Outcome::Failed(Error::Unavailable("it is not known yet what the apiserver has".to_owned()));
        }
        let mut refused = BTreeMap::new();
        let mirrors: Vec<Cached<Pod>> = self.cache.list::<Pod>().into_iter().filter(|pod| is_static(pod)).collect();
        for mirror in mirrors.iter().filter(|mirror| !self.may_stay(mirror, &chosen)) {
            if let Err(error) = self.remove(mirror).await {
                return Outcome::Failed(error);
            }
        }
        for pod in chosen.values() {
            let shown = mirrors.iter().find(|mirror| mirror.key() == pod.key());
            if shown.is_some_and(|mirror| self.may_stay(mirror, &chosen) && shows(mirror, pod)) {
                continue;
            }
            match self.put(pod).await {
                Ok(()) => {}
                Err(error @ (Error::AlreadyExists(_) | Error::NotFound(_) | Error::Invalid(_) | Error::Precondition(_))) => {
                    refused.insert(pod.key(), error.to_string());
                }
                Err(error) => return Outcome::Failed(error),
            }
        }
        if refused.is_empty() { Outcome::Done } else { Outcome::Refused(refused) }
    }

    /// A mirror of what there is, that has not ended unless that has: a pod that was removed and is there again is told anew.
    fn may_stay(&self, mirror: &Pod, chosen: &StaticPods) -> bool {
        let Some(uid) = PodUid::new(&mirror.meta().uid).filter(|uid| chosen.contains_key(uid)) else { return false };
        let has_ended = mirror.status.as_ref().is_some_and(|status| phase::is_finished(status.phase()));
        !has_ended || self.finished.contains(&uid)
    }

    async fn put(&self, pod: &Pod) -> Result<(), Error> {
        let (node_name, instance_id) = (self.node.clone(), self.instance_id.clone());
        self.client.put_mirror(PutMirrorRequest { node_name, instance_id, pod: Some(Pod { status: None, ..pod.clone() }) }).await
    }

    async fn remove(&self, mirror: &Pod) -> Result<(), Error> {
        let meta = mirror.meta();
        let request = RemoveMirrorRequest {
            node_name: self.node.clone(),
            instance_id: self.instance_id.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
        };
        self.client.remove_mirror(request).await
    }

    /// Each refusal once.
    fn tell(&self, refusals: &BTreeMap<ObjectKey, String>, told: &mut BTreeMap<ObjectKey, String>) {
        for (key, why) in refusals.iter().filter(|(key, why)| told.get(*key) != Some(*why)) {
            tracing::warn!(pod = %key, %why, "a static pod can't be shown");
            let note = format!("static pod {key} runs, but can't be shown: {why}");
            self.recorder.event(subject(&self.node), EventType::Warning, "FailedMirror", note);
        }
        told.clone_from(refusals);
    }
}

/// A mirror tells all that is said of its pod.
fn shows(mirror: &Pod, pod: &Pod) -> bool {
    let (mirror, pod) = (mirror.meta(), pod.meta());
    mirror.uid == pod.uid && mirror.labels == pod.labels && mirror.annotations == pod.annotations
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
