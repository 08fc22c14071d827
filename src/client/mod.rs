//! The only gRPC clients: [`Client`] asks, [`Cache`] follows, [`Recorder`] tells people what happened.
//!
//! Everybody who wants something of the apiserver, also inside its own process, goes through here.

#[allow(missing_docs, unused_qualifications, unreachable_pub, dead_code, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/client/bluebird.v1.rs"));
}

mod backoff;
mod cache;
mod endpoint;
mod follow;
mod incoming;
mod requests;

pub use backoff::Backoff;
pub use cache::{Cache, Cached, Changes};
pub use incoming::Incoming;
pub use requests::{Client, DeleteOptions, Listed, UNARY_DEADLINE};
