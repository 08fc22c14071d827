//! Does what a plan says.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost_types::Timestamp;

use super::entry::{Entry, PORT_TAKEN};
use super::kills::Kills;
use super::{Links, Pods, changes};
use crate::api::v1::{EventType, Pod, PodStatus, Service};
use crate::api::{ObjectKey, Resource, Role};
use crate::client::{Backoff, Cached, Client, DeleteOptions, subject};
use crate::error::{Error, Result};
use crate::kubelet::configuration::Lacking;
use crate::kubelet::environment::{self, Surroundings};
use crate::kubelet::os::{Host, Os};
use crate::kubelet::plan::{Action, Attempt, Plan};
use crate::kubelet::ports::PortTaken;
use crate::kubelet::report::status_object;
use crate::kubelet::shim::files::Run;
use crate::kubelet::static_pods::is_static;
use crate::kubelet::uid::PodUid;
use crate::kubelet::volumes::Volumes;
use crate::kubelet::{lifecycle, limits};

/// The longest wait before the first and before any new attempt to complete a deletion.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

impl Pods {
    /// Does the steps in their order, up to the first that takes its time; false when one does, and will wake the pod.
    pub(super) fn apply(&mut self, uid: &PodUid, plan: &Plan, now: &Timestamp) -> io::Result<bool> {
        let mut starts = Vec::new();
        for action in &plan.actions {
            let is_done = match action {
                Action::Prepare => self.prepare(uid, now)?,
                Action::Configure => self.configure(uid, now),
                Action::Start { container, attempt } => {
                    starts.extend(self.ready_to_start(uid, container, *attempt, now)?);
                    true
                }
                Action::End { container, attempt, why } => self.end(uid, container, *attempt, why, now)?,
                Action::AskAgain => self.ask_again(uid)?,
                Action::MarkLost => self.mark_lost(uid, now)?,
                Action::Drain => self.drain(uid),
                Action::Stop { grace } => self.stop(uid, *grace, now)?,
                Action::Release => self.release(uid),
                Action::Remove => self.remove(uid)?,
            };
            if !is_done {
                return Ok(false);
            }
        }
        if !starts.is_empty() {
            self.start(uid, starts)?;
        }
        Ok(true)
    }

