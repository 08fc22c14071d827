use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};

use super::*;
use crate::api;
use crate::api::v1::event::Type::{Added, Deleted, Modified};
use crate::store::fixtures::{delete, large_pod, pod, put, service};

fn row(kind: Type, name: &str, revision: u64) -> (Type, String, u64) {
    (kind, name.to_owned(), revision)
}

#[tokio::test]
async fn a_watch_of_everything_sees_every_change_as_it_is() {
    let watching = Watching::new();
    let mut cursor = watching.watch_on(&[]);
    watching.commit([put(pod("a", "", &[])), put(service("s"))]).await;
    watching.commit([put(pod("a", "n", &[]))]).await;
    let last = watching.commit([delete("a")]).await;
    let seen = rows_up_to(&mut cursor, last).await;
    assert_eq!(seen, [row(Added, "a", 1), row(Added, "s", 1), row(Modified, "a", 2), row(Deleted, "a", 3)]);
}

#[tokio::test]
async fn what_begins_to_match_is_added_and_what_ceases_to_is_deleted_as_it_then_is() {
    let watching = Watching::new();
    let (mut by_label, mut by_node) = (watching.watch_on(&[labelled("app", "web")]), watching.watch_on(&[on_node("n1")]));
    watching.commit([put(pod("a", "", &[("app", "web")]))]).await;
    watching.commit([put(pod("a", "n1", &[("app", "web")]))]).await;
    watching.commit([put(pod("a", "n1", &[("app", "db")]))]).await;
    watching.commit([put(pod("a", "n2", &[("app", "db")]))]).await;
    watching.commit([put(pod("a", "n2", &[("app", "web")]))]).await;
    watching.commit([delete("a")]).await;
    let last = watching.commit([put(pod("end", "n1", &[("app", "web")]))]).await;
    let seen = rows_up_to(&mut by_label, last).await;
    assert_eq!(
        seen,
        [row(Added, "a", 1), row(Modified, "a", 2), row(Deleted, "a", 3), row(Added, "a", 5), row(Deleted, "a", 6), row(Added, "end", 7)]
    );
    let seen = rows_up_to(&mut by_node, last).await;
    assert_eq!(seen, [row(Added, "a", 2), row(Modified, "a", 3), row(Deleted, "a", 4), row(Added, "end", 7)]);
}

#[tokio::test]
async fn several_selectors_give_one_sequence_in_order_without_repetition() {
    let watching = Watching::new();
    let one = Selector { name: "s".into(), namespace: "default".into(), ..kind("Service") };
    let elsewhere = Selector { namespace: "elsewhere".into(), ..kind("Pod") };
    let mut cursor = watching.watch_on(&[on_node("n1"), one, labelled("app", "web"), elsewhere]);
    for _ in 0..50 {
        watching.commit([put(pod("a", "n1", &[("app", "web")])), put(service("s")), put(service("other"))]).await;
        watching.commit([put(pod("b", "", &[])), put(pod("c", "", &[("app", "web")]))]).await;
    }
    let seen = rows_up_to(&mut cursor, Revision(99)).await;
    let of_revision = |revision| if revision % 2 == 1 { vec![("a", revision), ("s", revision)] } else { vec![("c", revision)] };
    let expected: Vec<_> = (1..=100).flat_map(of_revision).collect();
    assert_eq!(seen.iter().map(|(_, name, revision)| (name.as_str(), *revision)).collect::<Vec<_>>(), expected[..seen.len()]);
    assert!(seen.len() >= 149);
}

#[tokio::test]
async fn a_watch_that_is_not_read_loses_nothing_however_far_it_falls_behind() {
    let watching = Watching::new();
    let mut cursor = watching.watch_on(&[kind("Pod")]);
    for number in 0..500 {
        watching.commit([put(pod(&format!("p{}", number % 10), "", &[]))]).await;
    }
    let seen = rows_up_to(&mut cursor, Revision(500)).await;
    assert_eq!(seen.iter().map(|(_, _, revision)| *revision).collect::<Vec<_>>(), (1..=500).collect::<Vec<_>>());
    let last = watching.commit([delete("p1")]).await;
    assert_eq!(rows_up_to(&mut cursor, last).await, [row(Deleted, "p1", 501)], "and goes on");
}

#[tokio::test]
async fn a_watch_that_fell_behind_the_history_ends_with_compacted_and_stays_so() {
    let watching = Watching::with_history(HistoryLimits { revisions: 10, bytes: usize::MAX, ..HistoryLimits::default() });
    let mut cursor = watching.watch_on(&[kind("Pod")]);
    for _ in 0..400 {
        watching.commit([put(pod("a", "", &[]))]).await;
    }
    let compacted = Error::Compacted { requested: Revision(0), oldest: Revision(390) };
    for _ in 0..2 {
        assert_eq!(next(&mut cursor).await, Err(compacted.clone()));
    }
}

