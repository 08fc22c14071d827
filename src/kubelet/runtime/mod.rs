//! What runs containers. There is one: plain processes, guarded by shims; and commands beside them, by `exec`.

mod exec;
mod process;

pub(crate) use exec::{Exec, ExecError, Execs, Heard};
pub(crate) use process::{Found, Processes, kill_marked, or_nothing, shim_ended};
