//! The pods of this node: for each, observe → plan → apply → report.

mod apply;
mod changes;
mod damage;
mod entry;
mod events;
mod health;
mod kills;
mod services;
mod statics;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entry::Entry;
use prost_types::Timestamp;
use services::Services;
use tokio::time::Instant;

use super::configuration::Followed;
use super::drain::Drains;
use super::environment::Environment;
use super::kept::Unsynced;
use super::observe::{self, Notes};
use super::os::{Host, Os};
use super::plan::{self, DesiredPod, ObservedContainer, ObservedRun};
use super::ports::Ports;
use super::probes::Probes;
use super::report::Reporter;
use super::root::Root;
use super::runtime::{Execs, Processes, shim_ended};
use super::shim::log_files::LogLimits;
use super::static_pods::{Chosen, StaticPods, is_static};
use super::status::{Facts, status};
use super::uid::PodUid;
use super::usage::{Ground, RunningPod};
use super::wakes::{Wakes, Woken};
use crate::api::v1::{Pod, PodStatus, Service};
use crate::api::{Kind, ObjectKey, Resource, Revision};
use crate::client::{Cache, Cached, Client, Recorder};
use crate::tasks::Tasks;
use crate::time::{self, Clock, Steps};

/// How often one pod is planned for in one pass, at most: each plan but the last one did something.
const ROUNDS: usize = 4;

/// How long a kubelet waits for the apiserver before it does what was wanted when it last knew.
const PATIENCE: Duration = Duration::from_secs(5);

/// What acting on pods needs, shared with the other parts of the kubelet.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) node_name: String,
    pub(crate) host_ip: IpAddr,
    pub(crate) capabilities: Vec<String>,
    pub(crate) root: Arc<Root>,
    /// Of each container.
    pub(crate) log_limits: LogLimits,
    pub(crate) processes: Processes,
    pub(crate) execs: Arc<Execs>,
    pub(crate) probes: Probes,
    pub(crate) base_environment: Environment,
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) followed: Arc<Followed>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) recorder: Recorder,
    pub(crate) drains: Arc<Drains>,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) finished: Arc<Finished>,
    pub(crate) unsynced: Arc<Unsynced>,
    pub(crate) statics: Chosen,
    /// Set when the apiserver's cluster is known to be the one whose pods these are.
    pub(crate) has_joined: Arc<AtomicBool>,
    /// Set when all pods shall end, since the kubelet's owner goes away with them.
    pub(crate) stops_all: Arc<AtomicBool>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Arc<Tasks>,
}

/// The pods here that will never run again: whoever follows their logs needn't wait.
#[derive(Debug, Default)]
pub(crate) struct Finished(Mutex<BTreeSet<PodUid>>);

impl Finished {
    pub(crate) fn contains(&self, uid: &PodUid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(uid)
    }

    fn set(&self, uid: &PodUid, is_finished: bool) {
        let mut finished = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_finished {
            finished.insert(uid.clone());
        } else {
            finished.remove(uid);
        }
    }
}

/// Every pod that is wanted here or has left a trace here.
#[derive(Debug)]
pub(crate) struct Pods {
    links: Links,
    entries: BTreeMap<PodUid, Entry>,
    /// An object of one name may have been several pods, one after the other.
    by_key: BTreeMap<ObjectKey, BTreeSet<PodUid>>,
    ports: Ports,
    services: Services,
    /// The static pods as of the last pass.
    statics: Arc<StaticPods>,
    /// False until the cache has shown everything that is wanted of this node, once. Before that nothing is taken for unwanted.
    knows_all: bool,
    /// False until nothing was left of what belongs to no pod.
    is_swept: bool,
    /// Until then a kubelet that knows nothing yet changes nothing: what it remembers may have moved to another node.
    alone_at: Instant,
    /// Whether the machine's clock was set.
    steps: Steps,
}

