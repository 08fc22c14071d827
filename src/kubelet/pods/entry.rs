use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;
use prost_types::Timestamp;

use crate::api::Resource;
use crate::api::v1::{AssignedPort, Pod, PodStatus};
use crate::kubelet::observe::Blocked;
use crate::kubelet::os::{Host, Os};
use crate::kubelet::plan::{DesiredPod, OWN_BACKOFF, ObservedPod};
use crate::kubelet::shim::files::PodFolder;
use crate::time;

/// What is known of one pod. What has to outlive the kubelet is in the pod's folder.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// As the cache or, before that has shown all, the folder has it.
    pub(super) pod: Option<Pod>,
    /// The apiserver still has the pod, and for this node.
    pub(super) is_current: bool,
    /// As of the last look.
    pub(super) desired: Option<DesiredPod>,
    /// As of the last look.
    pub(super) observed: Option<ObservedPod>,
    /// The folder is complete.
    pub(super) is_prepared: bool,
    /// In the order of the spec.
    pub(super) ports: Vec<AssignedPort>,
    /// Containers that can't be asked for since a port is taken.
    pub(super) blocked: BTreeMap<String, Blocked>,
    /// True while the shim that this kubelet started lives.
    pub(super) shim: Option<Arc<AtomicBool>>,
    /// True when the completion of the deletion was acknowledged.
    pub(super) release: Option<Arc<AtomicBool>>,
    /// What could not be done, and when it is tried again.
    pub(super) failure: Option<(String, Timestamp)>,
    /// How often before that, in a row.
    failures: u32,
    /// When to plan again even if nothing happens.
    pub(super) look_again: Option<Timestamp>,
    /// When that was decided.
    pub(super) looked_at: Timestamp,
}

impl Entry {
    /// What an earlier kubelet has left. A folder that it could not complete is as good as empty.
    pub(super) fn from_folder(folder: &PodFolder) -> io::Result<Self> {
        let pod = read(&folder.pod())?.and_then(|bytes| Pod::decode(bytes.as_slice()).ok());
        let ports = read(&folder.ports())?.and_then(|bytes| PodStatus::decode(bytes.as_slice()).ok());
        let is_prepared = pod.is_some() && ports.is_some();
        Ok(Self { pod, is_prepared, ports: ports.unwrap_or_default().ports, ..Self::default() })
    }

    /// The time to plan again has come, or can't be told any more since the clock went back.
    pub(super) fn is_due(&self, now: &Timestamp) -> bool {
        let is_past = |time: &Timestamp| time::millis(time) <= time::millis(now);
        self.look_again.is_some_and(|time| is_past(&time) || !is_past(&self.looked_at))
    }

    /// What could not be done is tried again later. A wait that looks longer than any can be is over: the clock went back.
    pub(super) fn waits_after_failure(&self, now: &Timestamp) -> Option<Timestamp> {
        let (_, retry_at) = self.failure.as_ref()?;
        let is_wait = (Duration::from_millis(1)..=OWN_BACKOFF.cap).contains(&time::elapsed(now, retry_at));
        is_wait.then_some(*retry_at)
    }

    /// Keeps the pod for the next kubelet.
    pub(super) fn save_pod(&self, folder: &PodFolder) -> io::Result<()> {
        match &self.pod {
            Some(pod) => Host::write_atomically(&folder.pod(), &pod.encode_to_vec()),
            None => Ok(()),
        }
    }

    /// Keeps for the next kubelet that this pod is to end, so that it isn't started again before the apiserver can be asked.
    pub(super) fn save_end(&mut self, folder: &PodFolder, now: &Timestamp) -> io::Result<()> {
        if let (None, Some(pod)) = (&self.desired, &mut self.pod) {
            pod.meta_mut().deletion_time.get_or_insert(*now);
        }
        self.save_pod(folder)
    }

    /// Keeps the ports for the next kubelet.
    pub(super) fn save_ports(&self, folder: &PodFolder) -> io::Result<()> {
        let ports = PodStatus { ports: self.ports.clone(), ..PodStatus::default() };
        Host::write_atomically(&folder.ports(), &ports.encode_to_vec())
    }

    /// The shim that this kubelet started lives.
    pub(super) fn has_shim(&self) -> bool {
        self.shim.as_ref().is_some_and(|lives| lives.load(Ordering::Acquire))
    }

    /// The completion of its deletion has begun: the last status is somebody else's to send.
    pub(super) fn is_released(&self) -> bool {
        self.release.is_some()
    }

    /// Something could not be done; the next try is later each time.
    pub(super) fn fail(&mut self, message: String, now: &Timestamp) {
        self.failures = if self.failure.is_some() { self.failures.saturating_add(1) } else { 0 };
        let retry_at = time::after(now, OWN_BACKOFF.wait(self.failures));
        self.look_again = Some(retry_at);
        self.failure = Some((message, retry_at));
    }
}

fn read(path: &std::path::Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn a_pod_that_waits_is_looked_at_when_it_is_time_or_when_the_clock_was_set_back() {
        let entry = Entry { look_again: Some(at(1_000)), looked_at: at(900), ..Entry::default() };
        let due = |now| entry.is_due(&at(now));
        assert_eq!([due(999), due(1_000), due(900), due(899), due(-2_700)], [false, true, false, true, true]);
        assert!(!Entry { looked_at: at(900), ..Entry::default() }.is_due(&at(0)), "nothing is waited for");
    }

    #[test]
    fn what_failed_is_tried_again_after_its_wait_and_at_once_when_the_clock_was_set_back() {
        let mut entry = Entry::default();
        entry.fail("no space".to_owned(), &at(1_000));
        let waits = |entry: &Entry, now| entry.waits_after_failure(&at(now)).is_some();
        assert_eq!([waits(&entry, 1_000), waits(&entry, 1_001), waits(&entry, 1_000 - 3_600)], [true, false, false]);
        entry.fail("no space".to_owned(), &at(1_001));
        assert_eq!(entry.waits_after_failure(&at(1_002)), Some(at(1_003)), "the wait doubles");
        // Tried at once after the jump, and then it waits by the new time.
        entry.fail("no space".to_owned(), &at(-2_600));
        assert_eq!(entry.waits_after_failure(&at(-2_599)), Some(at(-2_596)));
    }
}
