use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::api::v1::{GrpcAction, HttpGetAction, Protocol, TcpSocketAction};
use crate::kubelet::root::Root;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn assigned(container: &str, name: &str, port: u32, protocol: Protocol) -> AssignedPort {
    AssignedPort { container: container.into(), name: name.into(), port, protocol: protocol.into() }
}

fn tcp(port: &str, host: &str) -> Probe {
    let action = TcpSocketAction { port: port.into(), host: host.into() };
    Probe { handler: Some(probe::Handler::TcpSocket(action)), ..Probe::default() }
}

#[test]
fn a_port_is_a_number_a_name_or_the_containers_first() {
    let ports = [
        assigned("side", "http", 1, Protocol::Tcp),
        assigned("main", "stats", 2, Protocol::Udp),
        assigned("main", "http", 3, Protocol::Tcp),
        assigned("main", "admin", 4, Protocol::Tcp),
    ];
    let check = |port: &str, host: &str, expected: Option<(&str, u16)>| {
        let expected = expected.map(|(host, port)| Check::Tcp(Address { host: host.into(), port }));
        assert_eq!(Check::of(&tcp(port, host), "main", &ports, LOCALHOST), expected, "{port:?}");
    };
    check("", "", Some(("127.0.0.1", 3)));
    check("http", "", Some(("127.0.0.1", 3)));
    check("admin", "db.local", Some(("db.local", 4)));
    check("8080", "", Some(("127.0.0.1", 8080)));
    check("stats", "", None);
    check("none", "", None);
}

/// A server that answers each connection with these bytes after it has read something, and then closes it; `None` never answers.
#[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn server(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let Ok(1..) = stream.read(&mut request).await else { return };
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => std::future::pending().await,
                }
            });
        }
    });
    address
}

/// A port that nobody listens on.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

async fn outcome(check: &Check, timeout: Duration) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let execs = Execs::new(Arc::new(Root::open(folder.path()).unwrap()), "unused".into());
    Checker::new(execs).check(&PodUid::new("u1").unwrap(), "main", check, timeout).await
}

fn at(address: SocketAddr) -> Address {
    Address { host: address.ip().to_string(), port: address.port() }
}

#[track_caller]
fn assert_failed(outcome: &Outcome, part: &str) {
    let Outcome::Failed(message) = outcome else { panic!("{outcome:?}") };
    assert!(message.contains(part), "{message:?} lacks {part:?}");
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_tcp_probe_passes_when_somebody_listens() {
    assert_eq!(outcome(&Check::Tcp(at(server(None).await)), LONG).await, Outcome::Passed);
    assert_failed(&outcome(&Check::Tcp(at(nobody())), LONG).await, "refused");
}

#[tokio::test]
async fn an_http_probe_passes_by_its_status() {
    let get = |address| Check::Http { at: at(address), path: "/healthz?full=1".into() };
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", None),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Some("HTTP status 404")),
        ("HTTP/1.1 503 Busy\r\n\r\n", Some("HTTP status 503")),
        ("SSH-2.0-nonsense\r\n", Some("invalid")),
        ("", Some("closed")),
    ] {
        let outcome = outcome(&get(server(Some(answer)).await), LONG).await;
        match expected {
            None => assert_eq!(outcome, Outcome::Passed, "{answer:?}"),
            Some(part) => assert_failed(&outcome, part),
        }
    }
    assert_failed(&outcome(&get(nobody()), LONG).await, "refused");
}

#[tokio::test]
async fn a_probe_that_hangs_ends_at_its_timeout() {
    let hangs = Check::Http { at: at(server(None).await), path: "/".into() };
    assert_failed(&outcome(&hangs, Duration::from_secs(1)).await, "no answer within 1 s");
    let hangs = Check::Grpc { at: at(server(None).await), service: String::new() };
    assert_failed(&outcome(&hangs, Duration::from_secs(1)).await, "no answer within 1 s");
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn a_grpc_probe_passes_when_the_service_says_that_it_serves() {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("stock", tonic_health::ServingStatus::NotServing).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let ask = |service: &str| Check::Grpc { at: at(address), service: service.into() };
    assert_eq!(outcome(&ask("shop"), LONG).await, Outcome::Passed);
    assert_eq!(outcome(&ask(""), LONG).await, Outcome::Passed);
    assert_failed(&outcome(&ask("stock"), LONG).await, "NOT_SERVING");
    assert_failed(&outcome(&ask("none"), LONG).await, "not found");
    assert_failed(&outcome(&Check::Grpc { at: at(nobody()), service: String::new() }, LONG).await, "refused");
}

#[test]
fn a_probe_of_another_kind_is_resolved_the_same_way() {
    let ports = [assigned("main", "http", 3, Protocol::Tcp)];
    let http = HttpGetAction { port: "http".into(), path: "/x".into(), ..HttpGetAction::default() };
    let probe = Probe { handler: Some(probe::Handler::HttpGet(http)), ..Probe::default() };
    let address = Address { host: "127.0.0.1".into(), port: 3 };
    assert_eq!(Check::of(&probe, "main", &ports, LOCALHOST), Some(Check::Http { at: address.clone(), path: "/x".into() }));
    let grpc = GrpcAction { port: String::new(), service: "shop".into() };
    let probe = Probe { handler: Some(probe::Handler::Grpc(grpc)), ..Probe::default() };
    assert_eq!(Check::of(&probe, "main", &ports, LOCALHOST), Some(Check::Grpc { at: address, service: "shop".into() }));
    assert_eq!(Check::of(&Probe::default(), "main", &ports, LOCALHOST), None);
}

#[tokio::test]
async fn tries_that_hang_hold_up_no_other() {
    let (hanging, good) = (server(None).await, server(Some("HTTP/1.1 200 OK\r\n\r\n")).await);
    let folder = tempfile::tempdir().unwrap();
    let execs = Execs::new(Arc::new(Root::open(folder.path()).unwrap()), "unused".into());
    // As many places as commands have.
    let checker = Checker { connections: Semaphore::new(COMMANDS_AT_ONCE), ..Checker::new(execs) };
    let uid = PodUid::new("u1").unwrap();
    let check = |address| Check::Http { at: at(address), path: "/".into() };
    let (hanging, good) = (check(hanging), check(good));
    let mut hang = futures_util::future::join_all((0..3 * COMMANDS_AT_ONCE).map(|_| checker.check(&uid, "main", &hanging, PATIENCE)));
    let good = async {
        // Behind all of them.
        tokio::task::yield_now().await;
        checker.check(&uid, "main", &good, PATIENCE).await
    };
    tokio::select! {
        biased;
        outcomes = &mut hang => panic!("none of those ever answers: {outcomes:?}"),
        outcome = good => assert_eq!(outcome, Outcome::Passed),
    }
}

/// Much longer than it takes until a try counts as hanging.
const PATIENCE: Duration = Duration::from_secs(600);
