//! Ends runs so that others take their place.

use std::io;

use prost_types::Timestamp;

use super::entry::Entry;
use super::{Links, Pods};
use crate::api::Resource as _;
use crate::api::v1::{EventType, Service};
use crate::client::{Cached, subject};
use crate::kubelet::configuration::Lacking;
use crate::kubelet::plan::{Attempt, ObservedRun, Why};
use crate::kubelet::status::CONFIG_CHANGED;
use crate::kubelet::uid::PodUid;

/// The reason of events that tell of it.
pub(super) const UNUSABLE: &str = "ConfigChangeUnusable";

impl Pods {
    /// Asks a run to end. One that is to make way for the next goes on if that could not be started.
    pub(super) fn end(&mut self, uid: &PodUid, container: &str, attempt: u32, why: &Why, now: &Timestamp) -> io::Result<bool> {
        let namespace = self.entries.get(uid).and_then(|entry| entry.pod.as_ref()).map(|pod| pod.meta().namespace.clone());
        let Some(namespace) = namespace else { return Ok(true) };
        let services = if matches!(why, Why::Changed(_)) { self.services(&namespace) } else { Vec::new() };
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(true) };
        if matches!(why, Why::Changed(_)) && self.links.is_held(uid, entry, container, attempt, &services, now) {
            return Ok(true);
        }
        entry.held.remove(container);
        let grace = entry.observed.as_ref().map(|observed| observed.grace).unwrap_or_default();
        let (reason, superseded, what, why) = match why {
            Why::Unhealthy(why) => ("Killing", None, "end", why),
            Why::Changed(why) => (CONFIG_CHANGED, Some(why), "end, and started again", why),
        };
        self.links.processes.end(uid, container, attempt, grace, superseded)?;
        if let Some(pod) = &entry.pod {
            let note = format!("container {container} is asked to {what} within {} s: {why}", grace.as_secs());
            self.links.recorder.event(subject(pod), EventType::Normal, reason, note);
        }
        Ok(true)
    }
}

impl Links {
    /// Does what the start of the next run would begin with. If that can't be, the present one is held, and it is told why.
    fn is_held(
        &self,
        uid: &PodUid,
        entry: &mut Entry,
        container: &str,
        attempt: u32,
        services: &[Cached<Service>],
        now: &Timestamp,
    ) -> bool {
        let next = Attempt { number: attempt.saturating_add(1), streak: 0 };
        let Err((_, lacking)) = self.run(uid, entry, container, next, services) else { return false };
        let why = match lacking {
            // As soon as it is known nothing is held any more.
            Lacking::Unknown => String::new(),
            Lacking::Missing(why) => why,
        };
        if entry.hold(container, &why, now)
            && !why.is_empty()
            && let Some(pod) = &entry.pod
        {
            self.recorder.event(subject(pod), EventType::Warning, UNUSABLE, goes_on(container, &why));
        }
        true
    }
}

pub(super) fn goes_on(container: &str, why: &str) -> String {
    format!("container {container} goes on with what it was told, since it could not be started now: {why}")
}

/// The containers that run and could not be started with what holds now, and why.
pub(super) fn unusable_by_running(entry: &Entry) -> impl Iterator<Item = (&String, &String)> {
    let runs = |name: &str| {
        let known = entry.observed.as_ref().and_then(|observed| observed.get(name));
        known.is_some_and(|known| matches!(known.run, ObservedRun::Running { .. }))
    };
    entry.to_tell.unusable.iter().filter(move |(name, _)| runs(name))
}
