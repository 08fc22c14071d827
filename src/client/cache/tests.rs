use std::collections::BTreeSet;

use super::super::fake::FakeServer;
use super::*;
use crate::api::v1::Pod;

/// Longer than anything here takes; only a test that fails waits so long.
const BOUND: Duration = Duration::from_secs(600);

async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

async fn reached(cache: &Cache, revision: Revision) {
    assert!(bounded("the revision is reached", cache.reached(revision)).await);
}

fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
    names.iter().map(|name| ObjectKey::new(Kind::Pod, "", name)).collect()
}

fn started() -> (FakeServer, Tasks, Cache) {
    let (server, tasks) = (FakeServer::new(), Tasks::new(CancellationToken::new()));
    let cache = Cache::of_kinds(server.client(&tasks), &[Kind::Pod], &tasks);
    (server, tasks, cache)
}

#[tokio::test(start_paused = true)]
async fn a_cache_shows_the_state_and_follows_it() {
    let (server, tasks, cache) = started();
    server.change(|history| ["a", "b", "c"].into_iter().for_each(|name| history.put(name)));
    assert!(bounded("synced", cache.synced()).await);
    reached(&cache, Revision(3)).await;
    reached(&cache, server.change(|history| history.delete("b"))).await;
    let names: Vec<_> = cache.list::<Pod>().iter().map(|pod| pod.meta().name.clone()).collect();
    assert_eq!(names, ["a", "c"]);
    assert!(cache.get::<Pod>("default", "b").is_none());
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_resumes_without_fetching_the_state_again() {
    let (server, tasks, cache) = started();
    reached(&cache, server.change(|history| history.put("a"))).await;
    for round in 0..5 {
        server.cut();
        reached(&cache, server.change(|history| history.put(&format!("p{round}")))).await;
    }
    assert_eq!(cache.list::<Pod>().len(), 6);
    assert_eq!(cache.relists(), 0);
    let later = &server.requests()[1..];
    assert_eq!(later.len(), 5);
    assert!(later.iter().all(|request| !request.send_initial && request.from_revision > 0), "{later:?}");
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_at_another_server_where_it_was() {
    let (one, tasks) = (FakeServer::new(), Tasks::new(CancellationToken::new()));
    let other = one.beside();
    let cache = Cache::of_kinds(FakeServer::client_of(&[&one, &other], &tasks), &[Kind::Pod], &tasks);
    reached(&cache, one.change(|history| history.put("a"))).await;
    one.stop();
    reached(&cache, one.change(|history| history.put("b"))).await;
    assert_eq!((cache.relists(), cache.list::<Pod>().len()), (0, 2));
    let resumed = other.requests();
    assert!(resumed.len() == 1 && resumed[0].from_revision == 1 && !resumed[0].send_initial, "{resumed:?}");
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn many_that_lost_the_same_server_come_to_the_next_one_spread_over_time() {
    const MANY: usize = 100;
    let (one, tasks) = (FakeServer::new(), Tasks::new(CancellationToken::new()));
    let other = one.beside();
    let start = || Cache::of_kinds(FakeServer::client_of(&[&one, &other], &tasks), &[Kind::Pod], &tasks);
    let caches: Vec<_> = std::iter::repeat_with(start).take(MANY).collect();
    let revision = one.change(|history| history.put("a"));
    for cache in &caches {
        reached(cache, revision).await;
    }
    one.stop();
    let revision = one.change(|history| history.put("b"));
    for cache in &caches {
        reached(cache, revision).await;
    }
    let mut came: Vec<_> = other.timed_requests().into_iter().map(|(at, _)| at).collect();
    came.sort();
    assert_eq!(came.len(), MANY);
    let at_once =
        |at: &tokio::time::Instant| came.iter().filter(|other| *other >= at && **other - *at < Duration::from_millis(200)).count();
    let most = came.iter().map(at_once).max();
    // Ten would be even; the odds against forty are astronomical.
    assert!(most < Some(40), "{most:?} of {MANY} within 200 ms");
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn after_compaction_only_what_differs_is_told() {
    let (server, tasks, cache) = started();
    reached(&cache, server.change(|history| ["same", "changed", "gone"].into_iter().for_each(|name| history.put(name)))).await;
    let mut changes = cache.subscribe();
    assert_eq!(changes.next().await, Some(keys(&["changed", "gone", "same"])));
    let same = cache.get::<Pod>("", "same").expect("is there");
    // The cut stream still holds the cache at revision 3, so that it has to resume from there, where history no longer reaches.
    server.cut();
    let revision = {
        let mut history = server.history();
        history.put("changed");
        history.delete("gone");
        history.put("new");
        history.compact();
        history.revision()
    };
    reached(&cache, revision).await;
    assert_eq!(changes.next().await, Some(keys(&["changed", "gone", "new"])));
    assert_eq!((cache.relists(), cache.bridges()), (0, 1));
    assert_eq!(cache.keys(), Vec::from_iter(keys(&["changed", "new", "same"])));
    let known: Vec<_> = server.requests().last().expect("the last one").known.iter().map(|known| known.resource_version).collect();
    assert_eq!(known, [2, 3, 1], "in the order of the names");
    assert!(Arc::ptr_eq(same.object(), cache.get::<Pod>("", "same").expect("is still there").object()), "one allocation per object");
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_with_an_older_past_is_read_anew() {
    let (server, tasks, cache) = started();
    reached(&cache, server.change(|history| (0..9).for_each(|index| history.put(&format!("p{index}"))))).await;
    let mut revisions = cache.revisions();
    *server.history() = Default::default();
    server.history().put("other");
    server.cut();
    bounded("the other past is shown", revisions.wait_for(|revision| *revision == Some(Revision(1)))).await.expect("the cache lives");
    assert_eq!(cache.keys(), Vec::from_iter(keys(&["other"])));
    assert_eq!(cache.relists(), 1);
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_given_up_after_the_bookmark_deadline_and_resumed() {
    let (server, tasks, cache) = started();
    reached(&cache, server.change(|history| history.put("a"))).await;
    let begun = tokio::time::Instant::now();
    bounded("the watch is opened again", async {
        while server.requests().len() < 2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let deadline = crate::client::Patience::default().silence;
    assert!(begun.elapsed() >= deadline && begun.elapsed() < deadline * 2, "after {:?}", begun.elapsed());
    assert_eq!(server.requests()[1].from_revision, 1);
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_gets_each_changed_key_once() {
    let (server, tasks, cache) = started();
    reached(&cache, server.change(|history| history.put("a"))).await;
    let (mut slow, mut fast) = (cache.subscribe(), cache.subscribe());
    slow.next().await.expect("the present keys");
    fast.next().await.expect("the present keys");
    for _ in 0..10 {
        reached(&cache, server.change(|history| history.put("a"))).await;
        assert_eq!(fast.next().await, Some(keys(&["a"])));
    }
    reached(&cache, server.change(|history| history.put("b"))).await;
    assert_eq!(slow.next().await, Some(keys(&["a", "b"])));
    tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_ended_says_so() {
    let (server, tasks, cache) = started();
    reached(&cache, server.change(|history| history.put("a"))).await;
    let mut changes = cache.subscribe();
    assert_eq!(changes.next().await, Some(keys(&["a"])));
    tasks.shutdown(BOUND).await;
    assert_eq!(bounded("the subscription ends", changes.next()).await, None);
    assert!(!bounded("waiting ends", cache.reached(Revision(1_000))).await);
}
