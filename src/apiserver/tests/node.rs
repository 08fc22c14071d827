use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::api::condition::{READY, get};
use crate::api::v1::{
    AwaitRoutes, Condition, ConditionStatus, Heartbeat, Hello, JoinRequest, Node, NodeStatus, RoutesApplied, SessionRequest,
    SessionResponse, session_request, session_response,
};
use crate::client::Incoming;

const SHORT_GRACE: Duration = Duration::from_millis(300);

pub(super) fn ready_node(name: &str) -> Node {
    let ready = Condition { r#type: READY.into(), status: ConditionStatus::True.into(), ..Default::default() };
    let mut node = Node { status: Some(NodeStatus { conditions: vec![ready], ..Default::default() }), ..Default::default() };
    node.meta_mut().name = name.into();
    node
}

pub(super) async fn join(client: &Client, node: Node, instance_id: &str) -> Result<crate::api::v1::JoinResponse, Error> {
    client.join(JoinRequest { node: Some(node), instance_id: instance_id.into() }).await
}

/// A kubelet's end of a session.
pub(super) struct Kubelet {
    pub(super) send: mpsc::Sender<SessionRequest>,
    pub(super) session: Incoming<SessionResponse>,
}

impl Kubelet {
    pub(super) async fn connect(client: &Client, node: &str, instance_id: &str) -> Self {
        let (send, requests) = mpsc::channel(16);
        let session = client.session(ReceiverStream::new(requests)).await.unwrap();
        let kubelet = Self { send, session };
        let hello = Hello { node_name: node.into(), instance_id: instance_id.into(), routes: true };
        kubelet.say(session_request::Message::Hello(hello)).await;
        kubelet
    }

    /// Joins, connects and is welcome.
    pub(super) async fn welcomed(client: &Client, node: &str, instance_id: &str) -> Self {
        join(client, ready_node(node), instance_id).await.unwrap();
        let mut kubelet = Self::connect(client, node, instance_id).await;
        assert!(matches!(kubelet.hear().await.unwrap(), session_response::Message::Welcome(_)));
        kubelet
    }

    pub(super) async fn say(&self, message: session_request::Message) {
        self.send.send(SessionRequest { message: Some(message) }).await.unwrap();
    }

    pub(super) async fn hear(&mut self) -> Result<session_response::Message, Error> {
        let next = tokio::time::timeout(PATIENCE, self.session.next()).await.expect("an answer");
        next.map(|response| response.and_then(|response| response.message).expect("a message"))
    }
}

/// Waits until the node's readiness is as wanted, and returns the reason.
pub(super) async fn ready_reason(client: &Client, node: &str, wanted: ConditionStatus) -> String {
    let poll = async {
        loop {
            let status = client.get::<Node>("", node).await.unwrap().status.unwrap_or_default();
            match get(&status.conditions, READY) {
                Some(ready) if ready.status() == wanted => return ready.reason.clone(),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.expect("the readiness changes")
}

#[tokio::test]
async fn a_node_that_joins_again_keeps_what_is_not_its_kubelets() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut node = ready_node("n1");
    node.meta_mut().labels = [("kubernetes.io/os", "linux"), ("zone", "a")].map(|(k, v)| (k.into(), v.into())).into();
    let first = join(&client, node.clone(), "i").await.unwrap();
    assert!(uuid::Uuid::parse_str(&first.cluster_id).is_ok());
    assert_eq!(first.service_cidr, "127.96.0.0/12");
    let mut known: Node = typed(first.object.unwrap());
    known.spec.get_or_insert_default().unschedulable = true;
    known.meta_mut().labels.insert("zone".into(), "b".into());
    client.update(known).await.unwrap();
    node.meta_mut().labels = [("kubernetes.io/arch".to_owned(), "arm64".to_owned())].into();
    node.status.get_or_insert_default().host_ip = "10.0.0.1".into();
    let again: Node = typed(join(&client, node, "i").await.unwrap().object.unwrap());
    let mut labels: Vec<_> = again.meta().labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    labels.sort();
    assert_eq!(labels, ["kubernetes.io/arch=arm64", "zone=b"]);
    assert!(again.spec.is_some_and(|spec| spec.unschedulable));
    assert_eq!(again.status.map(|status| status.host_ip), Some("10.0.0.1".into()));
}

#[tokio::test]
async fn the_kubelet_of_a_node_that_was_deleted_has_to_join_again() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut kubelet = Kubelet::welcomed(&client, "n1", "i").await;
    client.delete::<Node>("", "n1", Default::default()).await.unwrap();
    assert!(matches!(kubelet.hear().await, Err(Error::NotFound(_))));
    Kubelet::welcomed(&client, "n1", "i").await;
}

#[tokio::test]
async fn a_second_kubelet_of_the_same_name_is_refused() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut first = Kubelet::welcomed(&client, "n1", "first").await;
    let refused = join(&client, ready_node("n1"), "second").await;
    assert!(matches!(refused, Err(Error::Precondition(_))), "{refused:?}");
    let mut second = Kubelet::connect(&client, "n1", "second").await;
    assert!(matches!(second.hear().await, Err(Error::Precondition(_))));
    first.say(session_request::Message::AwaitRoutes(AwaitRoutes { revision: 1 })).await;
    first.say(session_request::Message::RoutesApplied(RoutesApplied { revision: 1 })).await;
    assert!(matches!(first.hear().await, Ok(session_response::Message::RoutesAppliedEverywhere(_))), "the first one lives on");
}

#[tokio::test]
async fn a_newer_session_of_the_same_kubelet_ends_the_older_one() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut old = Kubelet::welcomed(&client, "n1", "i").await;
    let _new = Kubelet::welcomed(&client, "n1", "i").await;
    assert!(matches!(old.hear().await, Err(Error::Superseded(_))));
}

