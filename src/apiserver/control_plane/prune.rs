//! Pruning: what bears the label of an apply-set and is in its manifest no more is deleted with the Apply.

use std::collections::HashSet;

use crate::api::v1::{ApplyRequest, DeleteRequest, Object};
use crate::api::{APPLY_SET_LABEL, Kind, LabelView as _, ObjectKey, names};
use crate::apiserver::mirrors;
use crate::apiserver::writer::{Answer, key_of_ref};
use crate::apiserver::writes::{self, Change};
use crate::error::{Error, Result, Violation};
use crate::store::{Condition, Snapshot, Stored, View, Write};

/// How many objects are looked at before other requests get their turn.
const OBJECTS_AT_ONCE: usize = 2_000;

/// Which objects stay, of which set.
#[derive(Debug)]
pub(super) struct Prune {
    set: String,
    stays: HashSet<ObjectKey>,
}

/// What is wrong with a request's apply-set; else what to prune by, if anything. The request's objects get the label of the set.
pub(super) fn begin(request: &mut ApplyRequest, keys: &[ObjectKey]) -> Result<Option<Prune>> {
    if request.apply_set.is_empty() {
        let missing = [("prune", request.prune), ("keep", !request.keep.is_empty())].into_iter().find(|(_, given)| *given);
        return missing.map_or(Ok(None), |(field, _)| Err(Error::invalid(field, "needs an apply_set")));
    }
    names::label_value(&request.apply_set).map_err(|expected| Error::invalid("apply_set", format!("must be {expected}")))?;
    let faults = request.objects.iter_mut().enumerate().filter_map(|(index, object)| label(index, object, &request.apply_set));
    writes::checked(faults.collect())?;
    let mut stays: HashSet<_> = keys.iter().cloned().collect();
    for (index, kept) in request.keep.iter().enumerate() {
        stays.insert(key_of_ref(Some(kept)).map_err(|error| within(&format!("keep[{index}]"), error))?);
    }
    Ok(request.prune.then(|| Prune { set: request.apply_set.clone(), stays }))
}

/// Gives an object the label of its set, unless it says that it is in another one.
fn label(index: usize, object: &mut Object, set: &str) -> Option<Violation> {
    let kind = object.kind()?;
    let labels = &mut object.meta_mut()?.labels;
    match labels.insert(APPLY_SET_LABEL.to_owned(), set.to_owned()) {
        Some(other) if other != set => {
            let path = format!("objects[{index}].{}.metadata.labels[{APPLY_SET_LABEL}]", kind.arm_name());
            Some(Violation::new(path, format!("is {other:?}, but the apply-set is {set:?}; leave the label out")))
        }
        _ => None,
    }
}

/// `ref.kind` → `keep[3].kind`
fn within(path: &str, error: Error) -> Error {
    match error {
        Error::Invalid(violations) => {
            let placed = |violation: Violation| Violation { path: violation.path.replacen("ref", path, 1), ..violation };
            Error::Invalid(violations.into_iter().map(placed).collect())
        }
        error => error,
    }
}

impl Prune {
    /// The objects of the set that don't stay.
    pub(super) async fn surplus(&self, snapshot: &Snapshot) -> Vec<Stored> {
        let mut surplus = Vec::new();
        let mut from = ObjectKey::lower_bound(Kind::ALL[0], "");
        loop {
            let begin = from;
            let mut objects = snapshot.range(&begin);
            surplus.extend(objects.by_ref().take(OBJECTS_AT_ONCE).filter(|stored| self.is_surplus(stored)).cloned());
            let Some(next) = objects.next().map(|stored| stored.key.clone()) else { return surplus };
            from = next;
            tokio::task::yield_now().await;
        }
    }

    fn is_surplus(&self, stored: &Stored) -> bool {
        View::of(&stored.bytes).label(APPLY_SET_LABEL) == Some(self.set.as_str()) && !self.stays.contains(&stored.key)
    }

    /// How an object goes, and what it was if it goes at once; `None` when it is on its way already.
    ///
    /// # Errors
    /// [`Error::Precondition`] for what can't go: the namespace `default`, and a namespace that something is in that stays.
    pub(super) fn decide(&self, stored: &Stored, now: prost_types::Timestamp) -> Result<Option<(Option<Answer>, Write)>> {
        let (key, request) = (&stored.key, DeleteRequest::default());
        writes::check_delete(key, &request)?;
        let is_inside = |inner: &&ObjectKey| key.kind() == Kind::Namespace && inner.namespace() == key.name();
        if let Some(inner) = self.stays.iter().filter(is_inside).min() {
            let set = &self.set;
            let message = format!(
                "{key} is in the apply-set {set:?} no more, but {inner} is in that namespace: apply the namespace, too, or let it go"
            );
            return Err(Error::Precondition(message));
        }
        let condition = Condition::At(stored.revision);
        let old = stored.decode();
        if mirrors::is_mirror(&old) {
            // It came with its label from a file of its node, and goes with that.
            return Ok(None);
        }
        Ok(match writes::delete(&old, &request, now)? {
            Change::Nothing => None,
            Change::Put(object) => Some((None, Write::Put { object, condition })),
            Change::Remove => Some((Some(Answer::Planned(Box::new(old))), Write::Delete { key: key.clone(), condition })),
        })
    }
}
