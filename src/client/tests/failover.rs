//! Servers that are not there, break off in the middle, or stand behind a network that has gone silent.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::scene::{Scene, bounded, join, node, pod};
use super::*;
use crate::api::v1::{Hello, SessionRequest, session_request};
use crate::tasks::Tasks;
use crate::testing::Link;
use crate::testing::cable::Cable;

/// So that a dead network is noticed within a second.
const IMPATIENT: Patience = Patience {
    connect: Duration::from_millis(500),
    keepalive_interval: Duration::from_millis(200),
    keepalive_timeout: Duration::from_millis(200),
    silence: Duration::from_secs(25),
};

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A server that takes requests in and closes the connection without an answer.
async fn broken(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let token = tasks.token();
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut taken = Vec::new();
            // The beginning of HTTP/2 is 24 bytes and some settings; what comes after is the request.
            while taken.len() < 200 && stream.read_buf(&mut taken).await.is_ok_and(|bytes| bytes > 0) {}
        }
    };
    tasks.spawn("broken server", async move {
        token.run_until_cancelled(serve).await;
    });
    address
}

fn client(servers: &[SocketAddr]) -> Client {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    Client::with_servers(servers.iter().map(String::as_str), IMPATIENT).expect("addresses")
}

#[tokio::test]
async fn what_could_not_be_sent_goes_to_the_next_server_also_if_it_is_a_write() {
    let scene = Scene::start().await;
    let client = client(&[nobody().await, nobody().await, scene.address()]);
    client.create(pod("web")).await.expect("created");
    client.list::<Pod>("").await.expect("listed");
    assert_eq!(client.server(), scene.address().to_string(), "and stays there");
    scene.end().await;
}

#[tokio::test]
async fn a_request_that_was_never_answered_is_repeated_only_if_it_changes_nothing() {
    let scene = Scene::start().await;
    let broken = broken(&scene.tasks).await;
    let servers = [broken, scene.address()];
    client(&servers).list::<Pod>("").await.expect("listed by the other one");
    client(&servers).watch(WatchRequest::default()).await.expect("watched at the other one");
    let web = scene.client().create(pod("web")).await.expect("created");
    let unknown = "whether it was done is not known";
    let status = web.clone().into_object();
    let writes: [(&str, Result<(), Error>); 5] = [
        ("create", client(&servers).create(pod("new")).await.map(drop)),
        ("update", client(&servers).update(web).await.map(drop)),
        ("update_status", client(&servers).update_status(vec![status]).await.map(drop)),
        ("apply", client(&servers).apply(vec![pod("new").into_object()], "test", false).await.map(drop)),
        ("delete", client(&servers).delete::<Pod>("", "web", DeleteOptions::default()).await.map(drop)),
    ];
    for (rpc, outcome) in writes {
        assert!(matches!(&outcome, Err(Error::Unavailable(why)) if why.contains(unknown)), "{rpc}: {outcome:?}");
    }
    assert_eq!(scene.client().list::<Pod>("").await.expect("listed").len(), 1, "nothing was written");
    let moved = client(&servers);
    moved.create(pod("new")).await.expect_err("it was sent and not answered");
    moved.create(pod("new")).await.expect("the next attempt goes to the next server");
    scene.end().await;
}

#[tokio::test]
async fn a_failure_names_every_server() {
    let (one, other) = (nobody().await, nobody().await);
    let error = client(&[one, other]).create(pod("web")).await.expect_err("nobody is there");
    let Error::NotDone(why) = &error else { panic!("{error:?}") };
    assert!(why.contains(&one.to_string()) && why.contains(&other.to_string()), "{why}");
}

