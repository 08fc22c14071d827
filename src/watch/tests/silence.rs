use std::task::Poll;

use tokio::time::Instant;

use super::*;
use crate::store::fixtures::{pod, put};

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_says_where_it_stands_at_least_every_ten_seconds() {
    let watching = Watching::new();
    let revision = watching.commit([put(pod("a", "", &[]))]).await;
    let mut cursor = watching.watch_on(&[]);
    for _ in 0..3 {
        let asked = Instant::now();
        let bookmark = next(&mut cursor).await.unwrap();
        assert_eq!((bookmark.events.len(), bookmark.revision), (0, revision.0));
        assert!(asked.elapsed() < Duration::from_secs(10) && asked.elapsed() > Duration::from_secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_covers_changes_that_did_not_concern_the_watch() {
    let watching = Watching::new();
    let mut cursor = watching.watch_on(&[on_node("n1")]);
    let revision = watching.commit([put(pod("a", "n2", &[]))]).await;
    watching.hub.settle(revision).await;
    let bookmark = next(&mut cursor).await.unwrap();
    assert_eq!((bookmark.events.len(), bookmark.revision), (0, revision.0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_woken_all_the_time_for_nothing_still_says_where_it_stands() {
    let watching = Watching::new();
    let mut cursor = watching.watch_on(&[labelled("app", "web")]);
    let begun = Instant::now();
    let busy = async {
        loop {
            let mut commit = std::pin::pin!(watching.commit([put(pod("a", "", &[("app", "db")]))]));
            // Paused time would jump if the runtime were idle meanwhile.
            let revision = loop {
                match futures_util::poll!(commit.as_mut()) {
                    Poll::Ready(revision) => break revision,
                    Poll::Pending => tokio::task::yield_now().await,
                }
            };
            watching.hub.settle(revision).await;
            tokio::time::advance(Duration::from_millis(300)).await;
        }
    };
    let bookmark = tokio::select! {
        bookmark = next(&mut cursor) => bookmark.unwrap(),
        () = busy => unreachable!("it has no end"),
    };
    assert!(bookmark.events.is_empty() && bookmark.revision > 5, "{bookmark:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_watch_from_now_begins_by_saying_when_that_is() {
    let watching = Watching::new();
    let revision = watching.commit([put(pod("a", "", &[]))]).await;
    let mut cursor = watching.watch(&[], Start::Now).unwrap();
    let first = next(&mut cursor).await.unwrap();
    assert_eq!((first.events.len(), first.revision, first.synced), (0, revision.0, false));
    let second = watching.commit([put(pod("a", "", &[]))]).await;
    assert_eq!(next(&mut cursor).await.unwrap().revision, second.0);
}

#[tokio::test]
async fn when_the_store_closes_watches_send_what_is_left_and_end_as_unavailable() {
    for abruptly in [false, true] {
        let watching = Watching::new();
        let mut cursors = [watching.watch_on(&[]), watching.watch_on(&[on_node("n")]), watching.watch(&[], Start::Initial).unwrap()];
        let last = watching.commit([put(pod("a", "n", &[]))]).await;
        if abruptly {
            watching.store.kill()
        } else {
            watching.store.close().await
        }
        for cursor in &mut cursors {
            let mut seen = 0;
            let error = loop {
                match next(cursor).await {
                    Ok(message) => seen = seen.max(message.revision),
                    Err(error) => break error,
                }
            };
            assert_eq!(seen, last.0);
            assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
            assert!(matches!(next(cursor).await, Err(Error::Unavailable(_))), "and stays so");
        }
        watching.hub.ended().await;
        assert!(matches!(watching.watch(&[], Start::Now), Err(Error::Unavailable(_))));
    }
}

#[tokio::test]
async fn watches_end_when_the_hub_is_gone() {
    let Watching { hub, store, _folder } = Watching::new();
    let mut cursor = hub.watch(Vec::new(), Start::Initial).unwrap();
    next(&mut cursor).await.unwrap();
    drop(hub);
    assert!(matches!(next(&mut cursor).await, Err(Error::Unavailable(_))));
    store.commit(transaction([put(pod("a", "", &[]))])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_resumed_watch_that_missed_nothing_of_its_own_says_at_once_where_it_stands() {
    let watching = Watching::new();
    let seen = watching.commit([put(pod("a", "n1", &[]))]).await;
    let current = watching.commit([put(pod("b", "n2", &[]))]).await;
    let mut cursor = watching.watch(&[on_node("n1")], Start::After(seen)).unwrap();
    let asked = Instant::now();
    let bookmark = next(&mut cursor).await.unwrap();
    assert_eq!((bookmark.events.len(), bookmark.revision), (0, current.0));
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_store_that_is_out_of_touch_is_silent_until_it_is_back() {
    let watching = Watching::new();
    let revision = watching.commit([put(pod("a", "", &[]))]).await;
    let mut cursor = watching.watch_on(&[]);
    watching.store.feed().set_current(false);
    let silence = tokio::time::timeout(Duration::from_secs(60), cursor.next()).await;
    assert!(silence.is_err(), "it can't know whether anything has happened");
    watching.store.feed().set_current(true);
    let back = Instant::now();
    assert_eq!(next(&mut cursor).await.unwrap().revision, revision.0);
    assert!(back.elapsed() <= Duration::from_secs(1), "{:?}", back.elapsed());
}