impl Pods {
    /// Finds again what an earlier kubelet left in the root folder.
    pub(crate) fn adopt(links: Links) -> std::io::Result<Self> {
        let ports = Ports::new(links.host_ip);
        let services = Services::in_folder(links.root.services());
        // Not by the wall clock, which may go back.
        let alone_at = Instant::now() + PATIENCE;
        let steps = Steps::since(links.clock.now(), Instant::now().into_std());
        let mut pods = Self {
            links,
            entries: BTreeMap::new(),
            by_key: BTreeMap::new(),
            ports,
            services,
            statics: Arc::default(),
            knows_all: false,
            is_swept: false,
            alone_at,
            steps,
        };
        pods.clear_unseen();
        for uid in pods.links.processes.list()? {
            if let Err(error) = pods.links.processes.keep_private(&uid) {
                tracing::warn!(pod = %uid, %error, "others may be able to read what is the pod's alone");
            }
            let entry = Entry::from_folder(&uid, &pods.links.root.pod(&uid));
            if let Some(pod) = &entry.pod {
                pods.by_key.entry(pod.key()).or_default().insert(uid.clone());
            }
            pods.links.followed.use_by(&uid, entry.uses.clone(), entry.since);
            pods.ports.remember(&uid, &entry.ports);
            match pods.links.processes.look(&uid) {
                Ok(Some(found)) if found.is_guarded => {
                    tracing::info!(pod = %uid, "adopting a pod that runs");
                    pods.links.wake_at_silence(&uid);
                    // Whoever was here before may have died between writing what he wanted and saying that it is there.
                    if let Err(error) = pods.links.processes.ring(&uid) {
                        tracing::warn!(pod = %uid, %error, "the pod's shim can't be rung");
                    }
                }
                Ok(None) => {}
                Ok(Some(_)) => {
                    if let Err(error) = pods.links.processes.forget_damaged_wishes(&uid) {
                        tracing::warn!(pod = %uid, %error, "what was wanted of the pod's last shim is damaged, and can't be removed");
                    }
                }
                // It is looked at again, and said in its status.
                Err(error) => tracing::warn!(pod = %uid, %error, "what is there of the pod can't be looked at"),
            }
            pods.entries.insert(uid, entry);
        }
        Ok(pods)
    }

    /// Brings these pods, and those of the keys, closer to what is wanted. Gives when to look again even if nothing happens.
    pub(crate) fn pass(&mut self, keys: &BTreeSet<ObjectKey>, woken: Woken) -> Option<Timestamp> {
        let now = self.links.clock.now();
        let was_set = self.notice_steps(&now);
        let is_full = matches!(woken, Woken::All);
        let mut uids = match woken {
            _ if was_set => self.entries.keys().cloned().collect(),
            Woken::Pods(uids) => uids,
            Woken::Due => self.entries.iter().filter(|(_, entry)| entry.is_due(&now)).map(|(uid, _)| uid.clone()).collect(),
            Woken::All => self.entries.keys().cloned().collect(),
        };
        uids.extend(self.know_statics());
        let knew_all = self.knows_all;
        if !self.knows_all && self.links.has_joined.load(Ordering::Acquire) && self.links.cache.revision() > Revision::ZERO {
            self.knows_all = true;
        }
        if self.knows_all && !knew_all {
            let wanted: BTreeSet<ObjectKey> = self.links.cache.list::<Pod>().iter().map(|pod| pod.key()).collect();
            uids.extend(wanted.iter().flat_map(|key| self.know(key)).collect::<Vec<_>>());
            self.sweep();
            uids.extend(self.entries.keys().cloned());
            let kept = self.services.keys();
            kept.iter().for_each(|key| self.keep_service(key));
        } else if self.knows_all {
            if is_full && !self.is_swept {
                self.sweep();
            }
            for key in keys {
                match key.kind() {
                    Kind::Pod => uids.extend(self.know(key)),
                    Kind::Service => self.keep_service(key),
                    _ => {}
                }
            }
        }
        self.links.followed.settle();
        let mut done = BTreeSet::new();
        for uid in uids {
            if done.insert(uid.clone()) {
                self.reconcile(&uid);
            }
        }
        self.links.followed.settle();
        self.entries.values().filter_map(|entry| entry.look_again).min_by_key(time::millis)
    }

    /// True when the machine's clock was set since the last pass: all that is waited for keeps its length.
    fn notice_steps(&mut self, now: &Timestamp) -> bool {
        let by = self.steps.look(*now, Instant::now().into_std());
        if by != 0 {
            tracing::warn!(
                seconds = by as f64 / 1_000.0,
                "the machine's clock was set, or it slept; whatever is waited for keeps its length"
            );
            self.entries.values_mut().for_each(|entry| entry.move_times(by));
        }
        by != 0
    }

    /// The pods that run, with the main processes of their containers, as of the last look at each.
    pub(crate) fn running(&self) -> Vec<RunningPod> {
        let main = |container: &ObservedContainer| match container.run {
            ObservedRun::Running { pid, .. } => Some((container.name.clone(), pid)),
            _ => None,
        };
        let running = |(uid, entry): (&PodUid, &Entry)| {
            let observed = entry.observed.as_ref().filter(|observed| observed.is_guarded)?;
            let containers: Vec<_> = observed.containers.iter().filter_map(main).collect();
            (!containers.is_empty()).then(|| RunningPod { uid: uid.clone(), containers })
        };
        self.entries.iter().filter_map(running).collect()
    }

