//! Sends statuses to the apiserver: the newest of each pod, all that wait in one request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::uid::PodUid;
use crate::api::v1::{Object, ObjectMeta, Pod, PodStatus};
use crate::api::{ObjectKey, Resource, Revision};
use crate::client::{Backoff, Client};
use crate::error::{Error, Result};

/// The most statuses in one request.
const BATCH: usize = 200;
/// A request takes no further status beyond this many bytes: a quarter of the largest request, since the answer has the whole pods.
const BATCH_BYTES: usize = 1024 * 1024;
/// The longest wait before the first and before any new attempt.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Where statuses wait to be sent. Bounded by the number of pods: a newer status replaces the older one.
#[derive(Debug)]
pub(crate) struct Reporter {
    client: Client,
    statuses: Mutex<BTreeMap<PodUid, Known>>,
    wake: Notify,
}

/// The newest status of a pod that we know better than the cache.
#[derive(Debug)]
struct Known {
    key: ObjectKey,
    status: PodStatus,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Sent,
    /// The apiserver has it, as of this revision.
    Acknowledged(Revision),
}

impl Reporter {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, statuses: Mutex::default(), wake: Notify::new() })
    }

    /// The status that the apiserver has or is about to get from us, unless what was read at `revision` is at least as new.
    pub(crate) fn newest(&self, uid: &PodUid, revision: Revision) -> Option<PodStatus> {
        let statuses = self.lock();
        let known = statuses.get(uid)?;
        let is_older = matches!(known.stage, Stage::Acknowledged(at) if at <= revision);
        (!is_older).then(|| known.status.clone())
    }

    /// Sends a status as soon as possible.
    pub(crate) fn report(&self, uid: &PodUid, key: &ObjectKey, status: PodStatus) {
        self.lock().insert(uid.clone(), Known { key: key.clone(), status, stage: Stage::Waiting });
        self.wake.notify_one();
    }

    /// The pod is gone, or somebody else sends its last status.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.lock().remove(uid);
    }

    /// Sends what is reported until the token is cancelled, and then what still waits, once.
    pub(crate) async fn run(self: Arc<Self>, token: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            if token.run_until_cancelled(self.wake.notified()).await.is_none() {
                break;
            }
            while let Err(error) = self.send_all().await {
                tracing::debug!(%error, "statuses could not be sent and are sent again");
                if token.run_until_cancelled(tokio::time::sleep(backoff.delay_after(&error))).await.is_none() {
                    break;
                }
            }
            backoff.reset();
        }
        if let Err(error) = self.send_all().await {
            tracing::warn!(%error, "the last statuses could not be sent; the next start of this kubelet sends them");
        }
    }

    async fn send_all(&self) -> Result<()> {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                return Ok(());
            }
            let objects = batch.iter().map(|(uid, key, status)| status_object(uid, key, status.clone())).collect();
            let answers = match self.client.update_status(objects).await {
                Ok(answers) => answers,
                Err(error) => {
                    batch.iter().for_each(|(uid, ..)| self.put_back(uid));
                    return Err(error);
                }
            };
            let mut retry = None;
            for ((uid, key, status), answer) in batch.iter().zip(answers) {
                match answer {
                    Ok(object) => self.acknowledge(uid, status, Revision(object.meta().resource_version)),
                    Err(error) if error.is_retryable() => {
                        self.put_back(uid);
                        retry = Some(error);
                    }
                    Err(error) => self.give_up(uid, key, &error),
                }
            }
            if let Some(error) = retry {
                return Err(error);
            }
        }
    }

    fn take(&self) -> Vec<(PodUid, ObjectKey, PodStatus)> {
        let mut statuses = self.lock();
        let mut bytes = 0;
        let waiting = statuses.iter_mut().filter(|(_, known)| known.stage == Stage::Waiting).take(BATCH);
        let fitting = waiting.take_while(|(_, known)| {
            let fits = bytes < BATCH_BYTES;
            bytes += known.status.encoded_len();
            fits
        });
        fitting
            .map(|(uid, known)| {
                known.stage = Stage::Sent;
                (uid.clone(), known.key.clone(), known.status.clone())
            })
            .collect()
    }

    fn put_back(&self, uid: &PodUid) {
        if let Some(known) = self.lock().get_mut(uid).filter(|known| known.stage == Stage::Sent) {
            known.stage = Stage::Waiting;
        }
    }

    fn acknowledge(&self, uid: &PodUid, status: &PodStatus, revision: Revision) {
        // Unless a newer one waits by now.
        if let Some(known) = self.lock().get_mut(uid).filter(|known| known.stage == Stage::Sent && known.status == *status) {
            known.stage = Stage::Acknowledged(revision);
        }
    }

    fn give_up(&self, uid: &PodUid, key: &ObjectKey, error: &Error) {
        // A pod that is gone, or replaced by another one of its name, needs no status.
        if !matches!(error, Error::NotFound(_) | Error::Conflict { .. }) {
            tracing::error!(pod = %key, %error, "a status was refused");
        }
        self.forget(uid);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, Known>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pod with nothing but its status, for that very pod.
pub(crate) fn status_object(uid: &PodUid, key: &ObjectKey, status: PodStatus) -> Object {
    let metadata =
        ObjectMeta { name: key.name().to_owned(), namespace: key.namespace().to_owned(), uid: uid.to_string(), ..ObjectMeta::default() };
    Pod { metadata: Some(metadata), spec: None, status: Some(status) }.into_object()
}
