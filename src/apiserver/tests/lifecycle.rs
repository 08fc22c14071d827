use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::watch::end;
use super::*;
use crate::api::SERVICE_CIDR_ANNOTATION;
use crate::api::v1::{Selector, WatchRequest};
use crate::apiserver::StartError;

async fn start_error(config: Config) -> String {
    match start(config, Clock::system()).await {
        Err(error) => error.to_string(),
        Ok(apiserver) => panic!("started on {}", apiserver.url()),
    }
}

fn address(running: &Running) -> String {
    running.apiserver.url().trim_start_matches("http://").to_owned()
}

pub(super) async fn http_get(running: &Running, path: &str) -> String {
    let mut connection = TcpStream::connect(address(running)).await.unwrap();
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn clients_connect_over_tcp_and_over_a_unix_socket() {
    let tcp = running().await;
    Client::new(&tcp.apiserver.url()).unwrap().create(pod("web")).await.unwrap();
    assert_eq!(tcp.client.get::<Pod>("", "web").await.unwrap().meta().name, "web");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let config = Config { listen: Listen::Unix(socket.clone()), ..config(&folder) };
    let unix = match start(config, Clock::system()).await {
        Err(StartError::Bind { error, .. }) if error.kind() == std::io::ErrorKind::Unsupported => return,
        started => started.unwrap(),
    };
    assert_eq!(unix.url(), format!("unix:{}", socket.display()));
    Client::new(&unix.url()).unwrap().create(pod("web")).await.unwrap();
    unix.shutdown().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn plaintext_where_others_can_reach_it_is_refused_unless_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let public = Config { listen: Listen::Tcp("0.0.0.0:0".parse().unwrap()), ..config(&folder) };
    let refusal = start_error(public.clone()).await;
    assert!(refusal.contains("encryption") && refusal.contains("--insecure-plaintext"), "{refusal}");
    assert!(!public.data_dir.exists(), "nothing was begun");
    let apiserver = start(Config { insecure_plaintext: true, ..public }, Clock::system()).await.unwrap();
    apiserver.shutdown().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let running = running().await;
    let other = tempfile::tempdir().unwrap();
    let taken = Config { listen: running.apiserver.listen().clone(), ..config(&other) };
    let refusal = start_error(taken).await;
    assert!(refusal.contains(&address(&running)) && refusal.contains("--listen"), "{refusal}");
}

#[tokio::test]
async fn the_range_of_service_addresses_is_the_clusters_and_another_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let with = |cidr: &str| Config { service_cidr: cidr.to_owned(), ..config(&folder) };
    let first = start(with("10.0.0.0/24"), Clock::system()).await.unwrap();
    let mut default: Namespace = Client::from_channel(first.channel()).get("", "default").await.unwrap();
    assert_eq!(default.meta().annotations[SERVICE_CIDR_ANNOTATION], "10.0.0.0/24");
    first.shutdown().await;
    let refusal = start_error(with("10.1.0.0/24")).await;
    assert!(refusal.contains("have their addresses from 10.0.0.0/24") && refusal.contains("told 10.1.0.0/24"), "{refusal}");

    // The store is free again, and nothing has changed.
    let again = start(with("10.0.0.0/24"), Clock::system()).await.unwrap();
    let client = Client::from_channel(again.channel());
    assert_eq!(client.get::<Namespace>("", "default").await.unwrap(), default);
    // A cluster of an older version has recorded none.
    default.meta_mut().annotations.clear();
    client.update(default).await.unwrap();
    again.shutdown().await;
    let other = start(with("10.1.0.0/24"), Clock::system()).await.unwrap();
    let recorded: Namespace = Client::from_channel(other.channel()).get("", "default").await.unwrap();
    assert_eq!(recorded.meta().annotations[SERVICE_CIDR_ANNOTATION], "10.1.0.0/24");
    other.shutdown().await;
}

#[tokio::test]
async fn a_data_folder_has_one_apiserver_at_a_time() {
    let running = running().await;
    let second = config(&running.folder);
    let outcome = start(second.clone(), Clock::system()).await;
    assert!(matches!(&outcome, Err(StartError::Store(_))), "{outcome:?}");
    let refusal = outcome.unwrap_err().to_string();
    assert!(refusal.contains(second.data_dir.to_str().unwrap()), "{refusal}");
    running.client.create(pod("web")).await.expect("the first one is not disturbed");
    running.apiserver.kill().await;
    let second = start(second, Clock::system()).await.expect("a killed apiserver leaves the folder free");
    Client::from_channel(second.channel()).get::<Pod>("", "web").await.unwrap();
}

