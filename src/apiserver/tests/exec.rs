use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::logs::piece;
use super::node::Kubelet;
use super::*;
use crate::api::v1::exec_request::Message as Said;
use crate::api::v1::exec_response::Message as Told;
use crate::api::v1::{
    CloseStdin, ExecEnd, ExecRequest, ExecResponse, ExecStart, TerminalSize, TunnelRequest, TunnelResponse, open_tunnel, session_response,
    tunnel_request, tunnel_response,
};
use crate::client::Incoming;

fn exec_in(pod: &str) -> ExecStart {
    ExecStart { pod: pod.into(), command: vec!["cat".into()], stdin: true, ..Default::default() }
}

fn said(message: Said) -> ExecRequest {
    ExecRequest { message: Some(message) }
}

/// A command that somebody has asked for, and both ends of it.
struct Asked {
    running: Running,
    kubelet: Kubelet,
    inputs: mpsc::Sender<ExecRequest>,
    outputs: Incoming<ExecResponse>,
    to_apiserver: mpsc::Sender<TunnelRequest>,
    at_node: Incoming<TunnelResponse>,
}

impl Asked {
    async fn new() -> Self {
        let running = running().await;
        let node = running.another_client();
        let mut kubelet = Kubelet::welcomed(&node, "n1", "i").await;
        running.client.create(bound_pod("web", "n1")).await.unwrap();
        let beside = node.beside_stream(&kubelet.session);
        let (asked, opened) = tokio::join!(running.client.exec(exec_in("web")), opened(&beside, &mut kubelet));
        let ((inputs, outputs), (to_apiserver, at_node)) = (asked.unwrap(), opened);
        Self { running, kubelet, inputs, outputs, to_apiserver, at_node }
    }

    async fn say(&self, message: Said) {
        self.inputs.send(said(message)).await.unwrap();
    }

    /// What the node hears next.
    async fn heard(&mut self) -> Result<Option<Said>, Error> {
        let heard = tokio::time::timeout(PATIENCE, self.at_node.next()).await.expect("something to hear")?;
        Ok(heard.map(|heard| match heard.message {
            Some(tunnel_response::Message::Exec(ExecRequest { message: Some(said) })) => said,
            other => panic!("{other:?}"),
        }))
    }

    async fn tell(&self, told: Told) {
        let message = tunnel_request::Message::Exec(ExecResponse { message: Some(told) });
        self.to_apiserver.send(piece(message)).await.unwrap();
    }

    /// What the client is told next.
    async fn told(&mut self) -> Result<Option<Told>, Error> {
        let told = tokio::time::timeout(PATIENCE, self.outputs.next()).await.expect("something to be told")?;
        Ok(told.map(|told| told.message.expect("a message")))
    }
}

