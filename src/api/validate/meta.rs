use std::collections::HashMap;

use super::faults::{Faults, Path};
use super::names;
use crate::api::v1::{Condition, ConditionStatus, ObjectMeta};
use crate::api::{Kind, quantity};

/// The most bytes of all keys and values of an object's annotations.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

pub(super) fn check(path: &Path<'_>, kind: Kind, meta: &ObjectMeta, faults: &mut Faults) {
    let name_rule = if matches!(kind, Kind::Namespace | Kind::Service) { names::dns_label } else { names::dns_subdomain };
    faults.check(&path.field("name"), &meta.name, name_rule);
    if kind.is_namespaced() {
        faults.check(&path.field("namespace"), &meta.namespace, names::dns_label);
    } else if !meta.namespace.is_empty() {
        faults.add(&path.field("namespace"), format!("must be empty: a {kind} belongs to the cluster and to no namespace"));
    }
    check_labels(&path.field("labels"), &meta.labels, faults);
    check_annotations(&path.field("annotations"), &meta.annotations, faults);
    check_owners(&path.field("owner_references"), meta, faults);
    let finalizers = path.field("finalizers");
    for (index, finalizer) in meta.finalizers.iter().enumerate() {
        faults.check(&finalizers.index(index), finalizer, names::label_key);
    }
    faults.check_distinct(&finalizers, "", meta.finalizers.iter().map(Some));
    if meta.deletion_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        faults.add(&path.field("deletion_grace_period_seconds"), "must be 0 or more");
    }
}

/// Labels that an object has, or that a service or a pod asks for.
pub(super) fn check_labels(path: &Path<'_>, labels: &HashMap<String, String>, faults: &mut Faults) {
    for (key, value) in labels {
        faults.check(&path.key(key), key, names::label_key);
        faults.check(&path.key(key), value, names::label_value);
    }
}

fn check_annotations(path: &Path<'_>, annotations: &HashMap<String, String>, faults: &mut Faults) {
    for key in annotations.keys() {
        faults.check(&path.key(key), key, names::label_key);
    }
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_ANNOTATION_BYTES {
        faults.add(path, format!("are {bytes} bytes long together; at most {MAX_ANNOTATION_BYTES} are allowed"));
    }
}

fn check_owners(path: &Path<'_>, meta: &ObjectMeta, faults: &mut Faults) {
    for (index, owner) in meta.owner_references.iter().enumerate() {
        let path = path.index(index);
        faults.check(&path.field("kind"), &owner.kind, names::camel_case);
        faults.check(&path.field("name"), &owner.name, names::dns_subdomain);
        if owner.uid.is_empty() {
            faults.add(&path.field("uid"), "must not be empty: the uid of the owner");
        }
    }
    faults.check_distinct(path, "uid", meta.owner_references.iter().map(|owner| Some(&owner.uid).filter(|uid| !uid.is_empty())));
    if meta.owner_references.iter().filter(|owner| owner.controller).count() > 1 {
        faults.add(path, "at most one owner may have controller: true");
    }
}

/// The conditions of a status.
pub(super) fn check_conditions(path: &Path<'_>, conditions: &[Condition], faults: &mut Faults) {
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        faults.check(&path.field("type"), &condition.r#type, names::camel_case);
        faults.check_enum::<ConditionStatus>(&path.field("status"), condition.status, "True, False or Unknown");
    }
    faults.check_distinct(path, "type", conditions.iter().map(|condition| Some(&condition.r#type)));
}

/// Amounts of what a node has or a container needs; `known` are the names that mean something.
pub(super) fn check_quantities(path: &Path<'_>, amounts: &HashMap<String, String>, known: &[&str], faults: &mut Faults) {
    for (name, amount) in amounts {
        let path = path.key(name);
        let parsed = match name.as_str() {
            "cpu" => quantity::cpu_millis(amount),
            _ => quantity::bytes(amount),
        };
        if !known.contains(&name.as_str()) {
            faults.add(&path, format!("is not known; there are {}", known.join(", ")));
        } else if let Err(error) = parsed {
            faults.add(&path, format!("{amount:?} {error}"));
        }
    }
}