    fn prepare(&mut self, uid: &PodUid, now: &Timestamp) -> io::Result<bool> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(false) };
        let folder = self.links.root.pod(uid);
        self.links.processes.prepare(uid)?;
        if entry.is_unkept() {
            entry.save_pod(&folder)?;
        }
        let Some(pod) = &entry.pod else { return Ok(false) };
        let ports = self.ports.assign_again(uid, pod).map_or_else(|| self.ports.assign(uid, pod), Ok);
        entry.ports = ports.map_err(|PortTaken(message)| io::Error::new(io::ErrorKind::AddrInUse, message))?;
        entry.save_ports(&folder)?;
        entry.is_prepared = true;
        Ok(self.configure(uid, now))
    }

    /// Brings the pod's folder up to date. What can't be written is told and tried again later; it holds up nothing else.
    fn configure(&mut self, uid: &PodUid, now: &Timestamp) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        let Some(pod) = entry.pod.as_ref().filter(|_| entry.is_outdated()) else { return true };
        let folder = self.links.root.pod(uid);
        let refreshed = Volumes { pod, folder: &folder, configuration: &entry.configuration }.refresh();
        let told = |reason, note: String| self.links.recorder.event(subject(pod), EventType::Warning, reason, note);
        for (container, why) in changes::unusable_by_running(entry) {
            told(changes::UNUSABLE, changes::goes_on(container, why));
        }
        let refreshed = refreshed.map_err(|error| error.to_string());
        let kept =
            entry.configuration.save(&folder).map_err(|error| format!("what is known of ConfigMaps and Secrets can't be kept: {error}"));
        match refreshed.and(kept) {
            Ok(()) => {
                entry.configured = entry.configuration.changes();
                entry.refresh = None;
            }
            Err(why) => {
                told("FailedMount", why);
                entry.postpone_refresh(now);
            }
        }
        self.links.unsynced.add(folder.configuration());
        true
    }

    /// The run, unless something that it needs can't be had.
    fn ready_to_start(&mut self, uid: &PodUid, container: &str, attempt: Attempt, now: &Timestamp) -> io::Result<Option<Run>> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(None) };
        let Some(pod) = &entry.pod else { return Ok(None) };
        let before = entry.ports.clone();
        if let Err(PortTaken(message)) = self.ports.claim(uid, pod, container, &mut entry.ports) {
            entry.block(container, attempt, (PORT_TAKEN, message), now);
            return Ok(None);
        }
        if entry.ports != before {
            entry.save_ports(&self.links.root.pod(uid))?;
        }
        let namespace = pod.key().namespace().to_owned();
        let services = self.services(&namespace);
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(None) };
        match self.links.run(uid, entry, container, attempt, &services) {
            Ok(run) => {
                entry.blocked.remove(container);
                Ok(run)
            }
            Err((reason, lacking)) => {
                entry.block(container, attempt, explain(reason, lacking), now);
                Ok(None)
            }
        }
    }

    fn start(&mut self, uid: &PodUid, runs: Vec<Run>) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(()) };
        let is_guarded = entry.observed.as_ref().is_some_and(|observed| observed.is_guarded);
        if !is_guarded {
            entry.expect(&runs)?;
        }
        let Some(mut shim) = self.links.processes.start(uid, runs, is_guarded)? else { return Ok(()) };
        let lives = Arc::new(AtomicBool::new(true));
        entry.shim = Some(lives.clone());
        (entry.ending, entry.kills, entry.is_swept) = (None, Kills::default(), false);
        let (wakes, uid, token) = (self.links.wakes.clone(), uid.clone(), self.links.tasks.token());
        self.links.tasks.spawn("shim", async move {
            // A shim that outlives the kubelet is reaped by whoever inherits it.
            if let Some(Err(error)) = token.run_until_cancelled(shim.wait()).await {
                tracing::warn!(pod = %uid, %error, "a shim can't be awaited");
            }
            lives.store(false, Ordering::Release);
            wakes.pod(&uid);
        });
        Ok(())
    }

    fn drain(&self, uid: &PodUid) -> bool {
        let Some(pod) = self.entries.get(uid).and_then(|entry| entry.pod.as_ref()) else { return true };
        self.links.drains.is_drained(uid, pod.key().namespace())
    }

    fn release(&mut self, uid: &PodUid) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return true };
        if let Some(is_released) = &entry.release {
            return is_released.load(Ordering::Acquire);
        }
        let (Some(pod), Some(desired)) = (&entry.pod, &entry.desired) else { return true };
        if is_static(pod) {
            // Nobody waits for its end but whoever comes after it here.
            return true;
        }
        let before = self.links.status_before(uid, pod);
        let last = self.links.status_of(entry, desired, &before);
        let key = pod.key();
        self.links.reporter.forget(uid);
        let is_released = Arc::new(AtomicBool::new(false));
        entry.release = Some(is_released.clone());
        let (client, wakes, uid, token) = (self.links.client.clone(), self.links.wakes.clone(), uid.clone(), self.links.tasks.token());
        self.links.tasks.spawn("release", async move {
            let changed = (last != before).then_some(last);
            if token.run_until_cancelled(complete_deletion(&client, &uid, &key, changed)).await.is_some() {
                is_released.store(true, Ordering::Release);
                wakes.pod(&uid);
            }
        });
        false
    }

    fn remove(&mut self, uid: &PodUid) -> io::Result<bool> {
        self.links.processes.remove(uid)?;
        self.ports.release(uid);
        if let Some(entry) = self.entries.get_mut(uid) {
            (entry.is_prepared, entry.observed, entry.finished, entry.ending) = (false, None, None, None);
            entry.kills = Kills::default();
            entry.expect_nothing();
            entry.ports.clear();
        }
        Ok(true)
    }
}

