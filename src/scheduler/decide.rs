use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::filters::misfit;
use super::fleet::NodeState;
use super::needs::Needs;
use super::score::score;

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It goes to this node.
    Bind(String),
    /// No node fits, for these reasons.
    Unschedulable(String),
}

/// Chooses the best of the nodes that fit; of equals the first by name.
pub(super) fn decide<'a>(needs: &Needs, nodes: impl Iterator<Item = (&'a str, &'a NodeState)>) -> Decision {
    let mut best = None;
    let mut misfits = BTreeMap::new();
    for (name, node) in nodes {
        match misfit(needs, node) {
            Some(misfit) => *misfits.entry(misfit).or_insert(0) += 1,
            None => {
                let candidate = (score(needs, node), name);
                if best.is_none_or(|best| candidate < best) {
                    best = Some(candidate);
                }
            }
        }
    }
    if let Some((_, name)) = best {
        return Decision::Bind(name.to_owned());
    }
    let nodes: usize = misfits.values().sum();
    if nodes == 0 {
        return Decision::Unschedulable("0/0 nodes fit: no node has joined".into());
    }
    let mut reasons: Vec<_> = misfits.into_iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(*count));
    let reasons: Vec<_> = reasons.iter().map(|(misfit, count)| misfit.describe(*count)).collect();
    Decision::Unschedulable(format!("0/{nodes} nodes fit: {}", reasons.join(", ")))
}

#[cfg(test)]
mod tests;
