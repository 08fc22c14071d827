//! The client against the real apiserver. [`scene`] is also what the controllers' and the scheduler's tests play in.

mod failover;
mod limits;
pub(crate) mod scene;

use scene::{Scene, pod};

use super::*;
use crate::api::v1::{ClusterEvent, EventType, Pod, WatchRequest};
use crate::api::{Kind, Resource as _, Revision};
use crate::error::Error;

#[tokio::test]
async fn a_cache_resumes_without_relist_when_the_apiserver_was_killed() {
    let mut scene = Scene::start().await;
    let cache = Cache::of_kinds(scene.client(), &[Kind::Pod], &scene.tasks);
    assert!(cache.synced().await);
    for round in 0..3 {
        scene.kill_and_restart().await;
        let created = scene.retry(async || scene.client().create(pod(&format!("p{round}"))).await).await;
        scene::bounded("the cache shows it", cache.reached(Revision(created.meta().resource_version))).await;
    }
    assert_eq!(cache.list::<Pod>().len(), 3);
    assert_eq!(cache.relists(), 0);
    scene.end().await;
}

#[tokio::test]
async fn a_watch_that_breaks_is_an_error_that_can_be_retried() {
    let mut scene = Scene::start().await;
    let mut incoming = scene.client().watch(WatchRequest { send_initial: true, ..Default::default() }).await.expect("a watch");
    while !incoming.next().await.expect("the state").expect("the stream goes on").synced {}
    scene.kill_and_restart().await;
    let error = loop {
        match scene::bounded("the watch ends", incoming.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a killed server can't end a stream in good order"),
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable(), "{error:?}");
    scene.end().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let client = Client::new("http://127.0.0.1:1").expect("an address");
    match client.list::<Pod>("").await {
        Err(Error::NotDone(message)) => {
            assert!(message.starts_with("cannot reach http://127.0.0.1:1: "), "{message}");
            assert!(message.to_lowercase().contains("refused"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn errors_keep_their_type_on_the_way() {
    let scene = Scene::start().await;
    let client = scene.client();
    let web = client.create(pod("web")).await.expect("created");
    assert_eq!(client.create(pod("web")).await, Err(Error::AlreadyExists(web.key().to_ref())));
    assert_eq!(client.get::<Pod>("", "nobody").await, Err(Error::not_found(&pod("nobody").key())));
    let mut stale = web.clone();
    stale.meta_mut().labels.insert("a".into(), "b".into());
    let newer = client.update(stale.clone()).await.expect("updated");
    stale.meta_mut().labels.insert("a".into(), "c".into());
    let (expected, actual) = (Revision(web.meta().resource_version), Revision(newer.meta().resource_version));
    assert_eq!(client.update(stale).await, Err(Error::Conflict { object: web.key().to_ref(), expected, actual }));
    let results = client.update_status(vec![newer.into_object(), pod("nobody").into_object()]).await.expect("answered");
    assert!(results[0].is_ok() && matches!(results[1], Err(Error::NotFound(_))), "{results:?}");
    scene.end().await;
}

#[tokio::test]
async fn repetitions_of_an_event_are_counted_in_one_object() {
    let scene = Scene::start().await;
    let web = scene.client().create(pod("web")).await.expect("created");
    let recorder = Recorder::new(scene.client(), "test", crate::time::Clock::system(), &scene.tasks);
    for expected in 1..=3 {
        recorder.event(subject(&web), EventType::Normal, "Tried", format!("attempt {expected}"));
        let written = async || {
            let events = scene.client().list::<ClusterEvent>("default").await.expect("listed");
            assert!(events.len() <= 1, "{events:?}");
            let spec = events.into_iter().next()?.spec?;
            (spec.count == expected).then_some(spec)
        };
        let spec = scene::until("the event is counted", written).await;
        assert_eq!(spec.note, format!("attempt {expected}"));
        assert_eq!(spec.regarding, Some(subject(&web)));
    }
    scene.end().await;
}
