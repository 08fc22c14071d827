//! As much of etcd's API as the comparison needs.

use bytes::Bytes;
use prost::Message;

use super::template::{NODE, NUMBER, Template, number_of};
use super::wire::{Fields, Value, message_field};

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const TXN: &str = "/etcdserverpb.KV/Txn";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
struct RequestOp {
    #[prost(message, optional, tag = "2")]
    request_put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create_request: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
}

/// A put of a new key with a value of 1 KiB; the key begins with the node's name.
pub fn put_request() -> Template {
    Template::new(put(format!("/pods/node-{NODE}/one-{NUMBER}")).encode_to_vec())
}

/// A transaction of so many such puts.
pub fn txn_request(count: u64) -> Template {
    let operation = |index| RequestOp { request_put: Some(put(format!("/pods/node-{NODE}/of-{index:03}-{NUMBER}"))) };
    Template::new(TxnRequest { success: (0..count).map(operation).collect() }.encode_to_vec())
}

fn put(key: String) -> PutRequest {
    PutRequest { key: key.into_bytes(), value: vec![b'x'; 1024] }
}

/// A request for the first key of the transaction of this number.
pub fn range_request(number: u64) -> Bytes {
    RangeRequest { key: format!("/pods/node-{:010}/of-000-{number:010}", 0).into_bytes() }.encode_to_vec().into()
}

/// Whether an encoded `RangeResponse` holds a key.
pub fn has_a_key(response: &[u8]) -> bool {
    message_field(response, 2).is_some()
}

/// A watch of all keys, or of those of a node.
pub fn watch_request(node: Option<u64>) -> Bytes {
    watch(node.map_or("/pods/".to_owned(), |node| format!("/pods/node-{node:010}/")), 0)
}

/// A watch of all keys, with all that has happened from a revision on.
pub fn watch_request_from(revision: i64) -> Bytes {
    watch("/pods/".to_owned(), revision)
}

fn watch(prefix: String, start_revision: i64) -> Bytes {
    let key = prefix.into_bytes();
    let mut range_end = key.clone();
    *range_end.last_mut().expect("not empty") += 1;
    WatchRequest { create_request: Some(WatchCreateRequest { key, range_end, start_revision }) }.encode_to_vec().into()
}

/// The number of the key of each event of an encoded `WatchResponse`.
pub fn numbers_in(response: &[u8]) -> impl Iterator<Item = u64> {
    Fields(response).filter_map(|(field, value)| match (field, value) {
        (11, Value::Message(event)) => number_of(message_field(message_field(event, 2)?, 1)?),
        _ => None,
    })
}
