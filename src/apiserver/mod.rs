//! The only gRPC servers: one file per service.
//!
//! [`start`] opens the store, binds one port and serves on it: `ControlPlaneService` (decisions in `writes`, committed by `writer`),
//! `NodeService`, `WorkloadService`, reflection, health and `/metrics`. [`Apiserver`] is the running server; [`Apiserver::channel`] reaches it
//! within the process, through the same router as every other connection.

mod accounts;
mod config;
mod connection;
mod control_plane;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod limits;
mod listen;
mod maintenance;
mod metrics;
mod mirrors;
mod node;
mod ownership;
mod parts;
mod peers;
mod readiness;
mod refuse;
mod serve;
mod service_cidr;
mod sessions;
mod shared;
mod start;
mod store_args;
mod streams;
#[cfg(test)]
mod tests;
mod tunnels;
mod watch;
mod watch_request;
mod whole;
mod workload;
mod writer;
mod writes;

pub use config::{Args, Command, Config, Listen};
pub use frame::Frame;
pub use limits::Limits;
#[cfg(test)]
pub(crate) use start::start_beside;
pub use start::{Apiserver, StartError, start};

pub use crate::store::{EtcdOptions, Tls};

use crate::error::Error;
use crate::store::{OpenError, Restored};

#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/bluebird.v1.rs"));
}

/// What a request hears that was not begun, and a stream ends with, when the apiserver stops.
fn stopping_error() -> Error {
    Error::NotDone("the apiserver is shutting down; connect again".to_owned())
}

/// Makes a new data folder out of a backup, for an apiserver to start on. Blocks.
///
/// # Errors
/// When the backup is damaged, or the folder can't be used: because it holds the state of a cluster already, for instance. Then nothing is there that was not before.
pub fn restore(backup: &std::path::Path, data_dir: &std::path::Path) -> Result<Restored, OpenError> {
    crate::store::restore(backup, data_dir)
}
