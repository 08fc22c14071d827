//! BlueBird.
pub mod api;
pub mod apiserver;
pub mod client;
pub mod cluster;
pub mod console;
pub mod controllers;
pub mod error;
pub mod kubelet;
pub mod reconcile;
pub mod scheduler;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod testing;
pub mod time;
pub mod watch;