#[tokio::test]
async fn after_shutdown_requests_are_unavailable_within_the_process_and_over_tcp() {
    let Running { client, apiserver, folder: _folder } = running().await;
    let outside = Client::new(&apiserver.url()).unwrap();
    for client in [&client, &outside] {
        client.list::<Pod>("").await.unwrap();
    }
    apiserver.shutdown().await;
    for client in [client, outside] {
        let refused = client.list::<Pod>("").await;
        assert!(refused.as_ref().is_err_and(Error::is_unavailable), "{refused:?}");
    }
}

#[tokio::test]
async fn shutdown_does_not_wait_for_streams_nor_longer_than_its_grace() {
    let Running { client, apiserver, folder: _folder } = running().await;
    let mut watch = client.watch(WatchRequest { selectors: vec![Selector::default()], ..Default::default() }).await.unwrap();
    let began = tokio::time::Instant::now();
    let (ended, ()) = tokio::join!(end(&mut watch), apiserver.shutdown());
    assert!(ended.is_unavailable(), "{ended:?}");
    assert!(began.elapsed() < Config::DEFAULT_SHUTDOWN_GRACE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_hangs_does_not_hold_up_a_shutdown_beyond_its_grace() {
    let grace = std::time::Duration::from_millis(200);
    let running = running_as(|config| config.shutdown_grace = grace).await;
    // The beginning of a request that never goes on.
    let mut hanging = TcpStream::connect(address(&running)).await.unwrap();
    hanging.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    hanging.write_all(b"POST /never HTTP").await.unwrap();
    running.client.list::<Pod>("").await.unwrap();
    tokio::time::timeout(grace + PATIENCE / 2, running.apiserver.shutdown()).await.expect("an end");
}

#[tokio::test]
async fn a_kill_breaks_every_connection_and_frees_the_port() {
    let Running { client, apiserver, folder } = running().await;
    let mut watch = client.watch(WatchRequest::default()).await.unwrap();
    let listen = apiserver.listen().clone();
    apiserver.kill().await;
    end(&mut watch).await;
    let again = start(Config { listen, ..config(&folder) }, Clock::system()).await.unwrap();
    again.shutdown().await;
}

#[tokio::test]
async fn metrics_are_on_the_same_port_over_http1() {
    let running = running().await;
    running.client.create(pod("web")).await.unwrap();
    running.client.create(pod("web")).await.unwrap_err();
    let metrics = http_get(&running, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    for line in [
        r#"bluebird_rpcs_total{method="ControlPlaneService/Create",code="Ok"}"#,
        r#"bluebird_rpcs_total{method="ControlPlaneService/Create",code="AlreadyExists"}"#,
        r#"bluebird_rpc_seconds_bucket{method="ControlPlaneService/Create",le="0.1"}"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(http_get(&running, "/nothing").await.starts_with("HTTP/1.1 "));
}

#[tokio::test]
async fn a_web_page_can_not_write_through_the_loopback_port() {
    let running = running().await;
    let path = "/bluebird.v1.ControlPlaneService/Create";
    for head in [
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\norigin: http://elsewhere.example\r\nconnection: close\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(address(&running)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{head}: {answer}");
    }
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
    let running = running().await;
    let check = HealthCheckRequest { service: String::new() };
    let health: HealthCheckResponse = unary(running.apiserver.channel(), "grpc.health.v1.Health/Check", check).await.unwrap();
    assert_eq!(health.status(), ServingStatus::Serving);
    for version in ["v1", "v1alpha"] {
        let services = reflected_services(&running, version).await;
        assert!(services.contains("bluebird.v1.ControlPlaneService"), "{version}: {services}");
        assert!(services.contains("bluebird.v1.NodeService") && services.contains("bluebird.v1.WorkloadService"), "{version}: {services}");
    }
}

/// Everything that reflection answers to "which services are there", as text.
async fn reflected_services(running: &Running, version: &str) -> String {
    // ServerReflectionRequest { list_services: "" } and its answer, undecoded: the two versions have the same form.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Question {
        #[prost(string, optional, tag = "7")]
        list_services: Option<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Answer {
        #[prost(bytes = "vec", tag = "6")]
        services: Vec<u8>,
    }
    let mut grpc = tonic::client::Grpc::new(running.apiserver.channel());
    grpc.ready().await.unwrap();
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo").parse().unwrap();
    let question = tokio_stream::once(Question { list_services: Some(String::new()) });
    let codec = tonic_prost::ProstCodec::<Question, Answer>::default();
    let mut answers = grpc.streaming(tonic::Request::new(question), path, codec).await.unwrap().into_inner();
    String::from_utf8_lossy(&answers.message().await.unwrap().unwrap().services).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_asks_anything_is_closed() {
    let service = tower::service_fn(|_| async { Ok::<_, std::convert::Infallible>(Default::default()) });
    let (mut silent, theirs) = tokio::io::duplex(1024);
    let info = std::sync::Arc::new(crate::apiserver::connection::Connection::inside());
    crate::apiserver::connection::serve(Box::new(theirs), service, info, Default::default()).await;
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap(), 0);
}