/// A node that opens the tunnel that it is asked for.
async fn opened(node: &Client, kubelet: &mut Kubelet) -> (mpsc::Sender<TunnelRequest>, Incoming<TunnelResponse>) {
    let (id, start) = match kubelet.hear().await.unwrap() {
        session_response::Message::OpenTunnel(asked) => match asked.request {
            Some(open_tunnel::Request::Exec(start)) => (asked.tunnel_id, start),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert!(!start.pod_uid.is_empty() && start.namespace == "default" && start.container == "main", "{start:?}");
    let (send, requests) = mpsc::channel(1);
    send.send(piece(tunnel_request::Message::TunnelId(id))).await.unwrap();
    (send, node.tunnel(ReceiverStream::new(requests)).await.unwrap())
}

#[tokio::test]
async fn a_command_is_told_what_its_client_says_and_the_client_what_it_writes() {
    let mut asked = Asked::new().await;
    let size = TerminalSize { columns: 5, rows: 6 };
    for message in [Said::Stdin(b"\0\xff".into()), Said::TerminalSize(size), Said::CloseStdin(CloseStdin {})] {
        asked.say(message.clone()).await;
        assert_eq!(asked.heard().await, Ok(Some(message)));
    }
    let end = Told::End(ExecEnd { exit_code: 3, message: String::new() });
    for message in [Told::Stdout(b"out".into()), Told::Stderr(b"err".into()), end] {
        asked.tell(message.clone()).await;
        assert_eq!(asked.told().await, Ok(Some(message)));
    }
    (asked.to_apiserver, _) = mpsc::channel(1);
    assert_eq!(asked.told().await, Ok(None));
    assert!(matches!(asked.heard().await, Ok(Some(Said::CloseStdin(_)) | None)));
}

#[tokio::test]
async fn the_end_of_the_requests_closes_the_input_and_nothing_else() {
    let mut asked = Asked::new().await;
    asked.say(Said::Stdin(b"all".into())).await;
    (asked.inputs, _) = mpsc::channel(1);
    assert_eq!(asked.heard().await, Ok(Some(Said::Stdin(b"all".into()))));
    assert_eq!(asked.heard().await, Ok(Some(Said::CloseStdin(CloseStdin {}))));
    asked.tell(Told::Stdout(b"later".into())).await;
    assert_eq!(asked.told().await, Ok(Some(Told::Stdout(b"later".into()))));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_command_and_its_input_does_not_look_complete() {
    for _ in 0..20 {
        let Asked { running: _running, kubelet: _kubelet, inputs, outputs, to_apiserver, mut at_node } = Asked::new().await;
        inputs.send(said(Said::Stdin(b"half".into()))).await.unwrap();
        let first = tokio::time::timeout(PATIENCE, at_node.next()).await.expect("half");
        assert!(matches!(first, Ok(Some(_))), "{first:?}");
        drop(outputs);
        let next = tokio::time::timeout(PATIENCE, at_node.next()).await.expect("the node is told");
        assert_eq!(next, Err(Error::Cancelled));
        drop(to_apiserver);
    }
}

#[tokio::test]
async fn a_node_that_takes_nothing_is_cut_off_when_its_client_has_gone_away() {
    let Asked { running: _running, kubelet: _kubelet, inputs, outputs, to_apiserver, at_node: _unread } = Asked::new().await;
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(300), inputs.send(said(Said::Stdin(vec![7; 32 * 1024])))).await {
        sent.unwrap();
    }
    drop(outputs);
    tokio::time::timeout(PATIENCE, to_apiserver.closed()).await.expect("the node is told");
}

#[tokio::test]
async fn a_node_that_goes_away_or_ends_too_early_leaves_no_command_that_looks_ended() {
    let mut vanished = Asked::new().await;
    vanished.tell(Told::Stdout(b"half".into())).await;
    assert!(matches!(vanished.told().await, Ok(Some(Told::Stdout(_)))));
    let Asked { running, kubelet, inputs: _inputs, mut outputs, to_apiserver, at_node } = vanished;
    drop((at_node, to_apiserver, kubelet));
    let broken = tokio::time::timeout(PATIENCE, outputs.next()).await.expect("the client is told");
    assert!(matches!(broken, Err(Error::Unavailable(_))), "{broken:?}");
    drop(running);

    let mut early = Asked::new().await;
    (early.to_apiserver, _) = mpsc::channel(1);
    assert!(matches!(early.told().await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn an_apiserver_that_stops_says_that_the_command_was_ended_and_not_that_it_was_not_run() {
    let Asked { running, kubelet: _kubelet, inputs: _inputs, mut outputs, to_apiserver: _open, mut at_node } = Asked::new().await;
    let (_, told, heard) = tokio::join!(running.apiserver.shutdown(), outputs.next(), at_node.next());
    assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn what_no_command_can_be_sent_is_refused_with_its_path() {
    for (message, path) in [
        (Said::Stdin(vec![0; 64 * 1024 + 1]), "stdin"),
        (Said::TerminalSize(TerminalSize { columns: 65_536, rows: 1 }), "terminal_size"),
        (Said::Start(exec_in("web")), "start"),
    ] {
        let mut asked = Asked::new().await;
        asked.say(message).await;
        assert_eq!(paths(asked.told().await), [path]);
    }
}

#[tokio::test]
async fn a_command_that_can_not_be_run_is_refused_before_a_node_hears_of_it() {
    let running = running().await;
    let client = &running.client;
    let refusal = async |start: ExecStart| client.exec(start).await.map(drop).unwrap_err();
    assert!(matches!(refusal(exec_in("gone")).await, Error::NotFound(_)));
    client.create(pod("unbound")).await.unwrap();
    assert!(matches!(refusal(exec_in("unbound")).await, Error::Precondition(_)));
    client.create(bound_pod("web", "n1")).await.unwrap();
    assert!(matches!(refusal(exec_in("web")).await, Error::NotDone(_)), "no node, no command");
    assert!(matches!(refusal(ExecStart { container: "no".into(), ..exec_in("web") }).await, Error::NotFound(_)));
    let nothing = refusal(ExecStart { command: Vec::new(), ..exec_in("web") }).await;
    assert_eq!(paths::<()>(Err(nothing)), ["start.command"]);
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other_of_the_same_node() {
    let running = running().await;
    let node = running.another_client();
    let mut kubelet = Kubelet::welcomed(&node, "n1", "i").await;
    running.client.create(bound_pod("web", "n1")).await.unwrap();
    let mut unread = Vec::new();
    // More than the windows of one connection hold.
    for _ in 0..8 {
        let beside = node.beside_stream(&kubelet.session);
        let (asked, (send, at_node)) = tokio::join!(running.client.exec(exec_in("web")), opened(&beside, &mut kubelet));
        let message = || piece(tunnel_request::Message::Exec(ExecResponse { message: Some(Told::Stdout(vec![7; 32 * 1024])) }));
        while let Ok(sent) = tokio::time::timeout(Duration::from_millis(200), send.send(message())).await {
            sent.unwrap();
        }
        unread.push((asked.unwrap(), send, at_node));
    }
    let (asked, (send, _at_node)) = tokio::join!(running.client.exec(exec_in("web")), opened(&node, &mut kubelet));
    let (_inputs, mut outputs) = asked.unwrap();
    let told = Told::Stdout(b"through".into());
    send.send(piece(tunnel_request::Message::Exec(ExecResponse { message: Some(told.clone()) }))).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, outputs.next()).await.expect("it comes through").unwrap().unwrap();
    assert_eq!(heard.message, Some(told));
}
