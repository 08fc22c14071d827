use super::*;
use crate::api::v1::{ApplyOutcome, ApplyRequest, ApplyResponse};
use crate::client::DeleteOptions;

pub(super) async fn apply(client: &Client, objects: Vec<Object>) -> Result<ApplyResponse, Error> {
    client.apply(objects, "test", false).await
}

pub(super) fn outcomes(response: &ApplyResponse) -> Vec<ApplyOutcome> {
    response.results.iter().map(|result| result.outcome()).collect()
}

#[tokio::test]
async fn a_manifest_with_its_own_namespace_lands_at_one_revision() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let objects =
        vec![in_namespace(pod("web"), "lab").into_object(), namespace("lab").into_object(), in_namespace(pod("db"), "lab").into_object()];
    let response = apply(&client, objects).await.unwrap();
    assert_eq!(outcomes(&response), [ApplyOutcome::Created; 3]);
    for result in &response.results {
        assert_eq!(result.object.as_ref().unwrap().meta().resource_version, response.revision);
    }
}

#[tokio::test]
async fn applying_again_changes_only_what_is_different() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let (a, b) = (service("a"), service("b"));
    let first = apply(&client, vec![a.clone().into_object(), b.clone().into_object()]).await.unwrap();
    let mut changed = b.clone();
    changed.meta_mut().labels.insert("x".into(), "y".into());
    let second = apply(&client, vec![a.clone().into_object(), changed.clone().into_object(), service("c").into_object()]).await.unwrap();
    assert_eq!(outcomes(&second), [ApplyOutcome::Unchanged, ApplyOutcome::Configured, ApplyOutcome::Created]);
    assert_eq!(second.results[0].object.as_ref().unwrap().meta().resource_version, first.revision);
    let third = apply(&client, vec![a.into_object(), changed.into_object()]).await.unwrap();
    assert_eq!((outcomes(&third), third.revision), (vec![ApplyOutcome::Unchanged; 2], second.revision));
}

#[tokio::test]
async fn one_bad_object_keeps_all_others_out_and_every_fault_has_its_place() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut wrong = pod("wrong");
    wrong.spec.get_or_insert_default().containers.clear();
    let objects = vec![pod("good").into_object(), wrong.into_object(), pod("BAD").into_object()];
    assert_eq!(paths(apply(&client, objects).await), ["objects[1].pod.spec.containers", "objects[2].pod.metadata.name"]);
    assert!(matches!(client.get::<Pod>("", "good").await, Err(Error::NotFound(_))));
    let homeless = vec![pod("good").into_object(), in_namespace(pod("web"), "nowhere").into_object()];
    assert!(matches!(apply(&client, homeless).await, Err(Error::NotFound(object)) if object.name == "nowhere"));
    assert!(matches!(client.get::<Pod>("", "good").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn what_others_own_stays() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut given = pod("web");
    given.meta_mut().finalizers = vec!["test/one".into()];
    client.create(given).await.unwrap();
    let mut bound = client.get::<Pod>("", "web").await.unwrap();
    bound.spec.get_or_insert_default().node_name = "n1".into();
    client.update(bound.clone()).await.unwrap();
    let response = apply(&client, vec![with_label(pod("web"), "a", "b").into_object()]).await.unwrap();
    let applied: Pod = typed(response.results[0].object.clone().unwrap());
    assert_eq!(applied.spec, bound.spec);
    assert_eq!(applied.meta().finalizers, ["test/one"]);
    assert_eq!(applied.meta().labels["a"], "b");
}

#[tokio::test]
async fn a_malformed_request_is_refused() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let twice = vec![pod("a").into_object(), pod("b").into_object(), in_namespace(pod("a"), "default").into_object()];
    assert_eq!(paths(apply(&client, twice).await), ["objects[2]"]);
    assert_eq!(paths(apply(&client, vec![]).await), ["objects"]);
    let many = (0..101).map(|index| pod(&format!("p{index}")).into_object()).collect();
    assert_eq!(paths(apply(&client, many).await), ["objects"]);
    assert_eq!(paths(apply(&client, vec![Object::default()]).await), ["objects[0].kind"]);
    assert_eq!(paths(client.apply(vec![pod("a").into_object()], "", false).await), ["field_manager"]);
}

#[tokio::test]
async fn a_hundred_pods_are_one_revision() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let many = (0..100).map(|index| pod(&format!("p{index}")).into_object()).collect();
    assert_eq!(outcomes(&apply(&client, many).await.unwrap()), [ApplyOutcome::Created; 100]);
}

