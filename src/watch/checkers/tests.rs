use super::super::Known;
use super::*;
use crate::api::v1::event::Type::{self, Added, Deleted, Modified};
use crate::api::v1::{Event, Object};
use crate::store::fixtures::{pod, service};

fn at(revision: u64, mut object: Object) -> Object {
    object.meta_mut().unwrap().resource_version = revision;
    object
}

fn event(kind: Type, object: Object) -> Event {
    Event { r#type: kind.into(), object: Some(object) }
}

fn web(revision: u64, name: &str) -> Object {
    at(revision, pod(name, "", &[("app", "web")]))
}

fn seen(seconds: u64, revision: u64, synced: bool, events: Vec<Event>) -> Seen {
    Seen { at: Duration::from_secs(seconds), message: WatchResponse { events, revision, synced } }
}

/// What a watch of everything sent: six revisions of pods and a service.
fn everything() -> Vec<WatchResponse> {
    let messages = [
        seen(0, 1, true, vec![event(Added, web(1, "old"))]),
        seen(0, 2, false, vec![event(Added, web(2, "a")), event(Added, web(2, "b"))]),
        seen(0, 4, false, vec![event(Added, at(3, service("s"))), event(Modified, at(4, pod("a", "", &[])))]),
        seen(0, 6, false, vec![event(Modified, web(5, "a")), event(Deleted, web(6, "b"))]),
    ];
    messages.map(|seen| seen.message).into()
}

/// A right recording of a watch of `app=web`: initial state, changes, a resume, a bookmark.
fn right() -> Recorded {
    let labels = crate::api::v1::LabelSelector { match_labels: [("app".to_owned(), "web".to_owned())].into(), ..Default::default() };
    let first = vec![
        seen(0, 0, false, vec![event(Added, web(1, "old"))]),
        seen(1, 1, true, vec![]),
        seen(2, 2, false, vec![event(Added, web(2, "a")), event(Added, web(2, "b"))]),
        seen(3, 4, false, vec![event(Deleted, at(4, pod("a", "", &[])))]),
    ];
    let second = vec![
        seen(9, 5, false, vec![event(Added, web(5, "a"))]),
        seen(10, 6, false, vec![event(Deleted, web(6, "b"))]),
        seen(19, 6, false, vec![]),
    ];
    let streams = vec![Stream { start: Start::Initial, messages: first }, Stream { start: Start::After(Revision(4)), messages: second }];
    let watched = Watched { name: "web".into(), selectors: vec![Selector { labels: Some(labels), ..Default::default() }], streams };
    Recorded { reference: Reference::from_watch(&everything()), watches: vec![watched] }
}

/// Breaks a right recording and says which guarantees are found broken.
fn found(break_it: impl FnOnce(&mut Vec<Stream>)) -> Vec<Guarantee> {
    let mut recorded = right();
    break_it(&mut recorded.watches[0].streams);
    recorded.check(Duration::from_secs(10)).into_iter().map(|broken| broken.guarantee).collect()
}

fn message(streams: &mut [Stream], stream: usize, index: usize) -> &mut WatchResponse {
    &mut streams[stream].messages[index].message
}

#[test]
fn a_right_recording_passes() {
    assert_eq!(found(|_| {}), []);
    right().assert_kept(Duration::from_secs(10));
}

#[test]
fn what_was_not_selected_or_came_as_something_else_is_found() {
    assert!(found(|streams| message(streams, 0, 2).events.push(event(Added, at(2, service("s"))))).contains(&Guarantee::Filtered));
    assert!(found(|streams| message(streams, 1, 0).events[0].set_type(Modified)).contains(&Guarantee::Filtered));
    assert!(found(|streams| message(streams, 0, 0).events.push(event(Added, at(1, pod("c", "", &[]))))).contains(&Guarantee::Filtered));
}

#[test]
fn a_revision_out_of_order_is_found() {
    let swapped = found(|streams| {
        let later = std::mem::take(&mut message(streams, 1, 1).events);
        message(streams, 1, 0).events.splice(0..0, later);
        message(streams, 1, 0).revision = 6;
    });
    assert!(swapped.contains(&Guarantee::Ordered), "{swapped:?}");
    assert!(found(|streams| message(streams, 0, 2).revision = 1).contains(&Guarantee::Ordered));
}

#[test]
fn a_repetition_is_found_also_after_a_resume() {
    assert!(found(|streams| message(streams, 1, 1).events.push(event(Deleted, web(6, "b")))).contains(&Guarantee::Unique));
    let again = found(|streams| message(streams, 1, 0).events.insert(0, event(Deleted, at(4, pod("a", "", &[])))));
    assert!(again.contains(&Guarantee::Unique), "{again:?}");
}

#[test]
fn a_revision_in_two_messages_is_found() {
    let split = found(|streams| {
        let half = message(streams, 0, 2).events.split_off(1);
        streams[0].messages.insert(3, seen(2, 2, false, half));
    });
    assert!(split.contains(&Guarantee::Atomic), "{split:?}");
}

#[test]
fn a_gap_or_another_content_is_found() {
    assert_eq!(found(|streams| drop(message(streams, 0, 2).events.pop())), [Guarantee::Reliable, Guarantee::Resumable]);
    assert!(found(|streams| message(streams, 0, 0).events.clear()).contains(&Guarantee::Reliable));
    let other = found(|streams| message(streams, 1, 0).events[0].object = Some(at(5, pod("a", "n", &[("app", "web")]))));
    assert!(other.contains(&Guarantee::Reliable), "{other:?}");
}

#[test]
fn a_resume_from_elsewhere_or_with_a_gap_is_found() {
    assert!(found(|streams| streams[1].start = Start::After(Revision(3))).contains(&Guarantee::Resumable));
    let gap = found(|streams| {
        streams[1].start = Start::After(Revision(4));
        streams[1].messages.remove(0);
    });
    assert!(gap.contains(&Guarantee::Resumable), "{gap:?}");
}

#[test]
fn a_broken_promise_or_a_long_silence_is_found() {
    assert!(found(|streams| message(streams, 0, 3).revision = 1).contains(&Guarantee::Bookmarkable));
    assert!(found(|streams| message(streams, 0, 0).revision = 1).contains(&Guarantee::Bookmarkable));
    assert!(found(|streams| message(streams, 1, 2).synced = true).contains(&Guarantee::Bookmarkable));
    assert_eq!(found(|streams| streams[1].messages[2].at = Duration::from_secs(21)), [Guarantee::Bookmarkable]);
    let late = found(|streams| streams[1].messages.insert(0, seen(8, 6, false, vec![])));
    assert!(late.contains(&Guarantee::Bookmarkable), "{late:?}");
}

/// A right recording of a watch of `app=web` that was told what differs from what it knew: of revision 4 on.
fn right_difference() -> Recorded {
    let mut recorded = right();
    let known = [("old", 1), ("a", 2), ("gone", 2)].map(|(name, revision)| (crate::store::fixtures::pod_key(name), Revision(revision)));
    let start = Start::Difference { known: Known::new(known.into()).unwrap(), after: None };
    let bare = |name| Object::bare(&crate::store::fixtures::pod_key(name), 4);
    let messages = vec![
        seen(0, 0, false, vec![event(Deleted, bare("a")), event(Added, web(2, "b"))]),
        seen(1, 4, true, vec![event(Deleted, bare("gone"))]),
        seen(2, 5, false, vec![event(Added, web(5, "a"))]),
    ];
    recorded.watches[0].streams = vec![Stream { start, messages }];
    recorded
}

fn found_in_difference(break_it: impl FnOnce(&mut Vec<Stream>)) -> Vec<Guarantee> {
    let mut recorded = right_difference();
    break_it(&mut recorded.watches[0].streams);
    recorded.check(Duration::from_secs(10)).into_iter().map(|broken| broken.guarantee).collect()
}

#[test]
fn a_right_difference_passes() {
    assert_eq!(found_in_difference(|_| {}), []);
    // From the history, what was known doesn't matter.
    let from_history = found_in_difference(|streams| {
        let Start::Difference { after, .. } = &mut streams[0].start else { unreachable!() };
        *after = Some(Revision(4));
        streams[0].messages.drain(..2);
    });
    assert_eq!(from_history, []);
}

#[test]
fn a_difference_that_leaves_something_out_or_repeats_or_misnames_it_is_found() {
    let missing = found_in_difference(|streams| drop(message(streams, 0, 0).events.pop()));
    assert_eq!(missing, [Guarantee::Reliable]);
    let gone = found_in_difference(|streams| message(streams, 0, 1).events.clear());
    assert_eq!(gone, [Guarantee::Reliable]);
    let repeated = found_in_difference(|streams| message(streams, 0, 0).events.push(event(Modified, web(1, "old"))));
    assert_eq!(repeated, [Guarantee::Filtered, Guarantee::Unique, Guarantee::Reliable]);
    let as_new = found_in_difference(|streams| message(streams, 0, 0).events[1].set_type(Modified));
    assert_eq!(as_new, [Guarantee::Filtered, Guarantee::Reliable]);
    let twice = found_in_difference(|streams| {
        message(streams, 0, 1).events.push(event(Deleted, Object::bare(&crate::store::fixtures::pod_key("a"), 3)))
    });
    assert!(twice.contains(&Guarantee::Unique), "{twice:?}");
    let early = found_in_difference(|streams| message(streams, 0, 0).revision = 4);
    assert!(early.contains(&Guarantee::Bookmarkable), "{early:?}");
}
