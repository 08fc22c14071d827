//! Very many watchers behind a network that is far too slow for what they watch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bluebird::api::Resource;
use bluebird::api::v1::{Event, Lease, LeaseSpec, Selector, WatchRequest};
use bluebird::client::{Client, Patience};
use bluebird::error::Error;
use bluebird::testing::{Cable, Link, free_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::program::{Program, free_range};

const WATCHES: usize = 10_000;
/// A connection takes as many watches as one may have.
const CONNECTIONS: usize = 10;
/// What each watch has to be sent: without a bound, all of them would have far more in the server than they may.
const OBJECTS: usize = 16;
const OBJECT_BYTES: usize = 4 * 1024;
/// How many pairs of such objects are written while nobody reads.
const PAIRS: usize = 4;
/// What the server may have in memory for watches that nobody reads: what is put together and not sent, and for each watch its place and its stream.
const BOUND: u64 = (64 << 20) + WATCHES as u64 * (24 << 10);
/// How long all of it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watchers_behind_a_slow_network_stay_within_the_bound_and_miss_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (data, listen, range) = (folder.path().join("data"), address.to_string(), free_range());
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let mut apiserver = Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let client = Client::new(&format!("http://{listen}")).expect("a URL");
    let begin = soon(|| client.list_objects(leases())).await.revision.0;
    for number in 0..OBJECTS {
        client.create(lease(&format!("before-{number}"))).await.expect("the apiserver answers");
    }

    let cable = Cable::new(address).await.expect("a free port");
    let clients = connect(&cable).await;
    let quiet = memory(&apiserver, "VmRSS:");
    cable.set_link(Link::Clogged);
    let (tell, expected) = watch::channel(None);
    let (seen, mut watches) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for number in 0..WATCHES {
        watches.spawn(follow(clients[number % CONNECTIONS].clone(), begin, expected.clone(), seen.clone()));
    }
    until(|| async { gauge(address, "bluebird_watches").await >= WATCHES }).await;
    // Nobody who writes waits for those who don't read; two of these are one revision.
    for number in 0..PAIRS {
        let pair = ["a", "b"].map(|half| lease(&format!("meanwhile-{number}-{half}")).into_object());
        client.apply(pair.to_vec(), "writer", false).await.expect("the apiserver answers");
    }
    tell.send_replace(Some(Arc::new(changes(&client, begin).await)));
    // It flows, and is clogged once more in the middle.
    cable.set_link(Link::Good);
    until(|| async { seen.load(Ordering::Relaxed) >= WATCHES * OBJECTS }).await;
    cable.set_link(Link::Clogged);
    client.list_objects(leases()).await.expect("the apiserver answers");
    cable.set_link(Link::Good);
    let all = async {
        while let Some(watch) = watches.join_next().await {
            watch.expect("a watch is sent everything, in order");
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("everything arrives");
    assert_eq!(seen.load(Ordering::Relaxed), WATCHES * (OBJECTS + 2 * PAIRS));
    let most = memory(&apiserver, "VmHWM:") - quiet;
    println!("{WATCHES} watches that nobody read took {} MiB of {}", most >> 20, BOUND >> 20);
    assert!(most < BOUND, "{most} of {BOUND}");
    assert!(apiserver.interrupt().await.success());
}

/// Clients that are connected, and give nobody up.
async fn connect(cable: &Cable) -> Vec<Client> {
    let patience = Patience { keepalive_interval: PATIENCE, silence: PATIENCE, ..Patience::default() };
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = Client::with_servers([cable.url().as_str()], patience).expect("a URL");
        client.list_objects(leases()).await.expect("the apiserver answers");
        clients.push(client);
    }
    clients
}

/// One watch, which has to be sent exactly this, no revision in parts.
async fn follow(client: Client, begin: u64, mut expected: watch::Receiver<Option<Arc<Vec<Event>>>>, seen: Arc<AtomicUsize>) {
    let mut stream = soon(|| client.watch(from(begin))).await;
    let expected = expected.wait_for(Option::is_some).await.expect("the test lives").clone().unwrap_or_default();
    let mut rest = &expected[..];
    while !rest.is_empty() {
        let message = stream.next().await.expect("the watch goes on").expect("the watch goes on");
        let (now, later) = rest.split_at_checked(message.events.len()).expect("not more than there is");
        assert!(message.events == now, "something else was sent");
        assert!(later.first().is_none_or(|next| revision(next) > message.revision), "a revision was sent in parts, or left out");
        rest = later;
        seen.fetch_add(now.len(), Ordering::Relaxed);
    }
}

/// What a watch that nobody holds up is sent.
async fn changes(client: &Client, begin: u64) -> Vec<Event> {
    let now = client.list_objects(leases()).await.expect("the apiserver answers").revision.0;
    let (mut stream, mut changes) = (client.watch(from(begin)).await.expect("the apiserver answers"), Vec::new());
    while changes.last().is_none_or(|last| revision(last) < now) {
        changes.extend(stream.next().await.expect("the watch goes on").expect("the watch goes on").events);
    }
    changes
}

fn from(revision: u64) -> WatchRequest {
    WatchRequest { selectors: vec![leases()], from_revision: revision, ..Default::default() }
}

fn leases() -> Selector {
    Selector { kind: "Lease".into(), ..Default::default() }
}

fn lease(name: &str) -> Lease {
    let spec = LeaseSpec { holder_identity: "x".repeat(OBJECT_BYTES), lease_duration_seconds: 1, ..Default::default() };
    let mut lease = Lease { spec: Some(spec), ..Default::default() };
    lease.meta_mut().name = name.to_owned();
    lease
}

fn revision(event: &Event) -> u64 {
    event.object.as_ref().map_or(0, |object| object.meta().resource_version)
}

/// Tries until there is an answer.
async fn soon<T, F: Future<Output = Result<T, Error>>>(attempt: impl Fn() -> F) -> T {
    let trying = async {
        loop {
            match attempt().await {
                Ok(answer) => return answer,
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.expect("an answer in time")
}

async fn until<F: Future<Output = bool>>(reached: impl Fn() -> F) {
    let looking = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("it is reached in time");
}

/// What the server measures under this name.
async fn gauge(address: SocketAddr, name: &str) -> usize {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    value.unwrap_or_default() as usize
}

/// Bytes of memory, from what Linux tells of a process.
fn memory(program: &Program, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line of it");
    line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}
