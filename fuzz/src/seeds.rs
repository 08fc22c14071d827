//! What the targets begin with: right inputs, made by the code of the same commit.

use std::path::PathBuf;

use bluebird::api::v1::{DeleteRequest, Event, LabelSelector, Object, Selector, WatchRequest, WatchResponse, event};
use bluebird::api::{Revision, manifest};
use bluebird::error::Error;
use bluebird::store::{Condition, Options, Store, Transaction, Write, fuzzing};
use bluebird::time::Clock;
use prost::Message as _;
use tonic::Status;

use crate::requests::{APPLIED, WHATS};
use crate::{STORE_FILES, content, join, repair};

/// Every field that a manifest can have at least once, in objects that are right.
const MANIFESTS: [&str; 3] =
    [include_str!("../../examples/hello.yaml"), include_str!("../../examples/crash.yaml"), include_str!("../seed.yaml")];

/// Writes inputs as files into the folder that the variable BLUEBIRD_FUZZ_SEEDS names, if it is set. A target calls it before it reads its corpus.
pub fn write(inputs: fn() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("BLUEBIRD_FUZZ_SEEDS").map(PathBuf::from) else { return };
    for (number, input) in inputs().into_iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), input).expect("a file in the folder of seeds");
    }
}

fn objects() -> Vec<Object> {
    MANIFESTS.iter().flat_map(|text| manifest::parse(text, "seed").expect("a right manifest")).collect()
}

pub fn manifests() -> Vec<Vec<u8>> {
    MANIFESTS.map(|text| text.as_bytes().to_vec()).into()
}

pub fn requests() -> Vec<Vec<u8>> {
    let delete = DeleteRequest { grace_period_seconds: Some(3), resource_version: 7, ..Default::default() }.encode_to_vec();
    let of = |object: Object| {
        let bytes = object.encode_to_vec();
        let request = |what: u8| join(&[&[what], &bytes, if (what & !APPLIED) % WHATS == 0 { &delete } else { &bytes }]);
        (0..WHATS).flat_map(|what| [what, APPLIED + what]).map(request).collect::<Vec<_>>()
    };
    objects().into_iter().flat_map(of).collect()
}

