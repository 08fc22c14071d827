//! What each write makes of an object: the decisions of the control plane, without clocks, stores or waiting.
//!
//! Each function takes the object as it is and what is asked, and says what becomes of it. The caller commits that on the condition
//! that the object still is as it was, and decides anew otherwise.

use prost_types::Timestamp;

use super::ownership::{self, Applier};
use super::{mirrors, parts};
use crate::api::v1::{DeletePropagation, DeleteRequest, NamespacePhase, Object, ObjectMeta, PodPhase, object};
use crate::api::{
    CONTENTS_FINALIZER, DEFAULT_NAMESPACE, Kind, ObjectKey, Revision, SYSTEM_NAMESPACE, default_object, settle_texts, validate,
    validate_update,
};
use crate::error::{Error, Result, Violation};

/// What becomes of an object that exists.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all changes are puts")]
pub(super) enum Change {
    /// It is so already.
    Nothing,
    /// It becomes this.
    Put(Object),
    /// It goes.
    Remove,
}

/// Fills in and checks a new object, and sets what the apiserver owns.
pub(super) fn create(object: Object, now: Timestamp, uid: String) -> Result<Object> {
    mirrors::refuse_mark(&object)?;
    create_marked(object, now, uid)
}

/// As [`create`], also for what only nodes create.
pub(super) fn create_marked(mut object: Object, now: Timestamp, uid: String) -> Result<Object> {
    default_object(&mut object);
    parts::set_first_status(&mut object);
    own_metadata(&mut object, now, uid);
    checked(validate(&object))?;
    Ok(object)
}

/// Creates an object by applying it.
pub(super) fn apply_new(mut given: Object, by: &Applier, uid: String) -> Result<Object> {
    settle_texts(&mut given);
    let owners = ownership::of_new(&given, by);
    let mut object = create(given, by.now, uid)?;
    if let Some(meta) = object.meta_mut() {
        meta.managed_fields = owners;
    }
    Ok(object)
}

/// Registers a node with what its kubelet says of itself, status included.
pub(super) fn join_new(mut object: Object, now: Timestamp, uid: String) -> Result<Object> {
    default_object(&mut object);
    parts::forget_session(&mut object);
    own_metadata(&mut object, now, uid);
    checked(validate(&object))?;
    Ok(object)
}

/// Renews the registration of a known node: the labels that its kubelet owns and its status become what is given.
pub(super) fn join_known(old: &Object, mut given: Object) -> Result<Change> {
    default_object(&mut given);
    checked(validate(&given))?;
    let mut next = old.clone();
    if let Some(meta) = next.meta_mut() {
        meta.labels.retain(|label, _| !is_kubelets_label(label));
        let own = given.meta().labels.iter().filter(|(label, _)| is_kubelets_label(label));
        meta.labels.extend(own.map(|(label, value)| (label.clone(), value.clone())));
    }
    parts::take_status(&mut next, given);
    if next == *old {
        return Ok(Change::Nothing);
    }
    ownership::disown(&mut next, old)?;
    Ok(Change::Put(next))
}

/// Replaces spec and metadata; status and what the apiserver owns stay.
pub(super) fn update(old: &Object, mut new: Object) -> Result<Change> {
    keep_owned(&mut new, old);
    default_object(&mut new);
    check_finalizers(&new, old)?;
    if new == *old {
        return Ok(Change::Nothing);
    }
    ownership::disown(&mut new, old)?;
    put(old, new)
}

/// Merges what is given into the object, by what the same field manager gave before; what the apiserver and its controllers own stays where
/// nothing is given.
///
/// # Errors
/// As [`update`]; [`Error::ApplyConflict`]; [`Error::Precondition`] for an object that is being deleted: to call it configured or unchanged would
/// mislead.
pub(super) fn apply(old: &Object, mut given: Object, by: &Applier) -> Result<Change> {
    if old.meta().deletion_time.is_some() {
        let message = format!("{} is being deleted; apply it again when it is gone", describe(old));
        return Err(Error::Precondition(message));
    }
    settle_texts(&mut given);
    let mut new = ownership::merge(old, given, by)?;
    parts::keep_owned_spec(&mut new, old);
    default_object(&mut new);
    if new == *old { Ok(Change::Nothing) } else { put(old, new) }
}

