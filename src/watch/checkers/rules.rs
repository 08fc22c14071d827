//! One function for each guarantee. An error says what happened instead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::model::{Expected, Reference, key_of, matches, revision_of};
use super::{Seen, Watched};
use crate::api::v1::Event;
use crate::api::v1::event::Type;
use crate::api::{ObjectKey, Revision};

type Check = Result<(), String>;

/// Nothing but what the selectors match was sent, and each change as what it means to this watch.
pub(super) fn filtered(reference: &Reference, watch: &Watched) -> Check {
    let matchers = watch.matchers();
    let all = reference.changes(&matchers, reference.base_revision(), reference.last_revision());
    let expected: BTreeMap<_, _> = all.iter().map(|(revision, seen_as, key, _)| ((*revision, key.clone()), *seen_as)).collect();
    for stream in &watch.streams {
        let (initial, changes) = stream.parts();
        let known_before = stream.known();
        for (key, event) in events(initial)? {
            let selected = event.object.as_ref().is_some_and(|object| matches(&matchers, &key, object));
            let is_right = match (event.r#type(), known_before.get(&key)) {
                (Type::Added, None) => selected,
                (Type::Modified, Some(known)) => selected && revision_of(event) != *known,
                (Type::Deleted, Some(_)) => true,
                _ => false,
            };
            check(is_right, || format!("the initial state has {key} as {:?}", event.r#type()))?;
        }
        for (key, event) in events(changes)?.into_iter().filter(|(_, event)| known(reference, event)) {
            let (revision, sent) = (revision_of(event), event.r#type());
            let wanted = expected.get(&(revision, key.clone()));
            check(wanted == Some(&sent), || format!("{key} at revision {revision} was sent as {sent:?}, but is to it {wanted:?}"))?;
        }
    }
    Ok(())
}

/// Revisions never go back, and no message has events beyond its own revision.
pub(super) fn ordered(watch: &Watched) -> Check {
    for stream in &watch.streams {
        let (_, changes) = stream.parts();
        let mut last = Revision::ZERO;
        for seen in changes {
            for event in &seen.message.events {
                let revision = revision_of(event);
                check(revision >= last, || format!("revision {revision} was sent after {last}"))?;
                check(revision.0 <= seen.message.revision, || {
                    format!("a message of revision {} has an event of {revision}", seen.message.revision)
                })?;
                last = revision;
            }
        }
    }
    Ok(())
}

/// No change was sent twice, nor again after a resume.
pub(super) fn unique(watch: &Watched) -> Check {
    let mut sent = BTreeSet::new();
    for stream in &watch.streams {
        let (initial, changes) = stream.parts();
        if !initial.is_empty() {
            sent = stream.known().into_iter().map(|(key, revision)| (key.clone(), revision)).collect();
        }
        let mut in_state = BTreeSet::new();
        for (key, _) in events(initial)? {
            check(in_state.insert(key.clone()), || format!("the initial state has {key} twice"))?;
        }
        for (key, event) in events(initial)?.into_iter().chain(events(changes)?) {
            let revision = revision_of(event);
            check(sent.insert((key.clone(), revision)), || format!("{key} of revision {revision} was sent twice"))?;
        }
    }
    Ok(())
}

/// The events of one revision came in one message.
pub(super) fn atomic(watch: &Watched) -> Check {
    for stream in &watch.streams {
        let mut done = BTreeSet::new();
        for seen in stream.parts().1 {
            let revisions: BTreeSet<_> = seen.message.events.iter().map(revision_of).collect();
            let split = revisions.iter().find(|revision| done.contains(*revision));
            check(split.is_none(), || format!("revision {split:?} came in more than one message"))?;
            done.extend(revisions);
        }
    }
    Ok(())
}

/// Between its start and its last revision a stream left nothing out, and every object was as it really was.
pub(super) fn reliable(reference: &Reference, watch: &Watched) -> Check {
    let matchers = watch.matchers();
    for stream in &watch.streams {
        let Some(start) = stream.begins_after() else { continue };
        let (initial, changes) = stream.parts();
        if stream.is_initial() && start >= reference.base_revision() {
            let sent: BTreeMap<_, _> = events(initial)?.into_iter().map(|(key, event)| (key, event.clone())).collect();
            let wanted = reference.difference(&matchers, start, &stream.known());
            check(sent == wanted, || difference(sent.keys(), wanted.keys(), &format!("the initial state of revision {start}")))?;
        }
        let start = start.max(reference.base_revision());
        let end = stream.last_revision().min(reference.last_revision());
        same(&sent_between(changes, start, end)?, &reference.changes(&matchers, start, end))?;
    }
    Ok(())
}

/// Each stream went on where the one before had ended, and together they left nothing out.
pub(super) fn resumable(reference: &Reference, watch: &Watched) -> Check {
    let matchers = watch.matchers();
    for pair in watch.streams.windows(2) {
        let [before, after] = pair else { continue };
        let Some(resumed) = after.resumed_from() else { continue };
        let last = before.last_revision();
        check(resumed == last, || format!("resumed from {resumed}, though {last} was the last revision seen"))?;
        let Some(start) = before.begins_after() else { continue };
        let start = start.max(reference.base_revision());
        let end = after.last_revision().min(reference.last_revision());
        let mut sent = sent_between(before.parts().1, start, end)?;
        sent.extend(sent_between(after.parts().1, start, end)?);
        same(&sent, &reference.changes(&matchers, start, end))?;
    }
    Ok(())
}

/// A message's revision held for everything before, the initial state was completed once, and no silence was too long.
pub(super) fn bookmarkable(watch: &Watched, silence: Duration) -> Check {
    for stream in &watch.streams {
        let (initial, changes) = stream.parts();
        let complete = initial.last().is_some_and(|seen| seen.message.synced);
        let incomplete = &initial[..initial.len() - usize::from(complete)];
        check(incomplete.iter().all(|seen| seen.message.revision == 0), || {
            "the initial state had a revision before it was complete".into()
        })?;
        check(changes.iter().all(|seen| !seen.message.synced), || "synced came again, or without an initial state".into())?;
        let mut promised = stream.begins_after().unwrap_or_default();
        for seen in changes {
            let late = seen.message.events.iter().map(revision_of).find(|revision| *revision <= promised);
            check(late.is_none(), || format!("revision {late:?} came after {promised} was said to be complete"))?;
            check(seen.message.revision >= promised.0, || format!("the revision went back from {promised} to {}", seen.message.revision))?;
            promised = Revision(seen.message.revision);
        }
        for pair in stream.messages.windows(2) {
            let pause = pair[1].at.saturating_sub(pair[0].at);
            check(pause <= silence, || format!("nothing was sent for {pause:?}"))?;
        }
    }
    Ok(())
}

fn check(holds: bool, fault: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(fault()) }
}

fn events(messages: &[Seen]) -> Result<Vec<(ObjectKey, &Event)>, String> {
    let events = messages.iter().flat_map(|seen| &seen.message.events);
    events.map(|event| key_of(event).map(|key| (key, event)).ok_or_else(|| "an event has no object".to_owned())).collect()
}

fn known(reference: &Reference, event: &Event) -> bool {
    revision_of(event) > reference.base_revision() && revision_of(event) <= reference.last_revision()
}

fn sent_between(messages: &[Seen], start: Revision, end: Revision) -> Result<Vec<Expected>, String> {
    let sent = events(messages)?.into_iter().filter(|(_, event)| revision_of(event) > start && revision_of(event) <= end);
    Ok(sent.filter_map(|(key, event)| Some((revision_of(event), event.r#type(), key, event.object.clone()?))).collect())
}

fn same(sent: &[Expected], wanted: &[Expected]) -> Check {
    let name = |(revision, kind, key, _): &Expected| format!("{kind:?} {key} at {revision}");
    for index in 0..sent.len().max(wanted.len()) {
        let (sent, wanted) = (sent.get(index), wanted.get(index));
        if sent != wanted {
            let (sent, wanted) = (sent.map_or("nothing".to_owned(), name), wanted.map_or("nothing".to_owned(), name));
            let contents = if sent == wanted { ", but with other contents" } else { "" };
            return Err(format!("event {index}: sent was {sent}, but it should be {wanted}{contents}"));
        }
    }
    Ok(())
}

fn difference<'a>(sent: impl Iterator<Item = &'a ObjectKey>, wanted: impl Iterator<Item = &'a ObjectKey>, what: &str) -> String {
    let (sent, wanted): (BTreeSet<_>, BTreeSet<_>) = (sent.collect(), wanted.collect());
    let missing: Vec<_> = wanted.difference(&sent).collect();
    let surplus: Vec<_> = sent.difference(&wanted).collect();
    format!("{what} lacks {missing:?} and has {surplus:?} that should not be there; or objects are otherwise than they were")
}
