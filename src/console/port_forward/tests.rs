use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::api::Resource as _;
use crate::api::v1::{
    Container, Hello, JoinRequest, Node, OpenTunnel, PodSpec, SessionRequest, SessionResponse, TunnelRequest, session_request,
    session_response, tunnel_request,
};
use crate::apiserver::{self, Config, Listen};
use crate::time::Clock;

fn check(typed: &str, expected: Option<(u16, &str)>) {
    let expected = expected.map(|(local, remote)| Forward { local, remote: remote.to_owned() });
    assert_eq!(forward(typed).ok(), expected, "{typed}");
}

#[test]
fn ports_are_written_as_kubectl_users_write_them() {
    check("80", Some((80, "80")));
    check("8080:80", Some((8080, "80")));
    check(":80", Some((0, "80")));
    check("0:80", Some((0, "80")));
    check("http", Some((0, "http")));
    check("8080:http", Some((8080, "http")));
    for wrong in ["", ":", "80:", "0", "65536", "1:0", "x:80", "1:2:3"] {
        check(wrong, None);
    }
}

#[test]
fn a_target_is_a_pod_or_a_service() {
    assert_eq!(target("web").ok(), Some(Target::Pod("web".into())));
    assert_eq!(target("po/web").ok(), Some(Target::Pod("web".into())));
    assert_eq!(target("svc/web").ok(), Some(Target::Service("web".into())));
    assert!(matches!(target("node/n1"), Err(Failure::Usage(why)) if why.contains("service/NAME")));
}

/// The session of a node, as its kubelet has it.
async fn session(client: &Client) -> (mpsc::Sender<SessionRequest>, Incoming<SessionResponse>) {
    let mut node = Node::default();
    node.meta_mut().name = "n1".into();
    client.join(JoinRequest { node: Some(node), instance_id: "i".into() }).await.unwrap();
    let (send, requests) = mpsc::channel(4);
    let hello = Hello { node_name: "n1".into(), instance_id: "i".into(), routes: false };
    send.send(SessionRequest { message: Some(session_request::Message::Hello(hello)) }).await.unwrap();
    let mut session = client.session(ReceiverStream::new(requests)).await.unwrap();
    session.next().await.unwrap();
    (send, session)
}

#[tokio::test]
async fn a_download_that_breaks_off_is_no_end_for_the_program_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let apiserver = apiserver::start(Config::new(folder.path(), Listen::LOCAL), Clock::system()).await.unwrap();
    let client = Client::from_channels(apiserver.channels());
    let (_send, mut session) = session(&client).await;
    let container = Container { name: "main".into(), command: vec!["sleep".into()], ..Default::default() };
    let spec = PodSpec { node_name: "n1".into(), containers: vec![container], ..Default::default() };
    let mut pod = Pod { spec: Some(spec), ..Default::default() };
    pod.meta_mut().name = "web".into();
    client.create(pod).await.unwrap();

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (program, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let mut program = program.unwrap();
    let way = Way { client: client.clone(), namespace: "default".into(), target: Target::Pod("web".into()) };
    let node = async {
        let Some(session_response::Message::OpenTunnel(OpenTunnel { tunnel_id, .. })) = session.next().await.unwrap().unwrap().message
        else {
            panic!("the node is asked for a tunnel");
        };
        let (pieces, outgoing) = mpsc::channel(4);
        let piece = |message| TunnelRequest { message: Some(message) };
        pieces.send(piece(tunnel_request::Message::TunnelId(tunnel_id))).await.unwrap();
        let half = PortForwardResponse { message: Some(Told::Data(b"half".into())) };
        pieces.send(piece(tunnel_request::Message::PortForward(half))).await.unwrap();
        let _tunnel = client.beside_stream(&session).tunnel(ReceiverStream::new(outgoing)).await.unwrap();
        let mut read = [0; 4];
        program.read_exact(&mut read).await.unwrap();
        // The node goes away.
        drop(pieces);
        program.read_to_end(&mut Vec::new()).await
    };
    let (led, read) = tokio::join!(way.lead(accepted.unwrap().0, "80"), node);
    assert!(matches!(led, Err(Error::Unavailable(_))), "{led:?}");
    assert!(read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset), "{read:?}");
}
