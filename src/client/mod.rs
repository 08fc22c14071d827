//! The only gRPC clients.

#[allow(missing_docs, unused_qualifications, unreachable_pub, dead_code, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/client/bluebird.v1.rs"));
}
