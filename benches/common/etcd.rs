//! As much of etcd's API as the comparison needs.

use bytes::Bytes;
use prost::Message;

use super::pods::{Template, number_of};
use super::wire::{Fields, Value, message_field};

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
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
}

/// A put of a new key with a value of 1 KiB; the key begins with the node's name.
pub fn put_request() -> Template {
    let key = b"/pods/node-@@@@@@@@@@/pod-##########".to_vec();
    Template::new(PutRequest { key, value: vec![b'x'; 1024] }.encode_to_vec())
}

/// A watch of all pods, or of those of a node.
pub fn watch_request(node: Option<u64>) -> Bytes {
    let key = node.map_or("/pods/".to_owned(), |node| format!("/pods/node-{node:010}/")).into_bytes();
    let mut range_end = key.clone();
    *range_end.last_mut().expect("not empty") += 1;
    WatchRequest { create_request: Some(WatchCreateRequest { key, range_end }) }.encode_to_vec().into()
}

/// The number of the key of each event of an encoded `WatchResponse`.
pub fn numbers_in(response: &[u8]) -> impl Iterator<Item = u64> {
    Fields(response).filter_map(|(field, value)| match (field, value) {
        (11, Value::Message(event)) => number_of(message_field(message_field(event, 2)?, 1)?),
        _ => None,
    })
}
