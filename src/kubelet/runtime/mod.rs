//! What runs containers. There is one: plain processes, guarded by shims.

mod process;

pub(crate) use process::{Found, Processes, attempts, kill_marked, or_nothing, shim_ended};
