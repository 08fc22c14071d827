//! What runs containers. There is one: plain processes, guarded by shims; and commands beside them, by `exec`.

mod exec;
mod look;
mod process;
mod remains;

pub(crate) use exec::{Exec, ExecError, Execs, Heard};
pub(crate) use look::{Damage, Found, is_locked, or_nothing, shim_ended};
pub(crate) use process::Processes;
pub(crate) use remains::{any_of, kill_marked};
