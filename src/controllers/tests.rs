//! The controllers against the real apiserver.

use super::*;
use crate::api::condition::{self, READY};
use crate::api::v1::{
    AssignedPort, ClusterEvent, ClusterEventSpec, ConditionStatus, ContainerPort, EndpointSlice, Namespace, Node, ObjectMeta, Pod,
    PodPhase, PodStatus, Protocol, Service, ServicePort, ServiceSpec, WatchRequest, event,
};
use crate::api::{ObjectKey, Resource};
use crate::client::tests::scene::{Scene, bounded, join, node, pod, until, until_cached};
use crate::client::{Cached, DeleteOptions};
use crate::error::Error;

/// The apiserver with controllers, and a cache of everything.
async fn started() -> (Scene, Client, Cache) {
    let scene = Scene::start().await;
    let client = scene.client();
    let config = Config { service_cidr: "127.96.0.0/12".into() };
    start(client.clone(), Cache::of_kinds(client.clone(), &KINDS, &scene.tasks), config, Clock::system(), &scene.tasks)
        .expect("the range is one");
    let cache = Cache::start(client.clone(), Vec::new(), &scene.tasks);
    (scene, client, cache)
}

/// A pod with the label `app=web` on node n1.
fn web_pod(name: &str) -> Pod {
    let mut pod = pod(name);
    pod.meta_mut().labels.insert("app".into(), "web".into());
    let spec = pod.spec.as_mut().expect("has a spec");
    spec.node_name = "n1".into();
    spec.containers[0].ports = vec![ContainerPort { name: "http".into(), ..Default::default() }];
    pod
}

/// Says what its kubelet would say of a pod that runs.
async fn runs(client: &Client, mut pod: Pod, port: u32) {
    let assigned = AssignedPort { container: "main".into(), name: "http".into(), port, protocol: Protocol::Tcp.into() };
    let mut status =
        PodStatus { phase: PodPhase::Running.into(), host_ip: "127.0.0.1".into(), ports: vec![assigned], ..Default::default() };
    condition::set(&mut status.conditions, READY, ConditionStatus::True, "ContainersRunning", "", Clock::system().now());
    pod.status = Some(status);
    pod.meta_mut().resource_version = 0;
    client.update_status(vec![pod.into_object()]).await.expect("answered").remove(0).expect("the status is written");
}

fn service(name: &str, cluster_ip: &str) -> Service {
    let port = ServicePort { port: 80, target_port: "http".into(), ..Default::default() };
    let selector = [("app".into(), "web".into())].into();
    let spec = ServiceSpec { selector, ports: vec![port], cluster_ip: cluster_ip.into() };
    Service { metadata: Some(ObjectMeta { name: name.into(), ..Default::default() }), spec: Some(spec), status: None }
}

fn backends(cache: &Cache) -> Option<Vec<(String, u32)>> {
    let slice: Cached<EndpointSlice> = cache.get("", "web")?;
    let endpoints = &slice.spec.as_ref()?.endpoints;
    Some(endpoints.iter().map(|endpoint| (endpoint.pod_name.clone(), endpoint.ports[0].port)).collect())
}

async fn until_backends(cache: &Cache, expected: &[(&str, u32)]) {
    let expected: Vec<_> = expected.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
    until_cached(&format!("the slice is {expected:?}"), cache, |cache| (backends(cache)? == expected).then_some(())).await;
}

fn ready_reason(cache: &Cache, service: &str) -> Option<(ConditionStatus, String)> {
    let service: Cached<Service> = cache.get("", service)?;
    let ready = condition::get(&service.status.as_ref()?.conditions, READY)?;
    Some((ready.status(), ready.reason.clone()))
}

