//! What watches with the same filter share.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::*;
use crate::store::fixtures::{delete, large_pod, pod, put, service};

/// Reads everything that is ready, as names.
fn names(cursor: &mut Cursor) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(message) = cursor.next().now_or_never() {
        names.extend(rows(&decoded(&message.unwrap())).into_iter().map(|(_, name, _)| name));
    }
    names
}

#[tokio::test]
async fn who_reads_later_takes_more_in_one_message_and_misses_nothing() {
    let watching = Watching::new();
    let mut cursors: Vec<_> = (0..20).map(|_| watching.watch_on(&[kind("Pod")])).collect();
    let mut last = Revision::ZERO;
    for (number, cursor) in cursors.iter_mut().enumerate() {
        last = watching.commit([put(pod(&format!("p{number:02}"), "", &[]))]).await;
        watching.hub.settle(last).await;
        let all: Vec<_> = (0..=number).map(|number| format!("p{number:02}")).collect();
        let message = decoded(&cursor.next().await.unwrap());
        assert_eq!(rows(&message).into_iter().map(|(_, name, _)| name).collect::<Vec<_>>(), all);
        assert_eq!(message.revision, last.0);
    }
    for (number, cursor) in cursors.iter_mut().enumerate().take(19) {
        let rest: Vec<_> = (number + 1..20).map(|number| format!("p{number:02}")).collect();
        assert_eq!(names(cursor), rest);
    }
    assert_eq!(last, Revision(20));
}

#[tokio::test]
async fn when_everybody_has_everything_nothing_is_kept() {
    let watching = Watching::new();
    let [mut one, mut other] = [watching.watch_on(&[kind("Pod")]), watching.watch_on(&[kind("Pod")])];
    for _ in 0..3 {
        let revision = watching.commit([put(pod("a", "", &[]))]).await;
        watching.hub.settle(revision).await;
    }
    assert_eq!(names(&mut one).len(), 3);
    assert_eq!(watching.hub.kept().len(), 3, "for the other one");
    assert_eq!(names(&mut other).len(), 3);
    // Both wait now, but a wait that is given up is none.
    let (mut first, mut second) = (Box::pin(one.next()), Box::pin(other.next()));
    assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
    assert_eq!(watching.hub.kept().len(), 0);
    let revision = watching.commit([delete("a")]).await;
    assert_eq!((first.await.unwrap().revision, second.await.unwrap().revision), (revision, revision));
}

#[tokio::test]
async fn a_channel_keeps_nothing_that_the_history_no_longer_has() {
    let watching = Watching::with_history(HistoryLimits { revisions: 5, bytes: usize::MAX, ..HistoryLimits::default() });
    let _never_read = watching.watch_on(&[kind("Service")]);
    for _ in 0..3 {
        watching.commit([put(service("s"))]).await;
    }
    let mut last = Revision::ZERO;
    for _ in 0..1100 {
        last = watching.commit([put(pod("a", "", &[]))]).await;
    }
    watching.hub.settle(last).await;
    assert_eq!(watching.hub.kept().len(), 0);
}

#[tokio::test]
async fn what_is_kept_for_watches_that_are_not_read_is_the_historys_own_memory() {
    let watching = Watching::new();
    let selector = |number: usize| [labelled("app", "web"), labelled("number", &number.to_string())];
    let _never_read: Vec<_> = (0..50).map(|number| watching.watch_on(&selector(number))).collect();
    let mut last = Revision::ZERO;
    for number in 0..20 {
        let app = if number % 2 == 0 { "web" } else { "db" };
        last = watching.commit([put(pod("a", "", &[("app", app)]))]).await;
    }
    watching.hub.settle(last).await;
    let kept = watching.hub.kept();
    assert_eq!(kept.len(), 50 * 20);
    let history = watching.store.feed().after(Revision::ZERO, 100).unwrap();
    assert!(kept.iter().all(|kept| history.iter().any(|commit| Arc::ptr_eq(kept, commit))));
}

#[tokio::test]
async fn what_an_object_means_to_a_watch_costs_no_copy_of_the_object() {
    let watching = Watching::new();
    let mut cursor = watching.watch_on(&[labelled("app", "web")]);
    let with_label = |app: &str| {
        let mut object = large_pod("large", 100 * 1024);
        object.meta_mut().unwrap().labels.insert("app".into(), app.into());
        put(object)
    };
    watching.commit([with_label("db")]).await;
    let last = watching.commit([with_label("web")]).await;
    let stored = watching.store.snapshot().get(&crate::store::fixtures::pod_key("large")).unwrap().bytes.clone();
    let message = cursor.next().await.unwrap();
    assert_eq!(rows(&decoded(&message)), [(Type::Added, "large".to_owned(), last.0)]);
    let chunks = message.into_chunks();
    assert!(chunks.iter().any(|chunk| chunk.as_ptr() == stored.as_ptr() && chunk.len() == stored.len()), "it is the store's own");
}

#[tokio::test(start_paused = true)]
async fn a_channel_keeps_nothing_that_has_become_too_old_even_when_nothing_happens() {
    let watching = Watching::with_history(HistoryLimits { age: Duration::from_secs(60), ..HistoryLimits::default() });
    let _never_read = watching.watch_on(&[kind("Pod")]);
    let last = watching.commit([put(pod("a", "", &[]))]).await;
    watching.hub.settle(last).await;
    assert_eq!(watching.hub.kept().len(), 1);
    tokio::time::advance(Duration::from_secs(61)).await;
    watching.store.expire_history();
    let begun = std::time::Instant::now();
    while !watching.hub.kept().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "it is never let go of");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_label_selector_is_looked_at_once_for_all_who_watch_with_it() {
    let watching = Watching::new();
    let selectors = [labelled("app", "web"), labelled("app", "db")];
    let _cursors: Vec<_> = (0..100).map(|number| watching.watch_on(&[selectors[number % 2].clone()])).collect();
    assert_eq!(watching.hub.counts().0, 2, "channels, and only they look");
}

#[tokio::test]
async fn all_of_very_many_watches_are_woken_though_only_few_at_once() {
    let watching = Watching::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let mut cursor = watching.watch_on(&[]);
        tasks.spawn(async move { rows_up_to(&mut cursor, Revision(50)).await.len() });
    }
    for _ in 0..50 {
        watching.commit([put(pod("a", "", &[]))]).await;
    }
    while let Some(events) = tasks.join_next().await {
        assert_eq!(events.unwrap(), 50);
    }
}

#[tokio::test]
async fn messages_that_nobody_takes_from_the_wire_stay_within_a_bound() {
    let watching = Watching::new();
    for number in 0..40 {
        watching.commit([put(large_pod(&format!("p{number}"), 15 * 1024))]).await;
    }
    // As if each were stuck in the send buffer of a stream.
    let mut stuck = Vec::new();
    let mut cursors: Vec<_> = (0..400).map(|_| watching.watch(&[], Start::Initial).unwrap()).collect();
    for cursor in &mut cursors {
        stuck.push(cursor.next().await.unwrap());
    }
    let bytes = watching.hub.under_way();
    assert!(bytes > 60 * 1024 * 1024, "{bytes}: the first ones are as large as ever");
    assert!(bytes < 66 * 1024 * 1024, "{bytes}: the others wait with less");
    // Nothing is lost for being sent in small pieces.
    for cursor in &mut cursors[390..] {
        let mut events = 0;
        loop {
            let message = decoded(&cursor.next().await.unwrap());
            events += message.events.len();
            if message.synced {
                break;
            }
        }
        assert_eq!(events, 39);
    }
    drop(stuck);
    assert_eq!(watching.hub.under_way(), 0);
}
