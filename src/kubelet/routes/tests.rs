//! The router over real sockets, each test in a service range of its own.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::api::v1::{ConditionStatus, Endpoint, EndpointPort, EndpointSliceSpec, ServicePort, ServiceSpec};
use crate::api::{Resource, condition};

#[cfg(all(test, unix))]
mod unix;

const DEADLINE: Duration = Duration::from_secs(10);

/// A router with its machine, and the knob that tells it what to route.
struct Node {
    range: String,
    revision: u64,
    routes: Routes,
    tasks: Tasks,
}

impl Node {
    fn start(range: &str, cluster_id: &str) -> Node {
        let tasks = Tasks::new(CancellationToken::new());
        let routes = Routes::start(range, cluster_id, &tasks).expect("a range");
        Node { range: range.to_owned(), revision: 0, routes, tasks }
    }

    /// The service `web` at port 80 of the given address of the range has these backends, and that is in effect.
    async fn route(&mut self, host: u8, backends: &[SocketAddr]) {
        self.set(&[(host, backends)]).await;
    }

    async fn set(&mut self, services: &[(u8, &[SocketAddr])]) {
        self.revision += 1;
        let (services, slices): (Vec<_>, Vec<_>) = services.iter().map(|(host, backends)| self.service(*host, backends)).unzip();
        let wanted = Wanted { revision: Revision(self.revision), table: Arc::new(super::routes(&services, &slices)) };
        self.routes.wanted.send_replace(Some(Arc::new(wanted)));
        let mut applied = self.routes.applied();
        let done = applied.wait_for(|applied| applied.0 >= self.revision);
        tokio::time::timeout(DEADLINE, done).await.expect("the table is applied in time").expect("the router runs");
    }

    fn service(&self, host: u8, backends: &[SocketAddr]) -> (Service, EndpointSlice) {
        let spec = ServiceSpec {
            cluster_ip: self.vip(host).ip().to_string(),
            ports: vec![ServicePort { port: self.vip(host).port().into(), ..Default::default() }],
            ..Default::default()
        };
        let endpoint = |backend: &SocketAddr| Endpoint {
            address: backend.ip().to_string(),
            ports: vec![EndpointPort { port: backend.port().into(), ..Default::default() }],
            ..Default::default()
        };
        let mut service = Service { spec: Some(spec), ..Default::default() };
        let endpoints = backends.iter().map(endpoint).collect();
        let mut slice = EndpointSlice { spec: Some(EndpointSliceSpec { endpoints }), ..Default::default() };
        service.meta_mut().name = format!("web{host}");
        let conditions = &mut service.status.get_or_insert_default().conditions;
        condition::set(conditions, condition::READY, ConditionStatus::True, "", "", Default::default());
        slice.meta_mut().name = format!("web{host}");
        (service, slice)
    }

    fn vip(&self, host: u8) -> SocketAddr {
        let (network, _) = self.range.rsplit_once('.').expect("an IPv4 range");
        format!("{network}.{host}:8080").parse().expect("an address")
    }

    async fn state(&self, is: impl FnMut(&State) -> bool) -> State {
        let mut state = self.routes.state();
        let reached = tokio::time::timeout(DEADLINE, state.wait_for(is)).await;
        reached.unwrap_or_else(|_| panic!("still: {}", *self.routes.state().borrow())).expect("the router runs").clone()
    }

    async fn end(self) {
        self.tasks.shutdown(DEADLINE).await;
    }
}

/// A /24 out of 127.96.0.0/12 in which nobody routes.
fn free_range() -> String {
    loop {
        let range = format!("127.{}.{}.0/24", fastrand::u8(96..112), fastrand::u8(..));
        let lock = standby::lock_address(&range).expect("a range");
        if std::net::TcpListener::bind(lock).is_ok() {
            return range;
        }
    }
}

/// Answers each connection with its name, then says back what it gets until the client is done.
struct Backend {
    address: SocketAddr,
    tasks: Tasks,
}

impl Backend {
    async fn start(name: &'static str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("backend", async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    stream.write_all(name.as_bytes()).await?;
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await?;
                    write.shutdown().await
                });
            }
        });
        Backend { address, tasks }
    }

    /// Ends it with its connections; nothing listens there then.
    async fn end(self) -> SocketAddr {
        self.tasks.shutdown(Duration::ZERO).await;
        self.address
    }
}

/// Connects and reads the backend's name, which is one byte.
async fn visit(vip: SocketAddr) -> io::Result<(char, TcpStream)> {
    let mut stream = TcpStream::connect(vip).await?;
    let name = stream.read_u8().await?;
    Ok((name.into(), stream))
}

async fn answers(vip: SocketAddr, count: usize) -> String {
    let mut names = String::new();
    for _ in 0..count {
        let (name, stream) = visit(vip).await.expect("a backend answers");
        names.push(name);
        finish(stream).await;
    }
    names
}

/// Says goodbye in both directions, so that the connection is over on all sides.
async fn finish(mut stream: TcpStream) {
    stream.shutdown().await.expect("open");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("ends well");
}

