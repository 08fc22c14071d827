//! What the scheduler knows of nodes, and what pods take of them, summed up per node as pods come and go.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::has_ended;
use super::needs::{Needs, Port};
use crate::api::v1::{Node, Pod};
use crate::api::{ObjectKey, Resource, condition, quantity};

/// All nodes and the pods on them.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// Also nodes that are not known, or no more, but have pods.
    nodes: BTreeMap<Arc<str>, NodeState>,
    placed: HashMap<ObjectKey, Placed>,
    /// What placed pods need, once for all that need the same.
    needs: HashSet<Arc<Needs>>,
    /// Pods that no node fitted when they were last looked at.
    parked: BTreeSet<ObjectKey>,
    /// Since parked pods were last handed out, some pod took less or some node offered more.
    freed: bool,
}

/// One node.
#[derive(Debug, Default)]
pub(super) struct NodeState {
    known: bool,
    pub(super) ready: bool,
    pub(super) unschedulable: bool,
    pub(super) labels: HashMap<String, String>,
    pub(super) capabilities: BTreeSet<String>,
    pub(super) capacity: Capacity,
    pub(super) usage: Usage,
}

/// What a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    /// `None`: as many as there come.
    pub(super) pods: Option<u64>,
}

/// What pods take of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    pub(super) pods: u64,
    ports: HashMap<Port, u32>,
    groups: HashMap<Arc<str>, u32>,
}

#[derive(Debug)]
struct Placed {
    uid: Box<str>,
    node_name: Arc<str>,
    needs: Arc<Needs>,
    certainty: Certainty,
}

/// Whence it is known that a pod is on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// It was decided; the write is under way, or failed in a way that does not tell whether it was done.
    Assumed,
    /// The apiserver said so.
    Written,
    /// The cache shows it.
    Seen,
}

/// Where a pod that the cache shows without a node really stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was decided.
    Free,
    /// This node was decided on.
    Assumed(String),
    /// It has its node.
    Bound,
}