#[tokio::test]
async fn a_session_needs_a_registered_node_and_a_hello() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut unknown = Kubelet::connect(&client, "n1", "i").await;
    assert!(matches!(unknown.hear().await, Err(Error::NotFound(object)) if object.name == "n1"));
    let (send, requests) = mpsc::channel(1);
    let mut session = client.session(ReceiverStream::new(requests)).await.unwrap();
    send.send(SessionRequest { message: Some(session_request::Message::Heartbeat(Heartbeat::default())) }).await.unwrap();
    assert!(matches!(session.next().await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_silent_node_becomes_unknown_and_its_session_ends() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running_as(|config| config.node_grace_period = SHORT_GRACE).await;
    let mut silent = Kubelet::welcomed(&client, "silent", "i").await;
    let alive = Kubelet::welcomed(&client, "alive", "j").await;
    let beats = async {
        loop {
            alive.say(session_request::Message::Heartbeat(Heartbeat::default())).await;
            tokio::time::sleep(SHORT_GRACE / 6).await;
        }
    };
    let outcome = async {
        let ended = silent.hear().await;
        assert!(matches!(ended, Err(Error::Timeout(_))), "{ended:?}");
        ready_reason(&client, "silent", ConditionStatus::Unknown).await
    };
    let reason = tokio::select! { reason = outcome => reason, () = beats => unreachable!("it beats for ever") };
    assert_eq!(reason, "NodeSilent");
    ready_reason(&client, "alive", ConditionStatus::True).await;
    let _back = Kubelet::connect(&client, "silent", "i").await;
    ready_reason(&client, "silent", ConditionStatus::True).await;
}

#[tokio::test]
async fn a_node_whose_session_is_lost_becomes_unknown_after_the_grace_period() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running_as(|config| config.node_grace_period = SHORT_GRACE).await;
    drop(Kubelet::welcomed(&client, "n1", "i").await);
    assert_eq!(ready_reason(&client, "n1", ConditionStatus::Unknown).await, "SessionLost");
}

#[tokio::test]
async fn a_node_that_does_not_come_back_after_a_restart_becomes_unknown() {
    let Running { client, apiserver, folder } = running().await;
    let kubelet = Kubelet::welcomed(&client, "n1", "i").await;
    let _other = Kubelet::welcomed(&client, "n2", "j").await;
    drop(kubelet);
    apiserver.shutdown().await;
    let config = Config { node_grace_period: SHORT_GRACE, ..config(&folder) };
    let apiserver = start(config, Clock::system()).await.unwrap();
    let client = Client::from_channel(apiserver.channel());
    assert_eq!(ready_reason(&client, "n1", ConditionStatus::Unknown).await, "SessionLost");
    ready_reason(&client, "n2", ConditionStatus::Unknown).await;
}

#[tokio::test]
async fn routes_are_awaited_until_every_live_router_has_them() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut asking = Kubelet::welcomed(&client, "n1", "i").await;
    let slow = Kubelet::welcomed(&client, "n2", "j").await;
    asking.say(session_request::Message::RoutesApplied(RoutesApplied { revision: 9 })).await;
    asking.say(session_request::Message::AwaitRoutes(AwaitRoutes { revision: 5 })).await;
    asking.say(session_request::Message::AwaitRoutes(AwaitRoutes { revision: 8 })).await;
    slow.say(session_request::Message::RoutesApplied(RoutesApplied { revision: 6 })).await;
    let everywhere = |message| match message {
        Ok(session_response::Message::RoutesAppliedEverywhere(everywhere)) => everywhere.revision,
        other => panic!("{other:?}"),
    };
    assert_eq!(everywhere(asking.hear().await), 5);
    drop(slow);
    assert_eq!(everywhere(asking.hear().await), 8);
}

#[tokio::test]
async fn sessions_end_with_unavailable_at_shutdown() {
    let Running { client, apiserver, folder: _folder } = running().await;
    let mut kubelet = Kubelet::welcomed(&client, "n1", "i").await;
    let (ended, ()) = tokio::join!(kubelet.hear(), apiserver.shutdown());
    assert!(ended.as_ref().is_err_and(Error::is_unavailable), "{ended:?}");
}
