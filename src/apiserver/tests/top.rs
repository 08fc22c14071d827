//! What nodes and pods use, as their kubelets say it.

use super::node::Kubelet;
use super::*;
use crate::api::v1::{
    ContainerUsage, Heartbeat, NodeUsage, PodPhase, PodUsage, Selector, TopMissing, TopRequest, TopResponse, Usage, session_request,
    session_response,
};

pub(super) fn top(kind: &str, name: &str) -> TopRequest {
    let selector = Selector { kind: kind.into(), name: name.into(), ..Default::default() };
    TopRequest { selector: Some(selector) }
}

/// What a node with one pod says of itself.
pub(super) fn usage(cpu_millis: u64, pod: &Pod) -> Heartbeat {
    let window = Some(prost_types::Duration { seconds: 5, nanos: 0 });
    let node = Some(NodeUsage { cpu_millis: Some(cpu_millis), ..Default::default() });
    let container = ContainerUsage { name: "main".into(), cpu_millis: Some(cpu_millis), memory_bytes: Some(7) };
    let pods = vec![PodUsage { uid: pod.meta().uid.clone(), containers: vec![container], disk_bytes: None }];
    Heartbeat { usage: Some(Usage { window, node, pods }) }
}

/// Waits until the kubelet is asked to measure, and lets it say what is used.
pub(super) async fn measure(kubelet: &mut Kubelet, said: Heartbeat) {
    match kubelet.hear().await {
        Ok(session_response::Message::WantUsage(wanted)) => assert!(wanted.duration.unwrap().seconds >= 60),
        other => panic!("{other:?}"),
    }
    kubelet.say(session_request::Message::Heartbeat(said)).await;
}

fn missing(response: &TopResponse) -> Vec<String> {
    let nodes = response.nodes.iter().map(|node| &node.missing);
    let all = nodes.chain(response.pods.iter().map(|pod| &pod.missing));
    all.map(|missing| missing.as_ref().map_or_else(String::new, |missing: &TopMissing| missing.message.clone())).collect()
}

#[tokio::test]
async fn a_node_is_asked_what_it_uses_when_somebody_wants_to_know_and_nothing_is_written() {
    let running = running().await;
    let mut kubelet = Kubelet::welcomed(&running.another_client(), "n1", "i").await;
    let web = running.client.create(bound_pod("web", "n1")).await.unwrap();
    let before = running.client.list_objects(Selector::default()).await.unwrap().revision;
    let (answer, ()) = tokio::join!(running.client.top(top("Pod", "")), measure(&mut kubelet, usage(250, &web)));
    let answer = answer.unwrap();
    let [pod] = &answer.pods[..] else { panic!("{answer:?}") };
    assert_eq!((pod.name.as_str(), pod.namespace.as_str(), pod.node_name.as_str()), ("web", "default", "n1"));
    assert_eq!(pod.usage.as_ref(), usage(250, &web).usage.unwrap().pods.first());
    let time = pod.time.unwrap();
    assert_eq!(time.window.unwrap().seconds, 5);
    assert!(time.age.unwrap().seconds < 15);
    // The same figures again: they are new enough, and the node knows already.
    let nodes = running.client.top(top("Node", "n1")).await.unwrap().nodes;
    assert_eq!(nodes[0].usage.unwrap().cpu_millis, Some(250));
    assert_eq!(running.client.list_objects(Selector::default()).await.unwrap().revision, before);
}