#[tokio::test]
async fn a_cache_behind_a_network_that_went_silent_goes_on_over_another_one() {
    let scene = Scene::start().await;
    let cable = Cable::new(scene.address()).await.expect("a free port");
    let url = cable.url();
    let servers = [url.as_str(), &scene.address().to_string()];
    let cache = Cache::of_kinds(Client::with_servers(servers, IMPATIENT).expect("addresses"), &[Kind::Pod], &scene.tasks);
    assert!(cache.synced().await);
    cable.set_link(Link::Silent);
    let created = scene.client().create(pod("web")).await.expect("created");
    // Before the watch has been silent for too long: it is the connection that was found dead.
    bounded("the cache shows it", cache.reached(Revision(created.meta().resource_version))).await;
    assert_eq!(cache.relists(), 0);
    scene.end().await;
}

#[tokio::test]
async fn a_cache_that_was_away_for_longer_than_the_history_reaches_back_is_sent_only_the_difference() {
    let scene = Scene::start_as(|config| config.history_revisions = 4).await;
    let cable = Cable::new(scene.address()).await.expect("a free port");
    for name in ["same", "changed", "gone"] {
        scene.client().create(pod(name)).await.expect("created");
    }
    let cache = Cache::of_kinds(Client::with_servers([cable.url().as_str()], IMPATIENT).expect("an address"), &[Kind::Pod], &scene.tasks);
    assert!(cache.synced().await);
    let same = cache.get::<Pod>("", "same").expect("it is there");
    cable.set_link(Link::Unplugged);
    scene.client().delete::<Pod>("", "gone", DeleteOptions::default()).await.expect("deleted");
    let mut changed = scene.client().get::<Pod>("", "changed").await.expect("it is there");
    for number in 0..20 {
        changed.meta_mut().labels.insert("number".into(), number.to_string());
        changed = scene.client().update(changed).await.expect("updated");
    }
    let new = scene.client().create(pod("new")).await.expect("created");
    cable.set_link(Link::Good);
    bounded("the cache shows it", cache.reached(Revision(new.meta().resource_version))).await;
    assert_eq!((cache.relists(), cache.bridges()), (0, 1));
    let listed = scene.client().list::<Pod>("").await.expect("listed");
    assert_eq!(cache.list::<Pod>().iter().map(|pod| (**pod).clone()).collect::<Vec<_>>(), listed);
    let still = cache.get::<Pod>("", "same").expect("it is there");
    assert!(std::sync::Arc::ptr_eq(same.object(), still.object()), "what is the same was not sent");
    scene.end().await;
}

#[tokio::test]
async fn a_session_behind_a_network_that_went_silent_is_lost_soon() {
    let scene = Scene::start().await;
    let cable = Cable::new(scene.address()).await.expect("a free port");
    join(&scene.client(), node("n1", 1)).await;
    let client = Client::with_servers([cable.url().as_str()], IMPATIENT).expect("an address");
    let hello = Hello { node_name: "n1".into(), instance_id: "test".into(), routes: false };
    let hello = SessionRequest { message: Some(session_request::Message::Hello(hello)) };
    let requests = futures_util::StreamExt::chain(tokio_stream::once(hello), futures_util::stream::pending());
    let mut session = client.session(requests).await.expect("a session");
    session.next().await.expect("a welcome");
    cable.set_link(Link::Silent);
    let lost = bounded("the session is lost", session.next()).await;
    assert!(matches!(lost, Err(Error::Unavailable(_))), "{lost:?}");
    scene.end().await;
}

#[tokio::test]
async fn a_server_whose_connection_lives_but_whose_watch_is_silent_is_left() {
    let scene = Scene::start().await;
    let cable = Cable::new(scene.address()).await.expect("a free port");
    let patience = Patience { silence: Duration::from_millis(300), ..Patience::default() };
    let url = cable.url();
    let client = Client::with_servers([url.as_str(), &scene.address().to_string()], patience).expect("addresses");
    let mut watch = client.watch(WatchRequest { send_initial: true, ..Default::default() }).await.expect("a watch");
    bounded("the state", watch.next_within(patience.silence)).await.expect("an initial state");
    let silent = bounded("the silence", watch.next_within(patience.silence)).await;
    assert!(matches!(silent, Err(Error::Timeout(_))), "{silent:?}");
    assert_eq!(client.server(), scene.address().to_string());
    scene.end().await;
}
