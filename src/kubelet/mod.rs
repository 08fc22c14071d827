//! Makes one machine match the desired state.

mod os;
mod phase;
mod plan;
pub mod routes;
pub mod shim;