#[tokio::test]
async fn a_service_gets_an_address_and_a_slice_with_its_ready_pods() {
    let (scene, client, cache) = started().await;
    join(&client, node("n1", 110)).await;
    client.create(service("web", "")).await.expect("created");
    until_backends(&cache, &[]).await;
    let address = until_cached("it is ready", &cache, |cache| {
        let service: Cached<Service> = cache.get("", "web")?;
        ready_reason(cache, "web").filter(|(status, _)| *status == ConditionStatus::True)?;
        Some(service.spec.as_ref()?.cluster_ip.clone())
    })
    .await;
    let address: std::net::Ipv4Addr = address.parse().expect("an address");
    assert_eq!(u32::from(address) >> 20, u32::from(std::net::Ipv4Addr::new(127, 96, 0, 0)) >> 20, "{address} is of the range");

    for (name, port) in [("b", 31002), ("a", 31001), ("starting", 0)] {
        let pod = client.create(web_pod(name)).await.expect("created");
        if port != 0 {
            runs(&client, pod, port).await;
        }
    }
    until_backends(&cache, &[("a", 31001), ("b", 31002)]).await;

    client.delete::<Pod>("", "a", DeleteOptions::default()).await.expect("marked");
    until_backends(&cache, &[("b", 31002)]).await;
    assert!(cache.get::<Pod>("", "a").is_some(), "it left the slice before it stopped");

    let mut without: Service = client.get("", "web").await.expect("there");
    without.spec.get_or_insert_default().selector.clear();
    client.update(without).await.expect("updated");
    until_cached("a service that selects no pods has no slice of ours", &cache, |cache| {
        cache.get::<EndpointSlice>("", "web").is_none().then_some(())
    })
    .await;

    client.delete::<Service>("", "web", DeleteOptions::default()).await.expect("deleted");
    until_cached("the slice goes with its service", &cache, |cache| backends(cache).is_none().then_some(())).await;
    scene.end().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused_until_it_is_free() {
    let (scene, client, cache) = started().await;
    client.create(service("first", "127.96.1.1")).await.expect("created");
    until_cached("the first is ready", &cache, |cache| ready_reason(cache, "first")).await;
    client.create(service("second", "127.96.1.1")).await.expect("created");
    let refused = until_cached("the second is refused", &cache, |cache| ready_reason(cache, "second")).await;
    assert_eq!(refused, (ConditionStatus::False, "AddressTaken".into()));
    client.create(service("third", "10.0.0.1")).await.expect("created");
    let refused = until_cached("the third is refused", &cache, |cache| ready_reason(cache, "third")).await;
    assert_eq!(refused, (ConditionStatus::False, "OutOfRange".into()));

    client.delete::<Service>("", "first", DeleteOptions::default()).await.expect("deleted");
    until_cached("the second is ready", &cache, |cache| {
        ready_reason(cache, "second").filter(|(status, _)| *status == ConditionStatus::True)
    })
    .await;
    scene.end().await;
}

#[tokio::test]
async fn a_deleted_namespace_is_empty_before_it_is_gone() {
    let (scene, client, cache) = started().await;
    let team = Namespace { metadata: Some(ObjectMeta { name: "team".into(), ..Default::default() }), ..Default::default() };
    client.create(team).await.expect("created");
    join(&client, node("n1", 110)).await;
    let inside = |mut pod: Pod| {
        pod.meta_mut().namespace = "team".into();
        pod
    };
    let bound = client.create(inside(web_pod("bound"))).await.expect("created");
    runs(&client, bound.clone(), 31001).await;
    client.create(inside(pod("unbound"))).await.expect("created");
    let mut inner_service = service("web", "");
    inner_service.meta_mut().namespace = "team".into();
    client.create(inner_service).await.expect("created");
    until_cached("the service has its slice", &cache, |cache| cache.get::<EndpointSlice>("team", "web")).await;

    let mut watch = client.watch(WatchRequest { send_initial: true, ..Default::default() }).await.expect("a watch");
    client.delete::<Namespace>("", "team", DeleteOptions::default()).await.expect("marked");
    until_cached("only the bound pod is left", &cache, |cache| {
        let left: Vec<_> = cache.keys().into_iter().filter(|key| key.namespace() == "team" && key.kind() != Kind::Event).collect();
        (left == [bound.key()]).then_some(())
    })
    .await;
    match client.create(inside(pod("late"))).await {
        Err(Error::Precondition(_)) => {}
        other => panic!("a namespace that is being deleted takes no objects: {other:?}"),
    }
    let leaving = client.get::<Namespace>("", "team").await.expect("waits for its pod");
    assert_eq!(leaving.status.map(|status| status.phase()), Some(crate::api::v1::NamespacePhase::Terminating));

    // What its kubelet says once the processes are gone.
    let options = DeleteOptions { uid: Some(bound.meta().uid.clone()), grace_period_seconds: Some(0), ..Default::default() };
    client.delete_object(&bound.key(), options).await.expect("deleted");

    let mut inside = std::collections::BTreeSet::new();
    let team = ObjectKey::new(Kind::Namespace, "", "team");
    bounded("the namespace is gone", async {
        loop {
            let message = watch.next().await.expect("the watch lives").expect("the watch goes on");
            for change in message.events {
                let (deleted, object) = (change.r#type() == event::Type::Deleted, change.object.expect("an object"));
                match object.key().expect("of a known kind") {
                    key if key == team && deleted => return,
                    key if deleted => drop(inside.remove(&key)),
                    key if key.namespace() == "team" => drop(inside.insert(key)),
                    _ => {}
                }
            }
        }
    })
    .await;
    assert!(inside.is_empty(), "still there when the namespace went: {inside:?}");
    scene.end().await;
}

#[tokio::test]
async fn pods_of_a_lost_node_are_marked_and_those_of_a_removed_one_can_be_deleted() {
    let (scene, client, cache) = started().await;
    join(&client, node("n1", 110)).await;
    let web = client.create(web_pod("web")).await.expect("created");
    runs(&client, web.clone(), 31001).await;
    until_cached("it is seen running", &cache, |cache| cache.get::<Pod>("", "web")?.status.clone()).await;

    let mut silent = client.get::<Node>("", "n1").await.expect("is there");
    let conditions = &mut silent.status.get_or_insert_default().conditions;
    condition::set(conditions, READY, ConditionStatus::Unknown, "NodeSilent", "", Clock::system().now());
    client.update_status(vec![silent.into_object()]).await.expect("answered").remove(0).expect("written");
    until_cached("the pod is marked", &cache, |cache| {
        let pod: Cached<Pod> = cache.get("", "web")?;
        let ready = condition::get(&pod.status.as_ref()?.conditions, READY)?.clone();
        (ready.status() == ConditionStatus::Unknown && ready.reason == "NodeLost").then_some(())
    })
    .await;

    client.delete::<Pod>("", "web", DeleteOptions::default()).await.expect("marked");
    client.delete::<Node>("", "n1", DeleteOptions::default()).await.expect("deleted");
    until_cached("the pod is gone with its node", &cache, |cache| cache.get::<Pod>("", "web").is_none().then_some(())).await;
    scene.end().await;
}

#[tokio::test]
async fn events_are_deleted_an_hour_after_they_last_happened() {
    let scene = Scene::start().await;
    let client = scene.client();
    let now = Clock::system().now();
    let happened = |name: &str, minutes_ago: i64| {
        let last_time = Some(prost_types::Timestamp { seconds: now.seconds - 60 * minutes_ago, nanos: 0 });
        let regarding = Some(crate::api::v1::EventSubject { kind: "Node".into(), name: "n1".into(), ..Default::default() });
        let spec = ClusterEventSpec { regarding, reason: "Happened".into(), count: 1, last_time, ..Default::default() };
        ClusterEvent { metadata: Some(ObjectMeta { name: name.into(), ..Default::default() }), spec: Some(spec) }
    };
    for (name, minutes_ago) in [("old", 61), ("young", 59), ("older", 600)] {
        client.create(happened(name, minutes_ago)).await.expect("created");
    }
    events::start(client.clone(), Clock::system(), &scene.tasks);
    until("only the young one is left", async || {
        let left = client.list::<ClusterEvent>("").await.expect("listed");
        (left.len() == 1 && left[0].meta().name == "young").then_some(())
    })
    .await;
    scene.end().await;
}
