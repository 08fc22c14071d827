//! The faults.

use std::time::Duration;

/// What happens to a server, to its connections, or to the etcd behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9`, and a new start.
    Kill,
    /// The same, and once more while it starts.
    KillTwice,
    /// An orderly end, and a new start.
    Stop,
    /// It stands still for a while.
    Pause,
    /// It stands still, and is killed before it goes on.
    PauseAndKill,
    /// Every connection is reset.
    Cut,
    /// For a while every byte is lost, without a word.
    Stall,
    /// For a while nobody can connect.
    Unplug,
    /// As `Stall`, between the server and its etcd.
    StallStore,
    /// As `Unplug`, between the server and its etcd.
    UnplugStore,
    /// `kill -9` of the etcd, and a new start.
    KillEtcd,
    /// The etcd stands still for a while.
    PauseEtcd,
    /// The etcd forgets what was before the round.
    CompactEtcd,
}

impl Fault {
    /// What happens to apiservers on their own.
    pub(crate) const OF_SERVERS: [Fault; 8] =
        [Fault::Kill, Fault::KillTwice, Fault::Stop, Fault::Pause, Fault::PauseAndKill, Fault::Cut, Fault::Stall, Fault::Unplug];
    /// What happens besides where they have an etcd.
    pub(crate) const OF_ETCD: [Fault; 5] = [Fault::StallStore, Fault::UnplugStore, Fault::KillEtcd, Fault::PauseEtcd, Fault::CompactEtcd];
}

/// How long a fault lasts.
pub(crate) async fn a_while(rng: &mut fastrand::Rng, max_ms: u64) {
    tokio::time::sleep(Duration::from_millis(rng.u64(1..max_ms))).await;
}
