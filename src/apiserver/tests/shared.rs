//! Two apiservers on one store.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::logs::{asked, logs_of, next, piece, to_its_end};
use super::node::{Kubelet, join, ready_node, ready_reason};
use super::top::{measure, top, usage};
use super::*;
use crate::api::SYSTEM_NAMESPACE;
use crate::api::condition::READY;
use crate::api::v1::tunnel_request::Message;
use crate::api::v1::{
    AwaitRoutes, ConditionStatus, Heartbeat, Lease, ListRequest, Node, NodeSession, RoutesApplied, Selector, session_request,
    session_response,
};
use crate::apiserver::start_beside;
use crate::client::Patience;
use crate::store::{HistoryLimits, Options, Store};

const GRACE: Duration = Duration::from_millis(400);
const LEASE: Duration = Duration::from_millis(600);

struct Scene {
    store: Store,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let history = HistoryLimits { revisions: 10_000, bytes: 1 << 20, ..HistoryLimits::default() };
        let store = Store::embedded(folder.path().join("store"), Options { history, clock: Clock::system() }).unwrap();
        Self { store, folder }
    }

    async fn start(&self) -> (Apiserver, Client) {
        let config = Config { node_grace_period: GRACE, lease_duration: LEASE, ..config(&self.folder) };
        let apiserver = start_beside(config, &self.store, Clock::system()).await.unwrap();
        let client = Client::from_channel(apiserver.channel());
        (apiserver, client)
    }
}

#[tokio::test]
async fn the_pages_of_a_list_come_from_one_apiserver_and_another_one_says_to_begin_anew() {
    let scene = Scene::new();
    let ((one, first), (other, second)) = (scene.start().await, scene.start().await);
    for name in ["a", "b", "c"] {
        first.create(pod(name)).await.unwrap();
    }
    let selector = Some(Selector { kind: "Pod".into(), ..Default::default() });
    let page = |continue_token: String| ListRequest { selector: selector.clone(), limit: 2, continue_token };
    let begun = first.list_page(page(String::new())).await.unwrap();
    assert_eq!((begun.objects.len(), begun.continue_token.is_empty()), (2, false));
    let elsewhere = second.list_page(page(begun.continue_token.clone())).await;
    assert!(matches!(&elsewhere, Err(Error::TokenExpired { revision }) if revision.0 == begun.revision), "{elsewhere:?}");
    assert_eq!(first.list_page(page(begun.continue_token)).await.unwrap().objects.len(), 1);
    one.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn an_apiserver_with_another_range_of_service_addresses_does_not_join_the_others() {
    let scene = Scene::new();
    let (apiserver, client) = scene.start().await;
    let other = Config { service_cidr: "10.9.0.0/16".into(), ..config(&scene.folder) };
    let refused = start_beside(other.clone(), &scene.store, Clock::system()).await.err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|why| why.contains("127.96.0.0/12") && why.contains("10.9.0.0/16")), "{refused:?}");
    assert_eq!(client.list::<Lease>(SYSTEM_NAMESPACE).await.unwrap().len(), 1, "it has left no trace");
    // It can be changed: say so where it is recorded, and start anew.
    let mut default: crate::api::v1::Namespace = client.get("", "default").await.unwrap();
    default.meta_mut().annotations.insert(crate::api::SERVICE_CIDR_ANNOTATION.into(), other.service_cidr.clone());
    client.update(default).await.unwrap();
    apiserver.shutdown().await;
    start_beside(other, &scene.store, Clock::system()).await.unwrap().shutdown().await;
}

/// Does something while kubelets give signs of life.
async fn while_alive<T>(kubelets: &[&Kubelet], test: impl Future<Output = T>) -> T {
    let live = async {
        let mut often = tokio::time::interval(GRACE / 8);
        loop {
            often.tick().await;
            for kubelet in kubelets {
                kubelet.say(session_request::Message::Heartbeat(Heartbeat::default())).await;
            }
        }
    };
    tokio::select! {
        outcome = test => outcome,
        () = live => unreachable!("it never ends"),
    }
}

async fn session_of(client: &Client, node: &str) -> Option<NodeSession> {
    client.get::<Node>("", node).await.unwrap().status?.session
}

/// Waits until a look finds what it looks for.
async fn until<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let poll = async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.expect("it comes about")
}