/// What becomes of an object that is to be like this, if it may.
fn put(old: &Object, mut new: Object) -> Result<Change> {
    mirrors::refuse_change(old)?;
    mirrors::refuse_mark(&new)?;
    checked(validate(&new))?;
    checked(validate_update(old, &new))?;
    if is_free_to_go(&new) {
        return Ok(Change::Remove);
    }
    count_generation(&mut new, old);
    Ok(Change::Put(new))
}

/// Replaces the status.
pub(super) fn update_status(mut old: Object, mut given: Object) -> Result<Change> {
    default_object(&mut given);
    let kind = given.kind().map_or("object", Kind::as_str);
    let (before, ended) = (parts::pod_phase(&old), parts::has_ended(&old));
    match parts::take_status(&mut old, given) {
        None => return Err(Error::invalid(kind.to_lowercase(), format!("objects of kind {kind} have no status"))),
        Some(false) => return Ok(Change::Nothing),
        Some(true) => {}
    }
    if ended && parts::pod_phase(&old) != before {
        let before = before.unwrap_or(PodPhase::Unspecified).as_str_name();
        return Err(Error::invalid("pod.status.phase", format!("has ended as {before} and can't be anything else again")));
    }
    // What was stored while a rule was less strict keeps a true status, and can come to its end.
    let spec = format!("{}.spec", old.kind().map_or("", Kind::arm_name));
    checked(validate(&old).into_iter().filter(|fault| !fault.path.starts_with(&spec)).collect())?;
    Ok(Change::Put(old))
}

/// Marks or removes an object.
pub(super) fn delete(old: &Object, request: &DeleteRequest, now: Timestamp) -> Result<Change> {
    let asked = request.grace_period_seconds;
    let current = old.meta().deletion_grace_period_seconds;
    let grace = asked.or(current).or(parts::own_grace_period(old));
    let waits_for_kubelet = is_bound_and_alive(old) && asked != Some(0);
    if old.meta().finalizers.is_empty() && !waits_for_kubelet {
        return Ok(Change::Remove);
    }
    if old.meta().deletion_time.is_some() && current <= grace {
        return Ok(Change::Nothing);
    }
    let mut next = old.clone();
    if let Some(meta) = next.meta_mut() {
        meta.deletion_time.get_or_insert(now);
        meta.deletion_grace_period_seconds = grace;
    }
    if let Some(object::Kind::Namespace(namespace)) = &mut next.kind {
        namespace.status.get_or_insert_default().phase = NamespacePhase::Terminating.into();
    }
    Ok(Change::Put(next))
}

/// What of a delete is wrong whatever the object is.
pub(super) fn check_delete(key: &ObjectKey, request: &DeleteRequest) -> Result<()> {
    match DeletePropagation::try_from(request.propagation) {
        Ok(DeletePropagation::Unspecified | DeletePropagation::Background) => {}
        Ok(DeletePropagation::Orphan) => return Err(Error::invalid("propagation", "Orphan is not supported yet; leave it out")),
        Err(_) => return Err(Error::invalid("propagation", "must be Background")),
    }
    if request.grace_period_seconds.is_some_and(|grace| grace < 0) {
        return Err(Error::invalid("grace_period_seconds", "must not be negative"));
    }
    if key.kind() == Kind::Namespace && [DEFAULT_NAMESPACE, SYSTEM_NAMESPACE].contains(&key.name()) {
        return Err(Error::Precondition(format!("the namespace {:?} can't be deleted", key.name())));
    }
    Ok(())
}

/// Whether the object is the one that a request means: of this uid, unless empty, and at this resource version, unless zero.
pub(super) fn check_condition(key: &ObjectKey, actual: &ObjectMeta, uid: &str, resource_version: u64) -> Result<()> {
    let same_object = uid.is_empty() || uid == actual.uid;
    if same_object && (resource_version == 0 || resource_version == actual.resource_version) {
        return Ok(());
    }
    let actual = if same_object { Revision(actual.resource_version) } else { Revision::ZERO };
    Err(Error::Conflict { object: key.to_ref(), expected: Revision(resource_version), actual })
}

/// Whether new objects may be created in this namespace.
pub(super) fn check_namespace(namespace: &Object) -> Result<()> {
    if namespace.meta().deletion_time.is_none() {
        return Ok(());
    }
    let name = &namespace.meta().name;
    Err(Error::Precondition(format!("the namespace {name:?} is being deleted; wait until it is gone, and create it again")))
}

