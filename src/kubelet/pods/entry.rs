use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;
use prost_types::Timestamp;

use super::damage::Ending;
use super::health::{self, AllHealth};
use super::kills::Kills;
use crate::api::v1::{AssignedPort, Object, Pod, PodPhase, PodStatus};
use crate::api::{ObjectKey, Resource, Revision, STATIC_POD_FILE_ANNOTATION};
use crate::kubelet::configuration::{self, Configuration, Lacking};
use crate::kubelet::observe::{Blocked, ClockSet, Held};
use crate::kubelet::plan::{Attempt, DesiredPod, OWN_BACKOFF, ObservedPod, ObservedRun};
use crate::kubelet::shim::files::{Failure, PodFolder, Run};
use crate::kubelet::told::{Told, told_to_all};
use crate::kubelet::uid::PodUid;
use crate::kubelet::{kept, phase};
use crate::time;

/// Why a container waits for a port.
pub(super) const PORT_TAKEN: &str = "PortTaken";

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
    /// How it has ended for good, as far as that was seen here.
    pub(super) finished: Option<PodPhase>,
    /// What the folder tells of the pod.
    kept: Option<Kept>,
    /// The folder is complete.
    pub(super) is_prepared: bool,
    /// The folder was removed, and what ran is not recorded as lost yet.
    pub(super) has_lost_folder: bool,
    /// In the order of the spec.
    pub(super) ports: Vec<AssignedPort>,
    /// The ConfigMaps and Secrets that it names.
    pub(super) uses: BTreeSet<ObjectKey>,
    /// What they hold, as far as it is known.
    pub(super) configuration: Configuration,
    /// They are not to be older than this: that of the pod when it was first seen.
    pub(super) since: Revision,
    /// How many changes of the configuration are in the folder, as far as this kubelet has seen to it.
    pub(super) configured: u64,
    /// When it is tried again to bring the folder up to date, and how often that was in vain.
    pub(super) refresh: Option<(Timestamp, u32)>,
    /// What containers are told by the configuration, if changes of that matter.
    pub(super) to_tell: ToldNow,
    /// Containers that can't be asked for, since something that they need can't be had.
    pub(super) blocked: BTreeMap<String, Blocked>,
    /// Containers whose runs go on in spite of a change.
    pub(super) held: BTreeMap<String, Held>,
    /// What probes say of its containers, as of the last look.
    pub(super) health: AllHealth,
    /// What of that is in the folder.
    pub(super) kept_health: AllHealth,
    /// What was told of how its containers were asked to end.
    pub(super) told: BTreeSet<Failure>,
    /// What the shim that this kubelet started last was started for: runs by the names of their containers.
    asked: BTreeMap<String, u32>,
    /// How many shims in a row have ended without having started anything.
    in_vain: u32,
    /// True while the shim that this kubelet started lives.
    pub(super) shim: Option<Arc<AtomicBool>>,
    /// Set while its processes are to end.
    pub(super) ending: Option<Ending>,
    /// What of it was killed, since it did not end by itself.
    pub(super) kills: Kills,
    /// Nothing of it runs: the kubelet has looked for it, and has started nothing since.
    pub(super) is_swept: bool,
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
    /// By how much the clock was set since runs of its containers were seen to have ended.
    pub(super) clock_set: ClockSet,
}

/// What containers are told that start now, by their names.
#[derive(Debug, Default)]
pub(super) struct ToldNow {
    /// As of so many changes of the configuration; absent before the first.
    changes: Option<u64>,
    pub(super) usable: BTreeMap<String, Told>,
    /// Why a container could not be started now, as a sentence.
    pub(super) unusable: BTreeMap<String, String>,
}

/// What of a pod may change that a kubelet has to know when it can't ask.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    deleted: Option<(Timestamp, Option<i64>)>,
    finished: Option<PodPhase>,
    /// Of a static pod.
    file: Option<String>,
}

