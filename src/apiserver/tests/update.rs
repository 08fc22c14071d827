use super::*;
use crate::api::v1::{Condition, ConditionStatus, PodPhase, ServiceStatus};
use crate::client::DeleteOptions;

fn phase(phase: PodPhase) -> PodStatus {
    PodStatus { phase: phase.into(), ..Default::default() }
}

#[tokio::test]
async fn an_update_replaces_spec_and_metadata_and_keeps_the_status() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(pod("web")).await.unwrap();
    client.update_status(vec![with_status(pod("web"), phase(PodPhase::Running)).into_object()]).await.unwrap().remove(0).unwrap();
    let mut changed = client.get::<Pod>("", "web").await.unwrap();
    changed.spec.get_or_insert_default().node_name = "n1".into();
    changed.meta_mut().labels.insert("a".into(), "b".into());
    changed.status = None;
    let updated = client.update(changed.clone()).await.unwrap();
    assert_eq!(updated.status.as_ref().map(PodStatus::phase), Some(PodPhase::Running));
    assert_eq!((updated.meta().generation, &updated.meta().labels["a"]), (2, &"b".to_owned()));
    assert!(updated.meta().resource_version > changed.meta().resource_version);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_no_revision() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let created = client.create(pod("web")).await.unwrap();
    assert_eq!(client.update(created.clone()).await.unwrap(), created);
    let mut bare = pod("web");
    bare.meta_mut().namespace = "default".into();
    assert_eq!(client.update(bare).await.unwrap(), created, "defaults must not count as changes");
    for same in [pod("web"), with_status(pod("web"), phase(PodPhase::Pending))] {
        assert_eq!(typed::<Pod>(client.update_status(vec![same.into_object()]).await.unwrap().remove(0).unwrap()), created);
    }
}

#[tokio::test]
async fn an_old_resource_version_or_another_uid_is_a_conflict() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let old = client.create(service("web")).await.unwrap();
    let mut newer = old.clone();
    newer.meta_mut().labels.insert("a".into(), "b".into());
    let newer = client.update(newer).await.unwrap();
    let mut late = old.clone();
    late.meta_mut().labels.insert("c".into(), "d".into());
    let Err(Error::Conflict { expected, actual, .. }) = client.update(late.clone()).await else { panic!("not a conflict") };
    assert_eq!((expected.0, actual.0), (old.meta().resource_version, newer.meta().resource_version));
    late.meta_mut().resource_version = 0;
    late.meta_mut().uid = "another".into();
    assert!(matches!(client.update(late).await, Err(Error::Conflict { actual, .. }) if actual.0 == 0));
    assert!(matches!(client.update(service("gone")).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn writers_that_set_no_version_never_lose_to_each_other() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(service("web")).await.unwrap();
    let writers = (0..16).map(|index| {
        let client = client.clone();
        let mut given = service("web");
        given.meta_mut().labels.insert("writer".into(), index.to_string());
        async move { client.update(given).await }
    });
    let mut versions: Vec<_> =
        futures_util::future::join_all(writers).await.into_iter().map(|updated| updated.unwrap().meta().resource_version).collect();
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 16, "each was a revision of its own");
}

#[tokio::test]
async fn an_immutable_field_can_not_change() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut changed = client.create(bound_pod("web", "n1")).await.unwrap();
    changed.spec.get_or_insert_default().node_name = "n2".into();
    assert_eq!(paths(client.update(changed.clone()).await), ["pod.spec.node_name"]);
}

#[tokio::test]
async fn removing_the_last_finalizer_of_a_deleted_object_removes_it() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut given = service("web");
    given.meta_mut().finalizers = vec!["test/one".into(), "test/two".into()];
    client.create(given).await.unwrap();
    let mut marked = client.delete::<Service>("", "web", DeleteOptions::default()).await.unwrap();
    assert!(marked.meta().deletion_time.is_some());
    marked.meta_mut().finalizers.push("test/three".into());
    assert_eq!(paths(client.update(marked.clone()).await), ["service.metadata.finalizers"]);
    marked.meta_mut().finalizers = vec!["test/two".into()];
    let mut marked = client.update(marked).await.unwrap();
    client.get::<Service>("", "web").await.unwrap();
    marked.meta_mut().finalizers.clear();
    client.update(marked).await.unwrap();
    assert!(matches!(client.get::<Service>("", "web").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn statuses_succeed_and_fail_one_by_one() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(pod("a")).await.unwrap();
    let b = client.create(pod("b")).await.unwrap();
    let mut stale = with_status(b, phase(PodPhase::Running));
    stale.meta_mut().resource_version += 1;
    let results = client
        .update_status(vec![
            with_status(pod("a"), phase(PodPhase::Running)).into_object(),
            with_status(pod("gone"), phase(PodPhase::Running)).into_object(),
            stale.into_object(),
            with_status(pod("a"), phase(PodPhase::Failed)).into_object(),
            Object::default(),
            crate::api::v1::Lease { metadata: Some(namespace("x").meta().clone()), ..Default::default() }.into_object(),
        ])
        .await
        .unwrap();
    assert_eq!(typed::<Pod>(results[0].clone().unwrap()).status, Some(phase(PodPhase::Running)));
    assert!(matches!(results[1], Err(Error::NotFound(_))));
    assert!(matches!(results[2], Err(Error::Conflict { .. })));
    assert!(matches!(results[3], Err(Error::Invalid(_))), "named twice: {:?}", results[3]);
    assert!(matches!(results[4], Err(Error::Invalid(_))));
    assert!(matches!(results[5], Err(Error::NotFound(_))));
    assert_eq!(client.get::<Pod>("", "a").await.unwrap().meta().generation, 1, "a status is no change of the spec");
    let many = std::iter::repeat_n(Object::default(), 1_001).collect();
    assert_eq!(paths(client.update_status(many).await), ["objects"]);
}

#[tokio::test]
async fn a_pod_that_has_ended_stays_ended() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(pod("a")).await.unwrap();
    let set = async |to: PodPhase| client.update_status(vec![with_status(pod("a"), phase(to)).into_object()]).await.unwrap().remove(0);
    set(PodPhase::Succeeded).await.unwrap();
    assert_eq!(paths(set(PodPhase::Running).await), ["pod.status.phase"]);
}

#[tokio::test]
async fn a_status_changes_nothing_else() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let created = client.create(service("web")).await.unwrap();
    let mut given = service("web");
    given.spec = None;
    given.meta_mut().labels.insert("a".into(), "b".into());
    let ready = Condition { r#type: "Ready".into(), status: ConditionStatus::True.into(), ..Default::default() };
    given.status = Some(ServiceStatus { conditions: vec![ready] });
    let updated = typed::<Service>(client.update_status(vec![given.into_object()]).await.unwrap().remove(0).unwrap());
    assert_eq!((updated.spec, updated.metadata.map(|meta| meta.labels)), (created.spec, Some(Default::default())));
}
