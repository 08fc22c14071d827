//! etcd keeps every revision until it is told not to.

use std::sync::Arc;
use std::time::Duration;

use super::kv::Fault;
use super::shared::Shared;

/// How often to look whether there is anything to forget, about.
const INTERVAL: Duration = Duration::from_secs(10);
/// How many revisions make it worthwhile: etcd goes through all keys each time.
const WORTHWHILE: u64 = 1000;

/// Has etcd forget what this apiserver's history does not reach back to any more. Every apiserver does that, at moments of its own; whoever comes
/// second finds it done.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut compacted = shared.feed.oldest().0;
    loop {
        tokio::time::sleep(INTERVAL.mul_f64(0.5 + fastrand::f64())).await;
        let oldest = shared.feed.oldest().0;
        if oldest < compacted + WORTHWHILE {
            continue;
        }
        match shared.kv.compact(oldest.cast_signed()).await {
            Ok(()) | Err(Fault::Compacted) => compacted = oldest,
            Err(fault) => tracing::warn!(%fault, "etcd could not be compacted; tried again later"),
        }
    }
}
