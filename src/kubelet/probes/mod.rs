//! Probes: whether a container has started, lives, and can take work. A light task for each run of a container that has any, and none for those without.

mod check;
mod tally;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::DropGuard;

use self::check::Check;
pub(crate) use self::check::Checker;
use self::watch::{Kind, Probed, Watch};
use super::plan::Health;
use super::uid::PodUid;
use super::wakes::Wakes;
use crate::api::v1::{AssignedPort, Container, Pod, Probe};
use crate::client::{Recorder, subject as regarding};
use crate::tasks::Tasks;

/// The runs that are probed.
#[derive(Debug)]
pub(crate) struct Probes {
    host_ip: IpAddr,
    checker: Arc<Checker>,
    recorder: Recorder,
    wakes: Arc<Wakes>,
    tasks: Arc<Tasks>,
    watched: Mutex<BTreeMap<PodUid, BTreeMap<String, Watched>>>,
}

/// One run that is probed, until this is dropped.
#[derive(Debug)]
struct Watched {
    attempt: u32,
    health: Arc<Mutex<Health>>,
    _ends: DropGuard,
}

/// A pod, as far as its probes need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) uid: &'a PodUid,
    pub(crate) pod: &'a Pod,
    pub(crate) ports: &'a [AssignedPort],
}

impl Probes {
    pub(crate) fn new(host_ip: IpAddr, checker: Checker, recorder: Recorder, wakes: Arc<Wakes>, tasks: Arc<Tasks>) -> Self {
        Self { host_ip, checker: Arc::new(checker), recorder, wakes, tasks, watched: Mutex::default() }
    }

    /// Makes sure that exactly these runs of a pod are probed, each container with its attempt, and brings what is known of their health up to date.
    /// `health` is what was known before, also by an earlier kubelet.
    pub(crate) fn follow(&self, subject: Subject<'_>, running: &BTreeMap<String, u32>, health: &mut BTreeMap<String, Health>) {
        let containers = subject.pod.spec.iter().flat_map(|spec| spec.all_containers()).filter(|container| has_probes(container));
        let probed: Vec<(&Container, u32)> = containers.filter_map(|container| Some((container, *running.get(&container.name)?))).collect();
        let mut all = self.lock();
        if probed.is_empty() {
            all.remove(subject.uid);
            return;
        }
        let watched = all.entry(subject.uid.clone()).or_default();
        watched.retain(|name, watched| probed.iter().any(|(container, attempt)| container.name == *name && watched.attempt == *attempt));
        for (container, attempt) in probed {
            let known = health.remove(&container.name).filter(|known| known.attempt == attempt);
            let watched = watched.entry(container.name.clone()).or_insert_with(|| self.watch(subject, container, attempt, known));
            health.insert(container.name.clone(), watched.health());
        }
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.lock().remove(uid);
    }

    fn watch(&self, subject: Subject<'_>, container: &Container, attempt: u32, known: Option<Health>) -> Watched {
        let is_resumed = known.is_some();
        let health = Arc::new(Mutex::new(known.unwrap_or_else(|| first_health(container, attempt))));
        let probed = |kind: Kind, probe: &Option<Probe>| {
            let probe = probe.clone()?;
            let check = Check::of(&probe, &container.name, subject.ports, self.host_ip);
            Some(Probed { kind, probe, check })
        };
        let watch = Watch {
            uid: subject.uid.clone(),
            container: container.name.clone(),
            subject: regarding(subject.pod),
            startup: probed(Kind::Startup, &container.startup_probe),
            liveness: probed(Kind::Liveness, &container.liveness_probe),
            readiness: probed(Kind::Readiness, &container.readiness_probe),
            is_resumed,
            health: health.clone(),
            checker: self.checker.clone(),
            recorder: self.recorder.clone(),
            wakes: self.wakes.clone(),
        };
        let token = self.tasks.token().child_token();
        let ends = token.clone().drop_guard();
        self.tasks.spawn("probes", async move {
            let _ended = token.run_until_cancelled(watch.run()).await;
        });
        Watched { attempt, health, _ends: ends }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, BTreeMap<String, Watched>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Before any probe has been tried.
fn first_health(container: &Container, attempt: u32) -> Health {
    let started = container.startup_probe.is_none();
    Health { attempt, started, ready: started && container.readiness_probe.is_none(), ..Health::default() }
}

fn has_probes(container: &Container) -> bool {
    container.startup_probe.is_some() || container.liveness_probe.is_some() || container.readiness_probe.is_some()
}
