//! Reading and writing the conditions of a status.

use prost_types::Timestamp;

use super::v1::{Condition, ConditionStatus};

/// A node is alive; a pod can be used; a service has its address.
pub const READY: &str = "Ready";
/// Of a pod all containers are ready.
pub const CONTAINERS_READY: &str = "ContainersReady";
/// Of a pod that takes its limits as best effort: its node enforces all of them.
pub const LIMITS_ENFORCED: &str = "LimitsEnforced";
/// Of a pod all init containers have ended well and all sidecars have started.
pub const INITIALIZED: &str = "Initialized";
/// A pod has a node.
pub const POD_SCHEDULED: &str = "PodScheduled";

/// The condition of a type.
pub fn get<'a>(conditions: &'a [Condition], condition_type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == condition_type)
}

/// Whether a condition is there and True.
pub fn is_true(conditions: &[Condition], condition_type: &str) -> bool {
    get(conditions, condition_type).is_some_and(|condition| condition.status() == ConditionStatus::True)
}

/// Sets a condition; false if it was so already. The time of its last transition is `now` if the status is another than before.
pub fn set(
    conditions: &mut Vec<Condition>,
    condition_type: &str,
    status: ConditionStatus,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> bool {
    let before = get(conditions, condition_type).cloned();
    let last_transition_time = before.as_ref().filter(|old| old.status() == status).map_or(Some(now), |old| old.last_transition_time);
    let condition = Condition {
        r#type: condition_type.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: message.into(),
        last_transition_time,
    };
    if before.as_ref() == Some(&condition) {
        return false;
    }
    match conditions.iter_mut().find(|known| known.r#type == condition_type) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn the_time_of_the_last_transition_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, READY, ConditionStatus::True, "Running", "", at(1)));
        assert!(set(&mut conditions, READY, ConditionStatus::True, "Adopted", "", at(2)));
        assert_eq!(get(&conditions, READY).and_then(|ready| ready.last_transition_time), Some(at(1)));
        assert!(set(&mut conditions, READY, ConditionStatus::Unknown, "NodeLost", "", at(3)));
        assert_eq!(get(&conditions, READY).and_then(|ready| ready.last_transition_time), Some(at(3)));
        assert_eq!(conditions.len(), 1);
        assert!(!is_true(&conditions, READY));
    }

    #[test]
    fn a_condition_that_is_so_already_is_not_changed() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, READY, ConditionStatus::False, "Starting", "wait", at(1)));
        assert!(!set(&mut conditions, READY, ConditionStatus::False, "Starting", "wait", at(9)));
    }
}
