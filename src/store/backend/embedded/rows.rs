//! What stands in the files, as protobuf messages: old files stay readable when fields are added.

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::api::v1::Object;
use crate::api::{ObjectKey, Revision};
use crate::store::{Commit, Event, Stored, View};

/// The first record of every file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderRow {
    /// Keeps the files of two clusters apart.
    #[prost(string, tag = "1")]
    pub(super) cluster_id: String,
    /// What the file is for.
    #[prost(enumeration = "Role", tag = "2")]
    pub(super) role: i32,
    /// The first revision of a log segment; the revision of a checkpoint.
    #[prost(uint64, tag = "3")]
    pub(super) revision: u64,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Role {
    Unspecified = 0,
    Log = 1,
    Checkpoint = 2,
}

/// A record of a log segment: commits that were made durable together.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchRow {
    #[prost(message, repeated, tag = "1")]
    pub(super) commits: Vec<CommitRow>,
}

impl BatchRow {
    /// The number of `commits`.
    pub(super) const COMMITS: u32 = 1;
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommitRow {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(message, optional, tag = "2")]
    time: Option<Timestamp>,
    #[prost(message, repeated, tag = "3")]
    events: Vec<EventRow>,
}

#[derive(Clone, PartialEq, Message)]
struct EventRow {
    #[prost(string, tag = "1")]
    key: String,
    /// The event as watches send it, the object inside.
    #[prost(bytes = "bytes", tag = "2")]
    record: Bytes,
    /// Only when it differed: the history may reach further back than the state that is known.
    #[prost(message, optional, tag = "3")]
    before: Option<ViewRow>,
}

#[derive(Clone, PartialEq, Message)]
struct ViewRow {
    #[prost(string, tag = "1")]
    node_name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: std::collections::BTreeMap<String, String>,
}

/// A record of a checkpoint: some objects, in order; the last one is the footer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PageRow {
    #[prost(message, repeated, tag = "1")]
    pub(super) objects: Vec<ObjectRow>,
    #[prost(message, optional, tag = "2")]
    pub(super) footer: Option<FooterRow>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ObjectRow {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(bytes = "bytes", tag = "3")]
    object: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FooterRow {
    /// How many objects the checkpoint has.
    #[prost(uint64, tag = "1")]
    pub(super) objects: u64,
}

impl From<&Commit> for CommitRow {
    fn from(commit: &Commit) -> Self {
        let events = commit.events.iter().map(EventRow::from).collect();
        Self { revision: commit.revision.0, time: Some(commit.time), events }
    }
}

impl CommitRow {
    /// The commit, unless this is none.
    pub(super) fn into_commit(self) -> Option<Commit> {
        let events = self.events.into_iter().map(EventRow::into_event).collect::<Option<_>>()?;
        Some(Commit { revision: Revision(self.revision), time: self.time.unwrap_or_default(), events })
    }
}

impl From<&Event> for EventRow {
    fn from(event: &Event) -> Self {
        let before = event.view_changed_from().map(ViewRow::from);
        Self { key: event.key().as_stored().to_owned(), record: event.record().clone(), before }
    }
}

impl EventRow {
    fn into_event(self) -> Option<Event> {
        let before = self.before.map(|before| View::from_parts(before.node_name, before.labels));
        let event = Event::from_stored(ObjectKey::from_stored(&self.key)?, self.record, before)?;
        is_object(&event.object(), event.key()).then_some(event)
    }
}

impl From<&View> for ViewRow {
    fn from(view: &View) -> Self {
        use crate::api::LabelView as _;
        let labels = view.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { node_name: view.node_name().to_owned(), labels }
    }
}

impl From<&Stored> for ObjectRow {
    fn from(stored: &Stored) -> Self {
        Self { key: stored.key.as_stored().to_owned(), revision: stored.revision.0, object: stored.bytes.clone() }
    }
}

impl ObjectRow {
    /// The object, unless this is none.
    pub(super) fn into_stored(self) -> Option<Stored> {
        let key = ObjectKey::from_stored(&self.key)?;
        is_object(&self.object, &key).then_some(Stored { key, revision: Revision(self.revision), bytes: self.object })
    }
}

/// Whether this is an object of that key. A checksum only says that the bytes are those that were written; whoever reads the object later relies on it.
fn is_object(bytes: &[u8], key: &ObjectKey) -> bool {
    Object::decode(bytes).is_ok_and(|object| object.key().as_ref() == Some(key))
}
