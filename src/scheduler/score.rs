use super::fleet::NodeState;
use super::needs::Needs;

/// How good a node is for a pod that fits there: the smallest is the best. Replicas are spread first, then pods as such.
pub(super) fn score(needs: &Needs, node: &NodeState) -> (u32, u64) {
    let replicas = needs.group.as_ref().map_or(0, |group| node.usage.pods_of_group(group));
    (replicas, node.usage.pods)
}