impl Fleet {
    /// The nodes that have joined, by name.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &NodeState)> {
        self.nodes.iter().filter(|(_, node)| node.known).map(|(name, node)| (&**name, node))
    }

    /// Takes in a node as it is now, `None` when it is gone. Returns the parked pods, which may fit now.
    pub(super) fn observe_node(&mut self, name: &str, node: Option<&Node>) -> Vec<ObjectKey> {
        let state = self.nodes.entry(name.into()).or_default();
        match node {
            Some(node) => state.observe(node),
            None => *state = NodeState { usage: std::mem::take(&mut state.usage), ..NodeState::default() },
        }
        self.drop_if_empty(name);
        self.freed = true;
        self.unpark()
    }

    /// Takes in a pod as it is now, `None` when it is gone. Returns the parked pods if there is more room.
    pub(super) fn observe_pod(&mut self, key: &ObjectKey, pod: Option<&Pod>) -> Vec<ObjectKey> {
        let node_name = pod.and_then(|pod| pod.spec.as_ref()).map_or("", |spec| &spec.node_name);
        let before = self.placed.get(key);
        match pod {
            Some(pod) if !node_name.is_empty() && !has_ended(pod) => {
                self.parked.remove(key);
                let same = |placed: &Placed| *placed.uid == *pod.meta().uid && *placed.node_name == *node_name;
                match before {
                    // The spec of a pod never changes, and so neither does what it needs.
                    Some(placed) if same(placed) => self.certain(key, Certainty::Seen),
                    _ => self.place(key, &pod.meta().uid, node_name, Needs::of(pod), Certainty::Seen),
                }
            }
            // The cache is behind the decision.
            Some(pod) if node_name.is_empty() && before.is_some_and(|placed| *placed.uid == *pod.meta().uid) => {}
            Some(_) => self.take_away(key),
            None => {
                self.parked.remove(key);
                self.take_away(key);
            }
        }
        self.unpark()
    }

    /// Where a pod stands that the cache shows without a node.
    pub(super) fn standing(&self, key: &ObjectKey, uid: &str) -> Standing {
        match self.placed.get(key).filter(|placed| *placed.uid == *uid) {
            None => Standing::Free,
            Some(placed) if placed.certainty == Certainty::Assumed => Standing::Assumed(placed.node_name.to_string()),
            Some(_) => Standing::Bound,
        }
    }

    /// Counts a pod on the node that was decided on.
    pub(super) fn assume(&mut self, key: &ObjectKey, uid: &str, node_name: &str, needs: Needs) {
        self.parked.remove(key);
        self.place(key, uid, node_name, needs, Certainty::Assumed);
    }

    /// The decision was written.
    pub(super) fn confirm(&mut self, key: &ObjectKey) {
        if self.placed.get(key).is_some_and(|placed| placed.certainty == Certainty::Assumed) {
            self.certain(key, Certainty::Written);
        }
    }

    /// The decision was refused.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        if self.placed.get(key).is_some_and(|placed| placed.certainty == Certainty::Assumed) {
            self.take_away(key);
        }
    }

    /// No node fits; the pod is looked at again when there is more room.
    pub(super) fn park(&mut self, key: &ObjectKey) {
        self.parked.insert(key.clone());
    }

    fn unpark(&mut self) -> Vec<ObjectKey> {
        match std::mem::take(&mut self.freed) {
            true => std::mem::take(&mut self.parked).into_iter().collect(),
            false => Vec::new(),
        }
    }

    fn certain(&mut self, key: &ObjectKey, certainty: Certainty) {
        if let Some(placed) = self.placed.get_mut(key) {
            placed.certainty = certainty;
        }
    }

    fn place(&mut self, key: &ObjectKey, uid: &str, node_name: &str, needs: Needs, certainty: Certainty) {
        self.take_away(key);
        let node_name = self.nodes.get_key_value(node_name).map_or_else(|| node_name.into(), |(name, _)| name.clone());
        self.nodes.entry(node_name.clone()).or_default().usage.add(&needs);
        let needs = self.share(needs);
        self.placed.insert(key.clone(), Placed { uid: uid.into(), node_name, needs, certainty });
    }

    fn share(&mut self, needs: Needs) -> Arc<Needs> {
        if let Some(shared) = self.needs.get(&needs) {
            return shared.clone();
        }
        let shared = Arc::new(needs);
        self.needs.insert(shared.clone());
        shared
    }

    fn take_away(&mut self, key: &ObjectKey) {
        let Some(placed) = self.placed.remove(key) else { return };
        if let Some(node) = self.nodes.get_mut(&placed.node_name) {
            node.usage.subtract(&placed.needs);
        }
        // Ours, and the one of the set.
        if Arc::strong_count(&placed.needs) == 2 {
            self.needs.remove(&*placed.needs);
        }
        self.drop_if_empty(&placed.node_name);
        self.freed = true;
    }

    fn drop_if_empty(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|node| !node.known && node.usage.pods == 0) {
            self.nodes.remove(name);
        }
    }
}

impl NodeState {
    fn observe(&mut self, node: &Node) {
        let status = node.status.clone().unwrap_or_default();
        let amount = |name: &str| status.capacity.get(name);
        self.known = true;
        self.ready = condition::is_true(&status.conditions, condition::READY) && node.meta().deletion_time.is_none();
        self.unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable);
        self.labels = node.meta().labels.clone();
        self.capacity = Capacity {
            cpu_millis: amount("cpu").and_then(|text| quantity::cpu_millis(text).ok()).unwrap_or(0),
            memory_bytes: amount("memory").and_then(|text| quantity::bytes(text).ok()).unwrap_or(0),
            pods: amount("pods").and_then(|text| quantity::bytes(text).ok()),
        };
        self.capabilities = status.capabilities.into_iter().collect();
    }
}

impl Usage {
    /// Whether a pod has this port.
    pub(super) fn has_port(&self, port: Port) -> bool {
        self.ports.contains_key(&port)
    }

    /// How many pods of a group there are.
    pub(super) fn pods_of_group(&self, group: &str) -> u32 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    fn add(&mut self, needs: &Needs) {
        self.pods += 1;
        self.cpu_millis = self.cpu_millis.saturating_add(needs.amounts.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_add(needs.amounts.memory_bytes);
        for port in &needs.ports {
            *self.ports.entry(*port).or_default() += 1;
        }
        if let Some(group) = &needs.group {
            *self.groups.entry(group.clone()).or_default() += 1;
        }
    }

    fn subtract(&mut self, needs: &Needs) {
        self.pods -= 1;
        self.cpu_millis = self.cpu_millis.saturating_sub(needs.amounts.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_sub(needs.amounts.memory_bytes);
        for port in &needs.ports {
            count_down(&mut self.ports, port);
        }
        if let Some(group) = &needs.group {
            count_down(&mut self.groups, group);
        }
    }
}

fn count_down<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
