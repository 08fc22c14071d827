use std::collections::BTreeMap;

use prost::Message as _;

use crate::api::v1::event::Type;
use crate::api::v1::{Event, Object, WatchResponse};
use crate::api::{Matcher, ObjectKey, Revision};
use crate::store::Commit;

/// What really happened, in order: the state at some revision, and every change after it.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    base: BTreeMap<ObjectKey, Object>,
    base_revision: Revision,
    commits: BTreeMap<Revision, Vec<Event>>,
    last_revision: Revision,
}

/// One event as a watch must send it.
pub(super) type Expected = (Revision, Type, ObjectKey, Object);

impl Reference {
    /// From the store's own commits, beginning with the first one.
    pub fn from_commits<'a>(commits: impl IntoIterator<Item = &'a Commit>) -> Self {
        let mut reference = Self::default();
        for commit in commits {
            let event = |event: &crate::store::Event| {
                let object = Object::decode(event.object()).expect("the store encoded it");
                Event { r#type: event.kind().into(), object: Some(object) }
            };
            reference.commits.insert(commit.revision, commit.events.iter().map(event).collect());
            reference.last_revision = commit.revision;
        }
        reference
    }

    /// From a watch of everything that began with the initial state, for tests that see a cluster only from outside. It knows nothing of what was
    /// before.
    pub fn from_watch<'a>(messages: impl IntoIterator<Item = &'a WatchResponse>) -> Self {
        let (mut reference, mut synced) = (Self::default(), false);
        for message in messages {
            for event in &message.events {
                match (synced, key_of(event), &event.object) {
                    (false, Some(key), Some(object)) => drop(reference.base.insert(key, object.clone())),
                    _ => reference.commits.entry(revision_of(event)).or_default().push(event.clone()),
                }
            }
            if message.synced {
                synced = true;
                reference.base_revision = Revision(message.revision);
            }
            reference.last_revision = Revision(message.revision);
        }
        reference
    }

    /// The last revision that is known.
    pub(super) fn last_revision(&self) -> Revision {
        self.last_revision
    }

    /// Before this revision nothing is known.
    pub(super) fn base_revision(&self) -> Revision {
        self.base_revision
    }

    /// The objects that match at a revision.
    fn state(&self, matchers: &[Matcher], at: Revision) -> BTreeMap<ObjectKey, Object> {
        let mut state = self.base.clone();
        for event in self.commits.range(..=at).flat_map(|(_, events)| events) {
            replay(&mut state, event);
        }
        state.retain(|key, object| matches(matchers, key, object));
        state
    }

    /// What leads from what is known to the objects that match at a revision.
    pub(super) fn difference(
        &self,
        matchers: &[Matcher],
        at: Revision,
        known: &BTreeMap<&ObjectKey, Revision>,
    ) -> BTreeMap<ObjectKey, Event> {
        let state = self.state(matchers, at);
        let gone = known.keys().filter(|key| !state.contains_key(*key));
        let gone = gone.map(|key| ((*key).clone(), Event { r#type: Type::Deleted.into(), object: Some(Object::bare(key, at.0)) }));
        let mut events: BTreeMap<_, _> = gone.collect();
        for (key, object) in state {
            let change = match known.get(&key) {
                Some(revision) if revision.0 == object.meta().resource_version => continue,
                Some(_) => Type::Modified,
                None => Type::Added,
            };
            events.insert(key, Event { r#type: change.into(), object: Some(object) });
        }
        events
    }

    /// What a watch with these matchers sends for the revisions after one and up to another, in order.
    pub(super) fn changes(&self, matchers: &[Matcher], after: Revision, up_to: Revision) -> Vec<Expected> {
        let mut state = self.base.clone();
        let mut changes = Vec::new();
        for (revision, events) in self.commits.range(..=up_to) {
            for event in events {
                let (Some(key), Some(object)) = (key_of(event), &event.object) else { continue };
                let before = state.get(&key).is_some_and(|object| matches(matchers, &key, object));
                let now = event.r#type() != Type::Deleted && matches(matchers, &key, object);
                let seen_as = match (before, now) {
                    (false, false) => None,
                    (false, true) => Some(Type::Added),
                    (true, true) => Some(Type::Modified),
                    (true, false) => Some(Type::Deleted),
                };
                if let (Some(seen_as), true) = (seen_as, *revision > after) {
                    changes.push((*revision, seen_as, key, object.clone()));
                }
                replay(&mut state, event);
            }
        }
        changes
    }
}

fn replay(state: &mut BTreeMap<ObjectKey, Object>, event: &Event) {
    let (Some(key), Some(object)) = (key_of(event), &event.object) else { return };
    match event.r#type() {
        Type::Deleted => state.remove(&key),
        Type::Added | Type::Modified | Type::Unspecified => state.insert(key, object.clone()),
    };
}

pub(super) fn matches(matchers: &[Matcher], key: &ObjectKey, object: &Object) -> bool {
    matchers.iter().any(|matcher| matcher.matches(key, object))
}

pub(super) fn key_of(event: &Event) -> Option<ObjectKey> {
    event.object.as_ref()?.key()
}

/// The revision of a change: the object's `resource_version`, also for a deleted one.
pub(super) fn revision_of(event: &Event) -> Revision {
    Revision(event.object.as_ref().map_or(0, |object| object.meta().resource_version))
}