impl Links {
    /// What the shim is asked for.
    pub(super) fn run(
        &self,
        uid: &PodUid,
        entry: &Entry,
        name: &str,
        attempt: Attempt,
        services: &[Cached<Service>],
    ) -> std::result::Result<Option<Run>, (&'static str, Lacking)> {
        let Some(pod) = &entry.pod else { return Ok(None) };
        let container = pod.spec.as_ref().and_then(|spec| spec.all_containers().find(|container| container.name == name));
        let Some(container) = container else { return Ok(None) };
        let folder = self.root.pod(uid);
        let base = environment::as_user(&self.base_environment, &container.run_as);
        let volumes = Volumes { pod, folder: &folder, configuration: &entry.configuration };
        volumes.mount(container).map_err(|lacking| ("FailedMount", lacking))?;
        let surroundings = Surroundings {
            base: &base,
            root: self.root.path(),
            uid,
            ports: &entry.ports,
            volumes: &volumes.variables(container),
            namespace: &pod.meta().namespace,
            configuration: &entry.configuration,
        };
        let env = environment::environment(container, services.iter().map(|service| &**service), &surroundings);
        let env = env.map_err(|lacking| ("CreateContainerConfigError", lacking))?;
        let working_dir = if container.working_dir.is_empty() { folder.work() } else { container.working_dir.clone().into() };
        let command = environment::command(container, &env);
        Host::lengths().check(&command, &env).map_err(|why| ("CreateContainerConfigError", Lacking::Missing(why)))?;
        let places = self.processes.places();
        let limits = limits::of(container).of(places.enforced());
        let ending = lifecycle::ending(container, &entry.ports, self.host_ip);
        let ending = ending.map_err(|why| ("CreateContainerConfigError", Lacking::Missing(why)))?;
        Ok(Some(Run {
            container: name.to_owned(),
            attempt: attempt.number,
            streak: attempt.streak,
            command,
            program: environment::program(container).cloned(),
            env,
            working_dir,
            log: folder.log(name, attempt.number),
            log_limits: self.log_limits,
            is_sidecar: pod.spec.as_ref().is_some_and(|spec| spec.roles().any(|(other, role)| other.name == name && role == Role::Sidecar)),
            pre_stop: ending.pre_stop,
            stop: ending.stop,
            user: (!container.run_as.is_empty()).then(|| container.run_as.clone()),
            fence: places.of(uid.as_str(), name, &limits),
            limits,
            told: entry.to_tell.usable.get(name).cloned(),
            ..Run::default()
        }))
    }
}

/// As a container that waits tells it.
fn explain(reason: &'static str, lacking: Lacking) -> (&'static str, String) {
    match lacking {
        Lacking::Unknown => ("ContainerCreating", String::new()),
        Lacking::Missing(message) => (reason, message),
    }
}

/// Until the apiserver has taken note: how the pod ended, and that nothing of it is left.
async fn complete_deletion(client: &Client, uid: &PodUid, key: &ObjectKey, mut status: Option<PodStatus>) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let error = match try_to_complete(client, uid, key, &mut status).await {
            Ok(()) | Err(Error::NotFound(_) | Error::Conflict { .. }) => return,
            // It would be each time.
            Err(error @ Error::Invalid(_)) if status.is_some() => {
                tracing::warn!(pod = %key, %error, "the last status of the pod is refused; its deletion is completed without");
                status = None;
                continue;
            }
            Err(error) => error,
        };
        tracing::debug!(pod = %key, %error, "the deletion could not be completed and is tried again");
        tokio::time::sleep(backoff.delay_after(&error)).await;
    }
}

async fn try_to_complete(client: &Client, uid: &PodUid, key: &ObjectKey, status: &mut Option<PodStatus>) -> Result<()> {
    if let Some(last) = status.as_ref() {
        let object = status_object(uid, key, last.clone());
        client.update_status(vec![object]).await?.into_iter().try_for_each(|answer| answer.map(drop))?;
        *status = None;
    }
    let options = DeleteOptions { uid: Some(uid.to_string()), grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete::<Pod>(key.namespace(), key.name(), options).await.map(drop)
}
