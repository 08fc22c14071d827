use std::time::Duration;

use super::*;
use crate::api::v1::event::Type;
use crate::api::v1::{KnownObject, ListRequest, ObjectRef, Selector, WatchRequest, WatchResponse};
use crate::client::{DeleteOptions, Incoming};

fn pods() -> Vec<Selector> {
    vec![Selector { kind: "Pod".into(), ..Default::default() }]
}

/// The next events, as type and name, with the revision of their message.
async fn events(watch: &mut Incoming<WatchResponse>) -> (Vec<(Type, String)>, u64) {
    loop {
        let response = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().expect("a watch never ends with OK");
        if !response.events.is_empty() {
            let event = |event: crate::api::v1::Event| (event.r#type(), event.object.unwrap_or_default().meta().name.clone());
            return (response.events.into_iter().map(event).collect(), response.revision);
        }
    }
}

/// What a watch that has nothing more to send ends with.
pub(super) async fn end(watch: &mut Incoming<WatchResponse>) -> Error {
    loop {
        match tokio::time::timeout(PATIENCE, watch.next()).await.expect("an end") {
            Ok(bookmark) => assert!(bookmark.expect("a watch never ends with OK").events.is_empty()),
            Err(error) => return error,
        }
    }
}

/// What a watch is refused with, whether at once or by its first message.
pub(super) async fn refusal(client: &Client, request: WatchRequest) -> Error {
    match client.watch(request).await {
        Err(error) => error,
        Ok(mut watch) => tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap_err(),
    }
}

#[tokio::test]
async fn a_watch_sends_the_state_then_every_change_and_resumes_after_a_restart() {
    let running = running().await;
    running.client.create(pod("a")).await.unwrap();
    let request = WatchRequest { selectors: pods(), send_initial: true, ..Default::default() };
    let mut watch = running.client.watch(request).await.unwrap();
    let first = watch.next().await.unwrap().unwrap();
    assert!(first.synced && first.events.len() == 1, "{first:?}");
    running.client.create(service("not-watched")).await.unwrap();
    let labelled = with_label(pod("a"), "x", "y").into_object();
    let applied = running.client.apply(vec![labelled, pod("b").into_object()], "test", false).await.unwrap();
    let both = vec![(Type::Modified, "a".to_owned()), (Type::Added, "b".to_owned())];
    assert_eq!(events(&mut watch).await, (both, applied.revision));

    let running = running.restarted().await;
    let ended = end(&mut watch).await;
    assert!(ended.is_unavailable(), "{ended:?}");
    let last = running.client.delete::<Pod>("", "b", DeleteOptions::default()).await.unwrap();
    let request = WatchRequest { selectors: pods(), from_revision: applied.revision, ..Default::default() };
    let mut watch = running.client.watch(request).await.unwrap();
    assert_eq!(events(&mut watch).await, (vec![(Type::Deleted, "b".to_owned())], last.meta().resource_version));
}

#[tokio::test]
async fn a_watch_from_a_compacted_or_future_revision_is_told_so() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running_as(|config| config.history_revisions = 5).await;
    let mut last = 0;
    for index in 0..20 {
        last = client.create(pod(&format!("p{index}"))).await.unwrap().meta().resource_version;
    }
    let from = async |from_revision: u64| refusal(&client, WatchRequest { from_revision, ..Default::default() }).await;
    let Error::Compacted { requested, oldest } = from(1).await else { panic!("not compacted") };
    assert!(requested.0 == 1 && oldest.0 > 1 && oldest.0 <= last, "{oldest}");
    let Error::Future { requested, current } = from(last + 1).await else { panic!("not of the future") };
    assert_eq!((requested.0, current.0), (last + 1, last));
}

