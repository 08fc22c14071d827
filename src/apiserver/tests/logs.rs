use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::node::Kubelet;
use super::*;
use crate::api::v1::{
    LogGap, LogPosition, LogsRequest, LogsResponse, ObjectRefusal, OpenTunnel, TunnelRequest, TunnelResponse, open_tunnel,
    session_response, tunnel_request::Message,
};
use crate::client::Incoming;

pub(super) fn logs_of(pod: &str) -> LogsRequest {
    LogsRequest { pod: pod.into(), ..Default::default() }
}

pub(super) fn piece(message: Message) -> TunnelRequest {
    TunnelRequest { message: Some(message) }
}

/// Waits until the kubelet is asked for a tunnel.
pub(super) async fn asked(kubelet: &mut Kubelet) -> (String, LogsRequest) {
    match kubelet.hear().await {
        Ok(session_response::Message::OpenTunnel(OpenTunnel { tunnel_id, request: Some(open_tunnel::Request::Logs(logs)) })) => {
            (tunnel_id, logs)
        }
        other => panic!("{other:?}"),
    }
}

/// A pod on a connected node, somebody who asks for its log, and the node's end of the tunnel.
struct Asked {
    running: Running,
    kubelet: Kubelet,
    logs: Incoming<LogsResponse>,
    node: mpsc::Sender<TunnelRequest>,
    tunnel: tokio::task::JoinHandle<Result<(), Error>>,
}

#[allow(clippy::disallowed_methods, reason = "the test awaits it")]
async fn asked_for_logs() -> Asked {
    let running = running().await;
    let node_client = running.another_client();
    let mut kubelet = Kubelet::welcomed(&node_client, "n1", "i").await;
    let created = running.client.create(bound_pod("web", "n1")).await.unwrap();
    let (node, requests) = mpsc::channel(1);
    let mut tunnel = None;
    let open = async {
        let (id, logs) = asked(&mut kubelet).await;
        assert_eq!((&logs.pod_uid, logs.container.as_str(), logs.namespace.as_str()), (&created.meta().uid, "main", "default"));
        let client = node_client.beside_stream(&kubelet.session);
        node.send(piece(Message::TunnelId(id))).await.unwrap();
        tunnel = Some(tokio::spawn(async move { to_its_end(client.tunnel(ReceiverStream::new(requests)).await?).await }));
    };
    let (logs, ()) = tokio::join!(running.client.logs(logs_of("web")), open);
    let (logs, tunnel) = (logs.unwrap(), tunnel.unwrap());
    Asked { running, kubelet, logs, node, tunnel }
}

/// Waits until the other side has taken everything.
pub(super) async fn to_its_end(mut tunnel: Incoming<TunnelResponse>) -> Result<(), Error> {
    while tunnel.next().await?.is_some() {}
    Ok(())
}

pub(super) async fn next(logs: &mut Incoming<LogsResponse>) -> Result<Option<Vec<u8>>, Error> {
    let next = tokio::time::timeout(PATIENCE, logs.next()).await.expect("an answer")?;
    Ok(next.map(|response| response.data))
}

#[tokio::test]
async fn a_log_comes_through_the_nodes_tunnel_and_ends_with_it() {
    let Asked { running: _running, kubelet: _kubelet, mut logs, node, tunnel } = asked_for_logs().await;
    for data in [&b"one\n"[..], b"two\n"] {
        node.send(piece(Message::Data(data.into()))).await.unwrap();
        assert_eq!(next(&mut logs).await, Ok(Some(data.to_vec())));
    }
    drop(node);
    assert_eq!(next(&mut logs).await, Ok(None));
    assert_eq!(tunnel.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn pieces_of_a_log_come_with_their_positions_and_gaps() {
    let Asked { running: _running, kubelet: _kubelet, mut logs, node, tunnel: _tunnel } = asked_for_logs().await;
    let position = Some(LogPosition { attempt: 1, file: 2, offset: 3, in_line: true, mark: 4 });
    let sent = LogsResponse { data: b"half".into(), position, gap: Some(LogGap { message: "lost".into() }) };
    node.send(piece(Message::Logs(sent.clone()))).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, logs.next()).await.expect("an answer"), Ok(Some(sent)));
}

#[tokio::test]
async fn the_node_says_what_it_can_not_give() {
    let Asked { running: _running, kubelet: _kubelet, mut logs, node, tunnel: _tunnel } = asked_for_logs().await;
    let refusal = ObjectRefusal { code: tonic::Code::NotFound.into(), message: "no previous run".into() };
    node.send(piece(Message::Refusal(refusal))).await.unwrap();
    let refused = next(&mut logs).await.unwrap_err();
    assert!(matches!(&refused, Error::NotFound(_)) && refused.to_string().contains("no previous run"), "{refused}");
}

