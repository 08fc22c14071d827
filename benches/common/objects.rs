//! The objects of the load, as requests to our apiserver.

use std::collections::HashMap;

use bluebird::api::v1::{
    ApplyRequest, Container, ContainerPort, CreateRequest, EnvVar, GetRequest, Lease, LeaseSpec, Object, ObjectMeta, ObjectRef, Pod,
    PodSpec, ResourceRequirements, Selector, WatchRequest, object,
};
use bytes::Bytes;
use prost::Message as _;

use super::template::{NODE, NUMBER, Template, number_of};
use super::wire::{Fields, Value, message_field};

/// What is written. Each has about 1 KiB as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An object that nobody in the apiserver's process follows, as nobody follows a key in etcd: a lease with a padded annotation.
    Lease,
    /// A pod that is bound to a node which does not exist. The controllers and the scheduler keep a copy of it, and do nothing.
    Pod,
    /// A pod at which the scheduler looks, and of which it writes that it fits nowhere.
    UnboundPod,
}

impl What {
    /// In the table.
    pub fn name(self) -> &'static str {
        match self {
            What::Lease => "objects",
            What::Pod => "pods",
            What::UnboundPod => "unbound pods",
        }
    }

    fn object(self, name: String) -> Object {
        let metadata = ObjectMeta { name, namespace: "default".to_owned(), ..Default::default() };
        let kind = match self {
            What::Lease => object::Kind::Lease(lease(metadata)),
            What::Pod => object::Kind::Pod(pod(metadata, format!("node-{NODE}"))),
            What::UnboundPod => object::Kind::Pod(pod(metadata, String::new())),
        };
        Object { kind: Some(kind) }
    }
}

/// A request to create one.
pub fn create_request(what: What) -> Template {
    Template::new(CreateRequest { object: Some(what.object(format!("one-{NUMBER}"))), dry_run: false }.encode_to_vec())
}

/// A request to create so many at one revision.
pub fn apply_request(what: What, count: u64) -> Template {
    let objects = (0..count).map(|index| what.object(format!("of-{index:03}-{NUMBER}"))).collect();
    Template::new(ApplyRequest { objects, field_manager: "bench".to_owned(), ..Default::default() }.encode_to_vec())
}

/// A request for the first object of the batch of this number.
pub fn get_request(what: What, number: u64) -> Bytes {
    let kind = if what == What::Lease { "Lease" } else { "Pod" };
    let r#ref = ObjectRef { kind: kind.to_owned(), namespace: "default".to_owned(), name: format!("of-000-{number:010}") };
    GetRequest { r#ref: Some(r#ref) }.encode_to_vec().into()
}

/// A request to watch all pods, or only those of a node.
pub fn watch_request(node: Option<u64>) -> Bytes {
    let node_name = node.map_or(String::new(), |node| format!("node-{node:010}"));
    let selector = Selector { kind: "Pod".to_owned(), node_name, ..Default::default() };
    WatchRequest { selectors: vec![selector], ..Default::default() }.encode_to_vec().into()
}

/// A request to watch all pods since a revision.
pub fn watch_request_after(revision: u64) -> Bytes {
    let selector = Selector { kind: "Pod".to_owned(), ..Default::default() };
    WatchRequest { selectors: vec![selector], from_revision: revision, ..Default::default() }.encode_to_vec().into()
}

/// The number of the object of each event of an encoded `WatchResponse`.
pub fn numbers_in(response: &[u8]) -> impl Iterator<Item = u64> {
    Fields(response).filter_map(|(field, value)| match (field, value) {
        (1, Value::Message(event)) => {
            let metadata = message_field(message_field(message_field(event, 2)?, 1)?, 1)?;
            number_of(message_field(metadata, 1)?)
        }
        _ => None,
    })
}

fn lease(mut metadata: ObjectMeta) -> Lease {
    metadata.annotations = HashMap::from([("bench/padding".to_owned(), "x".repeat(840))]);
    let spec = LeaseSpec { holder_identity: "bench".to_owned(), lease_duration_seconds: 15, ..Default::default() };
    Lease { metadata: Some(metadata), spec: Some(spec) }
}

fn pod(mut metadata: ObjectMeta, node_name: String) -> Pod {
    let words =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>();
    let variable = |name: &str, value: &str| EnvVar { name: name.to_owned(), value: value.to_owned(), ..Default::default() };
    let container = Container {
        name: "web".to_owned(),
        command: vec!["/usr/bin/web".to_owned()],
        args: vec!["--listen".to_owned(), "127.0.0.1:$(PORT)".to_owned(), "--root".to_owned(), "/srv/web/htdocs".to_owned()],
        env: vec![variable("LOG_LEVEL", "info"), variable("DATABASE_URL", "postgres://web@db.default:5432/web"), variable("WORKERS", "4")],
        ports: vec![ContainerPort { name: "http".to_owned(), ..Default::default() }],
        resources: Some(ResourceRequirements { requests: words(&[("cpu", "100m"), ("memory", "64Mi")]), limits: HashMap::new() }),
        ..Default::default()
    };
    metadata.labels = words(&[("app.kubernetes.io/name", "web"), ("app.kubernetes.io/part-of", "shop"), ("tier", "frontend")]);
    metadata.annotations = HashMap::from([("bench/padding".to_owned(), "x".repeat(384))]);
    let spec = PodSpec { containers: vec![container], node_name, ..Default::default() };
    Pod { metadata: Some(metadata), spec: Some(spec), status: None }
}
