//! Static pods among the pods: wanted by a file and not by the apiserver, which only shows them.

use std::sync::Arc;

use super::{Entry, Links, Pods};
use crate::api::Resource;
use crate::api::v1::Pod;
use crate::kubelet::observe;
use crate::kubelet::static_pods::{StaticPods, is_static};
use crate::kubelet::uid::PodUid;

impl Pods {
    /// The static pods that an earlier kubelet has left.
    pub(crate) fn left_statics(&self) -> StaticPods {
        let pods = self.entries.iter().filter_map(|(uid, entry)| Some((uid.clone(), entry.pod.as_ref().filter(|pod| is_static(pod))?)));
        pods.map(|(uid, pod)| (uid, Arc::new(pod.clone()))).collect()
    }

    /// Takes note of the static pods that there are now; gives those that came, changed or went.
    pub(super) fn know_statics(&mut self) -> Vec<PodUid> {
        let now = self.links.statics.borrow_and_update().clone();
        if Arc::ptr_eq(&now, &self.statics) {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.statics, now.clone());
        for (uid, pod) in now.iter() {
            self.by_key.entry(pod.key()).or_default().insert(uid.clone());
            let entry = self.entries.entry(uid.clone()).or_default();
            let status = entry.pod.as_ref().and_then(|known| known.status.clone());
            if entry.take(&Pod { status, ..(**pod).clone() }) {
                self.links.followed.use_by(uid, entry.uses.clone(), entry.since);
            }
        }
        let left = self.entries.iter().filter(|(_, entry)| entry.pod.as_ref().is_some_and(is_static)).map(|(uid, _)| uid.clone());
        now.keys().chain(before.keys()).cloned().chain(left).collect()
    }

    /// Something of another static pod of the same name is still there, which nobody wants any more: never both.
    pub(super) fn has_predecessor(&self, uid: &PodUid) -> bool {
        let Some(pod) = self.entries.get(uid).and_then(|entry| entry.pod.as_ref()) else { return false };
        let is_left = |other: &PodUid| {
            let Some(entry) = self.entries.get(other).filter(|entry| entry.pod.as_ref().is_some_and(is_static)) else { return false };
            // What can't be looked at, or has lost its folder, may well run.
            let may_run = || entry.observed.is_some() || self.links.processes.look(other).map_or(true, |found| found.is_some());
            other != uid && !self.statics.contains_key(other) && may_run()
        };
        self.statics.contains_key(uid) && self.by_key.get(&pod.key()).is_some_and(|uids| uids.iter().any(is_left))
    }
}

impl Links {
    /// As [`Links::observe`], for a static pod. Its mirror, when there is one, has the status that was told; what ended here is not run again, and that
    /// doesn't depend on any mirror.
    pub(super) fn observe_static(&self, uid: &PodUid, entry: &mut Entry, statics: &StaticPods, knows_all: bool) -> std::io::Result<()> {
        let Some(pod) = &mut entry.pod else { return self.look(uid, entry) };
        let mirror = self.wanted(&pod.key()).filter(|mirror| mirror.meta().uid == uid.as_str());
        entry.is_current = knows_all && mirror.is_some() && statics.contains_key(uid);
        if let Some(mirror) = mirror {
            pod.status.clone_from(&mirror.status);
            pod.meta_mut().resource_version = mirror.meta().resource_version;
        }
        let mut desired = observe::desired(pod, &self.capabilities);
        desired.is_finished = entry.finished.is_some();
        if !statics.contains_key(uid) {
            desired.deleted = Some(observe::grace_of(pod));
        }
        let is_to_go = desired.deleted.is_some();
        // Also when it can't be looked at.
        entry.desired = Some(desired);
        self.look(uid, entry)?;
        if is_to_go && entry.observed.is_none() {
            entry.desired = None;
        }
        Ok(())
    }
}
