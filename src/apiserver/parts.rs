//! The spec and the status of an object, whatever its kind.

use crate::api::v1::object::Kind as Arm;
use crate::api::v1::{NamespacePhase, NamespaceStatus, Object, PodPhase, PodStatus};

/// Whether two objects of one kind want the same.
pub(super) fn same_spec(a: &Object, b: &Object) -> bool {
    match (&a.kind, &b.kind) {
        (Some(Arm::Pod(a)), Some(Arm::Pod(b))) => a.spec == b.spec,
        (Some(Arm::Service(a)), Some(Arm::Service(b))) => a.spec == b.spec,
        (Some(Arm::Node(a)), Some(Arm::Node(b))) => a.spec == b.spec,
        (Some(Arm::EndpointSlice(a)), Some(Arm::EndpointSlice(b))) => a.spec == b.spec,
        (Some(Arm::Namespace(a)), Some(Arm::Namespace(b))) => a.spec == b.spec,
        (Some(Arm::Event(a)), Some(Arm::Event(b))) => a.spec == b.spec,
        (Some(Arm::Lease(a)), Some(Arm::Lease(b))) => a.spec == b.spec,
        // They have no spec; what they hold is what is wanted.
        (Some(Arm::ConfigMap(a)), Some(Arm::ConfigMap(b))) => a.data == b.data && a.binary_data == b.binary_data,
        (Some(Arm::Secret(a)), Some(Arm::Secret(b))) => a.data == b.data,
        _ => false,
    }
}

/// Gives `object` the status that `from`, of the same kind, has.
pub(super) fn copy_status(object: &mut Object, from: &Object) {
    match (&mut object.kind, &from.kind) {
        (Some(Arm::Pod(object)), Some(Arm::Pod(from))) => object.status.clone_from(&from.status),
        (Some(Arm::Service(object)), Some(Arm::Service(from))) => object.status.clone_from(&from.status),
        (Some(Arm::Node(object)), Some(Arm::Node(from))) => object.status.clone_from(&from.status),
        (Some(Arm::Namespace(object)), Some(Arm::Namespace(from))) => object.status.clone_from(&from.status),
        _ => {}
    }
}

/// Gives `object` the status of `given`, of the same kind. Whether that is another one; `None` for a kind that has no status.
pub(super) fn take_status(object: &mut Object, given: Object) -> Option<bool> {
    match (&mut object.kind, given.kind) {
        (Some(Arm::Pod(object)), Some(Arm::Pod(given))) => Some(replace(&mut object.status, given.status)),
        (Some(Arm::Service(object)), Some(Arm::Service(given))) => Some(replace(&mut object.status, given.status)),
        (Some(Arm::Node(object)), Some(Arm::Node(mut given))) => {
            // Only apiservers know who has the session.
            let session = object.status.as_ref().and_then(|status| status.session.clone());
            given.status.get_or_insert_default().session = session;
            Some(replace(&mut object.status, given.status))
        }
        (Some(Arm::Namespace(object)), Some(Arm::Namespace(given))) => Some(replace(&mut object.status, given.status)),
        _ => None,
    }
}

/// No kubelet says itself who has its session.
pub(super) fn forget_session(object: &mut Object) {
    if let Some(Arm::Node(node)) = &mut object.kind
        && let Some(status) = &mut node.status
    {
        status.session = None;
    }
}

fn replace<T: PartialEq + Default>(status: &mut Option<T>, given: Option<T>) -> bool {
    let given = Some(given.unwrap_or_default());
    let differs = *status != given;
    *status = given;
    differs
}

/// Gives a new object the status that its life begins with.
pub(super) fn set_first_status(object: &mut Object) {
    match &mut object.kind {
        Some(Arm::Pod(pod)) => pod.status = Some(PodStatus { phase: PodPhase::Pending.into(), ..Default::default() }),
        Some(Arm::Namespace(namespace)) => namespace.status = Some(NamespaceStatus { phase: NamespacePhase::Active.into() }),
        Some(Arm::Service(service)) => service.status = None,
        Some(Arm::Node(node)) => node.status = None,
        Some(Arm::EndpointSlice(_) | Arm::Event(_) | Arm::Lease(_) | Arm::ConfigMap(_) | Arm::Secret(_)) | None => {}
    }
}

/// What the control plane sets in a spec after creation: given to `object` where it says nothing of it.
pub(super) fn keep_owned_spec(object: &mut Object, old: &Object) {
    match (&mut object.kind, &old.kind) {
        (Some(Arm::Pod(object)), Some(Arm::Pod(old))) => {
            if let (Some(spec), Some(old)) = (&mut object.spec, &old.spec)
                && spec.node_name.is_empty()
            {
                spec.node_name.clone_from(&old.node_name);
            }
        }
        (Some(Arm::Service(object)), Some(Arm::Service(old))) => {
            if let (Some(spec), Some(old)) = (&mut object.spec, &old.spec)
                && spec.cluster_ip.is_empty()
            {
                spec.cluster_ip.clone_from(&old.cluster_ip);
            }
        }
        _ => {}
    }
}

/// The phase of a pod; `None` for every other kind.
pub(super) fn pod_phase(object: &Object) -> Option<PodPhase> {
    match &object.kind {
        Some(Arm::Pod(pod)) => Some(pod.status.as_ref().map_or(PodPhase::Unspecified, PodStatus::phase)),
        _ => None,
    }
}

/// Whether it is a pod whose processes have ended for good.
pub(super) fn has_ended(object: &Object) -> bool {
    matches!(pod_phase(object), Some(PodPhase::Succeeded | PodPhase::Failed))
}

/// How long the processes of an object get to stop when nobody says otherwise; `None` for kinds without processes.
pub(super) fn own_grace_period(object: &Object) -> Option<i64> {
    match &object.kind {
        Some(Arm::Pod(pod)) => {
            let asked = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            Some(asked.unwrap_or(crate::api::DEFAULT_GRACE_PERIOD_SECONDS))
        }
        _ => None,
    }
}
