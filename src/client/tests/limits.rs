//! A server that lets a client ask only so often.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::scene::{Scene, bounded, pod};
use super::*;
use crate::api::v1::{CreateRequest, CreateResponse};
use crate::apiserver::Limits;
use crate::client::fake::serve;
use crate::tasks::Tasks;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_too_often_is_slowed_down_and_nobody_notices() {
    let limits = Limits { requests: 100, burst: 20, watches: 0 };
    let scene = Scene::start_as(move |config| config.limits = limits).await;
    let began = tokio::time::Instant::now();
    let writers = (0..4).map(|writer| {
        let client = scene.client();
        async move {
            for number in 0..30 {
                client.create(pod(&format!("p{writer}-{number}"))).await.expect("created in the end, and once");
            }
        }
    });
    bounded("all is written", futures_util::future::join_all(writers)).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "100 of the 120 had to wait for their turn: {:?}", began.elapsed());
    scene.end().await;
}

#[tokio::test]
async fn a_cache_and_a_recorder_go_on_when_there_is_room_for_them() {
    let limits = Limits { requests: 1, burst: 3, watches: 1 };
    let scene = Scene::start_as(move |config| config.limits = limits).await;
    let client = scene.client();
    let first = client.watch(WatchRequest::default()).await.expect("a watch");
    client.create(pod("web")).await.expect("created");
    let refused = client.watch(WatchRequest::default()).await.expect_err("there is one already");
    assert!(refused.is_retryable() && refused.retry_after().is_some(), "{refused:?}");
    let cache = Cache::of_kinds(client.clone(), &[Kind::Pod], &scene.tasks);
    let recorder = Recorder::new(client.clone(), "test", crate::time::Clock::system(), &scene.tasks);
    recorder.event(subject(&pod("web")), EventType::Normal, "Tried", "once");
    drop(first);
    assert!(bounded("the cache has begun", cache.synced()).await);
    let events = Cache::of_kinds(scene.inside(), &[Kind::Event], &scene.tasks);
    scene::until("the event is written", async || (!events.list::<ClusterEvent>().is_empty()).then_some(())).await;
    scene.end().await;
}

/// A server that refuses everything, so many times, with that time to wait.
struct Refusing {
    client: Client,
    asked: Arc<AtomicUsize>,
    _tasks: Tasks,
}

fn refusing(times: usize, wait: Duration) -> Refusing {
    let tasks = Tasks::new(tokio_util::sync::CancellationToken::new());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let (channel, serving) = serve(move |request| {
        let count = count.clone();
        let create = tower::service_fn(move |request: Request<CreateRequest>| {
            let is_refused = count.fetch_add(1, Ordering::Relaxed) < times;
            let refusal = Status::from(Error::Exhausted { message: "too often".into(), retry_after: Some(wait) });
            let answer = Response::new(CreateResponse { object: request.into_inner().object });
            std::future::ready(if is_refused { Err(refusal) } else { Ok(answer) })
        });
        async move { tonic::server::Grpc::new(ProstCodec::default()).unary(create, request).await }
    });
    tasks.spawn("fake server", serving);
    Refusing { client: Client::from_channel(channel), asked, _tasks: tasks }
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_is_waited_for_and_no_request_comes_before_its_end() {
    let Refusing { client, asked, _tasks } = refusing(3, Duration::from_millis(500));
    let began = tokio::time::Instant::now();
    client.create(pod("web")).await.expect("created");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    assert!(began.elapsed() >= Duration::from_millis(1_500) && began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_and_many_short_ones_are_told_to_whoever_asked() {
    let Refusing { client, asked, _tasks } = refusing(usize::MAX, Duration::from_secs(5));
    let refusal = Error::Exhausted { message: "too often".into(), retry_after: Some(Duration::from_secs(5)) };
    assert_eq!(client.create(pod("web")).await, Err(refusal));
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    let Refusing { client, asked, _tasks } = refusing(usize::MAX, Duration::from_millis(200));
    let began = tokio::time::Instant::now();
    assert!(matches!(client.create(pod("web")).await, Err(Error::Exhausted { .. })));
    assert!(began.elapsed() <= Duration::from_secs(5) && began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    assert!((20..=26).contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
}
