//! Pods whose folder somebody has removed, damaged or made unusable behind the kubelet's back.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost_types::Timestamp;
use tokio::time::Instant;

use super::entry::Entry;
use super::kills::Kills;
use super::{Links, Pods};
use crate::api::Resource;
use crate::api::v1::{EventType, Service};
use crate::client::{Cached, subject};
use crate::kubelet::observe;
use crate::kubelet::plan::{Attempt, ObservedRun};
use crate::kubelet::recall::{recall, recall_all, undo_inits};
use crate::kubelet::runtime::{Damage, Found, Processes};
use crate::kubelet::shim::files::{Run, State};
use crate::kubelet::static_pods::is_static;
use crate::kubelet::uid::PodUid;
use crate::time;

/// How much longer than its grace period a pod may take whose shim was told to end it: a shim is as good as its machine is busy, and its files may be
/// gone.
const MARGIN: Duration = Duration::from_secs(10);

/// Since when a pod is to be gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    grace: Duration,
    since: Instant,
    /// Its shim knows.
    is_told: bool,
    /// Its processes were asked, by the shim or by a signal.
    is_asked: bool,
}

impl Ending {
    fn left(&self) -> Duration {
        let margin = if self.is_told { MARGIN } else { Duration::ZERO };
        (self.grace + margin).saturating_sub(self.since.elapsed())
    }
}

impl Links {
    /// What there is of a pod, where files that are gone or damaged are made up for by what the apiserver was told.
    pub(super) fn find(&self, uid: &PodUid, entry: &mut Entry) -> io::Result<Option<Found>> {
        let looked = self.processes.look(uid);
        let is_gone = match &looked {
            // There may be another one by now, but what was in it is gone.
            Ok(_) if entry.has_lost_folder => true,
            Ok(None) => entry.was_here() || self.was_told_of(uid, entry),
            // A kubelet that was killed before it had recorded that has left a new folder, or the beginning of one.
            Ok(Some(found)) => {
                let is_new = found.damage.is_state_lost && !entry.is_prepared;
                is_new && !found.is_guarded && !entry.has_shim() && self.was_told_of(uid, entry)
            }
            Err(_) => false,
        };
        let is_away = matches!(&looked, Ok(Some(found)) if found.damage.is_out_of_reach);
        if is_gone || is_away || looked.is_err() && self.gives_up(uid, entry) {
            if !entry.observed.as_ref().is_some_and(|observed| observed.is_out_of_reach) {
                self.tell_of_removal(uid, entry);
            }
            entry.forget_folder();
            entry.has_lost_folder = is_gone;
            let damage = Damage { is_out_of_reach: true, ..Damage::default() };
            return Ok(Some(Found { state: self.recall_all(uid, entry), damage, ..Found::default() }));
        }
        let Some(mut found) = looked? else { return Ok(None) };
        // A new shim takes a moment to lock its pod.
        found.is_guarded |= entry.has_shim();
        if found.damage.is_state_lost {
            found.state = self.recall(uid, entry);
        }
        if found.damage.is_state_lost && found.is_guarded && !found.state.containers.is_empty() {
            // Whoever has written it writes it again.
            self.processes.ring(uid)?;
        }
        Ok(Some(found))
    }

    /// A pod that shall run has run here under an earlier kubelet, as far as the apiserver knows. A static pod may have come back since, as the same one.
    fn was_told_of(&self, uid: &PodUid, entry: &Entry) -> bool {
        if entry.pod.as_ref().is_some_and(is_static) {
            return false;
        }
        let shall_run = entry.desired.as_ref().is_some_and(|desired| desired.deleted.is_none() && !desired.is_finished);
        shall_run && !self.recall(uid, entry).containers.is_empty()
    }

    /// A pod that was here has no folder any more: what may run of it is still to be killed.
    pub(super) fn is_gone(&self, uid: &PodUid, entry: &Entry) -> bool {
        entry.was_here() && matches!(self.processes.look(uid), Ok(None))
    }

    /// What the apiserver was told of the runs of a pod.
    fn recall(&self, uid: &PodUid, entry: &Entry) -> State {
        entry.pod.as_ref().map(|pod| recall(&self.status_before(uid, pod))).unwrap_or_default()
    }

