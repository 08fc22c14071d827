//! A store that ends by itself.

use bluebird::testing::{Etcd, free_port};

use super::follower::Follower;
use super::program::{Program, free_range};

#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_whose_store_has_ended_by_itself_ends_too_and_says_why() {
    let Some(etcd) = Etcd::start(&[]).await else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (listen, range, url) = (format!("127.0.0.1:{}", free_port()), free_range(), etcd.url());
    let args = ["--store", &url, "--listen", &listen, "--service-cidr", &range];
    let mut apiserver = Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let _follower = Follower::connect(&format!("http://{listen}")).await;
    assert!(etcd.control(&["put", "/bluebird/objects/mine", "x"]).status.success());
    assert_eq!(apiserver.ended().await.code(), Some(1));
    let said = apiserver.said();
    assert!(said.contains("apiserver: the store has ended: ") && said.contains("/bluebird/objects/mine"), "{said}");
}
