//! Mirrors: pods that show the static pods of nodes. Each belongs to its node's kubelet; what else is asked of it is refused. Decisions only, as in
//! [`writes`](super::writes).

use super::parts;
use super::writes::{Change, checked, count_generation};
use crate::api::v1::{Object, Pod};
use crate::api::{Kind, ObjectKey, Resource as _, STATIC_POD_ANNOTATION, STATIC_POD_FILE_ANNOTATION, default_object, validate};
use crate::error::{Error, Result};
use crate::store::Snapshot;

/// Whether an object is a mirror.
pub(super) fn is_mirror(object: &Object) -> bool {
    object.kind() == Some(Kind::Pod) && object.meta().annotations.contains_key(STATIC_POD_ANNOTATION)
}

/// Whether an object is a mirror of the node whose mirror `other` is.
pub(super) fn is_of(object: &Object, other: &Object) -> bool {
    is_mirror(object) && object.node_name() == other.node_name()
}

/// What is wrong with a mirror whatever is stored.
pub(super) fn check(pod: &Pod, node: &str) -> Result<()> {
    let meta = pod.meta();
    let bound_to = pod.spec.as_ref().map_or("", |spec| &spec.node_name);
    if node.is_empty() || bound_to != node {
        return Err(Error::invalid("pod.spec.node_name", format!("is {bound_to:?}, but must be that of the node: {node:?}")));
    }
    if !meta.annotations.contains_key(STATIC_POD_ANNOTATION) {
        return Err(Error::invalid(annotation(), "must be set: a hash of the static pod's content"));
    }
    if uuid::Uuid::try_parse(&meta.uid).is_err() {
        return Err(Error::invalid("pod.metadata.uid", format!("must be a UUID, and not {:?}", meta.uid)));
    }
    Ok(())
}

/// What becomes of the object that has the place of a mirror.
pub(super) fn put(old: &Object, mirror: &Object) -> Result<Change> {
    if !is_of(old, mirror) {
        return match old.key() {
            Some(key) => Err(Error::AlreadyExists(key.to_ref())),
            None => Err(Error::internal("an object of no kind")),
        };
    }
    if old.meta().uid != mirror.meta().uid {
        // The next attempt finds its place free.
        return Ok(Change::Remove);
    }
    let mut next = mirror.clone();
    default_object(&mut next);
    parts::copy_status(&mut next, old);
    if let Some(meta) = next.meta_mut() {
        let given = std::mem::replace(meta, old.meta().clone());
        (meta.labels, meta.annotations) = (given.labels, given.annotations);
    }
    if next == *old {
        return Ok(Change::Nothing);
    }
    checked(validate(&next))?;
    count_generation(&mut next, old);
    Ok(Change::Put(next))
}

/// What becomes of an object that may be the mirror of this uid.
pub(super) fn remove(old: &Object, node: &str, uid: &str) -> Change {
    let is_meant = is_mirror(old) && old.node_name() == node && old.meta().uid == uid;
    if is_meant { Change::Remove } else { Change::Nothing }
}

/// What becomes of a mirror that somebody deletes: it goes if it can't come back, since its node or its namespace is going.
pub(super) fn delete(old: &Object, snapshot: &Snapshot) -> Result<Change> {
    let has_node = snapshot.get(&ObjectKey::new(Kind::Node, "", old.node_name())).is_some();
    let namespace = snapshot.get(&ObjectKey::new(Kind::Namespace, "", &old.meta().namespace));
    let has_namespace = namespace.is_some_and(|namespace| namespace.decode().meta().deletion_time.is_none());
    if has_node && has_namespace { Err(refusal(old)) } else { Ok(Change::Remove) }
}

/// Nobody but its kubelet changes a mirror.
pub(super) fn refuse_change(old: &Object) -> Result<()> {
    if is_mirror(old) { Err(refusal(old)) } else { Ok(()) }
}

/// Nobody else makes one.
pub(super) fn refuse_mark(new: &Object) -> Result<()> {
    match is_mirror(new) {
        true => Err(Error::invalid(annotation(), "is only set by the kubelet of a node, on what mirrors its static pods; leave it out")),
        false => Ok(()),
    }
}

fn annotation() -> String {
    format!("pod.metadata.annotations[{STATIC_POD_ANNOTATION}]")
}

fn refusal(mirror: &Object) -> Error {
    let meta = mirror.meta();
    let file = meta.annotations.get(STATIC_POD_FILE_ANNOTATION).map_or("its file", String::as_str);
    let (namespace, name, node) = (&meta.namespace, &meta.name, mirror.node_name());
    Error::Precondition(format!(
        "Pod/{namespace}/{name} only shows a static pod of node {node:?} and can't be changed or deleted here: change or remove {file:?} in the folder of \
         static pods on that node"
    ))
}
