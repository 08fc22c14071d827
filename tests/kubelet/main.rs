//! The kubelet and its shim with real processes. The programs of the tests are shell scripts, and /proc tells what became of them.
#![cfg(target_os = "linux")]

mod alone;
mod away;
mod changes;
mod configuration;
mod damage;
mod dead_mount;
mod init;
mod lifecycle;
mod limits;
mod logs;
mod logs_behind;
mod machine;
mod needs;
mod pods;
mod probes;
mod processes;
mod shim;
mod static_pods;
mod unkillable;
mod upgrades;
mod users;
mod volumes;
