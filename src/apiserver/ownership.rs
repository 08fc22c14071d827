//! Who owns which fields of an object: what `Apply` merges by, and what it leaves behind. Decisions only, as in [`writes`](super::writes).
//!
//! A field manager owns what it gave in its last Apply. A field that nobody owns was filled in, or was written by Create or Update.

#[cfg(test)]
mod tests;

use prost_types::Timestamp;

use crate::api::fields::{FieldSet, Tree};
use crate::api::v1::{FieldConflict, ManagedFields, Object, ObjectMeta};
use crate::api::{default_object, undefault_object};
use crate::error::{Error, Result};

/// The most field managers of one object.
const MAX_MANAGERS: usize = 32;

/// Who applies, how and when.
#[derive(Debug)]
pub(super) struct Applier {
    pub(super) manager: String,
    /// Take over what others own.
    pub(super) force: bool,
    pub(super) now: Timestamp,
}

/// What somebody owns of an object.
struct Owned {
    entry: ManagedFields,
    fields: FieldSet,
}

/// The entry of whoever creates an object by applying it.
pub(super) fn of_new(given: &Object, by: &Applier) -> Vec<ManagedFields> {
    let fields = Tree::of(given).map(|tree| tree.fields()).unwrap_or_default();
    let mut owners = Vec::new();
    set(&mut owners, by, fields);
    entries(owners)
}

/// The object with what is given laid over it and, cleared, what the same manager gave before and gives no more, unless somebody else owns it.
///
/// # Errors
/// [`Error::ApplyConflict`] for fields that other managers own with other values, unless they are to be taken over.
pub(super) fn merge(old: &Object, mut given: Object, by: &Applier) -> Result<Object> {
    let (Some(stored), Some(plain)) = (Tree::of(old), Tree::of(&given)) else { return Err(Error::internal("an object of no kind")) };
    let fields = plain.fields();
    // Values are compared as they would be stored.
    default_object(&mut given);
    let given = Tree::of(&given).unwrap_or(plain);

    let mut others = read(old.meta())?;
    let before = others.iter().position(|owned| owned.entry.manager == by.manager).map(|index| others.remove(index));
    take_over(&stored, &given, &fields, &mut others, by, old)?;

    let before = before.unwrap_or_else(|| Owned { entry: ManagedFields::default(), fields: FieldSet::default() });
    let mut kept = union(&others);
    let mut merged = without_derived(&stored, old, &kept, &before.fields);
    kept.extend(&fields);
    merged.clear(&before.fields, &kept);
    merged.overlay(&given, &fields);

    let mut object = merged.into_object();
    if before.fields == fields && !fields.is_empty() {
        others.push(before);
    } else {
        set(&mut others, by, fields);
    }
    if others.len() > MAX_MANAGERS {
        let message = format!("{} field managers own fields of one object already; apply under one name that stays", MAX_MANAGERS);
        return Err(Error::Exhausted { message, retry_after: None });
    }
    if let Some(meta) = object.meta_mut() {
        meta.managed_fields = entries(others);
    }
    Ok(object)
}

/// What an update has changed is owned by nobody any more: no Apply takes it for its own, or for somebody else's.
pub(super) fn disown(new: &mut Object, old: &Object) -> Result<()> {
    if old.meta().managed_fields.is_empty() {
        return Ok(());
    }
    let (Some(before), Some(after)) = (Tree::of(old), Tree::of(new)) else { return Ok(()) };
    let mut owners = read(old.meta())?;
    for owned in &mut owners {
        for path in before.differing(&after, &owned.fields) {
            owned.fields.remove(&path.0);
        }
    }
    if let Some(meta) = new.meta_mut() {
        meta.managed_fields = entries(owners);
    }
    Ok(())
}

/// Finds what others own with other values than those that are given, and takes it from them if it may.
fn take_over(stored: &Tree, given: &Tree, fields: &FieldSet, others: &mut [Owned], by: &Applier, old: &Object) -> Result<()> {
    let mut conflicts = Vec::new();
    for owned in others {
        for path in stored.differing(given, &owned.fields.common(fields)) {
            if by.force {
                owned.fields.remove(&path.0);
            } else {
                let (kind, key) = (old.kind().map_or("", |kind| kind.arm_name()), old.key());
                conflicts.push(FieldConflict {
                    r#ref: key.map(|key| key.to_ref()),
                    path: format!("{kind}.{path}"),
                    manager: owned.entry.manager.clone(),
                });
            }
        }
    }
    if conflicts.is_empty() { Ok(()) } else { Err(Error::ApplyConflict(conflicts)) }
}

/// The object without what was filled in by what else it has, since that may change; what somebody owns was not filled in.
fn without_derived(stored: &Tree, old: &Object, others: &FieldSet, own: &FieldSet) -> Tree {
    let mut merged = stored.clone();
    let mut plain = old.clone();
    if undefault_object(&mut plain)
        && let Some(plain) = Tree::of(&plain)
    {
        let mut kept = plain.fields();
        kept.extend(others);
        kept.extend(own);
        merged.clear(&stored.fields(), &kept);
    }
    merged
}

fn union(owners: &[Owned]) -> FieldSet {
    let mut union = FieldSet::default();
    owners.iter().for_each(|owned| union.extend(&owned.fields));
    union
}

fn set(owners: &mut Vec<Owned>, by: &Applier, fields: FieldSet) {
    owners.push(Owned { entry: ManagedFields { manager: by.manager.clone(), time: Some(by.now), fields: String::new() }, fields });
}

fn read(meta: &ObjectMeta) -> Result<Vec<Owned>> {
    let owned = |entry: &ManagedFields| match entry.fields.parse() {
        Ok(fields) => Ok(Owned { entry: entry.clone(), fields }),
        Err(_) => Err(Error::internal(format!("the fields of manager {:?} can't be read: {:?}", entry.manager, entry.fields))),
    };
    meta.managed_fields.iter().map(owned).collect()
}

/// As they are stored: by name, and nobody who owns nothing.
fn entries(owners: Vec<Owned>) -> Vec<ManagedFields> {
    let owners = owners.into_iter().filter(|owned| !owned.fields.is_empty());
    let mut entries: Vec<_> = owners.map(|owned| ManagedFields { fields: owned.fields.to_string(), ..owned.entry }).collect();
    entries.sort_by(|left, right| left.manager.cmp(&right.manager));
    entries
}