#[tokio::test]
async fn three_backends_answer_in_turn() {
    let (a, b, c) = (Backend::start("a").await, Backend::start("b").await, Backend::start("c").await);
    let mut node = Node::start(&free_range(), "cluster");
    node.route(5, &[a.address, b.address, c.address]).await;
    let names = answers(node.vip(5), 9).await;
    let count = names.chars().fold(BTreeMap::new(), |mut count, name| {
        *count.entry(name).or_insert(0) += 1;
        count
    });
    assert_eq!(count, BTreeMap::from([('a', 3), ('b', 3), ('c', 3)]), "{names}");
    node.end().await;
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_way_ends_by_itself() {
    let a = Backend::start("a").await;
    let mut node = Node::start(&free_range(), "cluster");
    node.route(5, &[a.address]).await;
    let (_, stream) = visit(node.vip(5)).await.expect("answers");
    let sent: Vec<u8> = (0..1_000_000u32).map(|index| index as u8).collect();
    let (mut read, mut write) = stream.into_split();
    let expected = sent.clone();
    let (echoed, ()) = tokio::join!(
        async {
            let mut echoed = Vec::new();
            read.read_to_end(&mut echoed).await.expect("ends well");
            echoed
        },
        async {
            write.write_all(&sent).await.expect("open");
            write.shutdown().await.expect("open");
        }
    );
    assert_eq!(echoed.len(), expected.len());
    assert!(echoed == expected);
    node.end().await;
}

#[tokio::test]
async fn a_dead_backend_is_skipped_before_the_first_byte() {
    let (dead, alive) = (Backend::start("d").await, Backend::start("a").await);
    let dead = dead.end().await;
    let mut node = Node::start(&free_range(), "cluster");
    node.route(5, &[dead, alive.address]).await;
    assert_eq!(answers(node.vip(5), 5).await, "aaaaa");
    node.end().await;
}

#[tokio::test]
async fn a_removed_endpoint_gets_no_new_connection_while_its_old_one_goes_on() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut node = Node::start(&free_range(), "cluster");
    node.route(5, &[a.address]).await;
    let (_, mut old) = visit(node.vip(5)).await.expect("answers");
    node.route(5, &[b.address]).await;
    assert_eq!(answers(node.vip(5), 5).await, "bbbbb");
    old.write_all(b"still there").await.expect("open");
    let mut echoed = [0; 11];
    old.read_exact(&mut echoed).await.expect("open");
    assert_eq!(&echoed, b"still there");
    finish(old).await;
    node.end().await;
}

#[tokio::test]
async fn a_backend_is_let_go_of_when_it_has_answered_all_that_it_was_given_or_has_had_time_to() {
    let (old, new) = (TcpListener::bind("127.0.0.1:0").await.expect("a free port"), Backend::start("n").await);
    let mut node = Node::start(&free_range(), "cluster");
    let [vip, other] = [5, 6].map(|host| node.vip(host));
    for answers_at_all in [true, false] {
        node.route(5, &[old.local_addr().expect("bound")]).await;
        let begun = Instant::now();
        let mut client = TcpStream::connect(vip).await.expect("the router accepts");
        client.write_all(b"?").await.expect("open");
        let (mut given, _) = old.accept().await.expect("the router connects");
        assert_eq!(given.read_u8().await.expect("open"), b'?');

        let (applied, revision) = (node.routes.applied(), node.revision + 1);
        let meanwhile = async {
            // What is new is in effect at once.
            while visit(other).await.is_err() {
                tokio::task::yield_now().await;
            }
            assert!(applied.borrow().0 < revision || begun.elapsed() >= fresh::FRESH, "the old backend could be asked to stop");
            if answers_at_all {
                given.write_all(b"!").await.expect("open");
            }
        };
        let backends = [new.address];
        let services: [(u8, &[SocketAddr]); 2] = [(5, &backends), (6, &backends)];
        tokio::join!(node.set(&services), meanwhile);
        assert!(answers_at_all || begun.elapsed() >= fresh::FRESH);
        assert_eq!(answers(vip, 1).await, "n");
        if answers_at_all {
            assert_eq!(client.read_u8().await.expect("it goes on"), b'!');
        }
    }
    node.end().await;
    new.end().await;
}

