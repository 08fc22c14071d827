//! How connections are reset, which Wine, in which these tests run for Windows, ends instead; and a root folder that is moved while its lock is held, which
//! Windows doesn't do.

use super::*;
use crate::api::ObjectKey;
use crate::kubelet::root::Root;

#[tokio::test]
async fn without_a_living_backend_the_connection_is_reset() {
    let dead = Backend::start("d").await.end().await;
    let mut node = Node::start(&free_range(), "cluster");
    node.set(&[(5, &[]), (6, &[dead])]).await;
    for host in [5, 6] {
        assert_eq!(visit(node.vip(host)).await.expect_err("nobody answers").kind(), io::ErrorKind::ConnectionReset);
    }
    node.end().await;
}

#[tokio::test]
async fn a_connection_that_the_backend_resets_is_reset_for_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut node = Node::start(&free_range(), "cluster");
    node.route(5, &[listener.local_addr().expect("bound")]).await;
    let mut client = TcpStream::connect(node.vip(5)).await.expect("the router accepts");
    let (backend, _) = listener.accept().await.expect("the router connects");
    backend.set_zero_linger().expect("open");
    drop(backend);
    assert_eq!(client.read_u8().await.expect_err("cut").kind(), io::ErrorKind::ConnectionReset);
    node.end().await;
}

fn table(backend: u16) -> Arc<RouteTable> {
    let route = Route { service: ObjectKey::new(Kind::Service, "default", "web"), backends: vec![([127, 0, 0, 1], backend).into()] };
    Arc::new([(([127, 96, 0, 1], 80).into(), route)].into_iter().collect())
}

fn wanted(backend: u16) -> Option<Arc<Wanted>> {
    Some(Arc::new(Wanted { revision: Revision(backend.into()), table: table(backend) }))
}

/// Waits until these are the routes that another kubelet would find.
async fn until_kept(keeper: &Keeper, backend: u16) {
    while keeper.read().is_none_or(|kept| kept.table != table(backend)) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_kept_since_the_root_folder_was_away_is_tried_again_and_the_last_table_is_kept_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (place, away) = (folder.path().join("node"), folder.path().join("away"));
    let keeper = Keeper { root: Arc::new(Root::open(&place).unwrap()), unsynced: Arc::default() };
    std::fs::rename(&place, &away).unwrap();
    std::fs::create_dir(&place).unwrap();
    let (wish, newest) = watch::channel(wanted(1));
    let tasks = Tasks::new(CancellationToken::new());
    tasks.spawn("routes keep", keeper.clone().run("127.96.0.0/12".into(), "c1".into(), newest, tasks.token()));
    wish.send_replace(wanted(2));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "nothing is made in its place");
    std::fs::remove_dir(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    tokio::time::timeout(Duration::from_secs(600), until_kept(&keeper, 2)).await.expect("another try");
    // Less than the time between two.
    wish.send_replace(wanted(3));
    tokio::time::timeout(Duration::from_secs(600), until_kept(&keeper, 3)).await.expect("the next one");
    wish.send_replace(wanted(4));
    tasks.shutdown(Duration::from_secs(60)).await;
    assert_eq!(keeper.read().map(|kept| kept.table), Some(table(4)));
}
