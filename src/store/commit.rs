use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use prost_types::Timestamp;

use super::{Stored, View};
use crate::api::v1::{Object, event::Type};
use crate::api::{ObjectKey, Revision};

/// What one transaction changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Its number.
    pub revision: Revision,
    /// When it was made.
    pub time: Timestamp,
    /// The changes, at most one for an object.
    pub events: Box<[Event]>,
}

impl Commit {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        COMMIT_OVERHEAD + self.events.iter().map(|event| EVENT_OVERHEAD + event.record.len()).sum::<usize>()
    }
}

const COMMIT_OVERHEAD: usize = 96;
/// The struct, the key and a few labels.
const EVENT_OVERHEAD: usize = 256;

/// The change of one object. It stands alone: whoever filters it or sends it needs neither the state nor a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    kind: Type,
    key: ObjectKey,
    record: Bytes,
    view: View,
    before: Option<Box<View>>,
}

impl Event {
    /// `kind` happened to an object, which was like `before` if that was different and is now (or, deleted, was last) like this.
    pub(super) fn new(kind: Type, key: ObjectKey, object: &Object, before: Option<&View>) -> Self {
        let record = record(kind, object.encoded_len(), |buffer| object.encode_raw(buffer));
        Self::from_record(kind, key, record, before)
    }

    fn from_record(kind: Type, key: ObjectKey, record: Bytes, before: Option<&View>) -> Self {
        let view = View::of(object_in(&record));
        let before = before.filter(|before| **before != view).cloned().map(Box::new);
        Self { kind, key, record, view, before }
    }

    /// Puts together again what a backend stored: the record and, if it was different, how the object was before.
    pub(super) fn from_stored(key: ObjectKey, record: Bytes, before: Option<View>) -> Option<Self> {
        let kind = kind_of(&record)?;
        Some(Self::from_record(kind, key, record, before.as_ref()))
    }

    /// What happened to it, for somebody who sees every object.
    pub fn kind(&self) -> Type {
        self.kind
    }

    /// Which object.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The object after the change, encoded; a deleted one as it was last, with the removing revision as its `resource_version`.
    pub fn object(&self) -> Bytes {
        self.record.slice_ref(object_in(&self.record))
    }

    /// The whole event as a field of a WatchResponse: tag, length, `Event`.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// Labels and node after the change; of a deleted object, as they were last.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Labels and node before the change; `None` if there was no such object.
    pub fn view_before(&self) -> Option<&View> {
        match self.kind {
            Type::Added | Type::Unspecified => None,
            Type::Modified | Type::Deleted => Some(self.before.as_deref().unwrap_or(&self.view)),
        }
    }

    /// As [`Event::view_before`], but only when it differs from [`Event::view`].
    pub(super) fn view_changed_from(&self) -> Option<&View> {
        self.before.as_deref()
    }

    /// What the state holds of the object afterwards, sharing the record's memory. Makes no sense of a deleted one.
    pub(super) fn stored(&self, revision: Revision) -> Stored {
        Stored { key: self.key.clone(), revision, bytes: self.object() }
    }
}

fn record(kind: Type, object_len: usize, put_object: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let event_len = event_len(object_len);
    // Exactly as large as needed: the state keeps it as long as it keeps the object.
    let mut buffer = Vec::with_capacity(1 + encoded_len_varint(event_len as u64) + event_len);
    put_head(kind, object_len, &mut buffer);
    put_object(&mut buffer);
    buffer.into()
}

const EVENTS_TAG: u8 = 0x0a;
const TYPE_TAG: u8 = 0x08;
const OBJECT_TAG: u8 = 0x12;

fn event_len(object_len: usize) -> usize {
    2 + 1 + encoded_len_varint(object_len as u64) + object_len
}

/// Appends the `events` field for an encoded object of so many bytes, as far as these bytes, which are its end.
pub fn put_head(kind: Type, object_len: usize, buffer: &mut Vec<u8>) {
    buffer.push(EVENTS_TAG);
    encode_varint(event_len(object_len) as u64, buffer);
    buffer.extend_from_slice(&[TYPE_TAG, kind as u8, OBJECT_TAG]);
    encode_varint(object_len as u64, buffer);
}

/// The object in a record, which is its end.
fn object_in(record: &[u8]) -> &[u8] {
    parse(record).expect("made by put_head").1
}

/// What a record says that happened; `None` if it is none.
fn kind_of(record: &[u8]) -> Option<Type> {
    Type::try_from(i32::from(parse(record)?.0)).ok().filter(|kind| *kind != Type::Unspecified)
}

fn parse(mut record: &[u8]) -> Option<(u8, &[u8])> {
    let rest = &mut record;
    let is = |tag: u8, rest: &mut &[u8]| rest.split_off_first().is_some_and(|found| *found == tag);
    let length_fits = |rest: &mut &[u8]| decode_varint(rest).is_ok_and(|len| len == rest.len() as u64);
    if !(is(EVENTS_TAG, rest) && length_fits(rest) && is(TYPE_TAG, rest)) {
        return None;
    }
    let kind = *rest.split_off_first()?;
    (is(OBJECT_TAG, rest) && length_fits(rest)).then_some((kind, *rest))
}
