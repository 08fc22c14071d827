use super::faults::{Faults, Path};
use super::meta::{check_conditions, check_quantities};
use super::names;
use crate::api::v1::{ClusterEvent, EventType, Lease, Namespace, NamespacePhase, Node};
use crate::api::{DEFAULT_NAMESPACE, Kind};

/// What a node may have.
const CAPACITIES: [&str; 3] = ["cpu", "memory", "pods"];

pub(super) fn check_node(path: &Path<'_>, node: &Node, faults: &mut Faults) {
    let Some(status) = &node.status else { return };
    let path = path.field("status");
    check_conditions(&path.field("conditions"), &status.conditions, faults);
    check_quantities(&path.field("capacity"), &status.capacity, &CAPACITIES, faults);
}

pub(super) fn check_namespace(path: &Path<'_>, namespace: &Namespace, faults: &mut Faults) {
    if let Some(status) = &namespace.status {
        faults.check_enum::<NamespacePhase>(&path.field("status.phase"), status.phase, "Active or Terminating");
    }
}

pub(super) fn check_event(path: &Path<'_>, event: &ClusterEvent, faults: &mut Faults) {
    let path = path.field("spec");
    let Some((spec, regarding)) = event.spec.as_ref().and_then(|spec| Some((spec, spec.regarding.as_ref()?))) else {
        faults.add(&path.field("regarding"), "must be set: the object that the event is about");
        return;
    };
    faults.check(&path.field("regarding.kind"), &regarding.kind, names::camel_case);
    faults.check(&path.field("regarding.name"), &regarding.name, names::dns_subdomain);
    faults.check(&path.field("reason"), &spec.reason, names::camel_case);
    faults.check_enum::<EventType>(&path.field("type"), spec.r#type, "Normal or Warning");
    check_event_namespace(&path, event, &regarding.kind, &regarding.namespace, faults);
}

/// An event stands in the namespace of its object, so that whoever reads that namespace sees it.
fn check_event_namespace(path: &Path<'_>, event: &ClusterEvent, kind: &str, regarding: &str, faults: &mut Faults) {
    let namespace = event.metadata.as_ref().map_or("", |meta| meta.namespace.as_str());
    let belongs_to_cluster = Kind::from_name(kind).is_some_and(|kind| !kind.is_namespaced());
    if belongs_to_cluster && !regarding.is_empty() {
        faults.add(&path.field("regarding.namespace"), format!("must be empty: a {kind} belongs to no namespace"));
        return;
    }
    let expected = if regarding.is_empty() { DEFAULT_NAMESPACE } else { regarding };
    if namespace != expected {
        faults.add(&path.field("regarding.namespace"), format!("the event must be in the namespace {expected:?}, not in {namespace:?}"));
    }
}

pub(super) fn check_lease(path: &Path<'_>, lease: &Lease, faults: &mut Faults) {
    let Some(spec) = &lease.spec else { return };
    if !spec.holder_identity.is_empty() && spec.lease_duration_seconds == 0 {
        faults.add(&path.field("spec.lease_duration_seconds"), "must be at least 1 when the lease has a holder");
    }
}
