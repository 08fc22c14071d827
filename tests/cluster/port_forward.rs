//! Connections to the ports of pods, through the apiserver.

use std::time::Duration;

use bluebird::api::v1::port_forward_request::Message as Said;
use bluebird::api::v1::port_forward_response::Message as Told;
use bluebird::api::v1::{ClosePort, ContainerPort, Pod, PortForwardRequest, PortForwardResponse, PortForwardStart, Protocol};
use bluebird::client::{Client, DeleteOptions, Incoming};
use bluebird::error::Error;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;

use super::objects::{PodExt, pod, web};
use super::steps::{cluster, run, wait_for_pod, wait_until_pod_is_gone};

const PATIENCE: Duration = Duration::from_secs(20);

struct Connection {
    to_pod: Sender<PortForwardRequest>,
    from_pod: Incoming<PortForwardResponse>,
}

impl Connection {
    async fn open(client: &Client, pod: &str, port: impl ToString) -> Result<Self, Error> {
        let start = PortForwardStart { pod: pod.into(), port: port.to_string(), ..Default::default() };
        client.port_forward(start).await.map(|(to_pod, from_pod)| Self { to_pod, from_pod })
    }

    async fn say(&self, message: Said) {
        self.to_pod.send(PortForwardRequest { message: Some(message) }).await.expect("it listens");
    }

    async fn next(&mut self) -> Result<Option<Told>, Error> {
        let next = tokio::time::timeout(PATIENCE, self.from_pod.next()).await.expect("an answer")?;
        Ok(next.and_then(|response| response.message))
    }

