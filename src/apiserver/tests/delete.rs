use super::*;
use crate::api::v1::{DeletePropagation, PodPhase};
use crate::client::DeleteOptions;

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_period_seconds: Some(seconds), ..Default::default() }
}

#[tokio::test]
async fn an_unbound_pod_goes_at_once_and_can_not_be_deleted_again() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let created = client.create(pod("web")).await.unwrap();
    let last = client.delete::<Pod>("", "web", DeleteOptions::default()).await.unwrap();
    assert!(last.meta().resource_version > created.meta().resource_version);
    assert!(matches!(client.get::<Pod>("", "web").await, Err(Error::NotFound(_))));
    let again = client.delete::<Pod>("", "web", DeleteOptions::default()).await;
    assert!(matches!(again, Err(Error::NotFound(object)) if object.name == "web"));
}

#[tokio::test]
async fn a_bound_pod_is_marked_and_its_kubelet_completes_the_deletion() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let created = client.create(bound_pod("web", "n1")).await.unwrap();
    let marked = client.delete::<Pod>("", "web", DeleteOptions::default()).await.unwrap();
    assert!(marked.meta().deletion_time.is_some());
    assert_eq!(marked.meta().deletion_grace_period_seconds, Some(30));
    assert_eq!(client.delete::<Pod>("", "web", DeleteOptions::default()).await.unwrap(), marked, "marked already");
    assert_eq!(client.delete::<Pod>("", "web", grace(60)).await.unwrap(), marked, "a longer grace period is none");
    let sooner = client.delete::<Pod>("", "web", grace(5)).await.unwrap();
    assert_eq!(sooner.meta().deletion_grace_period_seconds, Some(5));
    assert_eq!(sooner.meta().deletion_time, marked.meta().deletion_time);
    let other = DeleteOptions { uid: Some("another".into()), ..grace(0) };
    assert!(matches!(client.delete::<Pod>("", "web", other).await, Err(Error::Conflict { actual, .. }) if actual.0 == 0));
    client.delete::<Pod>("", "web", DeleteOptions { uid: Some(created.meta().uid.clone()), ..grace(0) }).await.unwrap();
    assert!(matches!(client.get::<Pod>("", "web").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_finished_pod_goes_at_once() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(bound_pod("web", "n1")).await.unwrap();
    let ended = PodStatus { phase: PodPhase::Succeeded.into(), ..Default::default() };
    client.update_status(vec![with_status(pod("web"), ended).into_object()]).await.unwrap().remove(0).unwrap();
    client.delete::<Pod>("", "web", DeleteOptions::default()).await.unwrap();
    assert!(matches!(client.get::<Pod>("", "web").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_pod_waits_for_its_finalizers_and_its_kubelet() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut given = bound_pod("web", "n1");
    given.meta_mut().finalizers = vec!["test/one".into()];
    client.create(given).await.unwrap();
    let mut marked = client.delete::<Pod>("", "web", DeleteOptions::default()).await.unwrap();
    marked.meta_mut().finalizers.clear();
    client.update(marked).await.unwrap();
    client.get::<Pod>("", "web").await.expect("its kubelet has not stopped it yet");
    client.delete::<Pod>("", "web", grace(0)).await.unwrap();
    assert!(matches!(client.get::<Pod>("", "web").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_delete_with_conditions_that_do_not_hold_is_a_conflict() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let created = client.create(pod("web")).await.unwrap();
    let old = DeleteOptions { resource_version: Some(crate::api::Revision(1)), ..Default::default() };
    let Err(Error::Conflict { actual, .. }) = client.delete::<Pod>("", "web", old).await else { panic!("not a conflict") };
    assert_eq!(actual.0, created.meta().resource_version);
}

#[tokio::test]
async fn a_namespace_is_marked_until_it_is_empty_and_default_stays() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut lab = client.create(namespace("lab")).await.unwrap();
    lab.meta_mut().finalizers.clear();
    assert_eq!(paths(client.update(lab).await), ["namespace.metadata.finalizers"]);
    let mut marked = client.delete::<Namespace>("", "lab", DeleteOptions::default()).await.unwrap();
    assert!(marked.meta().deletion_time.is_some());
    marked.meta_mut().finalizers.clear();
    client.update(marked).await.unwrap();
    assert!(matches!(client.get::<Namespace>("", "lab").await, Err(Error::NotFound(_))));
    let default = client.delete::<Namespace>("", "default", DeleteOptions::default()).await;
    assert!(matches!(default, Err(Error::Precondition(_))), "{default:?}");
}

#[tokio::test]
async fn what_is_not_supported_is_refused_and_not_ignored() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(pod("web")).await.unwrap();
    let orphan = DeleteOptions { propagation: DeletePropagation::Orphan, ..Default::default() };
    assert_eq!(paths(client.delete::<Pod>("", "web", orphan).await), ["propagation"]);
    assert_eq!(paths(client.delete::<Pod>("", "web", grace(-1)).await), ["grace_period_seconds"]);
    client.get::<Pod>("", "web").await.unwrap();
}