#[tokio::test]
async fn nobody_judges_a_node_whose_session_another_apiserver_has() {
    let scene = Scene::new();
    let ((a, at_a), (_b, at_b)) = (scene.start().await, scene.start().await);
    let kubelet = Kubelet::welcomed(&at_a, "lives", "i").await;
    let before: Node = at_b.get("", "lives").await.unwrap();
    assert_eq!(session_of(&at_b, "lives").await, Some(NodeSession { apiserver: a.id().into(), instance_id: "i".into() }));
    join(&at_b, ready_node("silent"), "j").await.unwrap();
    while_alive(&[&kubelet], ready_reason(&at_a, "silent", ConditionStatus::Unknown)).await;
    assert_eq!(at_b.get::<Node>("", "lives").await, Ok(before), "nobody wrote anything");
    drop(kubelet);
    assert_eq!(ready_reason(&at_b, "lives", ConditionStatus::Unknown).await, "SessionLost", "its own apiserver does judge it");
    assert_eq!(session_of(&at_b, "lives").await, None);
}

#[tokio::test]
async fn nodes_of_an_apiserver_that_died_come_to_another_one_or_are_judged_in_the_end() {
    let scene = Scene::new();
    let ((a, at_a), (b, at_b)) = (scene.start().await, scene.start().await);
    let first = Kubelet::welcomed(&at_a, "moves", "i").await;
    let lost = Kubelet::welcomed(&at_a, "lost", "j").await;
    a.kill().await;
    drop((first, lost));
    let moved = Kubelet::welcomed(&at_b, "moves", "i").await;
    assert_eq!(session_of(&at_b, "moves").await.map(|session| session.apiserver), Some(b.id().into()));
    let began = tokio::time::Instant::now();
    while_alive(&[&moved], ready_reason(&at_b, "lost", ConditionStatus::Unknown)).await;
    assert!(began.elapsed() >= GRACE, "it had time to come: {:?}", began.elapsed());
    assert_eq!(ready_reason(&at_b, "moves", ConditionStatus::True).await, "");
}

#[tokio::test]
async fn a_second_kubelet_of_a_name_is_refused_by_every_apiserver_until_the_first_is_gone() {
    let scene = Scene::new();
    let ((_a, at_a), (_b, at_b)) = (scene.start().await, scene.start().await);
    let first = Kubelet::welcomed(&at_a, "n1", "first").await;
    let refused = join(&at_b, ready_node("n1"), "second").await;
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("another kubelet")), "{refused:?}");
    let refused = Kubelet::connect(&at_b, "n1", "second").await.hear().await;
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("another kubelet")), "{refused:?}");
    drop(first);
    until(async || join(&at_b, ready_node("n1"), "second").await.ok()).await;
    Kubelet::welcomed(&at_b, "n1", "second").await;
}