    /// Everything up to the other side's close.
    async fn read_all(&mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(Told::Data(data)) = self.next().await? {
            all.extend(data);
        }
        Ok(all)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_by_its_name_by_many_at_once() {
    let cluster = cluster(1).await;
    run(&cluster, web("hello", "hello").grace(0)).await;
    let client = cluster.client();
    let ask = |_| async {
        let mut connection = Connection::open(&client, "hello", "http").await.expect("it leads there");
        connection.say(Said::Data(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".into())).await;
        String::from_utf8(connection.read_all().await.expect("an answer")).expect("text")
    };
    for answer in futures_util::future::join_all((0..20).map(ask)).await {
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Hello from hello"), "{answer}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_close_first_and_bytes_pass_as_they_are() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let mut connection = Connection::open(&cluster.client(), "web", port).await.expect("it leads there");
    let (mut pod, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("the node connects").expect("a connection");
    let sent: Vec<u8> = (0..40_000_u32).map(|number| (number % 251) as u8).collect();
    connection.say(Said::Data(sent.clone())).await;
    connection.say(Said::Close(ClosePort {})).await;
    let mut read = Vec::new();
    tokio::time::timeout(PATIENCE, pod.read_to_end(&mut read)).await.expect("an end").expect("bytes");
    assert!(read == sent);
    // The other direction is open still.
    pod.write_all(b"later").await.expect("it is read");
    assert_eq!(connection.next().await, Ok(Some(Told::Data(b"later".into()))));
    drop(pod);
    assert_eq!(connection.next().await, Ok(Some(Told::Close(ClosePort {}))));
    assert_eq!(connection.next().await, Ok(None));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_reset_for_the_pod_when_its_client_goes_away() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    // A program of its own, in a way: it closes nothing when it goes.
    let program = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let client = cluster.client();
    let opened = program.spawn(async move { Connection::open(&client, "web", port).await }).await.expect("no panic");
    let connection = opened.expect("it leads there");
    let (mut pod, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("the node connects").expect("a connection");
    connection.say(Said::Data(b"half of it".into())).await;
    let mut half = [0; 10];
    tokio::time::timeout(PATIENCE, pod.read_exact(&mut half)).await.expect("it comes").expect("bytes");
    program.shutdown_background();
    let mut rest = Vec::new();
    // No end: half of what was to come would look like all of it.
    let ended = tokio::time::timeout(PATIENCE, pod.read_to_end(&mut rest)).await.expect("it is told");
    assert!(ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset), "{ended:?} {rest:?}");
    drop(connection);
    cluster.finish().await;
}

/// Both ends of all connections are in this process, which many systems allow 1,024 files, or 256, unless it asks for more.
fn allow_many_files() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(8_192)), hard).expect("no more than is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_lead_to_a_node_at_once_and_one_more_is_refused_until_one_has_ended() {
    allow_many_files();
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (client, port) = (cluster.client(), listener.local_addr().expect("bound").port());
    let mut open = Vec::new();
    for number in 0..1_000 {
        let opened = Connection::open(&client, "web", port).await.unwrap_or_else(|error| panic!("number {number}: {error}"));
        let (answering, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("it comes").expect("a connection");
        open.push((opened, answering));
    }
    let refused = async || match Connection::open(&client, "web", port).await {
        Ok(mut connection) => connection.next().await,
        Err(error) => Err(error),
    };
    match refused().await {
        Err(Error::Exhausted { message, .. }) => assert_eq!(message, "1000 connections lead to this node already"),
        other => panic!("{other:?}"),
    }
    // All of them lead there, also the last one.
    for (connection, answering) in open.iter_mut().step_by(333) {
        connection.say(Said::Data(b"ping".into())).await;
        let mut said = [0; 4];
        tokio::time::timeout(PATIENCE, answering.read_exact(&mut said)).await.expect("it comes").expect("bytes");
        assert_eq!(&said, b"ping");
    }
    open.pop();
    let again = async {
        loop {
            let mut connection = Connection::open(&client, "web", port).await.expect("the node is there");
            tokio::select! {
                accepted = listener.accept() => break accepted.expect("a connection"),
                told = connection.next() => assert!(matches!(told, Err(Error::Exhausted { .. })), "{told:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is room again");
    drop(open);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_connection_can_lead_is_told_apart() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    let client = cluster.client();
    let refusal = async |pod: &str, port: &str| match Connection::open(&client, pod, port).await {
        Ok(mut connection) => connection.next().await.expect_err("nobody listens"),
        Err(error) => error,
    };
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("it was bound").port();
    assert!(matches!(refusal("web", &free.to_string()).await, Error::Precondition(why) if why.contains("nobody answers at port")));
    assert!(matches!(refusal("web", "http").await, Error::NotFound(port) if port.kind == "Port" && port.name == "http"));
    for wrong in ["", "0", "65536"] {
        assert!(matches!(refusal("web", wrong).await, Error::Invalid(faults) if faults[0].path == "start.port"), "{wrong}");
    }
    let mut clock = pod("clock", "exec sleep 1000").grace(0);
    let mut port = ContainerPort { name: "time".into(), ..Default::default() };
    port.set_protocol(Protocol::Udp);
    clock.spec.as_mut().expect("it has one").containers[0].ports = vec![port];
    run(&cluster, clock).await;
    assert!(matches!(refusal("clock", "time").await, Error::Invalid(faults) if faults[0].message.contains("UDP")));
    assert!(matches!(refusal("gone", "80").await, Error::NotFound(pod) if pod.kind == "Pod"));
    cluster.client().create(pod("over", "true").restart(bluebird::api::v1::RestartPolicy::Never)).await.expect("valid");
    wait_for_pod(&cluster, "over", "to have ended", |pod| super::objects::phase(pod) == bluebird::api::v1::PodPhase::Succeeded).await;
    assert!(matches!(refusal("over", "80").await, Error::Precondition(why) if why.ends_with("has ended")));
    client.delete::<Pod>("default", "web", DeleteOptions::default()).await.expect("it exists");
    wait_until_pod_is_gone(&cluster, "web").await;
    assert!(matches!(refusal("web", "80").await, Error::NotFound(_)));
    cluster.finish().await;
}
