//! What runs containers. There is one: plain processes, guarded by shims; and commands beside them, by `exec`.

#[expect(dead_code, reason = "probes and the exec of people are about to use it")]
mod exec;
mod process;

pub(crate) use exec::Execs;
pub(crate) use process::{Found, Processes, kill_marked, or_nothing, shim_ended};