#[tokio::test]
async fn a_revision_comes_in_one_message_and_messages_are_bounded() {
    let watching = Watching::new();
    let mut cursor = watching.watch_on(&[]);
    for round in 0..30 {
        watching.commit((0..90).map(|number| put(pod(&format!("p{round}-{number}"), "", &[])))).await;
    }
    for _ in 0..4 {
        watching.commit([put(large_pod("large", 600 * 1024)), put(pod("small", "", &[]))]).await;
    }
    let (mut revisions, mut sizes) = (Vec::new(), Vec::new());
    while revisions.last() != Some(&34) {
        let sent = cursor.next().await.unwrap();
        let message = decoded(&sent);
        let mut inside: Vec<_> = rows(&message).iter().map(|(_, _, revision)| *revision).collect();
        inside.dedup();
        assert_eq!(inside.last(), Some(&message.revision));
        revisions.extend(inside);
        sizes.push((sent.events, sent.into_chunks().iter().map(bytes::Bytes::len).sum::<usize>()));
    }
    assert_eq!(revisions, (1..=34).collect::<Vec<_>>(), "each in one message");
    assert!(sizes.iter().all(|(events, bytes)| *events <= 1000 && *bytes <= 1024 * 1024), "{sizes:?}");
    assert!(sizes.len() <= 10, "and what is ready goes together: {sizes:?}");
}

/// Counts how often a future asked to be polled.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_change_wakes_only_those_whom_it_may_concern() {
    let watching = Watching::new();
    let named = |name: &str| Selector { name: name.into(), namespace: "default".into(), ..kind("Pod") };
    let elsewhere = Selector { namespace: "elsewhere".into(), ..kind("Pod") };
    let cases = [
        (vec![on_node("n7")], 1),
        (vec![kind("Pod")], 1),
        (vec![], 1),
        (vec![named("a")], 1),
        (vec![on_node("n8")], 0),
        (vec![kind("Service")], 0),
        (vec![named("b")], 0),
        (vec![elsewhere], 0),
    ];
    for (selectors, expected) in cases {
        let mut cursor = watching.watch_on(&selectors);
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes).into();
        let mut quiet = pin!(cursor.next());
        assert!(quiet.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // Who watches everything, and began later, hears of it after the others.
        let mut everything = watching.watch_on(&[]);
        let revision = watching.commit([put(pod("a", "n7", &[]))]).await;
        rows_up_to(&mut everything, revision).await;
        watching.hub.settle(revision).await;
        assert_eq!(wakes.0.load(Ordering::SeqCst), expected, "{selectors:?}");
        let ready = matches!(quiet.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(message)) if message.events == 1);
        assert_eq!(ready, expected == 1, "{selectors:?}");
    }
}

#[tokio::test]
async fn a_pod_that_changes_nodes_is_told_to_both() {
    let watching = Watching::new();
    watching.commit([put(pod("a", "n1", &[]))]).await;
    let (mut from, mut to) = (watching.watch_on(&[on_node("n1")]), watching.watch_on(&[on_node("n2")]));
    let moved = watching.commit([put(pod("a", "n2", &[]))]).await;
    assert_eq!(rows_up_to(&mut from, moved).await, [row(Deleted, "a", 2)]);
    assert_eq!(rows_up_to(&mut to, moved).await, [row(Added, "a", 2)]);
}

#[tokio::test]
async fn nothing_stays_of_a_watch_that_is_gone() {
    let watching = Watching::new();
    let cursors: Vec<_> = (0..50).map(|node| watching.watch_on(&[on_node(&format!("n{}", node / 2)), kind("Service")])).collect();
    assert_eq!(watching.hub.counts(), (25, 26), "filters and topics");
    drop(cursors);
    assert_eq!(watching.hub.counts(), (0, 0));
}

fn places(message: Message) -> Vec<*const u8> {
    message.into_chunks().iter().map(|chunk| chunk.as_ptr()).collect()
}

#[tokio::test]
async fn the_same_change_is_the_same_memory_for_every_watch() {
    let watching = Watching::new();
    let mut alike = [watching.watch_on(&[kind("Pod")]), watching.watch_on(&[kind("Pod")]), watching.watch_on(&[kind("Pod")])];
    let mut others = [watching.watch_on(&[]), watching.watch_on(&[on_node("n")])];
    watching.commit([put(pod("a", "n", &[]))]).await;
    let first = places(alike[0].next().await.unwrap());
    for cursor in &mut alike[1..] {
        assert_eq!(places(cursor.next().await.unwrap()), first, "of those who watch the same, the whole message");
    }
    for cursor in &mut others {
        cursor.next().await.unwrap();
    }
    let mut large = large_pod("large", 100 * 1024);
    let api::v1::object::Kind::Pod(pod) = large.kind.as_mut().unwrap() else { unreachable!() };
    pod.spec.as_mut().unwrap().node_name = "n".into();
    watching.commit([put(large)]).await;
    let mut large = Vec::new();
    for cursor in alike.iter_mut().chain(&mut others) {
        large.push(places(cursor.next().await.unwrap())[1]);
    }
    assert!(large.iter().all(|place| *place == large[0]), "of all others, large objects");
}
