//! What machines and processes use, as systems count it.

use std::time::Duration;

/// What a process has used and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    pub(crate) pid: i32,
    /// Who started it, or has taken it over; 0 when nobody is left who did.
    pub(crate) parent: i32,
    /// Time on processors since it began.
    pub(crate) cpu: Duration,
    /// That of its children that have ended and for which it has waited, and of theirs; zero where the system doesn't keep it.
    pub(crate) cpu_of_ended_children: Duration,
    /// Bytes of memory that it has at the moment.
    pub(crate) memory: u64,
}

/// What a machine has used and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MachineUsage {
    /// Time on processors, since a moment that stays the same while the machine is up.
    pub(crate) cpu: Duration,
    /// Bytes of memory that can't be freed at once.
    pub(crate) memory: u64,
}

/// How full a file system is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUsage {
    pub(crate) used: u64,
    pub(crate) total: u64,
}
