//! What the apiserver says of a node's readiness when its kubelet can't: decisions only.

use std::time::Duration;

use prost_types::Timestamp;

use super::sessions::SilentReason;
use super::writes::Change;
use crate::api::Resource as _;
use crate::api::condition::{self, READY};
use crate::api::v1::{Condition, ConditionStatus, Node, Object};

/// Whether the node counts as alive: the apiserver has to notice when it falls silent.
pub(super) fn counts_as_alive(node: &Object) -> bool {
    ready(node).is_some_and(|ready| ready.status() != ConditionStatus::Unknown)
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
    with_ready(node, ConditionStatus::Unknown, reason.as_str(), message, now)
}

/// The node has a session. If the apiserver had called it silent, it is ready again.
pub(super) fn came_back(node: Object, now: Timestamp) -> Change {
    let silent = [SilentReason::NodeSilent.as_str(), SilentReason::SessionLost.as_str()];
    match ready(&node) {
        Some(ready) if ready.status() == ConditionStatus::Unknown && silent.contains(&ready.reason.as_str()) => {
            with_ready(node, ConditionStatus::True, "SessionLives", "the kubelet is connected".to_owned(), now)
        }
        _ => Change::Nothing,
    }
}

fn ready(node: &Object) -> Option<&Condition> {
    condition::get(&Node::from_object_ref(node)?.status.as_ref()?.conditions, READY)
}

fn with_ready(node: Object, status: ConditionStatus, reason: &str, message: String, now: Timestamp) -> Change {
    let Some(mut node) = Node::from_object(node) else { return Change::Nothing };
    condition::set(&mut node.status.get_or_insert_default().conditions, READY, status, reason, message, now);
    Change::Put(node.into_object())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::NodeStatus;

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
        let Change::Put(back) = came_back(silent, Timestamp::default()) else { panic!("nothing changed") };
        assert_eq!(ready(&back).map(Condition::status), Some(ConditionStatus::True));
    }

    #[test]
    fn what_the_kubelet_says_itself_is_not_touched_when_it_connects() {
        assert_eq!(came_back(node(ConditionStatus::False), Timestamp::default()), Change::Nothing);
        assert_eq!(came_back(node(ConditionStatus::Unknown), Timestamp::default()), Change::Nothing);
    }
}
