//! What one client may ask for, over real sockets.

use std::time::{Instant, SystemTime};

use tonic::transport::{Channel, Endpoint};

use super::node::{Kubelet, join, ready_node};
use super::watch::refusal;
use super::*;
use crate::api::v1::{CreateRequest, GetRequest, GetResponse, ObjectRef, WatchRequest, WatchResponse};
use crate::apiserver::Limits;
use crate::client::Incoming;

/// So slow that a test sees hardly more than the burst.
const SLOW: Limits = Limits { requests: 1, burst: 10, watches: 3 };

async fn limited(limits: Limits) -> Running {
    running_as(move |config| config.limits = limits).await
}

/// A connection of its own from this machine.
fn connect(running: &Running) -> Channel {
    Endpoint::from_shared(running.apiserver.url()).unwrap().connect_lazy()
}

/// Asks for what there is not. Without the client's patience.
async fn ask(channel: &Channel) -> Result<(), Error> {
    let reference = ObjectRef { kind: "Pod".into(), name: "nobody".into(), ..Default::default() };
    let asked = unary::<_, GetResponse>(channel.clone(), "ControlPlaneService/Get", GetRequest { r#ref: Some(reference) });
    match asked.await {
        Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(found) => panic!("{found:?}"),
    }
}

/// Checks that exactly the burst has passed, and what has come in addition since then.
#[track_caller]
fn is_burst(passed: usize, since: Instant) {
    let more = since.elapsed().as_secs() as usize + 1;
    assert!((10..=10 + more).contains(&passed), "{passed} have passed");
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_back_and_nobody_else_is() {
    let running = limited(SLOW).await;
    let (channel, began) = (connect(&running), Instant::now());
    let mut passed = 0;
    for _ in 0..40 {
        match ask(&channel).await {
            Ok(()) => passed += 1,
            Err(Error::Exhausted { message, retry_after: Some(after) }) => {
                assert!(message.contains("this machine sends more than 1 requests a second"), "{message}");
                assert!(after >= Duration::from_millis(100) && after <= Duration::from_secs(2), "{after:?}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    is_burst(passed, began);
    let from_client = Client::new(&running.apiserver.url()).unwrap().list::<Pod>("").await;
    assert!(
        matches!(from_client, Err(Error::Exhausted { retry_after: Some(_), .. })),
        "a client doesn't hide a long wait: {from_client:?}"
    );
    for _ in 0..40 {
        running.client.list::<Pod>("").await.expect("what is in the process is not limited");
    }
}

#[tokio::test]
async fn other_connections_and_ports_of_the_same_address_bring_no_more_requests() {
    let running = limited(SLOW).await;
    let (began, mut passed) = (Instant::now(), 0);
    for _ in 0..40 {
        passed += usize::from(ask(&connect(&running)).await.is_ok());
    }
    is_burst(passed, began);
}

#[tokio::test]
async fn health_and_metrics_and_the_nodes_own_service_are_never_refused() {
    let running = limited(Limits { burst: 1, ..SLOW }).await;
    let channel = connect(&running);
    while ask(&channel).await.is_ok() {}
    for _ in 0..20 {
        let health = tonic_health::pb::HealthCheckRequest::default();
        unary::<_, tonic_health::pb::HealthCheckResponse>(channel.clone(), "grpc.health.v1.Health/Check", health).await.expect("healthy");
        join(&Client::from_channel(channel.clone()), ready_node("n1"), "i").await.expect("joined");
    }
    for _ in 0..20 {
        assert!(super::lifecycle::http_get(&running, "/metrics").await.starts_with("HTTP/1.1 200"));
    }
    let metrics = super::lifecycle::http_get(&running, "/metrics").await;
    assert!(metrics.contains("bluebird_client_refusals_total{limit=\"requests\"}"), "{metrics}");
}

#[tokio::test]
async fn a_refused_request_is_not_decoded_and_does_not_cost_the_connection() {
    let running = limited(Limits { burst: 1, ..SLOW }).await;
    let channel = connect(&running);
    while ask(&channel).await.is_ok() {}
    // As many as HTTP/2 takes for an attack when they are answered before their end, each larger than what is sent at once.
    let mut large = pod("large");
    large.spec.get_or_insert_default().containers[0].args = vec!["x".repeat(300 * 1024)];
    let request = CreateRequest { object: Some(large.into_object()), dry_run: false };
    let mut refused = 0;
    for _ in 0..300 {
        let four = [(); 4].map(|()| unary::<_, GetResponse>(channel.clone(), "ControlPlaneService/Create", request.clone()));
        for answer in futures_util::future::join_all(four).await {
            match answer {
                Err(Error::Exhausted { retry_after: Some(_), .. }) => refused += 1,
                Err(Error::AlreadyExists(_)) | Ok(_) => {}
                Err(other) => panic!("after {refused} refusals: {other:?}"),
            }
        }
    }
    assert!(refused > 1_000, "{refused}");
    // It is of no kind that can be decoded.
    let nonsense = unary::<_, GetResponse>(channel, "ControlPlaneService/Create", Nonsense { bytes: vec![0xff; 100] }).await;
    assert!(matches!(nonsense, Err(Error::Exhausted { .. })), "{nonsense:?}");
}

/// An object that is no message.
#[derive(Clone, PartialEq, prost::Message)]
struct Nonsense {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
}

#[tokio::test]
async fn watches_are_counted_over_all_connections_of_a_client_until_they_end() {
    let running = limited(Limits { requests: 0, ..SLOW }).await;
    let clients = [(); 4].map(|()| Client::from_channel(connect(&running)));
    let mut watches = Vec::new();
    for client in &clients[..3] {
        watches.push(client.watch(WatchRequest::default()).await.expect("there is room"));
    }
    let refused = refusal(&clients[3], WatchRequest::default()).await;
    let Error::Exhausted { message, retry_after: Some(after) } = &refused else { panic!("{refused:?}") };
    assert!(message.contains("this machine has 3 watches") && *after >= Duration::from_secs(1), "{refused:?}");
    running.client.watch(WatchRequest::default()).await.expect("what is in the process is not limited");
    // One watch ends; then all connections do.
    watches.remove(0);
    watches.push(room(&clients[3]).await);
    drop(watches);
    drop(clients);
    let (another, mut watches_of_another) = (Client::from_channel(connect(&running)), Vec::new());
    for _ in 0..3 {
        watches_of_another.push(room(&another).await);
    }
}

/// Waits until one more watch begins.
async fn room(client: &Client) -> Incoming<WatchResponse> {
    let freed = async {
        loop {
            match client.watch(WatchRequest::default()).await {
                Ok(watch) => return watch,
                Err(error) => assert!(matches!(error, Error::Exhausted { .. }), "{error:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("what has ended makes room")
}

#[tokio::test]
async fn a_kubelet_has_limits_of_its_own_whoever_else_is_at_its_address() {
    let running = limited(SLOW).await;
    let (crowd, kubelets) = (connect(&running), [connect(&running), connect(&running)]);
    while ask(&crowd).await.is_ok() {}
    for (channel, name) in kubelets.iter().zip(["n1", "n2"]) {
        let kubelet = Kubelet::welcomed(&Client::from_channel(channel.clone()), name, "i").await;
        let (mut passed, began) = (0, Instant::now());
        for _ in 0..40 {
            passed += usize::from(ask(channel).await.is_ok());
        }
        is_burst(passed, began);
        drop(kubelet);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ignore_what_they_are_told_get_no_more_and_hold_nobody_up() {
    let limits = Limits { requests: 100, burst: 100, watches: 0 };
    let running = limited(limits).await;
    let began = Instant::now();
    let is_over = tokio_util::sync::CancellationToken::new();
    let hammers = (0..8).map(|_| {
        let (channel, is_over) = (connect(&running), is_over.clone());
        async move {
            let (mut passed, mut refused) = (0, 0);
            while refused == 0 || !is_over.is_cancelled() {
                match ask(&channel).await {
                    Ok(()) => passed += 1,
                    Err(Error::Exhausted { .. }) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            passed
        }
    });
    let others = async {
        let kubelet = Client::from_channel(connect(&running));
        let _session = Kubelet::welcomed(&kubelet, "n1", "i").await;
        for number in 0..50 {
            kubelet.create(pod(&format!("p{number}"))).await.expect("others are served");
        }
        is_over.cancel();
    };
    let (hammers, ()) = tokio::join!(futures_util::future::join_all(hammers), others);
    let passed: usize = hammers.into_iter().sum();
    let most = limits.burst as usize + (began.elapsed().as_secs_f64() * 100.0) as usize + 1;
    assert!(passed >= 100 && passed <= most, "{passed} of at most {most}");
}

#[tokio::test]
async fn a_wall_clock_that_jumps_gives_nobody_more_and_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let jumps = std::sync::atomic::AtomicU64::new(0);
    let clock = Clock::from_fn(move || {
        let jump = jumps.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        SystemTime::UNIX_EPOCH + Duration::from_secs(if jump.is_multiple_of(2) { 1 } else { 86_400 * jump })
    });
    let config = Config { limits: SLOW, ..config(&folder) };
    let apiserver = start(config, clock).await.unwrap();
    let channel = Endpoint::from_shared(apiserver.url()).unwrap().connect_lazy();
    let (mut passed, began) = (0, Instant::now());
    for number in 0..40 {
        let written = unary::<_, GetResponse>(
            channel.clone(),
            "ControlPlaneService/Create",
            CreateRequest { object: Some(pod(&format!("p{number}")).into_object()), dry_run: false },
        );
        passed += usize::from(written.await.is_ok());
    }
    is_burst(passed, began);
}