    /// The same, with what has been seen of them here.
    fn recall_all(&self, uid: &PodUid, entry: &Entry) -> State {
        entry.pod.as_ref().map(|pod| recall_all(&self.status_before(uid, pod), entry.observed.as_ref())).unwrap_or_default()
    }

    /// Whether a pod that is to go could not be looked at for as long as it may take to end.
    fn gives_up(&self, uid: &PodUid, entry: &mut Entry) -> bool {
        if !entry.is_to_go() && !self.stops_all.load(Ordering::Acquire) {
            return false;
        }
        let grace = entry.desired.as_ref().and_then(|desired| desired.deleted).unwrap_or_else(|| entry.grace());
        let ending = entry.ends_within(grace);
        ending.is_told = false;
        // Something of it may be readable all the same.
        if !ending.is_asked && self.processes.ask_mains_to_end(uid).is_ok_and(|asked| asked > 0) {
            (ending.is_asked, ending.since) = (true, Instant::now());
        }
        entry.ending_left().is_zero()
    }

    fn tell_of_removal(&self, uid: &PodUid, entry: &Entry) {
        let folder = self.root.pod(uid);
        tracing::error!(pod = %uid, folder = %folder.path().display(), "the pod's folder was removed or can't be used any more");
        if let Some(pod) = &entry.pod {
            let note = format!(
                "{} was removed, or can't be used any more: what runs of the pod can't be seen or told anything, and is to end",
                folder.path().display()
            );
            self.recorder.event(subject(pod), EventType::Warning, "PodFolderLost", note);
        }
    }
}

