//! Gives every pod its node.
//!
//! `decide` is pure: what a pod needs, against what the nodes have. The loop around it keeps the fleet up to date by the
//! changes of a cache, so that a decision never counts all pods, and counts a pod on its node from the moment it was decided.

mod decide;
mod filters;
mod fleet;
mod needs;
mod score;

use std::sync::{Mutex, MutexGuard, PoisonError};

use decide::{Decision, decide};
use fleet::{Fleet, Standing};
use needs::Needs;

use crate::api::v1::{ConditionStatus, EventType, Node, Object, Pod, PodPhase, object};
use crate::api::{Kind, ObjectKey, Resource, condition};
use crate::client::{Cache, Client, Recorder, subject};
use crate::error::{Error, Result};
use crate::reconcile::{self, Options, Outcome, Reconciler};
use crate::tasks::Tasks;
use crate::time::Clock;

/// How many pods are bound at once: enough to share the store's group commits.
const BINDINGS_AT_ONCE: usize = 64;
/// Why a pod is not scheduled, for programs.
const UNSCHEDULABLE: &str = "Unschedulable";

/// What the cache that it works from has to hold.
pub const KINDS: [Kind; 2] = [Kind::Pod, Kind::Node];

/// Starts to bind pods to nodes, on a cache of at least [`KINDS`].
pub fn start(client: Client, cache: Cache, clock: Clock, tasks: &Tasks) {
    let recorder = Recorder::new(client.clone(), "scheduler", clock.clone(), tasks);
    let scheduler = Scheduler { client, cache: cache.clone(), recorder, clock, fleet: Mutex::default() };
    let options = Options { concurrency: BINDINGS_AT_ONCE, ..Options::default() };
    reconcile::start(scheduler, cache, options, tasks);
}

/// Takes away from a pod that has its node what neither scheduler nor controllers read of it, which is most of it. Only a pod without a node is written
/// as it was read.
pub fn trim(object: &mut Object) {
    let Some(object::Kind::Pod(Pod { metadata: Some(metadata), spec: Some(spec), .. })) = &mut object.kind else { return };
    if spec.node_name.is_empty() {
        return;
    }
    metadata.annotations.clear();
    metadata.managed_fields.clear();
    for container in spec.all_containers_mut() {
        container.command.clear();
        container.args.clear();
        container.env.clear();
        (container.startup_probe, container.liveness_probe, container.readiness_probe) = (None, None, None);
    }
}

/// Binds pods; a key is a pod.
struct Scheduler {
    client: Client,
    cache: Cache,
    recorder: Recorder,
    clock: Clock,
    fleet: Mutex<Fleet>,
}

impl Reconciler for Scheduler {
    type Key = ObjectKey;
    const NAME: &'static str = "scheduler";

    fn affected(&self, changed: &ObjectKey) -> Vec<ObjectKey> {
        match changed.kind() {
            Kind::Pod => {
                let pod = self.cache.get::<Pod>(changed.namespace(), changed.name());
                let unbound = pod.as_ref().is_some_and(|pod| wants_node(pod));
                let mut affected = self.fleet().observe_pod(changed, pod.as_deref());
                affected.extend(unbound.then(|| changed.clone()));
                affected
            }
            Kind::Node => self.fleet().observe_node(changed.name(), self.cache.get::<Node>("", changed.name()).as_deref()),
            Kind::Service | Kind::EndpointSlice | Kind::Namespace | Kind::Event | Kind::Lease | Kind::ConfigMap | Kind::Secret => {
                Vec::new()
            }
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome> {
        let Some(pod) = self.cache.get::<Pod>(key.namespace(), key.name()).filter(|pod| wants_node(pod)) else {
            return Ok(Outcome::Done);
        };
        match self.choose(&key, &pod) {
            Some(Decision::Bind(node_name)) => self.bind(&key, &pod, &node_name).await?,
            Some(Decision::Unschedulable(message)) => self.report(&pod, &message).await?,
            // It is bound, and the cache will show it in a moment.
            None => {}
        }
        Ok(Outcome::Done)
    }
}

impl Scheduler {
    /// Decides, and counts the pod on its node from now on.
    fn choose(&self, key: &ObjectKey, pod: &Pod) -> Option<Decision> {
        let mut fleet = self.fleet();
        match fleet.standing(key, &pod.meta().uid) {
            Standing::Bound => return None,
            // The attempt may have been written although it failed: only the same node is safe.
            Standing::Assumed(node_name) => return Some(Decision::Bind(node_name)),
            Standing::Free => {}
        }
        let needs = Needs::of(pod);
        let decision = decide(&needs, fleet.nodes());
        match &decision {
            Decision::Bind(node_name) => fleet.assume(key, &pod.meta().uid, node_name, needs),
            Decision::Unschedulable(_) => fleet.park(key),
        }
        Some(decision)
    }

    async fn bind(&self, key: &ObjectKey, pod: &Pod, node_name: &str) -> Result<()> {
        let mut bound = pod.clone();
        bound.spec.get_or_insert_default().node_name = node_name.to_owned();
        match self.client.update(bound).await {
            Ok(_) => {
                self.fleet().confirm(key);
                self.recorder.event(subject(pod), EventType::Normal, "Scheduled", format!("Bound to node {node_name}"));
                Ok(())
            }
            Err(error) => {
                if !error.is_retryable() {
                    self.fleet().forget(key);
                }
                match error {
                    Error::NotFound(_) => Ok(()),
                    error => Err(error),
                }
            }
        }
    }

    async fn report(&self, pod: &Pod, message: &str) -> Result<()> {
        let mut reported = pod.clone();
        let conditions = &mut reported.status.get_or_insert_default().conditions;
        if !condition::set(conditions, condition::POD_SCHEDULED, ConditionStatus::False, UNSCHEDULABLE, message, self.clock.now()) {
            return Ok(());
        }
        for result in self.client.update_status(vec![reported.into_object()]).await? {
            match result {
                Ok(_) => self.recorder.event(subject(pod), EventType::Warning, UNSCHEDULABLE, message),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wants_node(pod: &Pod) -> bool {
    let unbound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_empty());
    unbound && pod.meta().deletion_time.is_none() && !has_ended(pod)
}

fn has_ended(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| matches!(status.phase(), PodPhase::Succeeded | PodPhase::Failed))
}

#[cfg(test)]
mod tests;