#[tokio::test]
async fn a_malformed_watch_is_refused() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let refused = async |request: WatchRequest| match refusal(&client, request).await {
        Error::Invalid(violations) => violations[0].path.clone(),
        other => panic!("{other:?}"),
    };
    let both = WatchRequest { from_revision: 1, send_initial: true, ..Default::default() };
    assert_eq!(refused(both).await, "from_revision");
    let known = |name: &str, resource_version| {
        let reference = ObjectRef { kind: "Pod".into(), name: name.into(), ..Default::default() };
        KnownObject { r#ref: Some(reference), resource_version }
    };
    let knowing = |known: &[KnownObject]| WatchRequest { known: known.into(), send_initial: true, ..Default::default() };
    assert_eq!(refused(WatchRequest { known: vec![known("a", 1)], ..Default::default() }).await, "known");
    assert_eq!(refused(knowing(&[known("a", 1), known("b", 1), known("a", 2)])).await, "known");
    assert_eq!(refused(knowing(&[known("a", 1), known("b", 0)])).await, "known[1].resource_version");
    assert_eq!(refused(knowing(&[known("a", 1), known("", 1)])).await, "known[1].ref.name");
    assert_eq!(refused(knowing(&[KnownObject { resource_version: 1, ..Default::default() }])).await, "known[0].ref");
    let unknown = vec![Selector::default(), Selector { kind: "Pot".into(), ..Default::default() }];
    assert_eq!(refused(WatchRequest { selectors: unknown, ..Default::default() }).await, "selectors[1].kind");
    let many = vec![Selector::default(); 65];
    assert_eq!(refused(WatchRequest { selectors: many, ..Default::default() }).await, "selectors");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_told_so() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let known = |index: usize| {
        let reference = ObjectRef { kind: "Pod".into(), name: format!("{}{index}", "x".repeat(2_000)), ..Default::default() };
        KnownObject { r#ref: Some(reference), resource_version: 1 }
    };
    let request = WatchRequest { known: (0..17_000).map(known).collect(), send_initial: true, ..Default::default() };
    let refused = refusal(&client, request).await;
    assert!(matches!(&refused, Error::Exhausted { message, .. } if message.contains("32 MiB")), "{refused:?}");
}

#[tokio::test]
async fn more_large_requests_of_one_connection_than_it_has_room_for_are_all_answered() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let known = |index: usize| {
        let reference = ObjectRef { kind: "Pod".into(), name: format!("p{index}"), namespace: "default".into() };
        KnownObject { r#ref: Some(reference), resource_version: 1 }
    };
    let request = WatchRequest { known: (0..20_000).map(known).collect(), send_initial: true, ..Default::default() };
    let begin = async || client.watch(request.clone()).await.unwrap().next().await.unwrap().expect("a message").events.len();
    let all = futures_util::future::join_all((0..12).map(|_| begin()));
    let answers = tokio::time::timeout(PATIENCE, all).await.expect("answers");
    assert!(answers.into_iter().all(|gone| gone > 0));
}

#[tokio::test]
async fn a_watch_that_is_far_behind_ends_when_the_apiserver_stops() {
    let Running { client, apiserver, folder: _folder } = running().await;
    for index in 0..100 {
        let mut large = pod(&format!("p{index}"));
        large.meta_mut().annotations.insert("padding".into(), "x".repeat(200 * 1024));
        client.create(large).await.unwrap();
    }
    let request = WatchRequest { selectors: pods(), send_initial: true, ..Default::default() };
    let mut watch = client.watch(request).await.unwrap();
    let mut read = 0;
    let end = async {
        loop {
            match watch.next().await {
                Ok(message) => read += message.expect("a watch never ends with OK").events.len(),
                Err(error) => return error,
            }
        }
    };
    let ((), end) = tokio::time::timeout(PATIENCE, async { tokio::join!(apiserver.shutdown(), end) }).await.expect("an end");
    assert!(end.is_unavailable(), "{end:?}");
    assert!(read < 100, "it was told before it had read everything: {read}");
}

#[tokio::test]
async fn ten_thousand_watches_of_one_connection_are_refused_beyond_the_limit() {
    let running = running().await;
    let begin = || running.client.watch(WatchRequest { selectors: pods(), ..Default::default() });
    let mut watches = Vec::new();
    for _ in 0..1_000 {
        watches.push(begin().await.unwrap());
    }
    for _ in 0..9_000 {
        let refused = begin().await.unwrap_err();
        assert!(matches!(refused, Error::Exhausted { retry_after: Some(_), .. }), "{refused:?}");
    }
    running.another_client().watch(WatchRequest::default()).await.expect("another connection has its own limit");
    running.client.create(pod("a")).await.expect("other requests of the connection go on");
    assert_eq!(events(&mut watches[999]).await.0, [(Type::Added, "a".to_owned())]);
    watches.pop();
    let freed = async {
        while let Err(error) = begin().await {
            assert!(matches!(error, Error::Exhausted { .. }), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("a watch that ended makes room for another");
}

#[tokio::test]
async fn a_client_that_never_reads_its_watch_holds_nobody_up() {
    let running = running().await;
    let reader = running.another_client();
    let request = WatchRequest { selectors: pods(), ..Default::default() };
    let mut never_read = Vec::new();
    for _ in 0..50 {
        never_read.push(running.client.watch(request.clone()).await.unwrap());
    }
    let mut watch = reader.watch(request).await.unwrap();
    let mut seen = 0;
    // 100 × 256 KiB for each of the watches is far more than any window.
    for index in 0..100 {
        let mut large = pod(&format!("p{index}"));
        large.spec.get_or_insert_default().containers[0].args = vec!["x".repeat(256 * 1024)];
        reader.create(large).await.unwrap();
        seen += events(&mut watch).await.0.len();
    }
    assert_eq!(seen, 100);
    let page = running.another_client().list_page(ListRequest { limit: 1, ..Default::default() }).await;
    assert_eq!(page.unwrap().objects.len(), 1);
    let mut late = never_read.pop().unwrap();
    drop(never_read);
    let mut read = 0;
    while read < 100 {
        read += events(&mut late).await.0.len();
    }
    assert_eq!(read, 100, "who begins to read later gets everything");
}

#[tokio::test]
async fn a_watch_at_rest_says_that_it_lives() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut watch = client.watch(WatchRequest { selectors: pods(), ..Default::default() }).await.unwrap();
    // The first one says where the watch begins.
    for _ in 0..2 {
        let bookmark = tokio::time::timeout(Duration::from_secs(15), watch.next()).await.expect("a bookmark every ten seconds");
        let bookmark = bookmark.unwrap().unwrap();
        assert!(bookmark.events.is_empty() && bookmark.revision > 0 && !bookmark.synced);
    }
}
