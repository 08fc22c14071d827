//! Whatever bytes come in over the wire are answered by a server that goes on. What becomes of text, requests and files behind that is fuzzed with coverage, in
//! fuzz/.

use std::time::Duration;

use bluebird::api::manifest;
use bluebird::api::v1::{Namespace, Object};
use bluebird::apiserver::{self, Config, Listen};
use bluebird::client::Client;
use bluebird::time::Clock;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use raw::RawCodec;

#[allow(unreachable_pub, reason = "shared with the benches")]
#[path = "../benches/common/raw.rs"]
mod raw;

const EXAMPLE: &str = include_str!("../examples/hello.yaml");

/// Bytes that are a message, or were one before some of them were changed.
fn encoded(objects: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let right = (prop::sample::select(objects), changes).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![4 => right, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

fn examples() -> Vec<Object> {
    manifest::parse(EXAMPLE, "hello.yaml").expect("the example is right")
}

/// Every method that is answered with one message or a stream, called with bytes that may be anything.
const METHODS: [&str; 11] = [
    "ControlPlaneService/Create",
    "ControlPlaneService/Get",
    "ControlPlaneService/List",
    "ControlPlaneService/Update",
    "ControlPlaneService/UpdateStatus",
    "ControlPlaneService/Apply",
    "ControlPlaneService/Delete",
    "ControlPlaneService/Watch",
    "NodeService/Join",
    "NodeService/Session",
    "WorkloadService/Logs",
];

#[test]
fn requests_of_any_bytes_are_answered_and_the_server_goes_on() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let folder = tempfile::tempdir().expect("a folder");
    let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let server = runtime.block_on(apiserver::start(Config::new(folder.path(), listen), Clock::system())).expect("it starts");
    let client = Client::from_channel(server.channel());

    // Field 1 of most requests is an object: so an object's bytes, framed as that field, get far.
    let framed = examples().into_iter().map(|object| {
        let object = object.encode_to_vec();
        let mut request = vec![0x0a];
        prost::encoding::encode_varint(object.len() as u64, &mut request);
        [request, object].concat()
    });
    let framed: Vec<_> = framed.collect();
    let channel = server.channel();
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(method in 0..METHODS.len(), bytes in encoded(framed))| {
        let path = PathAndQuery::try_from(format!("/bluebird.v1.{}", METHODS[method])).expect("a path");
        let mut grpc = Grpc::new(channel.clone());
        let outcome = runtime.block_on(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let call = grpc.server_streaming(Request::new(Bytes::from(bytes)), path, RawCodec);
            // A stream that has begun, such as a watch, need not say anything.
            tokio::time::timeout(Duration::from_secs(10), call).await.expect("an answer").map(drop)
        });
        if let Err(status) = outcome {
            // What can't be decoded is INTERNAL in gRPC's own words; a panic would be UNKNOWN or CANCELLED.
            let decoding = status.code() == Code::Internal && status.message().contains("decode");
            prop_assert!(decoding || !matches!(status.code(), Code::Unknown | Code::Cancelled | Code::Internal), "{}: {status:?}", METHODS[method]);
        }
    });

    let after = runtime.block_on(client.get::<Namespace>("", "default")).expect("it still answers");
    assert_eq!(after.metadata.map(|metadata| metadata.name).as_deref(), Some("default"));
    runtime.block_on(server.shutdown());
}
