//! A transaction in etcd's words, and etcd's answer in ours. No IO.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use prost_types::Timestamp;

use super::keys::{ClusterRow, Keys, TipRow};
use super::rpc::compare::{CompareResult, CompareTarget, TargetUnion};
use super::rpc::request_op::Request as Op;
use super::rpc::response_op::Response as Done;
use super::rpc::{Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use crate::api::v1::Object;
use crate::api::{ObjectKey, Revision};
use crate::error::{Error, Result};
use crate::store::transaction::{check_total, key_of, stamp};
use crate::store::{Commit, Committed, Condition, Snapshot, Stored, Transaction, Write};

/// How many operations etcd takes in one transaction by default, and how many comparisons.
const MAX_OPERATIONS: usize = 128;

/// How it is made sure that a transaction fits the state.
#[derive(Debug, PartialEq)]
pub(super) enum Guard {
    /// etcd compares what the conditions speak of.
    Conditions(Vec<Compare>),
    /// It was judged by a state, and etcd has to see to it that this is still the current one: the conditions are too many for etcd, or it deletes
    /// something together with other writes and only that state tells how large that is.
    Tip,
}

/// Chooses the guard.
///
/// # Errors
/// Invalid when the objects that are deleted make the transaction too large.
pub(super) fn guard(keys: &Keys, transaction: &Transaction, state: &Snapshot) -> Result<Guard> {
    let compares = compares(keys, transaction);
    if compares.len() > MAX_OPERATIONS {
        return Ok(Guard::Tip);
    }
    let mut bytes = 0;
    for write in &transaction.writes {
        match write {
            Write::Put { object, .. } => bytes += object.encoded_len(),
            Write::Delete { key, condition } => match state.get(key) {
                Some(stored) if *condition == Condition::At(stored.revision) => bytes += stored.bytes.len(),
                // Whatever it is, alone it fits.
                _ if transaction.writes.len() == 1 => {}
                _ => return Ok(Guard::Tip),
            },
            Write::Require { .. } => {}
        }
    }
    check_total(bytes)?;
    Ok(Guard::Conditions(compares))
}

/// Judges a transaction by a state, as etcd would by its own.
pub(super) fn judge(transaction: &Transaction, state: &Snapshot) -> Result<()> {
    transaction.check(|key| state.get(key).map(|stored| stored.revision))?;
    let size = |write: &Write| match write {
        Write::Put { object, .. } => object.encoded_len(),
        Write::Delete { key, .. } => state.get(key).map_or(0, |stored| stored.bytes.len()),
        Write::Require { .. } => 0,
    };
    check_total(transaction.writes.iter().map(size).sum())
}

/// The request. If the comparisons don't hold, it reads what they are about instead, without the values.
pub(super) fn request(keys: &Keys, transaction: &Transaction, guard: Guard, state: &Snapshot, now: Timestamp) -> TxnRequest {
    let compare = match guard {
        Guard::Conditions(compares) => compares,
        Guard::Tip => vec![mod_revision(keys.tip(), state.revision())],
    };
    let compared: BTreeSet<_> = compare.iter().map(|compare| compare.key.clone()).collect();
    let read = |key| op(Op::RequestRange(RangeRequest { key, keys_only: true, ..Default::default() }));
    let mut success: Vec<_> = transaction.writes.iter().filter_map(|write| operation(keys, write)).collect();
    success.push(put_tip(keys, now));
    TxnRequest { compare, success, failure: compared.into_iter().map(read).collect() }
}

/// The very first transaction of a cluster.
pub(super) fn creation(keys: &Keys, row: &ClusterRow, now: Timestamp) -> TxnRequest {
    let cluster = op(Op::RequestPut(PutRequest { key: keys.cluster(), value: row.encode_to_vec().into() }));
    TxnRequest { compare: vec![absent(keys.cluster())], success: vec![cluster, put_tip(keys, now)], failure: Vec::new() }
}

fn put_tip(keys: &Keys, now: Timestamp) -> RequestOp {
    op(Op::RequestPut(PutRequest { key: keys.tip(), value: TipRow { time: Some(now) }.encode_to_vec().into() }))
}

fn operation(keys: &Keys, write: &Write) -> Option<RequestOp> {
    match write {
        Write::Put { object, .. } => {
            let key = keys.object(&key_of(object));
            let mut object = object.clone();
            stamp(&mut object, Revision::ZERO);
            Some(op(Op::RequestPut(PutRequest { key, value: object.encode_to_vec().into() })))
        }
        Write::Delete { key, .. } => {
            Some(op(Op::RequestDeleteRange(DeleteRangeRequest { key: keys.object(key), prev_kv: true, ..Default::default() })))
        }
        Write::Require { .. } => None,
    }
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// What has to hold for the conditions to hold: all of these together say what [`Transaction::check`] says.
fn compares(keys: &Keys, transaction: &Transaction) -> Vec<Compare> {
    let mut compares = Vec::new();
    for write in &transaction.writes {
        let (key, condition, must_exist) = match write {
            Write::Put { object, condition } => (key_of(object), *condition, false),
            Write::Delete { key, condition } => (key.clone(), *condition, true),
            Write::Require { key, condition } => match transaction.leaves(key) {
                Some(true) => (key.clone(), *condition, false),
                Some(false) => {
                    compares.extend([exists(keys.object(key)), absent(keys.object(key))]);
                    continue;
                }
                None => (key.clone(), *condition, true),
            },
        };
        let key = keys.object(&key);
        match condition {
            Condition::Any => {}
            Condition::Absent => compares.push(absent(key.clone())),
            Condition::At(revision) => compares.push(mod_revision(key.clone(), revision)),
        }
        // A revision that holds is one of an object that exists; only zero would be that of none.
        if must_exist && !matches!(condition, Condition::At(_)) || condition == Condition::At(Revision::ZERO) {
            compares.push(exists(key));
        }
    }
    compares
}

fn absent(key: Bytes) -> Compare {
    version(key, CompareResult::Equal)
}

fn exists(key: Bytes) -> Compare {
    version(key, CompareResult::Greater)
}

fn version(key: Bytes, than_zero: CompareResult) -> Compare {
    let (result, target) = (than_zero.into(), CompareTarget::Version.into());
    Compare { result, target, key, target_union: Some(TargetUnion::Version(0)) }
}

fn mod_revision(key: Bytes, revision: Revision) -> Compare {
    let (result, target) = (CompareResult::Equal.into(), CompareTarget::Mod.into());
    // Nothing has a revision below zero.
    let revision = i64::try_from(revision.0).unwrap_or(-1);
    Compare { result, target, key, target_union: Some(TargetUnion::ModRevision(revision)) }
}

/// Which error a refused transaction gets, by what etcd has read instead of doing it. Ok if the state has fitted it nevertheless: then only the tip has
/// moved on.
pub(super) fn refusal(keys: &Keys, transaction: &Transaction, response: &TxnResponse) -> Result<()> {
    let found: Vec<&KeyValue> = response.responses.iter().filter_map(first_found).collect();
    transaction.check(|key| {
        let key = keys.object(key);
        found.iter().find(|kv| kv.key == key).map(|kv| Revision(kv.mod_revision.cast_unsigned()))
    })
}

fn first_found(response: &super::rpc::ResponseOp) -> Option<&KeyValue> {
    match response.response.as_ref()? {
        Done::ResponseRange(range) => range.kvs.first(),
        Done::ResponseDeleteRange(deleted) => deleted.prev_kvs.first(),
        Done::ResponsePut(_) => None,
    }
}

/// Whether a commit can be this transaction, by what it is about.
pub(super) fn may_be(transaction: &Transaction, commit: &Commit) -> bool {
    let is_in_it = |key: &ObjectKey| commit.events.iter().any(|event| event.key() == key);
    transaction.writes.iter().all(|write| match write {
        Write::Put { object, .. } => is_in_it(&key_of(object)),
        Write::Delete { key, .. } => is_in_it(key),
        Write::Require { .. } => true,
    })
}

/// What a transaction has done.
pub(super) fn committed(transaction: Transaction, response: &TxnResponse, revision: Revision) -> Result<Committed> {
    let mut responses = response.responses.iter();
    let mut objects = Vec::with_capacity(transaction.writes.len());
    for write in transaction.writes {
        objects.push(match write {
            Write::Put { object, .. } => {
                responses.next();
                Some(stored(key_of(&object), object, revision))
            }
            Write::Delete { key, .. } => {
                let last = responses.next().and_then(first_found).and_then(|kv| Object::decode(kv.value.as_ref()).ok());
                let last = last.ok_or_else(|| Error::internal(format!("etcd deleted {key} without telling what it was")))?;
                Some(stored(key, last, revision))
            }
            Write::Require { .. } => None,
        });
    }
    Ok(Committed { revision, objects })
}

fn stored(key: ObjectKey, mut object: Object, revision: Revision) -> Stored {
    stamp(&mut object, revision);
    Stored { key, revision, bytes: object.encode_to_vec().into() }
}
