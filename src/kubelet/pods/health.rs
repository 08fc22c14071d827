//! What probes say of the containers of a pod, kept in its folder for the next kubelet.

use std::collections::BTreeMap;
use std::io;

use super::Links;
use super::entry::Entry;
use crate::kubelet::os::{Host, Os};
use crate::kubelet::plan::Health;
use crate::kubelet::probes::Subject;
use crate::kubelet::runtime::Found;
use crate::kubelet::shim::files::{ABOUT_TO_START, PodFolder, Stage};
use crate::kubelet::uid::PodUid;

/// By the names of containers; only of those that have probes.
pub(super) type AllHealth = BTreeMap<String, Health>;

/// What an earlier kubelet has kept. What is damaged or absent is found out again by probing.
pub(super) fn read(folder: &PodFolder) -> AllHealth {
    let Ok(content) = std::fs::read(folder.health()) else { return AllHealth::default() };
    serde_json::from_slice(&content).unwrap_or_default()
}

impl Links {
    /// Lets exactly the containers be probed that run and are meant to, and takes in what has come of it.
    pub(super) fn observe_health(&self, uid: &PodUid, entry: &mut Entry, found: Option<&Found>) {
        let Some(pod) = &entry.pod else { return };
        let is_meant_to_run = entry.desired.as_ref().is_some_and(|desired| desired.deleted.is_none());
        let running = match found.filter(|found| found.is_guarded && found.desired.stop.is_none() && is_meant_to_run) {
            Some(found) => {
                let containers = found.state.containers.iter();
                let running = containers.filter(|container| matches!(container.stage, Stage::Running { pid, .. } if pid != ABOUT_TO_START));
                running.map(|container| (container.name.clone(), container.attempt)).collect()
            }
            None => BTreeMap::new(),
        };
        self.probes.follow(Subject { uid, pod, ports: &entry.ports }, &running, &mut entry.health);
        if entry.health != entry.kept_health {
            match save(&self.root.pod(uid), &entry.health) {
                Ok(()) => entry.kept_health = entry.health.clone(),
                Err(error) => tracing::warn!(pod = %uid, %error, "what probes said can't be kept for the next kubelet"),
            }
        }
    }
}

fn save(folder: &PodFolder, health: &AllHealth) -> io::Result<()> {
    Host::write_atomically(&folder.health(), &serde_json::to_vec(health)?)
}