pub fn watch() -> Vec<Vec<u8>> {
    let objects = objects();
    let event = |object: &Object, kind: event::Type| Event { r#type: kind.into(), object: Some(object.clone()) };
    let mut messages = Vec::new();
    for (object, revision) in objects.iter().zip(1..) {
        let events = vec![event(object, event::Type::Added), event(object, event::Type::Deleted)];
        messages.push(WatchResponse { events, revision, synced: revision == 2, ..Default::default() }.encode_to_vec());
    }
    messages.push(Vec::new());
    let parts: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let labels = LabelSelector { match_labels: [("app".to_owned(), "hello".to_owned())].into(), ..Default::default() };
    let selector = Selector { kind: "Pod".to_owned(), namespace: "default".to_owned(), labels: Some(labels), ..Default::default() };
    let request = WatchRequest { selectors: vec![selector], from_revision: 3, send_initial: true, ..Default::default() }.encode_to_vec();
    let compacted = Status::from(Error::Compacted { requested: Revision(3), oldest: Revision(8) });
    let error = [&[compacted.code() as u8], compacted.details()].concat();
    let token = "00000001000000020000000000000003000000000000000a506f642f64656661756c742f61";
    let texts: [&[u8]; 5] = [
        &join(&parts),
        &join(&[&request, &objects[0].encode_to_vec()]),
        &error,
        token.as_bytes(),
        b"app=web,tier!=db,zone in (a,b),zone notin (c),gpu,!old",
    ];
    (0..).zip(texts).map(|(what, text)| [&[what], text].concat()).collect()
}

/// A log of six revisions, the checkpoint at the fourth of them, and the tail.
pub fn store() -> Vec<Vec<u8>> {
    let objects = objects();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let options = Options { history: Default::default(), clock: Clock::system() };
    let opened = Store::embedded(scratch.path(), options).expect("a new store");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let commit = |write| drop(runtime.block_on(opened.commit(Transaction { writes: vec![write] })).expect("a commit"));
    for object in objects.iter().cycle().take(5) {
        commit(Write::Put { object: object.clone(), condition: Condition::Any });
    }
    commit(Write::Delete { key: objects[0].key().expect("a kind"), condition: Condition::Any });
    runtime.block_on(opened.close());
    let [log, _, tail] = STORE_FILES.map(|name| content(scratch.path(), name));
    let checkpoint = checkpoint(opened.cluster_id(), &objects);
    std::fs::write(scratch.path().join(STORE_FILES[1]), &checkpoint).expect("a file");
    fuzzing::read_folder(scratch.path(), Default::default()).expect("a right folder");
    let of = |log: &[u8], checkpoint: &[u8], tail: &[u8]| join(&[&[1], log, checkpoint, tail]);
    vec![of(&log, &[], &tail), of(&log, &checkpoint, &tail), of(&[], &checkpoint, &[])]
}

/// The beginning of a file, then each message as a record.
fn checkpoint(cluster_id: &str, objects: &[Object]) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Header {
        #[prost(string, tag = "1")]
        cluster_id: String,
        #[prost(int32, tag = "2")]
        role: i32,
        #[prost(uint64, tag = "3")]
        revision: u64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Page {
        #[prost(message, repeated, tag = "1")]
        objects: Vec<Row>,
        #[prost(message, optional, tag = "2")]
        footer: Option<Footer>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Row {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(uint64, tag = "2")]
        revision: u64,
        #[prost(bytes = "vec", tag = "3")]
        object: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Footer {
        #[prost(uint64, tag = "1")]
        objects: u64,
    }
    let row = |(object, revision): (&Object, u64)| Row {
        key: object.key().expect("a kind").as_stored().to_owned(),
        revision,
        object: object.encode_to_vec(),
    };
    let rows: Vec<Row> = objects.iter().zip(1..=4).map(row).collect();
    let footer = Some(Footer { objects: rows.len() as u64 });
    let header = Header { cluster_id: cluster_id.to_owned(), role: 2, revision: 4 }.encode_to_vec();
    let page = Page { objects: rows, footer }.encode_to_vec();
    let mut file = b"BLUEBIRD\x01\0\0\0".to_vec();
    for record in [header, page] {
        file.extend_from_slice(&(record.len() as u32).to_le_bytes());
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(&record);
    }
    repair(&mut file);
    file
}

/// The state of four revisions as a file.
pub fn backup() -> Vec<Vec<u8>> {
    let objects = objects();
    let of = |objects: &[Object]| [&[1], checkpoint("the-cluster", objects).as_slice()].concat();
    vec![of(&objects), of(&objects[..1]), of(&[])]
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Range {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Change {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Watch {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(bool, tag = "7")]
    fragment: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Change>,
}

/// What etcd has of a small cluster at revision 5, and some changes after that.
pub fn etcd() -> Vec<Vec<u8>> {
    const DELETED: i32 = 1;
    let objects = objects();
    let key = |object: &Object| format!("/bluebird/objects/{}", object.key().expect("a kind").as_stored());
    let put = |object: &Object, at: i64| KeyValue { key: key(object), mod_revision: at, value: object.encode_to_vec() };
    let tip = |at: i64| KeyValue { key: "/bluebird/tip".to_owned(), mod_revision: at, value: Vec::new() };
    let cluster = KeyValue { key: "/bluebird/cluster".to_owned(), mod_revision: 2, value: b"\x0a\x04fuzz\x10\x01".to_vec() };
    let kvs = [cluster].into_iter().chain(objects.iter().map(|object| put(object, 5))).chain([tip(5)]).collect();
    let state = Range { header: Some(Header { revision: 5 }), kvs }.encode_to_vec();
    let change = |kind: i32, kv: KeyValue| Change { kind, kv: Some(kv) };
    let watch =
        |at: i64, fragment: bool, events: Vec<Change>| Watch { header: Some(Header { revision: at }), fragment, events }.encode_to_vec();
    let gone = KeyValue { key: key(&objects[0]), mod_revision: 7, value: Vec::new() };
    let changes = [
        watch(6, false, vec![change(0, put(&objects[0], 6)), change(0, tip(6))]),
        watch(7, true, vec![change(DELETED, gone)]),
        watch(8, false, vec![change(0, tip(7)), change(0, put(&objects[0], 8)), change(0, tip(8))]),
    ];
    let end = Vec::new();
    let parts: Vec<&[u8]> = [&state].into_iter().chain(&changes).chain([&end]).map(Vec::as_slice).collect();
    vec![join(&parts), join(&[&state, &changes[0], &[]]), join(&[&state, &changes[2], &[]])]
}
