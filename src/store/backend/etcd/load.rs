//! Reads the state as of some revision, from which the changes are followed.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use prost_types::Timestamp;

use super::keys::{ClusterRow, FORMAT, Keys, Place, TipRow};
use super::kv::{Fault, Kv};
use super::rpc::{KeyValue, RangeRequest, WatchCreateRequest};
use super::txn;
use crate::api::v1::Object;
use crate::api::{ObjectKey, Revision};
use crate::store::transaction::stamp;
use crate::store::{Snapshot, Stored};
use crate::time::Backoff;

/// The state as it was at some revision of etcd.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Its revision is that of the last transaction before [`Loaded::at`].
    pub(super) state: Snapshot,
    /// Everything that came after this is to be followed.
    pub(super) at: i64,
    /// The tip as it was there.
    pub(super) tip: TipAt,
    /// Whose state it is.
    pub(super) cluster_id: String,
}

/// The key that every transaction puts, as it is at some revision: no two transactions leave the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TipAt {
    pub(super) revision: Revision,
    /// When the transaction was made.
    pub(super) time: Timestamp,
}

impl TipAt {
    pub(super) fn of(kv: &KeyValue) -> Self {
        let row = TipRow::decode(kv.value.as_ref()).ok();
        Self { revision: revision_of(kv), time: row.and_then(|row| row.time).unwrap_or_default() }
    }
}

/// About how large a page should be, in bytes.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How many objects the first page has, and the most that one has.
const FIRST_PAGE: usize = 500;
const LARGEST_PAGE: usize = 20_000;
/// How long to wait when somebody compacts faster than the state can be read.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Reads the state as of the oldest revision that etcd still has, but not older than `revisions` before the current one, nor than the cluster. That revision
/// is what others compact next, so the more often that was in vain, the less history is wanted.
pub(super) async fn load(kv: &Kv, keys: &Keys, revisions: usize, in_vain: u32) -> Result<Loaded, Fault> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    for attempt in in_vain.. {
        let response = kv.range(RangeRequest { key: keys.cluster(), ..Default::default() }).await?;
        let current = response.header.map_or(0, |header| header.revision);
        let cluster =
            response.kvs.first().ok_or_else(|| Fault::Senseless("somebody has removed the cluster's keys from etcd".to_owned()))?;
        let wanted = current.saturating_sub(i64::try_from(revisions).unwrap_or(i64::MAX)).max(cluster.create_revision);
        let at = match attempt {
            0 => wanted,
            _ => begin(oldest(kv, keys).await?.max(wanted), current, attempt),
        };
        match state_at(kv, keys, at).await {
            Err(Fault::Compacted) if attempt == 0 => {}
            // Somebody compacts at this very moment.
            Err(Fault::Compacted) => tokio::time::sleep(backoff.next_delay()).await,
            loaded => return loaded,
        }
    }
    Err(Fault::Compacted)
}

/// Where the history begins, if it can begin at `oldest` and that was tried in vain.
fn begin(oldest: i64, current: i64, attempt: u32) -> i64 {
    match attempt {
        0 | 1 => oldest,
        2 => oldest.midpoint(current),
        _ => current,
    }
}

/// The oldest revision that etcd still has: only a watch that asks for more is told.
async fn oldest(kv: &Kv, keys: &Keys) -> Result<i64, Fault> {
    // If nothing was compacted, it is sent the creation of this key.
    let mut changes = kv.watch(WatchCreateRequest { key: keys.cluster(), start_revision: 1, ..Default::default() }).await?;
    loop {
        let response = changes.next().await?;
        if response.compact_revision > 0 {
            return Ok(response.compact_revision);
        }
        if !response.events.is_empty() {
            return Ok(1);
        }
        if response.canceled {
            return Err(Fault::Refused(format!("etcd refuses a watch: {}", response.cancel_reason)));
        }
    }
}

async fn state_at(kv: &Kv, keys: &Keys, at: i64) -> Result<Loaded, Fault> {
    let (mut key, range_end) = keys.all();
    let mut found = Found::default();
    let mut limit = FIRST_PAGE;
    loop {
        let request = RangeRequest { key, range_end: range_end.clone(), limit: limit as i64, revision: at, ..Default::default() };
        let page = kv.range(request).await?;
        let bytes: usize = page.kvs.iter().map(|kv| kv.value.len() + kv.key.len()).sum();
        let Some(last) = page.kvs.last().map(|kv| kv.key.clone()) else { break };
        found.take(keys, page.kvs)?;
        if !page.more {
            break;
        }
        limit = (limit * PAGE_BYTES / bytes.max(1)).clamp(1, LARGEST_PAGE);
        key = after(&last);
    }
    found.loaded(keys, at)
}

/// What was found so far below the prefix.
#[derive(Debug, Default)]
pub(super) struct Found {
    state: Snapshot,
    revision: Revision,
    tip: TipAt,
    cluster_id: Option<String>,
}