/// The faults, if there are any.
pub(super) fn checked(violations: Vec<Violation>) -> Result<()> {
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

fn own_metadata(object: &mut Object, now: Timestamp, uid: String) {
    let is_namespace = object.kind() == Some(Kind::Namespace);
    let Some(meta) = object.meta_mut() else { return };
    meta.uid = uid;
    meta.resource_version = 0;
    meta.generation = 1;
    meta.creation_time = Some(now);
    meta.deletion_time = None;
    meta.deletion_grace_period_seconds = None;
    meta.managed_fields.clear();
    if is_namespace && !meta.finalizers.iter().any(|finalizer| finalizer == CONTENTS_FINALIZER) {
        meta.finalizers.push(CONTENTS_FINALIZER.to_owned());
    }
}

/// Gives a replacement what a client can't change.
fn keep_owned(new: &mut Object, old: &Object) {
    parts::copy_status(new, old);
    let Some(meta) = new.meta_mut() else { return };
    let old = old.meta();
    meta.namespace.clone_from(&old.namespace);
    meta.uid.clone_from(&old.uid);
    meta.resource_version = old.resource_version;
    meta.generation = old.generation;
    meta.creation_time = old.creation_time;
    meta.deletion_time = old.deletion_time;
    meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    meta.managed_fields.clone_from(&old.managed_fields);
}

/// What an object waits for may become less once it is deleted, but not more; a namespace always waits to be emptied.
fn check_finalizers(new: &Object, old: &Object) -> Result<()> {
    let (new, old, kind) = (new.meta(), old.meta(), new.kind());
    let deleted = old.deletion_time.is_some();
    let path = || format!("{}.metadata.finalizers", kind.map_or("object", Kind::arm_name));
    if deleted && let Some(added) = new.finalizers.iter().find(|finalizer| !old.finalizers.contains(finalizer)) {
        return Err(Error::invalid(path(), format!("{added:?} can't be added to an object that is being deleted")));
    }
    let is_contents = |finalizer: &String| finalizer == CONTENTS_FINALIZER;
    if kind == Some(Kind::Namespace) && !deleted && !new.finalizers.iter().any(is_contents) {
        return Err(Error::invalid(path(), format!("must keep {CONTENTS_FINALIZER:?} until the namespace is deleted and empty")));
    }
    Ok(())
}

pub(super) fn count_generation(new: &mut Object, old: &Object) {
    if !parts::same_spec(new, old)
        && let Some(meta) = new.meta_mut()
    {
        meta.generation += 1;
    }
}

/// Whether nothing holds a deleted object any longer.
fn is_free_to_go(object: &Object) -> bool {
    let meta = object.meta();
    let kubelet_is_done = meta.deletion_grace_period_seconds == Some(0) || !is_bound_and_alive(object);
    meta.deletion_time.is_some() && meta.finalizers.is_empty() && kubelet_is_done
}

fn is_bound_and_alive(object: &Object) -> bool {
    !object.node_name().is_empty() && !parts::has_ended(object)
}

fn is_kubelets_label(label: &str) -> bool {
    label.starts_with("kubernetes.io/")
}

fn describe(object: &Object) -> String {
    object.key().map_or_else(|| "the object".to_owned(), |key| key.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Resource as _;
    use crate::api::v1::{Container, Pod, PodSpec, PodStatus};

    #[test]
    fn what_was_stored_under_a_rule_that_was_less_strict_gets_a_status_and_no_wrong_one() {
        let containers = vec![Container { name: "Not a label any more".into(), ..Container::default() }];
        let mut pod = Pod { spec: Some(PodSpec { containers, ..PodSpec::default() }), ..Pod::default() };
        (pod.meta_mut().name, pod.meta_mut().namespace) = ("web".into(), "default".into());
        let mut old = pod.clone().into_object();
        default_object(&mut old);
        assert!(!validate(&old).is_empty());
        let with = |status: PodStatus| update_status(old.clone(), Pod { status: Some(status), ..pod.clone() }.into_object());
        let mut status = PodStatus::default();
        status.set_phase(PodPhase::Running);
        assert!(matches!(with(status.clone()), Ok(Change::Put(_))));
        status.phase = 77;
        assert!(matches!(with(status), Err(Error::Invalid(_))));
    }
}
