//! The real executables, killed, starved and started wrongly.
//!
//! What this needs of the operating system: signals and a shell.
#![cfg(unix)]

#[cfg(target_os = "linux")]
mod alone;
mod apiserver_killed;
mod backup;
#[cfg(target_os = "linux")]
mod clock;
mod follower;
mod kubelet_killed;
#[cfg(target_os = "linux")]
mod logs;
mod lost_store;
mod packaging;
mod program;
mod refusals;
mod restored;
mod self_hosted;
#[cfg(target_os = "linux")]
mod slow_network;
mod top;
mod up;
mod up_output;
mod upgraded;
mod variables;