impl Entry {
    /// What an earlier kubelet has left. What is damaged is told, and taken for what isn't there.
    pub(super) fn from_folder(uid: &PodUid, folder: &PodFolder) -> Self {
        let pod = whole::<Pod>(&folder.pod()).filter(|pod| is_of(pod, uid));
        let ports = whole::<PodStatus>(&folder.ports());
        let is_prepared = pod.is_some() && ports.is_some();
        let finished = pod.as_ref().and_then(|pod| Some(pod.status.as_ref()?.phase())).filter(|phase| phase::is_finished(*phase));
        let uses = pod.as_ref().map(configuration::used_by).unwrap_or_default();
        let configuration = Configuration::from_folder(folder);
        let ports = ports.unwrap_or_default().ports;
        let mut entry = Self { pod, finished, is_prepared, ports, uses, configuration, ..Self::default() };
        entry.kept = entry.to_keep();
        entry.health = health::read(folder);
        entry.kept_health = entry.health.clone();
        entry
    }

    /// The folder doesn't tell what a kubelet would have to know of the pod that can't ask.
    pub(super) fn is_unkept(&self) -> bool {
        self.kept != self.to_keep()
    }

    /// The clock was set by so many milliseconds: whatever is waited for comes when it would have come.
    pub(super) fn move_times(&mut self, by: i64) {
        let mut times = vec![&mut self.looked_at];
        times.extend(self.look_again.as_mut());
        times.extend(self.failure.as_mut().map(|(_, retry_at)| retry_at));
        times.extend(self.refresh.as_mut().map(|(at, _)| at));
        times.extend(self.blocked.values_mut().map(|blocked| &mut blocked.retry_at));
        times.extend(self.held.values_mut().map(|held| &mut held.until));
        times.into_iter().for_each(|time| *time = time::moved(time, by));
        let mut before = std::mem::take(&mut self.clock_set);
        for container in self.observed.iter().flat_map(|observed| &observed.containers) {
            let ObservedRun::Ended { attempt, .. } = &container.run else { continue };
            let so_far = before.remove(&container.name).filter(|(run, _)| *run == attempt.number).map_or(0, |(_, by)| by);
            self.clock_set.insert(container.name.clone(), (attempt.number, so_far.saturating_add(by)));
        }
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
    pub(super) fn save_pod(&mut self, folder: &PodFolder) -> io::Result<()> {
        let Some(pod) = &self.pod else { return Ok(()) };
        let mut pod = pod.clone();
        if let Some(finished) = self.finished {
            pod.status.get_or_insert_default().set_phase(finished);
        }
        kept::write(&folder.pod(), &pod)?;
        self.kept = self.to_keep();
        Ok(())
    }

    fn to_keep(&self) -> Option<Kept> {
        let meta = self.pod.as_ref()?.meta();
        let deleted = meta.deletion_time.map(|time| (time, meta.deletion_grace_period_seconds));
        let file = meta.annotations.get(STATIC_POD_FILE_ANNOTATION).cloned();
        Some(Kept { deleted, finished: self.finished, file })
    }

    /// Takes note of the pod, and of what it uses if that isn't known yet: true then.
    pub(super) fn take(&mut self, pod: &Pod) -> bool {
        let is_new = self.pod.is_none();
        if is_new {
            (self.uses, self.since) = (configuration::used_by(pod), Revision(pod.meta().resource_version));
        }
        self.pod = Some(pod.clone());
        is_new
    }

    /// Takes note of how something is that the pod uses. What waits for that waits no longer.
    pub(super) fn learn(&mut self, key: &ObjectKey, object: Option<Arc<Object>>) {
        if self.configuration.learn(key, object) {
            self.refresh = None;
            self.held.clear();
            self.blocked.retain(|_, blocked| blocked.reason == PORT_TAKEN);
        }
    }

    /// Finds out what containers are told by the configuration as it is now, if changes of that matter.
    pub(super) fn tell_anew(&mut self) {
        let Some(pod) = self.pod.as_ref() else { return };
        let Some(spec) = pod.spec.as_ref().filter(|spec| spec.restart_on_config_change) else { return };
        let changes = Some(self.configuration.changes());
        if self.to_tell.changes == changes {
            return;
        }
        let before = std::mem::replace(&mut self.to_tell, ToldNow { changes, ..ToldNow::default() });
        for (container, told) in told_to_all(spec, &pod.meta().namespace, &self.configuration) {
            match told {
                Ok(mut told) => {
                    before.usable.get(&container).into_iter().for_each(|before| told.take_over(before));
                    self.to_tell.usable.insert(container, told);
                }
                Err(Lacking::Missing(why)) => drop(self.to_tell.unusable.insert(container, why)),
                // As soon as it is known it is a change.
                Err(Lacking::Unknown) => {}
            }
        }
    }

    /// More is known of the configuration than is in the folder.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_prepared && self.configured != self.configuration.changes()
    }

