use super::fleet::{Capacity, NodeState, Usage};
use super::needs::{Needs, Port};
use crate::api::v1::Protocol;

/// Why a pod can't go to a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    NotReady,
    Unschedulable,
    Selector(String),
    Capability(&'static str),
    PortTaken(Port),
    Full,
    Cpu,
    Memory,
}

/// The first reason that keeps a pod from a node, if any.
pub(super) fn misfit(needs: &Needs, node: &NodeState) -> Option<Misfit> {
    if !node.ready {
        return Some(Misfit::NotReady);
    }
    if node.unschedulable {
        return Some(Misfit::Unschedulable);
    }
    if let Some((key, value)) = needs.node_selector.iter().find(|(key, value)| node.labels.get(key) != Some(value)) {
        return Some(Misfit::Selector(format!("{key}={value}")));
    }
    if let Some(missing) = needs.capabilities.iter().find(|capability| !node.capabilities.contains(**capability)) {
        return Some(Misfit::Capability(missing));
    }
    resources(needs, &node.capacity, &node.usage)
}

fn resources(needs: &Needs, capacity: &Capacity, usage: &Usage) -> Option<Misfit> {
    if let Some(port) = needs.ports.iter().find(|port| usage.has_port(**port)) {
        return Some(Misfit::PortTaken(*port));
    }
    if capacity.pods.is_some_and(|pods| usage.pods >= pods) {
        return Some(Misfit::Full);
    }
    let exceeds = |needed: u64, used: u64, capacity: u64| needed > 0 && used.saturating_add(needed) > capacity;
    if exceeds(needs.amounts.cpu_millis, usage.cpu_millis, capacity.cpu_millis) {
        return Some(Misfit::Cpu);
    }
    exceeds(needs.amounts.memory_bytes, usage.memory_bytes, capacity.memory_bytes).then_some(Misfit::Memory)
}

impl Misfit {
    /// The reason as the end of a sentence that begins with so many nodes: `3 lack capability memory-limits`.
    pub(super) fn describe(&self, nodes: usize) -> String {
        let verb = |one: &'static str, many: &'static str| if nodes == 1 { one } else { many };
        match self {
            Misfit::NotReady => format!("{nodes} {} not ready", verb("is", "are")),
            Misfit::Unschedulable => format!("{nodes} {} unschedulable", verb("is", "are")),
            Misfit::Selector(label) => format!("{nodes} {} label {label}", verb("lacks", "lack")),
            Misfit::Capability(capability) => format!("{nodes} {} capability {capability}", verb("lacks", "lack")),
            Misfit::PortTaken((Protocol::Udp, port)) => format!("{nodes} {} UDP port {port} taken", verb("has", "have")),
            Misfit::PortTaken((_, port)) => format!("{nodes} {} port {port} taken", verb("has", "have")),
            Misfit::Full => format!("{nodes} {} full", verb("is", "are")),
            Misfit::Cpu => format!("{nodes} {} too little cpu left", verb("has", "have")),
            Misfit::Memory => format!("{nodes} {} too little memory left", verb("has", "have")),
        }
    }
}
