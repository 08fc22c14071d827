use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdSet;
use prost::Message as _;

use super::Event;
use crate::api::v1::Object;
use crate::api::v1::event::Type;
use crate::api::{ObjectKey, Revision};

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which object.
    pub key: ObjectKey,
    /// The revision that last changed it: its `resource_version`.
    pub revision: Revision,
    /// The encoded `Object`, `resource_version` inside.
    pub bytes: Bytes,
}

impl Stored {
    /// The object as a message.
    pub fn decode(&self) -> Object {
        Object::decode(self.bytes.as_ref()).expect("the store encoded it, or has read it as an object")
    }
}

/// Every object as of one revision. Cheap to clone, and never changes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    revision: Revision,
    objects: OrdSet<Entry>,
    bytes: usize,
}

impl Snapshot {
    /// The revision that this shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object of a key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Stored> {
        self.objects.get(key).map(|entry| &*entry.0)
    }

    /// All objects from a key on (itself included), in the order of their keys.
    pub fn range(&self, from: &ObjectKey) -> impl Iterator<Item = &Stored> {
        self.objects.range::<_, ObjectKey>((Bound::Included(from), Bound::Unbounded)).map(|entry| &*entry.0)
    }

    /// All objects, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.objects.iter().map(|entry| &*entry.0)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The encoded size of all objects together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the state is after these events.
    pub(super) fn apply(&mut self, events: &[Event], revision: Revision) {
        for event in events {
            match event.kind() {
                Type::Deleted => self.remove(event.key()),
                Type::Added | Type::Modified | Type::Unspecified => self.insert(event.stored(revision)),
            }
        }
        self.set_revision(revision);
    }

    /// Holds objects that are as these events left them in the memory of the events.
    pub(super) fn share(&mut self, events: &[Event], revision: Revision) {
        for event in events {
            if self.get(event.key()).is_some_and(|stored| stored.revision == revision) {
                self.insert(event.stored(revision));
            }
        }
    }

    pub(super) fn insert(&mut self, stored: Stored) {
        self.bytes += stored.bytes.len();
        if let Some(replaced) = self.objects.insert(Entry(Arc::new(stored))) {
            self.bytes -= replaced.0.bytes.len();
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        if let Some(removed) = self.objects.remove(key) {
            self.bytes -= removed.0.bytes.len();
        }
    }

    pub(super) fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
}

/// An object in the ordered set. A set and not a map, so that each key is held once: at 100,000 objects this is felt.
#[derive(Clone, Debug)]
struct Entry(Arc<Stored>);

impl Borrow<ObjectKey> for Entry {
    fn borrow(&self) -> &ObjectKey {
        &self.0.key
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}