    /// The folder can't be brought up to date; the next try is later each time.
    pub(super) fn postpone_refresh(&mut self, now: &Timestamp) {
        let tries = self.refresh.map_or(0, |(_, tries)| tries);
        self.refresh = Some((time::after(now, OWN_BACKOFF.wait(tries)), tries.saturating_add(1)));
        self.configured = 0;
    }

    /// Keeps for the next kubelet that this pod is to end, so that it isn't started again before the apiserver can be asked.
    pub(super) fn save_end(&mut self, folder: &PodFolder, now: &Timestamp) -> io::Result<()> {
        if let (None, Some(pod)) = (&self.desired, &mut self.pod) {
            pod.meta_mut().deletion_time.get_or_insert(*now);
        }
        if self.is_unkept() { self.save_pod(folder) } else { Ok(()) }
    }

    /// Its folder is gone, and nothing of it was kept.
    pub(super) fn forget_folder(&mut self) {
        (self.is_prepared, self.kept, self.configured) = (false, None, 0);
        self.kept_health = AllHealth::default();
    }

    /// Keeps the ports for the next kubelet.
    pub(super) fn save_ports(&self, folder: &PodFolder) -> io::Result<()> {
        kept::write(&folder.ports(), &PodStatus { ports: self.ports.clone(), ..PodStatus::default() })
    }

    /// A shim is to be started for these runs. An error when the last one has ended without having started one of them, and nobody has waited since.
    pub(super) fn expect(&mut self, runs: &[Run]) -> io::Result<()> {
        if !runs.iter().any(|run| self.asked.get(&run.container) == Some(&run.attempt)) {
            self.in_vain = 0;
        } else if self.failure.is_none() {
            return Err(io::Error::other("the pod's shim has ended without having started anything; why is in its shim.log"));
        } else {
            self.in_vain = self.in_vain.saturating_add(1);
        }
        self.asked = runs.iter().map(|run| (run.container.clone(), run.attempt)).collect();
        Ok(())
    }

    /// There is nothing left of it.
    pub(super) fn expect_nothing(&mut self) {
        (self.asked, self.in_vain) = (BTreeMap::new(), 0);
    }

    /// The shim that this kubelet started lives.
    pub(super) fn has_shim(&self) -> bool {
        self.shim.as_ref().is_some_and(|lives| lives.load(Ordering::Acquire))
    }

    /// The completion of its deletion has begun: the last status is somebody else's to send.
    pub(super) fn is_released(&self) -> bool {
        self.release.is_some()
    }

    /// A run can't be asked for, for a reason and with a message; the next try is later each time.
    pub(super) fn block(&mut self, container: &str, next: Attempt, (reason, message): (&'static str, String), now: &Timestamp) {
        let tries = self.blocked.get(container).map_or(0, |blocked| blocked.tries);
        let retry_at = time::after(now, OWN_BACKOFF.wait(tries));
        let blocked = Blocked { next, reason, message, retry_at, tries: tries.saturating_add(1) };
        self.blocked.insert(container.to_owned(), blocked);
    }

    /// A run goes on in spite of a change; the next try is later each time. True if nobody has been told why yet.
    pub(super) fn hold(&mut self, container: &str, why: &str, now: &Timestamp) -> bool {
        let before = self.held.get(container);
        let tries = before.map_or(0, |held| held.tries);
        let is_news = before.is_none_or(|held| held.why != why);
        let held = Held { until: time::after(now, OWN_BACKOFF.wait(tries)), why: why.to_owned(), tries: tries.saturating_add(1) };
        self.held.insert(container.to_owned(), held);
        is_news
    }

    /// Something could not be done; the next try is later each time. What fails before its time, since the pod was looked at for another reason, is no try:
    /// else to tell of it would be a reason to look again.
    pub(super) fn fail(&mut self, message: String, now: &Timestamp) {
        let retry_at = self.waits_after_failure(now).unwrap_or_else(|| {
            self.failures = if self.failure.is_some() { self.failures.saturating_add(1) } else { self.in_vain };
            time::after(now, OWN_BACKOFF.wait(self.failures))
        });
        self.look_again = self.insists_at(now).into_iter().chain([retry_at]).min_by_key(time::millis);
        self.failure = Some((message, retry_at));
    }
}

/// A message, if it is there and undamaged.
fn whole<M: Message + Default>(path: &Path) -> Option<M> {
    kept::read(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "what an earlier kubelet has left can't be used");
        None
    })
}

