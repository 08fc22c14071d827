use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::v1::{Container, Pod, Protocol};
use crate::api::{Resource, Role, capability, quantity};

/// A port of a node that only one pod can have.
pub(super) type Port = (Protocol, u32);

/// What a pod needs of a node, read from its spec once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Needs {
    pub(super) node_selector: Vec<(String, String)>,
    pub(super) capabilities: BTreeSet<&'static str>,
    pub(super) ports: BTreeSet<Port>,
    /// At its peak.
    pub(super) amounts: Amounts,
    /// Pods of one group are spread; `None` for a pod with neither an owner nor labels.
    pub(super) group: Option<Arc<str>>,
}

impl Needs {
    pub(super) fn of(pod: &Pod) -> Self {
        let mut needs = Needs { group: group(pod), ..Needs::default() };
        let Some(spec) = &pod.spec else { return needs };
        needs.node_selector = spec.node_selector.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        needs.node_selector.sort();
        needs.capabilities = capability::needed(spec);
        let mut beside = Amounts::default();
        let mut peak = Amounts::default();
        for (container, role) in spec.roles() {
            needs.add(container);
            let amounts = Amounts::of(container);
            // As in Kubernetes: an init container runs beside the sidecars before it; everything else runs beside all that follow.
            match role {
                Role::Init => peak = peak.max(beside.plus(amounts)),
                Role::Sidecar | Role::Main => beside = beside.plus(amounts),
            }
        }
        needs.amounts = peak.max(beside);
        needs
    }

    fn add(&mut self, container: &Container) {
        let fixed = container.ports.iter().filter(|port| port.container_port != 0);
        self.ports.extend(fixed.map(|port| match port.protocol() {
            Protocol::Unspecified => (Protocol::Tcp, port.container_port),
            protocol => (protocol, port.container_port),
        }));
    }
}

/// What a container, or all that run at the same time, set aside on their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Amounts {
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
}

impl Amounts {
    fn of(container: &Container) -> Self {
        // As in Kubernetes, a limit without a request is the request. What is no quantity was refused at creation.
        let resources = container.resources.as_ref();
        let requested = |name| resources.and_then(|resources| resources.requests.get(name).or_else(|| resources.limits.get(name)));
        let cpu_millis = requested("cpu").and_then(|text| quantity::cpu_millis(text).ok()).unwrap_or(0);
        let memory_bytes = requested("memory").and_then(|text| quantity::bytes(text).ok()).unwrap_or(0);
        Self { cpu_millis, memory_bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// The larger of each.
    fn max(self, other: Self) -> Self {
        Self { cpu_millis: self.cpu_millis.max(other.cpu_millis), memory_bytes: self.memory_bytes.max(other.memory_bytes) }
    }
}

/// Whose replicas a pod is one of: its controller's, else those with the same labels.
fn group(pod: &Pod) -> Option<Arc<str>> {
    let metadata = pod.meta();
    if let Some(owner) = metadata.owner_references.iter().find(|owner| owner.controller) {
        return Some(owner.uid.as_str().into());
    }
    if metadata.labels.is_empty() {
        return None;
    }
    let mut labels: Vec<_> = metadata.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    Some(format!("{}/{}", metadata.namespace, labels.join(",")).into())
}
