//! What the tests of the store and of the watches have in common.

use std::sync::Arc;

use super::backend::embedded::batch::Batch;
use super::{Commit, Condition, HistoryLimits, Options, Snapshot, Store, Transaction, Write};
use crate::api::v1::{Object, ObjectMeta, Pod, PodSpec, Service, object};
use crate::api::{Kind, ObjectKey};
use crate::time::Clock;

pub(crate) fn pod(name: &str, node: &str, labels: &[(&str, &str)]) -> Object {
    let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let metadata = Some(ObjectMeta { name: name.into(), namespace: "default".into(), labels, ..Default::default() });
    let spec = Some(PodSpec { node_name: node.into(), ..Default::default() });
    Object { kind: Some(object::Kind::Pod(Pod { metadata, spec, ..Default::default() })) }
}

/// A pod that is about so large.
pub(crate) fn large_pod(name: &str, bytes: usize) -> Object {
    let mut pod = pod(name, "", &[]);
    pod.meta_mut().expect("a pod").annotations.insert("padding".into(), "x".repeat(bytes));
    pod
}

pub(crate) fn service(name: &str) -> Object {
    let metadata = Some(ObjectMeta { name: name.into(), namespace: "default".into(), ..Default::default() });
    Object { kind: Some(object::Kind::Service(Service { metadata, ..Default::default() })) }
}

pub(crate) fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::Pod, "default", name)
}

pub(crate) fn put(object: Object) -> Write {
    Write::Put { object, condition: Condition::Any }
}

pub(crate) fn delete(name: &str) -> Write {
    Write::Delete { key: pod_key(name), condition: Condition::Any }
}

pub(crate) fn transaction(writes: impl IntoIterator<Item = Write>) -> Transaction {
    Transaction { writes: writes.into_iter().collect() }
}

pub(crate) fn open(folder: &std::path::Path, history: HistoryLimits) -> Store {
    Store::unsynced(folder, Options { history, clock: Clock::system() }).expect("a sound folder that is free")
}

/// A state and the next commits on it, for files that are used without a store.
pub(crate) struct Script {
    pub(crate) state: Snapshot,
}

impl Script {
    /// Commits transactions in memory. The state stays until it is replaced by what is returned.
    pub(crate) fn batch(&self, transactions: impl IntoIterator<Item = Transaction>) -> (Snapshot, Vec<Arc<Commit>>) {
        let mut batch = Batch::new(&self.state);
        for transaction in transactions {
            batch.apply(transaction, &Clock::system()).expect("a transaction that fits the state");
        }
        (batch.state, batch.commits)
    }
}

/// Every object of a state, for comparing: the set itself compares keys only.
pub(crate) fn contents(state: &Snapshot) -> (crate::api::Revision, Vec<super::Stored>) {
    (state.revision(), state.iter().cloned().collect())
}