#[tokio::test]
async fn a_dry_run_tells_the_outcomes_and_changes_nothing() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let known = apply(&client, vec![service("a").into_object()]).await.unwrap();
    let objects = vec![service("a").into_object(), service("b").into_object()];
    let response = client.apply(objects, "test", true).await.unwrap();
    assert_eq!(outcomes(&response), [ApplyOutcome::Unchanged, ApplyOutcome::Created]);
    assert_eq!(response.revision, known.revision);
    assert!(matches!(client.get::<Service>("", "b").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn conditions_are_kept_by_all_or_nothing_happens() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut old = client.create(service("a")).await.unwrap();
    old.meta_mut().labels.insert("x".into(), "y".into());
    client.update(old.clone()).await.unwrap();
    let late = apply(&client, vec![old.into_object(), service("b").into_object()]).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    let mut gone = service("gone");
    gone.meta_mut().uid = "once".into();
    assert!(matches!(apply(&client, vec![gone.into_object()]).await, Err(Error::Conflict { actual, .. }) if actual.0 == 0));
    assert!(matches!(client.get::<Service>("", "b").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn an_object_that_is_being_deleted_can_not_be_applied() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(bound_pod("web", "n1")).await.unwrap();
    client.delete::<Pod>("", "web", DeleteOptions::default()).await.unwrap();
    let applied = apply(&client, vec![pod("web").into_object()]).await;
    assert!(matches!(applied, Err(Error::Precondition(_))), "{applied:?}");
}

async fn apply_as(client: &Client, manager: &str, force: bool, objects: Vec<Object>) -> Result<ApplyResponse, Error> {
    client.apply_as(ApplyRequest { objects, field_manager: manager.into(), force, ..Default::default() }).await
}

pub(super) fn labelled(name: &str, key: &str, value: &str) -> Object {
    let mut service = service(name);
    service.meta_mut().labels.insert(key.into(), value.into());
    service.into_object()
}

#[tokio::test]
async fn conflicts_of_all_objects_are_told_and_nothing_happens_until_it_is_forced() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let first = apply_as(&client, "ann", false, vec![labelled("a", "x", "1"), labelled("b", "y", "1")]).await.unwrap();
    let given = || vec![labelled("a", "x", "2"), labelled("b", "y", "2"), labelled("c", "z", "2")];
    let Err(Error::ApplyConflict(conflicts)) = apply_as(&client, "bob", false, given()).await else { panic!("a conflict") };
    let told: Vec<_> =
        conflicts.iter().map(|it| (it.r#ref.as_ref().unwrap().name.as_str(), it.path.as_str(), it.manager.as_str())).collect();
    assert_eq!(told, [("a", "service.metadata.labels[x]", "ann"), ("b", "service.metadata.labels[y]", "ann")]);
    assert_eq!(client.get::<Service>("", "a").await.unwrap().meta().resource_version, first.revision);
    assert!(matches!(client.get::<Service>("", "c").await, Err(Error::NotFound(_))));
    let forced = apply_as(&client, "bob", true, given()).await.unwrap();
    assert_eq!(outcomes(&forced), [ApplyOutcome::Configured, ApplyOutcome::Configured, ApplyOutcome::Created]);
    let told = |service: &Service| service.meta().managed_fields.iter().map(|entry| entry.manager.clone()).collect::<Vec<_>>();
    assert_eq!(told(&typed(forced.results[0].object.clone().unwrap())), ["ann", "bob"]);
}

#[tokio::test]
async fn a_great_many_conflicts_fit_into_one_answer() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let many = |value: &str| {
        let mut service = service(&"n".repeat(60));
        service.meta_mut().annotations.extend((0..1000).map(|index| (format!("{index}-{}", "k".repeat(50)), value.to_owned())));
        vec![service.into_object()]
    };
    apply_as(&client, &"m".repeat(128), false, many("x")).await.unwrap();
    let Err(Error::ApplyConflict(conflicts)) = apply_as(&client, "bob", false, many("y")).await else { panic!("a conflict") };
    assert!(conflicts.len() >= 10, "{}", conflicts.len());
}

#[tokio::test]
async fn managers_that_apply_at_once_lose_nothing_of_each_other() {
    let running = running().await;
    apply_as(&running.client, "first", false, vec![service("a").into_object()]).await.unwrap();
    let writers = ["ann", "bob", "cia", "dan"].map(|manager| {
        let client = running.another_client();
        async move {
            for round in 0..20 {
                let mut object = Service::default();
                object.meta_mut().name = "a".into();
                object.meta_mut().labels.insert(manager.into(), round.to_string());
                apply_as(&client, manager, false, vec![object.into_object()]).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let labels = running.client.get::<Service>("", "a").await.unwrap().meta().labels.clone();
    let expected = ["ann", "bob", "cia", "dan"].map(|manager| (manager.to_owned(), "19".to_owned()));
    assert_eq!(labels, expected.into());
}
