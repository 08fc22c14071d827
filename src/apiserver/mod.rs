//! The only gRPC servers: one file per service.

mod frame;

pub use frame::Frame;

#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/bluebird.v1.rs"));
}