#[tokio::test]
async fn a_removed_service_accepts_nothing_while_its_old_connection_and_the_other_services_go_on() {
    let a = Backend::start("a").await;
    let mut node = Node::start(&free_range(), "cluster");
    node.set(&[(5, &[a.address]), (6, &[a.address])]).await;
    let (_, old) = visit(node.vip(5)).await.expect("answers");
    let (_, other) = visit(node.vip(6)).await.expect("answers");
    node.set(&[(6, &[a.address])]).await;
    let refused = async { while visit(node.vip(5)).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, refused).await.expect("the listener is closed");
    assert_eq!(answers(node.vip(6), 1).await, "a");
    finish(old).await;
    finish(other).await;
    node.end().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_shown_and_routed_once_it_is_free() {
    let a = Backend::start("a").await;
    let mut node = Node::start(&free_range(), "cluster");
    let squatter = TcpListener::bind(node.vip(5)).await.expect("a free address");
    node.set(&[(5, &[a.address]), (6, &[a.address])]).await;
    let vip = node.vip(5);
    let state = node.state(|state| matches!(state, State::Active { unbound } if unbound.contains_key(&vip))).await;
    assert!(state.to_string().starts_with(&format!("routing; can't listen on {vip}: ")), "{state}");
    assert_eq!(answers(node.vip(6), 1).await, "a");
    drop(squatter);
    node.state(|state| *state == State::Active { unbound: BTreeMap::new() }).await;
    assert_eq!(answers(vip, 1).await, "a");
    node.end().await;
}

#[tokio::test]
async fn of_two_routers_on_one_machine_one_routes_and_the_other_takes_over_when_it_ends() {
    let a = Backend::start("a").await;
    let range = free_range();
    let mut first = Node::start(&range, "cluster");
    first.route(5, &[a.address]).await;
    first.state(|state| matches!(state, State::Active { .. })).await;
    let mut second = Node::start(&range, "cluster");
    second.state(|state| *state == State::Standby { holder_pid: std::process::id() }).await;
    second.route(5, &[a.address]).await;
    let mut third = Node::start(&range, "cluster");
    third.state(|state| *state == State::Standby { holder_pid: std::process::id() }).await;
    third.route(5, &[a.address]).await;

    // As abrupt as it gets within one process.
    drop(first);
    let active = |state: &State| matches!(state, State::Active { unbound } if unbound.is_empty());
    let heir = tokio::select! {
        _ = second.state(active) => &mut second,
        _ = third.state(active) => &mut third,
    };
    heir.route(5, &[a.address]).await;
    assert_eq!(answers(heir.vip(5), 3).await, "aaa");
    second.end().await;
    third.end().await;
}

#[tokio::test]
async fn a_router_of_another_cluster_and_a_stranger_on_the_lock_are_named() {
    let range = free_range();
    let first = Node::start(&range, "cluster");
    first.state(|state| matches!(state, State::Active { .. })).await;
    let second = Node::start(&range, "other");
    let State::Blocked(why) = second.state(|state| matches!(state, State::Blocked(_))).await else { unreachable!("waited for") };
    assert!(why.contains("another cluster (cluster)"), "{why}");
    first.end().await;
    second.state(|state| matches!(state, State::Active { .. })).await;
    second.end().await;

    let range = free_range();
    let stranger = TcpListener::bind(standby::lock_address(&range).expect("a range")).await.expect("free");
    let node = Node::start(&range, "cluster");
    let (mut stream, _) = stranger.accept().await.expect("somebody asks");
    stream.write_all(b"220 mail.example.org\r\n").await.expect("open");
    let State::Blocked(why) = node.state(|state| matches!(state, State::Blocked(_))).await else { unreachable!("waited for") };
    assert!(why.contains("does not greet as one"), "{why}");
    node.end().await;
}

#[tokio::test]
async fn a_range_that_is_none_is_refused() {
    let tasks = Tasks::new(CancellationToken::new());
    assert!(matches!(Routes::start("127.96.0.0", "cluster", &tasks), Err(Error::Invalid(_))));
}

#[tokio::test]
async fn what_was_kept_is_routed_only_while_nothing_newer_is_known_and_never_acknowledged() {
    let mut node = Node::start(&free_range(), "cluster");
    let (old, new) = (Backend::start("o").await, Backend::start("n").await);
    let (service, slice) = node.service(1, &[old.address]);
    let kept = Arc::new(super::routes(&[service], &[slice]));
    assert!(give_kept(&node.routes.wanted, kept.clone()));
    let reached = async {
        while visit(node.vip(1)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.expect("the kept route");
    assert_eq!((answers(node.vip(1), 2).await.as_str(), *node.routes.applied().borrow()), ("oo", Revision::ZERO));
    node.route(1, &[new.address]).await;
    assert!(!give_kept(&node.routes.wanted, kept));
    assert_eq!(answers(node.vip(1), 2).await, "nn");
    node.end().await;
    old.end().await;
    new.end().await;
}

#[tokio::test]
async fn a_router_for_another_range_gives_back_the_lock_of_the_one_before() {
    let node = Node::start(&free_range(), "cluster");
    node.state(|state| matches!(state, State::Active { .. })).await;
    let (before, tasks) = (node.range.clone(), node.tasks);
    let routes = node.routes.for_range(&before, "cluster", &tasks).expect("the same");
    assert!(matches!(*routes.state().borrow(), State::Active { .. }), "it is the same router");
    let range = free_range();
    let routes = routes.for_range(&range, "cluster", &tasks).expect("a range");
    let lock = standby::lock_address(&before).expect("a range");
    let is_free = async {
        while TcpListener::bind(lock).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, is_free).await.expect("the lock of the range before");
    let node = Node { range, revision: 0, routes, tasks };
    node.state(|state| matches!(state, State::Active { .. })).await;
    node.end().await;
}
