use crate::api::v1::Object;
use crate::api::{MAX_OBJECT_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OBJECTS, ObjectKey, Revision};
use crate::error::Error;

use super::Stored;

/// Writes that happen at one revision, all or none.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The writes. No two may name the same object, except that what one puts another may require.
    pub writes: Vec<Write>,
}

/// One write of a [`Transaction`].
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all writes are puts")]
pub enum Write {
    /// The object shall be as given. Its `resource_version` is set by the commit, whatever it says.
    Put {
        /// The object.
        object: Object,
        /// What must hold before.
        condition: Condition,
    },
    /// The object shall be gone. NOT_FOUND when there is none, whatever the condition.
    Delete {
        /// Which.
        key: ObjectKey,
        /// What must hold before.
        condition: Condition,
    },
    /// Writes nothing: an object of this key must be there once all other writes of the transaction are done; else NOT_FOUND.
    Require {
        /// Which.
        key: ObjectKey,
        /// What must hold before.
        condition: Condition,
    },
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// There is no such object; else ALREADY_EXISTS.
    Absent,
    /// The object was last changed by this revision; else a Conflict, or NOT_FOUND when it is gone.
    At(Revision),
}

/// What a transaction has done, and is on disk.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision of all its writes; without writes the current one.
    pub revision: Revision,
    /// For each write, in order: the object that was put; the last state of the one that was deleted, its `resource_version` being this
    /// revision; nothing for what was only required.
    pub objects: Vec<Option<Stored>>,
}

impl Condition {
    fn check(self, key: &ObjectKey, current: Option<Revision>) -> Result<(), Error> {
        match (self, current) {
            (Condition::Any, _) | (Condition::Absent, None) => Ok(()),
            (Condition::Absent, Some(_)) => Err(Error::AlreadyExists(key.to_ref())),
            (Condition::At(_), None) => Err(Error::not_found(key)),
            (Condition::At(expected), Some(actual)) if actual == expected => Ok(()),
            (Condition::At(expected), Some(actual)) => Err(Error::Conflict { object: key.to_ref(), expected, actual }),
        }
    }
}

impl Transaction {
    /// Checks what can be checked without the state. An object is measured with the largest `resource_version` there is, so that it
    /// fits always or never.
    pub(super) fn measure(&mut self) -> Result<(), Error> {
        let found = self.writes.iter().filter(|write| !matches!(write, Write::Require { .. })).count();
        if found > MAX_TRANSACTION_OBJECTS {
            return Err(Error::invalid("", format!("{found} objects in one transaction; at most {MAX_TRANSACTION_OBJECTS} are taken")));
        }
        let mut keys = Vec::with_capacity(self.writes.len());
        let mut total = 0;
        for write in &mut self.writes {
            match write {
                Write::Put { object, .. } => {
                    let (key, bytes) = measure_object(object)?;
                    keys.push(key);
                    total += bytes;
                }
                Write::Delete { key, .. } => keys.push(key.clone()),
                Write::Require { .. } => {}
            }
        }
        check_total(total)?;
        keys.sort();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::invalid("", format!("{} is named twice in one transaction", pair[0]))),
            None => Ok(()),
        }
    }

    /// Whether it may happen in a state in which `revision_of` tells which revision last changed an object, if there is one.
    pub(super) fn check(&self, revision_of: impl Fn(&ObjectKey) -> Option<Revision>) -> Result<(), Error> {
        for write in &self.writes {
            match write {
                Write::Put { object, condition } => {
                    let key = key_of(object);
                    condition.check(&key, revision_of(&key))?;
                }
                Write::Delete { key, condition } => match revision_of(key) {
                    None => return Err(Error::not_found(key)),
                    current => condition.check(key, current)?,
                },
                Write::Require { key, condition } => match (self.leaves(key), revision_of(key)) {
                    (Some(false), _) | (None, None) => return Err(Error::not_found(key)),
                    (_, current) => condition.check(key, current)?,
                },
            }
        }
        Ok(())
    }

    /// Whether it leaves an object there or takes it away; `None` when it does neither.
    pub(super) fn leaves(&self, wanted: &ObjectKey) -> Option<bool> {
        self.writes.iter().find_map(|write| match write {
            Write::Put { object, .. } => (key_of(object) == *wanted).then_some(true),
            Write::Delete { key, .. } => (key == wanted).then_some(false),
            Write::Require { .. } => None,
        })
    }
}

/// Which object is put by a transaction that has been measured.
pub(super) fn key_of(object: &Object) -> ObjectKey {
    object.key().expect("measured before: it has a kind")
}

/// Gives an object the revision that it is of.
pub(super) fn stamp(object: &mut Object, revision: Revision) {
    if let Some(meta) = object.meta_mut() {
        meta.resource_version = revision.0;
    }
}

pub(super) fn check_total(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_TRANSACTION_BYTES {
        return Err(Error::invalid("", format!("the transaction has {bytes} bytes of objects; at most {MAX_TRANSACTION_BYTES} are taken")));
    }
    Ok(())
}

fn measure_object(object: &mut Object) -> Result<(ObjectKey, usize), Error> {
    let (Some(key), Some(meta)) = (object.key(), object.meta_mut()) else {
        return Err(Error::invalid("", "the object is of no kind"));
    };
    meta.resource_version = u64::MAX;
    if meta.name.is_empty() {
        return Err(Error::invalid("metadata.name", "must not be empty"));
    }
    let bytes = prost::Message::encoded_len(object);
    if bytes > MAX_OBJECT_BYTES {
        return Err(Error::invalid("", format!("{key} has {bytes} bytes; an object has at most {MAX_OBJECT_BYTES}")));
    }
    Ok((key, bytes))
}
