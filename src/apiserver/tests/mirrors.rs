use super::node::Kubelet;
use super::*;
use crate::api::v1::{Node, PodPhase, PutMirrorRequest, RemoveMirrorRequest};
use crate::api::{APPLY_SET_LABEL, STATIC_POD_ANNOTATION, STATIC_POD_FILE_ANNOTATION};
use crate::client::DeleteOptions;

const FIRST: &str = "5e3f0a4e-0000-5000-8000-000000000001";
const SECOND: &str = "5e3f0a4e-0000-5000-8000-000000000002";

fn mirror(name: &str, node: &str, uid: &str) -> Pod {
    let mut pod = bound_pod(name, node);
    let meta = pod.meta_mut();
    meta.uid = uid.into();
    meta.annotations.insert(STATIC_POD_ANNOTATION.into(), uid.into());
    meta.annotations.insert(STATIC_POD_FILE_ANNOTATION.into(), "web.yaml".into());
    pod
}

async fn put(client: &Client, pod: Pod) -> Result<(), Error> {
    put_as(client, pod, "n1", "i").await
}

async fn put_as(client: &Client, pod: Pod, node: &str, instance: &str) -> Result<(), Error> {
    client.put_mirror(PutMirrorRequest { node_name: node.into(), instance_id: instance.into(), pod: Some(pod) }).await
}

async fn remove(client: &Client, name: &str, uid: &str) -> Result<(), Error> {
    let request = RemoveMirrorRequest {
        node_name: "n1".into(),
        instance_id: "i".into(),
        namespace: "default".into(),
        name: name.into(),
        uid: uid.into(),
    };
    client.remove_mirror(request).await
}

/// A refusal that tells where the pod can be changed.
#[track_caller]
fn is_told<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    match outcome {
        Err(Error::Precondition(why)) => assert!(why.contains("n1") && why.contains("web.yaml"), "{why}"),
        other => panic!("not refused, but {other:?}"),
    }
}

