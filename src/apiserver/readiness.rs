//! What the apiserver says of a node's readiness when its kubelet can't: decisions only.

use std::time::Duration;

use prost_types::Timestamp;

use super::sessions::SilentReason;
use super::writes::Change;
use crate::api::Resource as _;
use crate::api::condition::{self, READY};
use crate::api::v1::object::Kind as Arm;
use crate::api::v1::{Condition, ConditionStatus, Node, NodeSession, NodeStatus, Object};

/// Whether the node counts as alive: the apiserver has to notice when it falls silent.
pub(super) fn counts_as_alive(node: &Object) -> bool {
    ready(node).is_some_and(|ready| ready.status() != ConditionStatus::Unknown)
}

/// Whether an apiserver has called the node silent, and nobody has heard of it since.
pub(super) fn is_called_silent(node: &Object) -> bool {
    let silent = [SilentReason::NodeSilent.as_str(), SilentReason::SessionLost.as_str()];
    ready(node).is_some_and(|ready| ready.status() == ConditionStatus::Unknown && silent.contains(&ready.reason.as_str()))
}

/// Nobody has heard of the node for the grace period.
pub(super) fn fell_silent(node: Object, reason: SilentReason, grace: Duration, now: Timestamp) -> Change {
    if !counts_as_alive(&node) {
        return Change::Nothing;
    }
    let message = match reason {
        SilentReason::NodeSilent => format!("the kubelet is connected, but has sent nothing for {} s", grace.as_secs_f64()),
        SilentReason::SessionLost => format!("the kubelet has not been connected for {} s", grace.as_secs_f64()),
    };
    let silent = with_ready(node, ConditionStatus::Unknown, reason.as_str(), message, now);
    Change::Put(changed(silent, |status| status.session = None))
}

/// The node has a session, which is noted where others share the store. If an apiserver had called it silent, it is ready again.
pub(super) fn came_back(node: Object, session: Option<NodeSession>, now: Timestamp) -> Change {
    let mut next = node.clone();
    if is_called_silent(&node) {
        next = with_ready(next, ConditionStatus::True, "SessionLives", "the kubelet is connected".to_owned(), now);
    }
    if session.is_some() {
        next = changed(next, |status| status.session = session);
    }
    if next == node { Change::Nothing } else { Change::Put(next) }
}

fn ready(node: &Object) -> Option<&Condition> {
    condition::get(&Node::from_object_ref(node)?.status.as_ref()?.conditions, READY)
}

fn with_ready(node: Object, status: ConditionStatus, reason: &str, message: String, now: Timestamp) -> Object {
    changed(node, |of| {
        condition::set(&mut of.conditions, READY, status, reason, message, now);
    })
}

fn changed(mut object: Object, change: impl FnOnce(&mut NodeStatus)) -> Object {
    if let Some(Arm::Node(node)) = &mut object.kind {
        change(node.status.get_or_insert_default());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(15);

    fn node(status: ConditionStatus) -> Object {
        let ready = Condition { r#type: READY.into(), status: status.into(), ..Default::default() };
        let status = NodeStatus { conditions: vec![ready], ..Default::default() };
        Node { status: Some(status), ..Default::default() }.into_object()
    }

    #[test]
    fn a_silent_node_becomes_unknown_once_and_true_when_it_comes_back() {
        let Change::Put(silent) = fell_silent(node(ConditionStatus::True), SilentReason::SessionLost, GRACE, Timestamp::default()) else {
            panic!("nothing changed");
        };
        assert_eq!(ready(&silent).map(|ready| (ready.status(), ready.reason.as_str())), Some((ConditionStatus::Unknown, "SessionLost")));
        assert_eq!(fell_silent(silent.clone(), SilentReason::SessionLost, GRACE, Timestamp::default()), Change::Nothing);
        let Change::Put(back) = came_back(silent, None, Timestamp::default()) else { panic!("nothing changed") };
        assert_eq!(ready(&back).map(Condition::status), Some(ConditionStatus::True));
    }

    #[test]
    fn who_has_the_session_is_noted_once_and_forgotten_when_the_node_is_silent() {
        let session = Some(NodeSession { apiserver: "a".into(), instance_id: "i".into() });
        let of = |object: &Object| Node::from_object_ref(object).and_then(|node| node.status.clone()).and_then(|status| status.session);
        let Change::Put(noted) = came_back(node(ConditionStatus::True), session.clone(), Timestamp::default()) else {
            panic!("nothing changed");
        };
        assert_eq!(of(&noted), session);
        assert_eq!(came_back(noted.clone(), session, Timestamp::default()), Change::Nothing);
        let Change::Put(silent) = fell_silent(noted, SilentReason::SessionLost, GRACE, Timestamp::default()) else {
            panic!("nothing changed");
        };
        assert_eq!(of(&silent), None);
    }

    #[test]
    fn what_the_kubelet_says_itself_is_not_touched_when_it_connects() {
        assert_eq!(came_back(node(ConditionStatus::False), None, Timestamp::default()), Change::Nothing);
        assert_eq!(came_back(node(ConditionStatus::Unknown), None, Timestamp::default()), Change::Nothing);
    }
}
