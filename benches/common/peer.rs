//! Those that are compared. Each does the same things in words of its own.

use bytes::Bytes;

use super::etcd;
use super::objects::{self, What};
use super::template::Template;

const CREATE: &str = "/bluebird.v1.ControlPlaneService/Create";
const APPLY: &str = "/bluebird.v1.ControlPlaneService/Apply";
const GET: &str = "/bluebird.v1.ControlPlaneService/Get";
const WATCH: &str = "/bluebird.v1.ControlPlaneService/Watch";

/// How many objects an atomic batch has.
pub const BATCH: u64 = 100;

/// A server that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Our apiserver, with its controllers and its scheduler in the same process.
    Bluebird,
    /// The `etcd` in PATH, with its defaults.
    Etcd,
}

/// How a peer is written to.
#[derive(Clone)]
pub struct Write {
    pub method: &'static str,
    pub request: Template,
    /// How many objects one such request makes durable.
    pub objects: u64,
}

impl Peer {
    /// In the table.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Bluebird => "bluebird",
            Peer::Etcd => "etcd",
        }
    }

    /// One new object.
    pub fn put(self, what: What) -> Write {
        let (method, request) = match self {
            Peer::Bluebird => (CREATE, objects::create_request(what)),
            Peer::Etcd => (etcd::PUT, etcd::put_request()),
        };
        Write { method, request, objects: 1 }
    }

    /// [`BATCH`] new objects, all or none.
    pub fn batch(self, what: What) -> Write {
        let (method, request) = match self {
            Peer::Bluebird => (APPLY, objects::apply_request(what, BATCH)),
            Peer::Etcd => (etcd::TXN, etcd::txn_request(BATCH)),
        };
        Write { method, request, objects: BATCH }
    }

    /// The method and the request that read the first object of the batch of this number.
    pub fn get(self, what: What, number: u64) -> (&'static str, Bytes) {
        match self {
            Peer::Bluebird => (GET, objects::get_request(what, number)),
            Peer::Etcd => (etcd::RANGE, etcd::range_request(number)),
        }
    }

    /// Whether the answer to [`Peer::get`] holds the object.
    pub fn has_found(self, response: &[u8]) -> bool {
        self == Peer::Bluebird || etcd::has_a_key(response)
    }

    /// The watch method.
    pub fn watch(self) -> &'static str {
        match self {
            Peer::Bluebird => WATCH,
            Peer::Etcd => etcd::WATCH,
        }
    }

    /// Asks for all events of pods, or only for those of a node.
    pub fn watch_request(self, node: Option<u64>) -> Bytes {
        match self {
            Peer::Bluebird => objects::watch_request(node),
            Peer::Etcd => etcd::watch_request(node),
        }
    }

    /// Asks for all events of pods that there ever were.
    pub fn watch_request_from_the_beginning(self) -> Bytes {
        match self {
            Peer::Bluebird => objects::watch_request_after(1),
            Peer::Etcd => etcd::watch_request_from(1),
        }
    }

    /// Takes the number of each event in an encoded answer of a watch.
    pub fn numbers_in(self, response: &[u8], take: impl FnMut(u64)) {
        match self {
            Peer::Bluebird => objects::numbers_in(response).for_each(take),
            Peer::Etcd => etcd::numbers_in(response).for_each(take),
        }
    }
}