#[tokio::test]
async fn a_node_that_was_called_silent_by_mistake_is_taken_back_by_the_apiserver_that_has_its_session() {
    let scene = Scene::new();
    let ((a, at_a), (_b, at_b)) = (scene.start().await, scene.start().await);
    let kubelet = Kubelet::welcomed(&at_a, "n1", "i").await;
    let mut node: Node = at_b.get("", "n1").await.unwrap();
    let status = node.status.get_or_insert_default();
    status.session = None;
    let ready = status.conditions.iter_mut().find(|condition| condition.r#type == READY).unwrap();
    (ready.status, ready.reason) = (ConditionStatus::Unknown.into(), "SessionLost".into());
    at_b.update_status(vec![node.into_object()]).await.unwrap().remove(0).unwrap();
    while_alive(&[&kubelet], ready_reason(&at_b, "n1", ConditionStatus::True)).await;
    assert_eq!(session_of(&at_b, "n1").await, Some(NodeSession { apiserver: a.id().into(), instance_id: "i".into() }));
}

#[tokio::test]
async fn logs_come_from_whichever_apiserver_has_the_nodes_session() {
    let scene = Scene::new();
    let ((a, at_a), (b, at_b)) = (scene.start().await, scene.start().await);
    let mut kubelet = Kubelet::welcomed(&at_a, "n1", "i").await;
    at_b.create(bound_pod("web", "n1")).await.unwrap();
    let elsewhere = Error::Elsewhere { node: "n1".into(), apiserver: a.id().into() };
    let refused = crate::api::v1::LogsRequest { pod: "web".into(), ..Default::default() };
    let only_b = Client::with_servers([b.url().as_str()], Patience::default()).unwrap();
    assert_eq!(only_b.logs(refused).await.map(drop), Err(Error::Unavailable(elsewhere.to_string())));

    let (node, requests) = mpsc::channel(4);
    let both = Client::with_servers([b.url().as_str(), &a.url()], Patience::default()).unwrap();
    let tunnel = async {
        let (id, _) = asked(&mut kubelet).await;
        node.send(piece(Message::TunnelId(id))).await.unwrap();
        node.send(piece(Message::Data(b"one\n".into()))).await.unwrap();
        drop(node);
        to_its_end(at_a.tunnel(ReceiverStream::new(requests)).await?).await
    };
    let log = async {
        let mut logs = both.logs(logs_of("web")).await.unwrap();
        (next(&mut logs).await, next(&mut logs).await)
    };
    let (log, tunnelled) = tokio::join!(log, tunnel);
    assert_eq!((log, tunnelled), ((Ok(Some(b"one\n".to_vec())), Ok(None)), Ok(())));
    assert_eq!(both.server(), b.url(), "everything else stays where it was");
}

#[tokio::test]
async fn what_is_used_is_told_by_whichever_apiserver_has_the_nodes_session() {
    let scene = Scene::new();
    let ((a, at_a), (b, at_b)) = (scene.start().await, scene.start().await);
    let mut one = Kubelet::welcomed(&at_a, "n1", "i").await;
    let mut two = Kubelet::welcomed(&at_b, "n2", "j").await;
    let only_b = Client::with_servers([b.url().as_str()], Patience::default()).unwrap();
    let (answer, ()) = tokio::join!(only_b.top(top("Node", "")), measure(&mut two, usage(2, &pod("x"))));
    let answer = answer.unwrap();
    let missing = answer.nodes[0].missing.clone().unwrap();
    assert_eq!(missing.apiserver, a.id());
    assert!(missing.message.contains("another apiserver"), "{missing:?}");
    assert_eq!(answer.nodes[1].usage.unwrap().cpu_millis, Some(2));

    let both = Client::with_servers([b.url().as_str(), &a.url()], Patience::default()).unwrap();
    // The second was asked a moment ago, and goes on measuring by itself.
    let (answer, ()) = tokio::join!(both.top(top("Node", "")), async {
        two.say(session_request::Message::Heartbeat(usage(2, &pod("x")))).await;
        measure(&mut one, usage(1, &pod("x"))).await;
    });
    let cpu: Vec<_> = answer.unwrap().nodes.iter().map(|node| node.usage.and_then(|usage| usage.cpu_millis)).collect();
    assert_eq!(cpu, [Some(1), Some(2)]);
    assert_eq!(both.server(), b.url(), "everything else stays where it was");
}

#[tokio::test]
async fn routes_are_applied_everywhere_when_they_are_at_every_apiservers_nodes() {
    let scene = Scene::new();
    let ((a, at_a), (b, at_b)) = (scene.start().await, scene.start().await);
    let mut one = Kubelet::welcomed(&at_a, "n1", "i").await;
    let two = Kubelet::welcomed(&at_b, "n2", "j").await;
    let told = async |id: &str| {
        let lease = at_a.get::<Lease>(SYSTEM_NAMESPACE, id).await.unwrap();
        lease.meta().annotations.get("bluebird/routes-applied").cloned()
    };
    for id in [a.id(), b.id()] {
        until(async || told(id).await).await;
    }
    let applied = |revision| session_request::Message::RoutesApplied(RoutesApplied { revision });
    one.say(applied(7)).await;
    for revision in [3, 5] {
        one.say(session_request::Message::AwaitRoutes(AwaitRoutes { revision })).await;
    }
    let mut heard = Vec::new();
    for revision in [4, 6] {
        two.say(applied(revision)).await;
        match while_alive(&[&two], one.hear()).await {
            Ok(session_response::Message::RoutesAppliedEverywhere(everywhere)) => heard.push(everywhere.revision),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, [3, 5]);
}

#[tokio::test]
async fn an_apiserver_that_lost_its_store_sends_its_sessions_to_others() {
    let scene = Scene::new();
    let (_a, at_a) = scene.start().await;
    let mut kubelet = Kubelet::welcomed(&at_a, "n1", "i").await;
    scene.store.kill();
    let (send, stay) = (kubelet.send.clone(), kubelet.hear());
    let live = async {
        let mut often = tokio::time::interval(GRACE / 8);
        while send
            .send(crate::api::v1::SessionRequest { message: Some(session_request::Message::Heartbeat(Heartbeat::default())) })
            .await
            .is_ok()
        {
            often.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = stay => ended,
        () = live => unreachable!("it never ends"),
    };
    assert!(matches!(&ended, Err(Error::NotDone(why)) if why.contains("lost its store")), "{ended:?}");
}

#[tokio::test]
async fn an_apiserver_that_stops_gives_its_lease_back() {
    let scene = Scene::new();
    let ((a, _), (_b, at_b)) = (scene.start().await, scene.start().await);
    let leases = async || at_b.list::<Lease>(SYSTEM_NAMESPACE).await.unwrap().len();
    assert_eq!(leases().await, 2);
    a.shutdown().await;
    assert_eq!(leases().await, 1);
}
