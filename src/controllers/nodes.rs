//! Speaks for the pods of nodes that don't: marks them when their node is silent, and completes their deletion when their node is gone.

use super::Context;
use crate::api::v1::{ConditionStatus, EventType, Node, Pod, PodPhase};
use crate::api::{Kind, ObjectKey, Resource, Revision, condition};
use crate::client::{DeleteOptions, subject};
use crate::error::{Error, Result};
use crate::reconcile::{Outcome, Reconciler};

/// Why a pod's `Ready` is Unknown while its node is silent or gone.
const NODE_LOST: &str = "NodeLost";

/// Watches over pods whose node can't; a key is a pod. Making them ready again is the kubelet's part.
pub(super) struct Nodes(pub(super) Context);

/// What a bound pod needs that its kubelet can't do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    MarkLost,
    Remove,
}

impl Reconciler for Nodes {
    type Key = ObjectKey;
    const NAME: &'static str = "nodes";

    fn affected(&self, changed: &ObjectKey) -> Vec<ObjectKey> {
        match changed.kind() {
            Kind::Pod => vec![changed.clone()],
            Kind::Node => {
                let pods = self.0.cache.select::<Pod>("", |pod| pod.node_name() == changed.name());
                pods.iter().map(|pod| pod.key()).collect()
            }
            Kind::Service | Kind::EndpointSlice | Kind::Namespace | Kind::Event | Kind::Lease | Kind::ConfigMap | Kind::Secret => {
                Vec::new()
            }
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome> {
        let Some(pod) = self.0.cache.get::<Pod>(key.namespace(), key.name()) else { return Ok(Outcome::Done) };
        let node_name = pod.object().node_name();
        let node = self.0.cache.get::<Node>("", node_name);
        match decide(&pod, node.as_deref()) {
            Decision::Nothing => {}
            Decision::MarkLost => self.mark_lost(&pod, node_name).await?,
            Decision::Remove => self.remove(&pod).await?,
        }
        Ok(Outcome::Done)
    }
}

impl Nodes {
    async fn mark_lost(&self, pod: &Pod, node_name: &str) -> Result<()> {
        let mut lost = pod.clone();
        let conditions = &mut lost.status.get_or_insert_default().conditions;
        let message = format!("node {node_name} is silent");
        condition::set(conditions, condition::READY, ConditionStatus::Unknown, NODE_LOST, message, self.0.clock.now());
        for result in self.0.client.update_status(vec![lost.into_object()]).await? {
            match result {
                Ok(_) => {
                    let note = format!("The node {node_name} is silent; whether the pod still runs there is not known");
                    self.0.recorder.event(subject(pod), EventType::Warning, NODE_LOST, note);
                }
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn remove(&self, pod: &Pod) -> Result<()> {
        // At this version: whoever has changed it meanwhile knew better.
        let (uid, version) = (pod.meta().uid.clone(), Revision(pod.meta().resource_version));
        let options =
            DeleteOptions { uid: Some(uid), resource_version: Some(version), grace_period_seconds: Some(0), ..Default::default() };
        match self.0.client.delete_object(&pod.key(), options).await {
            Ok(_) | Err(Error::NotFound(_) | Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn decide(pod: &Pod, node: Option<&Node>) -> Decision {
    let unbound = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_empty());
    let status = pod.status.clone().unwrap_or_default();
    let ended = matches!(status.phase(), PodPhase::Succeeded | PodPhase::Failed);
    let node_ready =
        node.and_then(|node| node.status.as_ref()).is_some_and(|status| condition::is_true(&status.conditions, condition::READY));
    let ready = condition::get(&status.conditions, condition::READY);
    let marked = ready.is_some_and(|ready| ready.status() == ConditionStatus::Unknown && ready.reason == NODE_LOST);
    match node {
        _ if unbound => Decision::Nothing,
        // Nobody will ever say that its processes are gone.
        None if pod.meta().deletion_time.is_some() => Decision::Remove,
        // A pod that no kubelet took up may wait for a node that is yet to join.
        None if ready.is_none() => Decision::Nothing,
        _ if node_ready || ended || marked => Decision::Nothing,
        _ => Decision::MarkLost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{NodeStatus, ObjectMeta, PodSpec, PodStatus};

    fn pod(node_name: &str, phase: PodPhase, ready: Option<(ConditionStatus, &str)>) -> Pod {
        let mut status = PodStatus { phase: phase.into(), ..Default::default() };
        if let Some((ready, reason)) = ready {
            condition::set(&mut status.conditions, condition::READY, ready, reason, "", Default::default());
        }
        let spec = PodSpec { node_name: node_name.into(), ..Default::default() };
        Pod { metadata: Some(ObjectMeta::default()), spec: Some(spec), status: Some(status) }
    }

    fn node(ready: ConditionStatus) -> Node {
        let mut status = NodeStatus::default();
        condition::set(&mut status.conditions, condition::READY, ready, "", "", Default::default());
        Node { status: Some(status), ..Default::default() }
    }

    fn deleted(mut pod: Pod) -> Pod {
        pod.meta_mut().deletion_time = Some(Default::default());
        pod
    }

    const RUNS: Option<(ConditionStatus, &str)> = Some((ConditionStatus::True, ""));
    const MARKED: Option<(ConditionStatus, &str)> = Some((ConditionStatus::Unknown, NODE_LOST));

    #[test]
    fn pods_of_a_silent_node_are_marked_once() {
        let silent = node(ConditionStatus::Unknown);
        assert_eq!(decide(&pod("n1", PodPhase::Running, RUNS), Some(&silent)), Decision::MarkLost);
        assert_eq!(decide(&pod("n1", PodPhase::Pending, None), Some(&silent)), Decision::MarkLost);
        assert_eq!(decide(&pod("n1", PodPhase::Running, MARKED), Some(&silent)), Decision::Nothing);
    }

    #[test]
    fn pods_of_a_living_node_and_pods_that_ended_are_left_alone() {
        assert_eq!(decide(&pod("n1", PodPhase::Running, RUNS), Some(&node(ConditionStatus::True))), Decision::Nothing);
        assert_eq!(decide(&pod("n1", PodPhase::Running, MARKED), Some(&node(ConditionStatus::True))), Decision::Nothing);
        assert_eq!(decide(&pod("n1", PodPhase::Succeeded, None), Some(&node(ConditionStatus::Unknown))), Decision::Nothing);
        assert_eq!(decide(&pod("", PodPhase::Pending, None), None), Decision::Nothing);
    }

    #[test]
    fn a_deleted_pod_waits_for_a_silent_node_but_not_for_one_that_is_gone() {
        let leaving = deleted(pod("n1", PodPhase::Running, MARKED));
        assert_eq!(decide(&leaving, Some(&node(ConditionStatus::Unknown))), Decision::Nothing);
        assert_eq!(decide(&leaving, None), Decision::Remove);
    }

    #[test]
    fn a_pod_of_a_removed_node_is_marked_but_one_that_never_started_may_wait_for_its_node() {
        assert_eq!(decide(&pod("n1", PodPhase::Running, RUNS), None), Decision::MarkLost);
        assert_eq!(decide(&pod("n1", PodPhase::Pending, None), None), Decision::Nothing);
    }
}
