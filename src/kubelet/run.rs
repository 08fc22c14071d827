//! The loop: wakes up, and lets the pods that it concerns be looked at.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost_types::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::os::AsyncBell;
use super::pods::Pods;
use super::uid::PodUid;
use super::wakes::{Wakes, Woken};
use crate::api::ObjectKey;
use crate::client::Changes;
use crate::time::{self, Clock};

/// Every pod is looked at this often, whatever wakes or doesn't.
const FULL_PASS: Duration = Duration::from_secs(30);
/// The most pods in one pass, so that their statuses don't wait for all the others.
const PASS_LIMIT: usize = 16;

/// Why the loop woke.
enum Wake {
    /// Objects changed.
    Changed(BTreeSet<ObjectKey>),
    /// Something happened to pods.
    Woken(Woken),
    /// Some pod asked for it.
    Due,
    /// The kubelet ends.
    Ended,
}

/// Looks at pods until the token is cancelled.
pub(crate) async fn run(pods: Arc<Mutex<Pods>>, mut changes: Changes, wakes: Arc<Wakes>, clock: Clock, token: CancellationToken) {
    let mut full_pass = tokio::time::interval(FULL_PASS);
    full_pass.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_again: Option<Timestamp> = None;
    loop {
        let wake = tokio::select! {
            () = token.cancelled() => Wake::Ended,
            woken = wakes.next(PASS_LIMIT) => Wake::Woken(woken),
            changed = changes.next() => changed.map_or(Wake::Ended, Wake::Changed),
            () = sleep_until(look_again, &clock) => Wake::Due,
            _ = full_pass.tick() => Wake::Woken(Woken::All),
        };
        let (keys, woken) = match wake {
            Wake::Changed(keys) => (keys, Woken::Pods(Vec::new())),
            Wake::Woken(woken) => (BTreeSet::new(), woken),
            Wake::Due => (BTreeSet::new(), Woken::Due),
            Wake::Ended => return,
        };
        let pods = pods.clone();
        // Files are read and processes started: nothing that a task may do.
        let pass = tokio::task::spawn_blocking(move || pods.lock().unwrap_or_else(PoisonError::into_inner).pass(&keys, woken));
        match pass.await {
            Ok(next) => look_again = next,
            Err(error) => {
                tracing::error!(%error, "the pods can't be looked at any more");
                token.cancel();
                return;
            }
        }
    }
}

async fn sleep_until(time: Option<Timestamp>, clock: &Clock) {
    match time {
        Some(time) => tokio::time::sleep(time::elapsed(&clock.now(), &time)).await,
        None => std::future::pending().await,
    }
}

/// Passes on what shims ring.
pub(crate) async fn listen(bell: impl AsyncBell, wakes: Arc<Wakes>, token: CancellationToken) {
    while let Some(heard) = token.run_until_cancelled(bell.heard()).await {
        match heard {
            // A pipe that was full may have swallowed words.
            Ok(words) if words.len() >= FULL_BELL => wakes.all(),
            Ok(words) => {
                let words = String::from_utf8_lossy(&words).into_owned();
                words.lines().filter_map(PodUid::new).for_each(|uid| wakes.pod(&uid));
            }
            Err(error) => {
                tracing::error!(%error, "shims can't be heard any more; their pods are looked at from time to time");
                return;
            }
        }
    }
}

/// A little less than a pipe holds.
const FULL_BELL: usize = 60 * 1024;

/// Asks all pods to end and waits until they have, at most their longest grace period and a little more.
pub(crate) async fn stop_all(pods: &Arc<Mutex<Pods>>, stops_all: &std::sync::atomic::AtomicBool, wakes: &Wakes) {
    stops_all.store(true, Ordering::Release);
    wakes.all();
    let look = |pods: Arc<Mutex<Pods>>| {
        tokio::task::spawn_blocking(move || {
            let pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
            (pods.any_runs(), pods.longest_grace())
        })
    };
    let started = tokio::time::Instant::now();
    while let Ok((true, grace)) = look(pods.clone()).await {
        if started.elapsed() > grace + STOP_MARGIN {
            tracing::error!("some pods did not end in time");
            return;
        }
        tokio::time::sleep(STOP_POLL).await;
    }
}

/// How much longer than their grace period pods may take to be gone.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Between two looks at whether all pods have ended.
const STOP_POLL: Duration = Duration::from_millis(20);
