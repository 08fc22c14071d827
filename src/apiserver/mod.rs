//! The only gRPC servers: one file per service.
//!
//! [`start`] opens the store, binds one port and serves on it: `ControlPlaneService` (decisions in `writes`, committed by `writer`),
//! `NodeService`, `WorkloadService`, reflection, health and `/metrics`. [`Apiserver`] is the running server; [`Apiserver::channel`] reaches it
//! within the process, through the same router as every other connection.

mod config;
mod connection;
mod control_plane;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod listen;
mod metrics;
mod node;
mod ownership;
mod parts;
mod peers;
mod readiness;
mod serve;
mod sessions;
mod shared;
mod start;
mod store_args;
#[cfg(test)]
mod tests;
mod tunnels;
mod watch;
mod workload;
mod writer;
mod writes;

pub use config::{Args, Config, Listen};
pub use frame::Frame;
#[cfg(test)]
pub(crate) use start::start_beside;
pub use start::{Apiserver, StartError, start};

pub use crate::store::{EtcdOptions, Tls};

use crate::error::Error;

#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/bluebird.v1.rs"));
}

/// What a request hears that was not begun, and a stream ends with, when the apiserver stops.
fn stopping_error() -> Error {
    Error::NotDone("the apiserver is shutting down; connect again".to_owned())
}