#[tokio::test]
async fn a_mirror_is_its_nodes_alone() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let _kubelet = Kubelet::welcomed(&client, "n1", "i").await;
    let labelled = with_label(mirror("web-n1", "n1", FIRST), APPLY_SET_LABEL, "shop");
    put(&client, labelled.clone()).await.unwrap();
    let stored = client.get::<Pod>("", "web-n1").await.unwrap();
    assert_eq!((stored.meta().uid.as_str(), stored.status.as_ref().unwrap().phase()), (FIRST, PodPhase::Pending));

    is_told(client.delete::<Pod>("", "web-n1", DeleteOptions::default()).await);
    is_told(client.delete::<Pod>("", "web-n1", DeleteOptions { grace_period_seconds: Some(0), ..Default::default() }).await);
    is_told(client.update(with_label(stored.clone(), "a", "b")).await);
    is_told(client.apply(vec![with_label(pod("web-n1"), "a", "b").into_object()], "ann", false).await);
    // The pruning of a set with its label leaves it where it is.
    let prune = crate::api::v1::ApplyRequest { field_manager: "ann".into(), apply_set: "shop".into(), prune: true, ..Default::default() };
    client.apply_as(prune).await.unwrap();
    assert_eq!(client.get::<Pod>("", "web-n1").await.unwrap(), stored);

    let running = PodStatus { phase: PodPhase::Running.into(), ..Default::default() };
    client.update_status(vec![with_status(stored.clone(), running).into_object()]).await.unwrap().remove(0).unwrap();
    put(&client, labelled.clone()).await.unwrap();
    let again = client.get::<Pod>("", "web-n1").await.unwrap();
    assert_eq!(again.status.as_ref().unwrap().phase(), PodPhase::Running, "the same content keeps its status");
    put(&client, with_label(labelled, "tier", "front")).await.unwrap();
    let relabelled = client.get::<Pod>("", "web-n1").await.unwrap();
    assert_eq!((relabelled.meta().labels["tier"].as_str(), &relabelled.status), ("front", &again.status));

    put(&client, mirror("web-n1", "n1", SECOND)).await.unwrap();
    let other = client.get::<Pod>("", "web-n1").await.unwrap();
    assert_eq!(
        (other.meta().uid.as_str(), other.status.as_ref().unwrap().phase()),
        (SECOND, PodPhase::Pending),
        "another content, another pod"
    );
    remove(&client, "web-n1", FIRST).await.unwrap();
    client.get::<Pod>("", "web-n1").await.unwrap();
    remove(&client, "web-n1", SECOND).await.unwrap();
    remove(&client, "web-n1", SECOND).await.unwrap();
    assert!(matches!(client.get::<Pod>("", "web-n1").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn only_the_kubelet_in_session_makes_mirrors_and_only_its_own() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    assert!(matches!(put(&client, mirror("web-n1", "n1", FIRST)).await, Err(Error::Unavailable(_) | Error::NotDone(_))));
    let _kubelet = Kubelet::welcomed(&client, "n1", "i").await;
    let _other = Kubelet::welcomed(&client, "n2", "j").await;
    assert!(matches!(put_as(&client, mirror("web-n1", "n1", FIRST), "n1", "j").await, Err(Error::Precondition(_))));
    assert_eq!(paths(put_as(&client, mirror("web-n1", "n1", FIRST), "n2", "j").await), ["pod.spec.node_name"]);
    assert_eq!(paths(put(&client, mirror("web-n1", "n1", "1")).await), ["pod.metadata.uid"]);
    assert_eq!(paths(put(&client, bound_pod("web-n1", "n1")).await), ["pod.metadata.annotations[bluebird/static-pod]"]);
    assert_eq!(paths(client.create(mirror("web-n1", "n1", FIRST)).await), ["pod.metadata.annotations[bluebird/static-pod]"]);
    assert_eq!(
        paths(client.apply(vec![mirror("web-n1", "n1", "").into_object()], "ann", false).await),
        ["objects[0].pod.metadata.annotations[bluebird/static-pod]"]
    );
    assert!(matches!(put(&client, in_namespace(mirror("web-n1", "n1", FIRST), "nowhere")).await, Err(Error::NotFound(_))));

    // A pod of that name that is none, or another node's.
    client.create(pod("plain")).await.unwrap();
    assert!(matches!(put(&client, mirror("plain", "n1", FIRST)).await, Err(Error::AlreadyExists(_))));
    put_as(&client, mirror("web", "n2", FIRST), "n2", "j").await.unwrap();
    assert!(matches!(put(&client, mirror("web", "n1", SECOND)).await, Err(Error::AlreadyExists(_))));
    remove(&client, "web", FIRST).await.unwrap();
    remove(&client, "plain", FIRST).await.unwrap();
    client.get::<Pod>("", "web").await.unwrap();
    client.get::<Pod>("", "plain").await.unwrap();
    let mut plain = client.get::<Pod>("", "plain").await.unwrap();
    plain.meta_mut().annotations.insert(STATIC_POD_ANNOTATION.into(), "x".into());
    assert_eq!(paths(client.update(plain).await), ["pod.metadata.annotations[bluebird/static-pod]"]);
}

#[tokio::test]
async fn the_mirror_of_a_node_or_namespace_that_is_gone_can_be_deleted() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let kubelet = Kubelet::welcomed(&client, "n1", "i").await;
    client.create(namespace("shop")).await.unwrap();
    put(&client, mirror("web-n1", "n1", FIRST)).await.unwrap();
    put(&client, in_namespace(mirror("web-n1", "n1", SECOND), "shop")).await.unwrap();
    is_told(client.delete::<Pod>("shop", "web-n1", DeleteOptions::default()).await);
    client.delete::<crate::api::v1::Namespace>("", "shop", DeleteOptions::default()).await.unwrap();
    client.delete::<Pod>("shop", "web-n1", DeleteOptions::default()).await.unwrap();
    assert!(matches!(client.get::<Pod>("shop", "web-n1").await, Err(Error::NotFound(_))));
    drop(kubelet);
    client.delete::<Node>("", "n1", DeleteOptions::default()).await.unwrap();
    client.delete::<Pod>("", "web-n1", DeleteOptions::default()).await.unwrap();
    assert!(matches!(client.get::<Pod>("", "web-n1").await, Err(Error::NotFound(_))));
}
