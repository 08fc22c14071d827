//! The scheduler against the real apiserver.

use super::*;
use crate::client::tests::scene::{Scene, join, node, pod, until_cached};
use crate::client::{Cached, DeleteOptions};

fn node_of(cache: &Cache, name: &str) -> Option<String> {
    let pod: Cached<Pod> = cache.get("", name)?;
    Some(pod.object().node_name().to_owned()).filter(|node_name| !node_name.is_empty())
}

fn refusal(cache: &Cache, name: &str) -> Option<String> {
    let pod: Cached<Pod> = cache.get("", name)?;
    let scheduled = condition::get(&pod.status.as_ref()?.conditions, condition::POD_SCHEDULED)?;
    assert_eq!((scheduled.status(), scheduled.reason.as_str()), (ConditionStatus::False, UNSCHEDULABLE));
    Some(scheduled.message.clone())
}

#[test]
fn of_a_pod_that_has_its_node_as_much_is_kept_as_is_read() {
    let mut whole = pod("web");
    let container = &mut whole.spec.get_or_insert_default().containers[0];
    container.args = vec!["--root".into(), "/srv".into()];
    container.ports = vec![crate::api::v1::ContainerPort { name: "http".into(), container_port: 80, ..Default::default() }];
    whole.meta_mut().labels = [("app".to_owned(), "web".to_owned())].into();
    whole.meta_mut().annotations = [("note".to_owned(), "long".to_owned())].into();
    let trimmed = |pod: &Pod| {
        let mut object = pod.clone().into_object();
        trim(&mut object);
        Pod::from_object(object).expect("a pod")
    };
    assert_eq!(trimmed(&whole), whole, "it will be written with its node");
    let mut bound = whole.clone();
    bound.spec.get_or_insert_default().node_name = "n1".into();
    let kept = trimmed(&bound);
    assert_eq!(Needs::of(&kept), Needs::of(&bound));
    assert_eq!((&kept.meta().labels, &kept.meta().uid), (&bound.meta().labels, &bound.meta().uid));
    assert!(kept.meta().annotations.is_empty() && kept.spec.expect("a spec").containers[0].args.is_empty());
}

#[tokio::test]
async fn pods_are_spread_over_the_nodes() {
    let scene = Scene::start().await;
    let client = scene.client();
    for name in ["n1", "n2", "n3"] {
        join(&client, node(name, 110)).await;
    }
    start(client.clone(), Cache::of_kinds(client.clone(), &KINDS, &scene.tasks), Clock::system(), &scene.tasks);
    let cache = Cache::of_kinds(client.clone(), &[Kind::Pod], &scene.tasks);
    for index in 0..30 {
        client.create(pod(&format!("p{index}"))).await.expect("created");
    }
    let count = |cache: &Cache, node_name: &str| cache.list::<Pod>().iter().filter(|pod| pod.object().node_name() == node_name).count();
    until_cached("ten pods are on each node", &cache, |cache| ["n1", "n2", "n3"].iter().all(|name| count(cache, name) == 10).then_some(()))
        .await;
    scene.end().await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_is_bound_once_there_is_room() {
    let scene = Scene::start().await;
    let client = scene.client();
    start(client.clone(), Cache::of_kinds(client.clone(), &KINDS, &scene.tasks), Clock::system(), &scene.tasks);
    let cache = Cache::of_kinds(client.clone(), &[Kind::Pod], &scene.tasks);
    client.create(pod("a")).await.expect("created");
    let message = until_cached("it says that there is no node", &cache, |cache| refusal(cache, "a")).await;
    assert_eq!(message, "0/0 nodes fit: no node has joined");

    join(&client, node("n1", 1)).await;
    until_cached("it is bound to the node that joined", &cache, |cache| node_of(cache, "a")).await;

    client.create(pod("b")).await.expect("created");
    let message = until_cached("it says that the node is full", &cache, |cache| refusal(cache, "b")).await;
    assert_eq!(message, "0/1 nodes fit: 1 is full");
    client.delete::<Pod>("", "a", DeleteOptions { grace_period_seconds: Some(0), ..Default::default() }).await.expect("deleted");
    assert_eq!(until_cached("it takes the place", &cache, |cache| node_of(cache, "b")).await, "n1");
    scene.end().await;
}