    /// Where the pods are.
    pub(crate) fn ground(&self) -> Ground {
        Ground { root: self.links.root.clone(), places: self.links.processes.places().clone() }
    }

    /// Whether some process of some pod is still guarded, or may run although nobody can see it.
    pub(crate) fn any_runs(&self) -> bool {
        self.entries.iter().any(|(uid, entry)| self.is_guarded(uid, entry) || self.links.is_gone(uid, entry))
    }

    /// The longest grace period of any pod here.
    pub(crate) fn longest_grace(&self) -> Duration {
        self.entries.values().filter_map(|entry| entry.pod.as_ref()).map(observe::grace_of).max().unwrap_or_default()
    }

    /// Every pod that a key stands or stood for; the one that it stands for now is up to date afterwards.
    fn know(&mut self, key: &ObjectKey) -> Vec<PodUid> {
        let uids = self.by_key.entry(key.clone()).or_default();
        if let Some(pod) = self.links.wanted(key).filter(|pod| !is_static(pod))
            && let Some(uid) = PodUid::new(&pod.meta().uid)
        {
            uids.insert(uid.clone());
            let entry = self.entries.entry(uid.clone()).or_default();
            if entry.take(&pod) {
                self.links.followed.use_by(&uid, entry.uses.clone(), entry.since);
            }
        }
        let known = uids.iter().cloned().collect();
        if uids.is_empty() {
            self.by_key.remove(key);
        }
        known
    }

    fn reconcile(&mut self, uid: &PodUid) {
        for _ in 0..ROUNDS {
            match self.step(uid) {
                Ok(true) => continue,
                Ok(false) => break,
                Err(error) => {
                    let Some(entry) = self.entries.get_mut(uid) else { return };
                    tracing::warn!(pod = %uid, %error, "the pod can't be made as it should be");
                    entry.fail(error.to_string(), &self.links.clock.now());
                    break;
                }
            }
        }
        if let Some(entry) = self.entries.get_mut(uid) {
            self.links.report(uid, entry);
            if self.links.finished.contains(uid) {
                self.ports.release(uid);
            }
        }
    }