#[tokio::test]
async fn a_node_that_vanishes_in_the_middle_is_an_error_and_no_end() {
    let Asked { running: _running, kubelet, mut logs, node, tunnel } = asked_for_logs().await;
    node.send(piece(Message::Data(b"half".into()))).await.unwrap();
    assert_eq!(next(&mut logs).await, Ok(Some(b"half".to_vec())));
    tunnel.abort();
    drop(kubelet);
    let broken = next(&mut logs).await;
    assert!(matches!(broken, Err(Error::Unavailable(_))), "{broken:?}");
}

#[tokio::test]
async fn the_tunnel_ends_when_nobody_reads_any_longer() {
    let Asked { running: _running, kubelet: _kubelet, logs, node: _node, tunnel } = asked_for_logs().await;
    drop(logs);
    let ended = tokio::time::timeout(PATIENCE, tunnel).await.expect("the node is told").unwrap();
    assert_eq!(ended, Err(Error::Cancelled));
}

#[tokio::test]
async fn a_reader_that_is_slow_slows_the_node_down() {
    let Asked { running: _running, kubelet: _kubelet, mut logs, node, tunnel: _tunnel } = asked_for_logs().await;
    const PIECE: usize = 64 * 1024;
    let mut sent = 0;
    let idle = std::time::Duration::from_millis(500);
    while let Ok(sending) = tokio::time::timeout(idle, node.send(piece(Message::Data(vec![7; PIECE])))).await {
        sending.unwrap();
        sent += PIECE;
        assert!(sent < 64 * 1024 * 1024, "nothing holds the node back");
    }
    let mut read = 0;
    while read < sent {
        read += next(&mut logs).await.unwrap().expect("more").len();
    }
    assert_eq!(read, sent);
}

#[tokio::test]
async fn what_has_no_log_is_told_apart() {
    let running = running().await;
    let client = &running.client;
    let refusal = async |request: LogsRequest| client.logs(request).await.unwrap_err();
    assert!(matches!(refusal(logs_of("gone")).await, Error::NotFound(_)));
    client.create(pod("unbound")).await.unwrap();
    assert!(matches!(refusal(logs_of("unbound")).await, Error::Precondition(_)));
    client.create(bound_pod("web", "n1")).await.unwrap();
    assert!(matches!(refusal(logs_of("web")).await, Error::Unavailable(_)));
    assert!(matches!(refusal(LogsRequest { container: "no".into(), ..logs_of("web") }).await, Error::NotFound(_)));
    assert!(matches!(refusal(LogsRequest { pod_uid: "other".into(), ..logs_of("web") }).await, Error::NotFound(_)));
    for time in [(0, -1), (0, 1_000_000_000), (253_402_300_800, 0), (-62_135_596_801, 0)] {
        let since_time = Some(prost_types::Timestamp { seconds: time.0, nanos: time.1 });
        assert!(matches!(refusal(LogsRequest { since_time, ..logs_of("web") }).await, Error::Invalid(_)));
    }
    let after = Some(LogPosition { file: 1, ..Default::default() });
    assert!(matches!(refusal(LogsRequest { after, ..logs_of("web") }).await, Error::Invalid(_)));
    let of = LogsRequest { pod_uid: "u".into(), container: "main".into(), after: Some(LogPosition::default()), ..logs_of("web") };
    assert!(matches!(refusal(of).await, Error::Invalid(_)));
    let mut two = bound_pod("two", "n1");
    let mut second = two.spec.get_or_insert_default().containers[0].clone();
    second.name = "second".into();
    two.spec.get_or_insert_default().containers.push(second);
    client.create(two).await.unwrap();
    assert!(matches!(refusal(logs_of("two")).await, Error::Invalid(_)));
    let nobody = client.tunnel(tokio_stream::once(piece(Message::TunnelId("nobody".into())))).await;
    assert!(matches!(nobody, Err(Error::NotFound(_))), "{nobody:?}");
}

#[tokio::test]
async fn a_node_that_does_not_open_the_tunnel_is_unavailable() {
    let running = running().await;
    let _deaf = Kubelet::welcomed(&running.another_client(), "n1", "i").await;
    running.client.create(bound_pod("web", "n1")).await.unwrap();
    let late = tokio::time::timeout(PATIENCE, running.client.logs(logs_of("web"))).await.expect("an answer");
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
}