impl Pods {
    /// Kills what is left, and records that nobody saw its end. What is to go anyway needs no record.
    pub(super) fn mark_lost(&mut self, uid: &PodUid, now: &Timestamp) -> io::Result<bool> {
        let Some(entry) = self.entries.get(uid) else { return Ok(true) };
        let is_clear = entry.is_swept || self.links.processes.is_of_earlier_boot(uid);
        if !is_clear && !self.kill(uid, Processes::kill_lost, now) {
            return Ok(false);
        }
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(true) };
        tracing::warn!(pod = %uid, "the pod's shim is gone, and nothing of what it left");
        (entry.kills, entry.look_again) = (Kills::default(), None);
        let entry = &*entry;
        if let Some(desired) = entry.desired.as_ref().filter(|_| !entry.is_to_go()) {
            let has_lost_folder = entry.observed.as_ref().is_some_and(|observed| observed.is_out_of_reach);
            let mut known = if has_lost_folder { self.links.recall_all(uid, entry) } else { self.links.recall(uid, entry) };
            known.mark_lost(time::millis(now));
            if has_lost_folder {
                undo_inits(&mut known, desired);
            }
            self.links.processes.record_lost(uid, known)?;
        }
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.has_lost_folder = false;
        }
        Ok(true)
    }

    /// Says anew what a shim was asked for, by what its containers are meant to be now.
    pub(super) fn ask_again(&mut self, uid: &PodUid) -> io::Result<bool> {
        let Some(pod) = self.entries.get(uid).and_then(|entry| entry.pod.as_ref()) else { return Ok(true) };
        let services = self.services(&pod.meta().namespace.clone());
        let Some(entry) = self.entries.get(uid) else { return Ok(true) };
        let (Some(desired), Some(observed)) = (&entry.desired, &entry.observed) else { return Ok(true) };
        let mut runs: Vec<Run> = Vec::new();
        for container in &desired.containers {
            let Some(known) = observed.get(&container.name) else { continue };
            let (ObservedRun::Running { attempt, .. } | ObservedRun::Ended { attempt, .. } | ObservedRun::Starting(attempt)) = &known.run
            else {
                continue;
            };
            runs.extend(self.run_again(uid, entry, &container.name, *attempt, &services));
        }
        match self.links.processes.ask_again(uid, runs) {
            // It is stopped whatever its shim knows.
            Err(error) if entry.is_to_go() => tracing::warn!(pod = %uid, %error, "what the shim was asked for can't be said again"),
            outcome => outcome?,
        }
        Ok(true)
    }

    fn run_again(&self, uid: &PodUid, entry: &Entry, name: &str, attempt: Attempt, services: &[Cached<Service>]) -> Option<Run> {
        self.links.run(uid, entry, name, attempt, services).unwrap_or_else(|(reason, _)| {
            // It goes on as it is; only how it is asked to end is not known to its shim.
            tracing::warn!(pod = %uid, container = name, reason, "what the shim was asked for can't be said again");
            None
        })
    }

    pub(super) fn stop(&mut self, uid: &PodUid, grace: Duration, now: &Timestamp) -> io::Result<bool> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(true) };
        let is_told = entry.observed.as_ref().is_some_and(|observed| observed.stopping == Some(grace));
        let is_asked = entry.ends_within(grace).is_asked;
        if !is_told {
            self.ask_to_end(uid, grace, is_asked, now);
        }
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(true) };
        match entry.insists_at(now) {
            Some(at) => entry.look_again = Some(at),
            // It did not end in time.
            None => {
                self.kill(uid, Processes::kill_stuck, now);
            }
        }
        Ok(false)
    }

    fn ask_to_end(&mut self, uid: &PodUid, grace: Duration, is_asked: bool, now: &Timestamp) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if !self.links.stops_all.load(Ordering::Acquire)
            && let Err(error) = entry.save_end(&self.links.root.pod(uid), now)
        {
            // A full disk, or a folder that was made read-only: nothing that may hold up its end.
            tracing::warn!(pod = %uid, %error, "that the pod is to end can't be kept for the next kubelet");
        }
        let told = self.links.processes.stop(uid, grace);
        let ending = entry.ends_within(grace);
        let is_told_at_last = told.is_ok() && !ending.is_told;
        ending.is_told = told.is_ok();
        if is_asked && told.is_err() {
            return;
        }
        if !is_asked || is_told_at_last {
            // It may have been tried for a while already: the grace period begins when they are asked, and for a shim when it is told.
            (ending.is_asked, ending.since) = (true, Instant::now());
        }
        let mut note = format!("asked to end within {} s", grace.as_secs());
        if let Err(error) = &told {
            note = format!("{note}, by a signal alone: {error}");
            if let Err(error) = self.links.processes.ask_mains_to_end(uid) {
                tracing::warn!(pod = %uid, %error, "the pod can't be asked to end, and is killed after its grace period");
            }
        }
        if let Some(observed) = &mut entry.observed {
            // What is reported next shall say so: nothing may happen for a long time.
            observed.stopping = Some(grace);
        }
        if let Some(pod) = &entry.pod {
            self.links.recorder.event(subject(pod), EventType::Normal, "Killing", note);
        }
    }
}

impl Entry {
    /// There has been something of it on this machine under this kubelet.
    fn was_here(&self) -> bool {
        self.is_prepared || self.observed.is_some()
    }

    fn is_to_go(&self) -> bool {
        self.desired.as_ref().is_none_or(|desired| desired.deleted.is_some())
    }

    fn grace(&self) -> Duration {
        self.pod.as_ref().map(observe::grace_of).unwrap_or_default()
    }

    fn is_ending_anew(&self, grace: Duration) -> bool {
        self.ending.is_none_or(|ending| ending.grace != grace)
    }

    /// Its end has begun, with this grace period.
    fn ends_within(&mut self, grace: Duration) -> &mut Ending {
        if self.is_ending_anew(grace) {
            self.ending = None;
        }
        self.ending.get_or_insert_with(|| Ending { grace, since: Instant::now(), is_told: true, is_asked: false })
    }

    /// How long it may still take to end.
    fn ending_left(&self) -> Duration {
        self.ending.as_ref().map_or(Duration::MAX, Ending::left)
    }

    /// When it is no longer asked to end, but killed; `None` when it isn't asked, or that time has come.
    pub(super) fn insists_at(&self, now: &Timestamp) -> Option<Timestamp> {
        let left = self.ending.as_ref().map(Ending::left).filter(|left| !left.is_zero())?;
        Some(time::after(now, left))
    }
}