    /// One turn for one pod; true when something was done and more may be to do.
    fn step(&mut self, uid: &PodUid) -> std::io::Result<bool> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(false) };
        let now = self.links.clock.now();
        let is_static = entry.pod.as_ref().is_some_and(is_static);
        match is_static {
            true => self.links.observe_static(uid, entry, &self.statics, self.knows_all)?,
            false => self.links.observe(uid, entry, self.knows_all)?,
        }
        if is_static && self.has_predecessor(uid) {
            return Ok(false);
        }
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(false) };
        self.links.keep(uid, entry);
        // Whatever failed, it holds up no deletion and no end.
        let shall_run = entry.desired.as_ref().is_some_and(|desired| desired.deleted.is_none());
        entry.looked_at = now;
        if let Some(retry_at) = entry.waits_after_failure(&now)
            && shall_run
            && !self.links.stops_all.load(Ordering::Acquire)
        {
            entry.look_again = Some(retry_at);
            return Ok(false);
        }
        let knows = self.knows_all || is_static;
        let patience_left = self.alone_at.saturating_duration_since(Instant::now());
        if !knows && !patience_left.is_zero() {
            entry.look_again = Some(time::after(&now, patience_left));
            return Ok(false);
        }
        let stops_all = self.links.stops_all.load(Ordering::Acquire);
        let runs_unprepared = !entry.is_prepared && entry.observed.as_ref().is_some_and(|observed| observed.is_guarded);
        if !knows && !stops_all && (entry.desired.is_none() || runs_unprepared) {
            // What it is, or which ports it has, can't be read, and nobody can be asked: what runs of it goes on.
            entry.look_again = None;
            return Ok(false);
        }
        let plan = match stops_all {
            true => plan::plan_to_stop(entry.observed.as_ref()),
            false => plan::plan(entry.desired.as_ref(), entry.observed.as_ref(), &now),
        };
        entry.look_again = plan.look_again;
        if plan.actions.is_empty() {
            entry.failure = None;
            if entry.desired.is_none() && entry.observed.is_none() {
                self.forget(uid);
            }
            return Ok(false);
        }
        tracing::debug!(pod = %uid, %plan, "planned");
        let is_done = self.apply(uid, &plan, &now)?;
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.failure = None;
        }
        Ok(is_done)
    }

    /// Keeps, or forgets, a service if pods here may be told of it.
    fn keep_service(&mut self, key: &ObjectKey) {
        let first = ObjectKey::lower_bound(Kind::Pod, key.namespace());
        let has_pods = self.by_key.range(first..).next().is_some_and(|(pod, _)| pod.namespace() == key.namespace());
        match self.links.cache.get::<Service>(key.namespace(), key.name()) {
            Some(service) if has_pods => self.keep_one(&service),
            Some(_) => {}
            None => self.services.forget(key),
        }
    }

    /// The services that a pod of a namespace is told of.
    fn services(&mut self, namespace: &str) -> Vec<Cached<Service>> {
        if !self.knows_all {
            let kept = self.services.in_namespace(namespace);
            return kept.into_iter().filter_map(|service| Cached::new(Arc::new(service.into_object()))).collect();
        }
        let services = self.links.cache.list_in::<Service>(namespace);
        services.iter().for_each(|service| self.keep_one(service));
        services
    }

    fn keep_one(&mut self, service: &Service) {
        if self.links.root.check_place().is_ok() {
            self.services.keep(service).into_iter().for_each(|file| self.links.unsynced.add(file));
        }
    }

    /// Kills what runs of pods whose folders were removed while there was no kubelet: nothing there can be seen or asked, and a pod of the same uid, as that of
    /// an unchanged static pod, would run beside it.
    fn clear_unseen(&self) {
        let has_folder = |pod: &str| PodUid::new(pod).is_some_and(|uid| self.links.root.pod(&uid).path().try_exists().unwrap_or(true));
        match self.links.processes.sweep(has_folder) {
            Ok(0) => {}
            Ok(killed) => tracing::warn!(killed, "killed processes of pods whose folders were removed"),
            Err(error) => tracing::error!(%error, "what is left of pods without a folder can't be killed"),
        }
    }

    /// Kills processes that carry this kubelet's mark and belong to no pod that is guarded. With whatever doesn't end it is tried again.
    fn sweep(&mut self) {
        let guarded: BTreeSet<PodUid> =
            self.entries.iter().filter(|(uid, entry)| self.is_guarded(uid, entry)).map(|(uid, _)| uid.clone()).collect();
        match self.links.processes.sweep(|pod| PodUid::new(pod).is_some_and(|uid| guarded.contains(&uid))) {
            Ok(killed) => {
                if killed > 0 {
                    tracing::warn!(killed, "killed processes that belonged to no pod any more");
                }
                self.is_swept = true;
                self.entries.iter_mut().for_each(|(uid, entry)| entry.is_swept = !guarded.contains(uid));
            }
            Err(error) => tracing::error!(%error, "something is left that belongs to no pod"),
        }
    }

    fn is_guarded(&self, uid: &PodUid, entry: &Entry) -> bool {
        // What can't be looked at may well be.
        entry.has_shim() || self.links.processes.look(uid).map_or(true, |found| found.is_some_and(|found| found.is_guarded))
    }

    fn forget(&mut self, uid: &PodUid) {
        self.entries.remove(uid);
        self.ports.release(uid);
        self.links.reporter.forget(uid);
        self.links.drains.forget(uid);
        self.links.followed.forget(uid);
        self.links.probes.forget(uid);
        self.links.finished.set(uid, false);
        self.by_key.retain(|_, uids| {
            if uids.remove(uid) {
                // One of them may have waited for this one's end.
                uids.iter().for_each(|next| self.links.wakes.pod(next));
            }
            !uids.is_empty()
        });
    }
}

impl Links {
    /// The object of a key, if it is a pod of this node.
    fn wanted(&self, key: &ObjectKey) -> Option<Cached<Pod>> {
        let pod = self.cache.get::<Pod>(key.namespace(), key.name())?;
        (pod.spec.as_ref()?.node_name == self.node_name).then_some(pod)
    }

