//! What runs containers. There is one: plain processes, guarded by shims; and commands beside them, by `exec`.

#[allow(dead_code, reason = "the exec of people is about to use the rest")]
mod exec;
mod process;

pub(crate) use exec::{ExecError, Execs};
pub(crate) use process::{Found, Processes, kill_marked, or_nothing, shim_ended};
