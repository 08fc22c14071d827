//! How connections are reset. Wine, in which these tests run for Windows, ends them instead.

use super::*;

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
