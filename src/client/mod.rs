//! The only gRPC clients: [`Client`] asks, [`Cache`] follows, [`Recorder`] tells people what happened.
//!
//! Everybody who wants something of the apiserver, also inside its own process, goes through here.

#[allow(missing_docs, unused_qualifications, unreachable_pub, dead_code, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/client/bluebird.v1.rs"));
}

mod cache;
mod contents;
mod endpoint;
mod follow;
#[doc(hidden)]
pub mod fuzzing;
mod incoming;
mod leader;
mod logs;
mod objects;
mod recorder;
mod requests;
mod servers;
mod top;

#[cfg(test)]
mod fake;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::time::Backoff;
pub use cache::{Cache, Cached, all_of};
pub use contents::Changes;
pub use endpoint::Patience;
pub use follow::known_objects;
pub use incoming::Incoming;
pub use leader::{Election, Terms};
pub use logs::{Log, LogEvent};
pub use objects::Keep;
pub use recorder::{Recorder, subject};
pub use requests::{Client, DeleteOptions, Listed, UNARY_DEADLINE};
