//! A cache whose selectors change.

use std::collections::BTreeSet;

use super::*;
use crate::api::v1::Selector;
use crate::api::{Kind, ObjectKey};
use crate::client::{Cache, Changes};
use crate::tasks::Tasks;
use tokio_util::sync::CancellationToken;

fn named(names: &[&str]) -> Vec<Selector> {
    names.iter().map(|name| Selector { kind: "Pod".into(), name: (*name).into(), ..Default::default() }).collect()
}

fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
    names.iter().map(|name| ObjectKey::new(Kind::Pod, "", name)).collect()
}

/// Waits for changes of exactly these; then the cache shows what these selectors match.
async fn told(changes: &mut Changes, cache: &Cache, names: &[&str], selectors: &[&str]) {
    let mut told = BTreeSet::new();
    while told != keys(names) {
        let changed = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap_or_else(|_| panic!("only {told:?} changed"));
        told.extend(changed.expect("the cache goes on"));
    }
    assert_eq!(cache.followed().as_deref(), Some(named(selectors).as_slice()));
}

#[tokio::test]
async fn a_cache_follows_other_objects_when_it_is_told_and_fetches_only_what_it_has_not() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    for name in ["a", "b", "c"] {
        client.create(pod(name)).await.unwrap();
    }
    let tasks = Tasks::new(CancellationToken::new());
    let cache = Cache::start(client.clone(), named(&["a"]), &tasks);
    assert_eq!(cache.followed(), None);
    let mut changes = cache.subscribe();
    told(&mut changes, &cache, &["a"], &["a"]).await;
    let a = cache.get::<Pod>("", "a").unwrap();

    cache.follow(named(&["a", "b", "d"]));
    told(&mut changes, &cache, &["b"], &["a", "b", "d"]).await;
    assert!(std::sync::Arc::ptr_eq(a.object(), cache.get::<Pod>("", "a").unwrap().object()), "it was not sent again");
    client.create(pod("d")).await.unwrap();
    told(&mut changes, &cache, &["d"], &["a", "b", "d"]).await;

    cache.follow(named(&["c", "d"]));
    told(&mut changes, &cache, &["a", "b", "c"], &["c", "d"]).await;
    assert_eq!(cache.keys(), Vec::from_iter(keys(&["c", "d"])));
    assert_eq!(cache.relists(), 0);
    tasks.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_cache_that_is_told_the_same_again_is_soon_as_new_as_the_server() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(pod("a")).await.unwrap();
    let tasks = Tasks::new(CancellationToken::new());
    let cache = Cache::start(client.clone(), named(&["a"]), &tasks);
    assert!(cache.synced().await);
    let other = client.create(pod("b")).await.unwrap();
    cache.follow(named(&["a"]));
    let reached = cache.reached(crate::api::Revision(other.meta().resource_version));
    assert!(tokio::time::timeout(PATIENCE, reached).await.expect("a bookmark"));
    assert_eq!((cache.relists(), cache.bridges()), (0, 0));
    tasks.shutdown(PATIENCE).await;
}
