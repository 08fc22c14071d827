//! Makes one machine match the desired state.

pub mod routes;