/// A file that was cut short may be a message, but not the pod.
fn is_of(pod: &Pod, uid: &PodUid) -> bool {
    let is_whole = pod.meta().uid == uid.as_str() && pod.spec.as_ref().is_some_and(|spec| !spec.containers.is_empty());
    if !is_whole {
        tracing::warn!(pod = %uid, "what an earlier kubelet has left of the pod is not all of it");
    }
    is_whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::observe;
    use crate::kubelet::runtime::Found;
    use crate::kubelet::shim::files::{Cause, ContainerState, Ended, Stage, State};

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
    fn what_is_waited_for_comes_when_it_would_have_come_though_the_clock_was_set() {
        let mut entry = Entry { looked_at: at(999), refresh: Some((at(1_004), 2)), ..Entry::default() };
        entry.fail("no space".to_owned(), &at(1_000));
        entry.block("main", Attempt::default(), (PORT_TAKEN, String::new()), &at(1_000));
        let ended = Ended { cause: Cause::Exited(1), started_at: 0, finished_at: 1, superseded: None };
        let state = |attempt| {
            let stage = Stage::Ended(ended.clone());
            let state = ContainerState { name: "main".into(), attempt, streak: 0, stage, previous: None };
            let found = Found { state: State { containers: vec![state], ..State::default() }, ..Found::default() };
            Some(observe::observed_alone(&found))
        };
        entry.observed = state(3);
        entry.move_times(-3_600_000);
        assert_eq!(entry.clock_set["main"], (3, -3_600_000));
        let now = at(1_000 - 3_600);
        assert_eq!((entry.waits_after_failure(&now), entry.is_due(&now)), (Some(at(1_001 - 3_600)), false));
        assert_eq!((entry.refresh, entry.blocked["main"].retry_at), (Some((at(1_004 - 3_600), 2)), at(1_001 - 3_600)));
        // Set right again, and the next run has ended before that.
        entry.move_times(3_600_000);
        assert_eq!((entry.clock_set["main"], entry.look_again), ((3, 0), Some(at(1_001))));
        entry.observed = state(4);
        entry.move_times(5_000);
        assert_eq!(entry.clock_set["main"], (4, 5_000));
    }

    #[test]
    fn what_failed_is_tried_again_after_its_wait_and_at_once_when_the_clock_was_set_back() {
        let mut entry = Entry::default();
        entry.fail("no space".to_owned(), &at(1_000));
        let waits = |entry: &Entry, now| entry.waits_after_failure(&at(now)).is_some();
        assert_eq!([waits(&entry, 1_000), waits(&entry, 1_001), waits(&entry, 1_000 - 3_600)], [true, false, false]);
        entry.fail("no space".to_owned(), &at(1_001));
        assert_eq!(entry.waits_after_failure(&at(1_002)), Some(at(1_003)), "the wait doubles");
        entry.fail("no space".to_owned(), &at(1_002));
        assert_eq!(entry.failure, Some(("no space".to_owned(), at(1_003))), "looked at for another reason meanwhile");
        // Tried at once after the jump, and then it waits by the new time.
        entry.fail("no space".to_owned(), &at(-2_600));
        assert_eq!(entry.waits_after_failure(&at(-2_599)), Some(at(-2_596)));
    }

    #[test]
    fn a_shim_that_ends_at_once_is_started_again_ever_later_and_one_for_another_run_without_delay() {
        let run = |attempt| [Run { container: "main".into(), attempt, ..Run::default() }];
        let mut entry = Entry::default();
        let mut now = 1_000;
        for wait in [1, 2, 4] {
            entry.expect(&run(0)).unwrap();
            // All went well so far.
            entry.failure = None;
            let error = entry.expect(&run(0)).unwrap_err();
            entry.fail(error.to_string(), &at(now));
            assert_eq!(entry.failure.as_ref().map(|(_, retry_at)| *retry_at), Some(at(now + wait)));
            now += wait;
        }
        entry.failure = None;
        entry.expect(&run(1)).unwrap();
        assert!(entry.expect(&run(1)).is_err());
    }
}