impl Found {
    pub(super) fn take(&mut self, keys: &Keys, kvs: Vec<KeyValue>) -> Result<(), Fault> {
        for kv in kvs {
            match keys.read(&kv.key) {
                // Without a tip of that revision, if somebody else has put it: whoever follows takes that for a commit, too.
                Some(Place::Object(key)) => {
                    self.state.insert(stored(key, &kv)?);
                    self.revision = revision_of(&kv).max(self.revision);
                }
                Some(Place::Tip) => {
                    self.tip = TipAt::of(&kv);
                    self.revision = revision_of(&kv).max(self.revision);
                }
                Some(Place::Cluster) => self.cluster_id = Some(read_cluster(&kv.value).ok_or_else(|| foreign(&kv.key))?),
                Some(Place::Other) => {}
                None => return Err(foreign(&kv.key)),
            }
        }
        Ok(())
    }

    pub(super) fn loaded(mut self, keys: &Keys, at: i64) -> Result<Loaded, Fault> {
        self.state.set_revision(self.revision);
        let cluster_id = self.cluster_id.ok_or_else(|| foreign(&keys.cluster()))?;
        Ok(Loaded { state: self.state, at, tip: self.tip, cluster_id })
    }
}

/// The first key after a key.
fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// An object as etcd has it.
pub(super) fn stored(key: ObjectKey, kv: &KeyValue) -> Result<Stored, Fault> {
    let revision = revision_of(kv);
    let mut object = object(&key, kv)?;
    stamp(&mut object, revision);
    Ok(Stored { key, revision, bytes: object.encode_to_vec().into() })
}

/// The message in a value.
pub(super) fn object(key: &ObjectKey, kv: &KeyValue) -> Result<Object, Fault> {
    let object = Object::decode(kv.value.as_ref()).ok();
    object.filter(|object| object.key().as_ref() == Some(key)).ok_or_else(|| foreign(&kv.key))
}

pub(super) fn revision_of(kv: &KeyValue) -> Revision {
    Revision(kv.mod_revision.cast_unsigned())
}

/// There is something that we have not written.
pub(super) fn foreign(key: &[u8]) -> Fault {
    Fault::Senseless(format!(
        "what is at the key {:?} was not written by BlueBird, or by a newer version. If it was not: remove it with `etcdctl del`, and have etcd forget \
         it with `etcdctl compact` at the revision after that. The keys under --etcd-prefix must be this cluster's alone",
        String::from_utf8_lossy(key)
    ))
}

/// Sees to it that there is a cluster.
pub(super) async fn create(kv: &Kv, keys: &Keys, now: Timestamp) -> Result<(), Fault> {
    let is_there = async || {
        let found = kv.range(RangeRequest { key: keys.cluster(), ..Default::default() }).await?;
        Ok(!found.kvs.is_empty())
    };
    if is_there().await? {
        return Ok(());
    }
    check_free(kv, keys).await?;
    let row = ClusterRow { id: uuid::Uuid::new_v4().to_string(), format: FORMAT };
    let created = kv.txn(txn::creation(keys, &row, now)).await;
    if let Err(fault @ (Fault::Refused(_) | Fault::Senseless(_))) = created {
        return Err(fault);
    }
    // Whether it was us or somebody else, or nobody knows who: what is there counts.
    match is_there().await? {
        true => Ok(()),
        false => Err(created.err().unwrap_or_else(|| Fault::NotDone("the cluster's id could not be written".to_owned()))),
    }
}

/// Sees to it that a new cluster's keys are nobody's: neither within those of another cluster, nor around them.
async fn check_free(kv: &Kv, keys: &Keys) -> Result<(), Fault> {
    let taken = |key: &[u8]| {
        let key = String::from_utf8_lossy(key).into_owned();
        Err(Fault::Refused(format!(
            "there is {key:?} of another cluster or program: --etcd-prefix must be one that nobody uses, nor anything within it or around it"
        )))
    };
    for key in keys.clusters_around() {
        if !kv.range(RangeRequest { key: key.clone(), keys_only: true, ..Default::default() }).await?.kvs.is_empty() {
            return taken(&key);
        }
    }
    let (key, range_end) = keys.all();
    let within = kv.range(RangeRequest { key, range_end, limit: 2, keys_only: true, ..Default::default() }).await?;
    // Its own may be there by now: others create it at the same time.
    match within.kvs.iter().find(|kv| matches!(keys.read(&kv.key), None | Some(Place::Other))) {
        Some(kv) => taken(&kv.key),
        None => Ok(()),
    }
}

/// The cluster's id, if this can be read.
pub(super) fn read_cluster(value: &[u8]) -> Option<String> {
    let row = ClusterRow::decode(value).ok()?;
    (!row.id.is_empty() && (1..=FORMAT).contains(&row.format)).then_some(row.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::{pod, pod_key};

    #[test]
    fn the_more_often_it_was_in_vain_the_less_history_is_wanted() {
        assert_eq!([1, 2, 3, 4].map(|attempt| begin(1000, 2000, attempt)), [1000, 1500, 2000, 2000]);
    }

    #[test]
    fn an_object_that_somebody_else_has_put_is_not_of_the_future() {
        let (keys, pod) = (Keys::new("/bluebird/"), pod("web", "", &[]));
        let put = |key, value, mod_revision| KeyValue { key, value, mod_revision, ..Default::default() };
        let kvs = vec![put(keys.object(&pod_key("web")), pod.encode_to_vec().into(), 9), put(keys.tip(), Bytes::new(), 5)];
        let mut found = Found::default();
        found.take(&keys, kvs).unwrap();
        assert_eq!((found.revision, found.state.get(&pod_key("web")).map(|stored| stored.revision)), (Revision(9), Some(Revision(9))));
    }
}