#[tokio::test]
async fn figures_are_gone_with_the_session_that_they_came_with() {
    let running = running().await;
    let mut kubelet = Kubelet::welcomed(&running.another_client(), "n1", "i").await;
    let web = running.client.create(bound_pod("web", "n1")).await.unwrap();
    let (answer, ()) = tokio::join!(running.client.top(top("Node", "")), measure(&mut kubelet, usage(1, &web)));
    assert_eq!(missing(&answer.unwrap()), [""]);
    drop(kubelet);
    let gone = async {
        loop {
            let answer = running.client.top(top("Node", "")).await.unwrap();
            if answer.nodes[0].usage.is_none() {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, gone).await.expect("the session ends");
    assert_eq!(missing(&answer), ["node \"n1\" is not connected at the moment"]);
    assert_eq!(missing(&running.client.top(top("Pod", "web")).await.unwrap()), ["node \"n1\" is not connected at the moment"]);
    // A new session of the same kubelet knows nothing of the old figures.
    let mut again = Kubelet::welcomed(&running.another_client(), "n1", "i").await;
    let (answer, ()) = tokio::join!(running.client.top(top("Node", "")), measure(&mut again, usage(2, &web)));
    assert_eq!(answer.unwrap().nodes[0].usage.unwrap().cpu_millis, Some(2));
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_told_as_such_and_holds_up_no_other() {
    let running = running().await;
    let _silent = Kubelet::welcomed(&running.another_client(), "n1", "i").await;
    let mut kubelet = Kubelet::welcomed(&running.another_client(), "n2", "j").await;
    let (answer, ()) = tokio::join!(running.client.top(top("Node", "")), measure(&mut kubelet, usage(3, &pod("x"))));
    let answer = answer.unwrap();
    assert_eq!(missing(&answer), ["node \"n1\" did not answer within 5 s", ""]);
    assert_eq!(answer.nodes[1].usage.unwrap().cpu_millis, Some(3));
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_does_not_run_says_why() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    assert!(matches!(client.top(top("Pod", "nobody")).await, Err(Error::NotFound(object)) if object.kind == "Pod"));
    assert!(matches!(client.top(top("Node", "nobody")).await, Err(Error::NotFound(object)) if object.kind == "Node"));
    assert_eq!(paths(client.top(top("Service", "")).await), ["selector.kind"]);
    assert_eq!(paths(client.top(top("", "")).await), ["selector.kind"]);
    assert_eq!(paths(client.top(TopRequest::default()).await), ["selector"]);
    assert_eq!(client.top(top("Pod", "")).await, Ok(TopResponse::default()));
    client.create(pod("waits")).await.unwrap();
    let over = client.create(bound_pod("over", "n1")).await.unwrap();
    let ended = PodStatus { phase: PodPhase::Succeeded.into(), ..Default::default() };
    client.update_status(vec![with_status(over, ended).into_object()]).await.unwrap().remove(0).unwrap();
    let answer = client.top(top("Pod", "")).await.unwrap();
    assert_eq!(answer.pods.len(), 1, "those that have ended are left out: {answer:?}");
    assert_eq!(missing(&answer), ["it has no node yet; its events say why"]);
    assert_eq!(missing(&client.top(top("Pod", "over")).await.unwrap()), ["it has ended"]);
}

#[tokio::test]
async fn pods_are_chosen_by_namespace_labels_and_node() {
    let running = running().await;
    let client = &running.client;
    client.create(namespace("other")).await.unwrap();
    client.create(with_label(bound_pod("a", "n1"), "app", "x")).await.unwrap();
    client.create(with_label(in_namespace(bound_pod("b", "n2"), "other"), "app", "x")).await.unwrap();
    client.create(bound_pod("c", "n2")).await.unwrap();
    let names = async |change: fn(&mut Selector)| {
        let mut selector = Selector { kind: "Pod".into(), ..Default::default() };
        change(&mut selector);
        let answer = client.top(TopRequest { selector: Some(selector) }).await.unwrap();
        answer.pods.into_iter().map(|pod| pod.name).collect::<Vec<_>>()
    };
    assert_eq!(names(|_| {}).await, ["a", "c", "b"]);
    assert_eq!(names(|selector| selector.namespace = "other".into()).await, ["b"]);
    assert_eq!(names(|selector| selector.node_name = "n2".into()).await, ["c", "b"]);
    assert_eq!(names(|selector| selector.labels = crate::api::parse_label_selector("app=x").ok()).await, ["a", "b"]);
}