    /// Brings an entry up to date with the objects and the files.
    fn observe(&self, uid: &PodUid, entry: &mut Entry, knows_all: bool) -> std::io::Result<()> {
        let wanted = entry.pod.as_ref().and_then(|pod| self.wanted(&pod.key())).filter(|pod| pod.meta().uid == uid.as_str());
        entry.is_current = knows_all && wanted.is_some();
        match (knows_all, wanted) {
            (true, Some(pod)) => {
                entry.desired = Some(observe::desired(&pod, &self.capabilities));
                entry.pod = Some((*pod).clone());
            }
            (true, None) => entry.desired = None,
            // Alone: what was wanted when it was last known still is.
            (false, _) => entry.desired = entry.pod.as_ref().map(|pod| observe::desired(pod, &self.capabilities)),
        }
        self.look(uid, entry)
    }

    /// What there is of a pod, and of what it uses.
    fn look(&self, uid: &PodUid, entry: &mut Entry) -> std::io::Result<()> {
        let found = self.find(uid, entry)?;
        self.execs.end_unless(uid, |container, attempt| found.as_ref().is_some_and(|found| found.runs(container, attempt)));
        for key in entry.uses.clone() {
            if let Some(object) = self.followed.look(uid, &key, entry.since) {
                entry.learn(&key, object);
            }
        }
        self.observe_health(uid, entry, found.as_ref());
        events::tell_failures(&self.recorder, entry, found.as_ref().map_or(&[], |found| &found.state.failures));
        let grace = entry.pod.as_ref().map(observe::grace_of).unwrap_or_default();
        entry.tell_anew();
        let notes = Notes {
            is_prepared: entry.is_prepared,
            is_outdated: entry.is_outdated(),
            refresh_at: entry.refresh.map(|(at, _)| at),
            grace,
            blocked: &entry.blocked,
            health: &entry.health,
            told: &entry.to_tell.usable,
            held: &entry.held,
            clock_set: &entry.clock_set,
        };
        entry.observed = found.map(|found| observe::observed(&found, &notes));
        Ok(())
    }

    /// Keeps on disk what has to be known of a pod when nobody can be asked; if that fails now, it is tried again at the next look.
    fn keep(&self, uid: &PodUid, entry: &mut Entry) {
        let is_wanted = entry.desired.as_ref().is_some_and(|desired| desired.deleted.is_none() && !desired.is_finished);
        if !entry.is_unkept() || (entry.observed.is_none() && !is_wanted) {
            return;
        }
        let folder = self.root.pod(uid);
        let made = self.root.check_place().and_then(|()| Host::make_private_folder(folder.path()));
        match made.and_then(|()| entry.save_pod(&folder)) {
            Ok(()) => self.unsynced.add(folder.pod()),
            Err(error) => tracing::warn!(pod = %uid, %error, "the pod can't be kept for the time without an apiserver"),
        }
    }

    /// Tells the apiserver how a pod is, if it is not so already.
    fn report(&self, uid: &PodUid, entry: &mut Entry) {
        let (Some(pod), Some(desired)) = (&entry.pod, &entry.desired) else { return };
        let before = self.status_before(uid, pod);
        let next = self.status_of(entry, desired, &before);
        let is_finished = super::phase::is_finished(next.phase());
        self.finished.set(uid, is_finished);
        if is_finished && entry.finished.is_none() {
            entry.finished = Some(next.phase());
            self.keep(uid, entry);
        }
        let Some(pod) = &entry.pod else { return };
        if !entry.is_current || entry.is_released() || next == before {
            return;
        }
        events::record(&self.recorder, pod, &before, &next);
        self.reporter.report(uid, &pod.key(), next);
    }

    /// The newest status that the apiserver has or will have.
    fn status_before(&self, uid: &PodUid, pod: &Pod) -> PodStatus {
        let cached = || pod.status.clone().unwrap_or_default();
        self.reporter.newest(uid, Revision(pod.meta().resource_version)).unwrap_or_else(cached)
    }

    fn status_of(&self, entry: &Entry, desired: &DesiredPod, before: &PodStatus) -> PodStatus {
        status(&Facts {
            before,
            desired,
            observed: entry.observed.as_ref(),
            ports: &entry.ports,
            host_ip: &self.host_ip.to_string(),
            failure: entry.failure.as_ref(),
            now: &self.clock.now(),
        })
    }

    /// Wakes a pod when its shim, which is not our child, is gone.
    fn wake_at_silence(&self, uid: &PodUid) {
        let (folder, wakes, uid, token) = (self.root.pod(uid), self.wakes.clone(), uid.clone(), self.tasks.token());
        self.tasks.spawn("adopted shim", async move {
            if let Some(Err(error)) = token.run_until_cancelled(shim_ended(folder)).await {
                tracing::warn!(pod = %uid, %error, "the end of a shim will be seen late");
            }
            wakes.pod(&uid);
        });
    }
}
