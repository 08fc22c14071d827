use super::apply::{apply, labelled, outcomes};
use super::*;
use crate::api::APPLY_SET_LABEL;
use crate::api::v1::{ApplyOutcome, ApplyRequest, ApplyResponse, ObjectRef};

async fn apply_set(client: &Client, objects: Vec<Object>, keep: &[&str], prune: bool, dry_run: bool) -> Result<ApplyResponse, Error> {
    let keep = keep.iter().map(|name| ObjectRef { kind: "Service".into(), name: (*name).into(), ..Default::default() }).collect();
    let request =
        ApplyRequest { objects, field_manager: "test".into(), apply_set: "web".into(), prune, keep, dry_run, ..Default::default() };
    client.apply_as(request).await
}

fn services(names: &[&str]) -> Vec<Object> {
    names.iter().map(|name| service(name).into_object()).collect()
}

async fn names(client: &Client) -> Vec<String> {
    client.list::<Service>("").await.unwrap().iter().map(|service| service.meta().name.clone()).collect()
}

#[tokio::test]
async fn what_left_the_set_goes_at_the_revision_of_the_apply() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    apply(&client, services(&["stranger"])).await.unwrap();
    apply_set(&client, services(&["a", "b", "c"]), &[], true, false).await.unwrap();
    let dry = apply_set(&client, services(&["a", "d"]), &["c"], true, true).await.unwrap();
    assert_eq!(outcomes(&dry), [ApplyOutcome::Unchanged, ApplyOutcome::Created, ApplyOutcome::Pruned]);
    assert_eq!(names(&client).await, ["a", "b", "c", "stranger"]);
    let response = apply_set(&client, services(&["a", "d"]), &["c", "unheard-of"], true, false).await.unwrap();
    assert_eq!(outcomes(&response), [ApplyOutcome::Unchanged, ApplyOutcome::Created, ApplyOutcome::Pruned]);
    let objects: Vec<Service> = response.results.into_iter().map(|result| typed(result.object.unwrap())).collect();
    assert_eq!((objects[2].meta().name.as_str(), objects[1].meta().labels[APPLY_SET_LABEL].as_str()), ("b", "web"));
    assert_eq!((objects[1].meta().resource_version, objects[2].meta().resource_version), (response.revision, response.revision));
    assert_eq!(names(&client).await, ["a", "c", "d", "stranger"]);
    // Nothing to do is no revision; nothing to apply is no fault.
    let again = apply_set(&client, services(&["a", "c", "d"]), &[], true, false).await.unwrap();
    assert_eq!((outcomes(&again), again.revision), (vec![ApplyOutcome::Unchanged; 3], response.revision));
    assert_eq!(outcomes(&apply_set(&client, vec![], &["a"], true, false).await.unwrap()), [ApplyOutcome::Pruned; 2]);
    // What is applied without the set has left it.
    apply(&client, services(&["a"])).await.unwrap();
    assert_eq!(outcomes(&apply_set(&client, vec![], &[], true, false).await.unwrap()), []);
}

#[tokio::test]
async fn a_running_pod_that_left_the_set_is_marked_and_not_pruned_twice() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    apply_set(&client, vec![bound_pod("web", "n1").into_object()], &[], true, false).await.unwrap();
    let pruned = apply_set(&client, services(&["a"]), &[], true, false).await.unwrap();
    assert_eq!(outcomes(&pruned), [ApplyOutcome::Created, ApplyOutcome::Pruned]);
    let marked = client.get::<Pod>("", "web").await.unwrap();
    assert!(marked.meta().deletion_time.is_some());
    assert_eq!(marked, typed(pruned.results[1].object.clone().unwrap()));
    assert_eq!(outcomes(&apply_set(&client, services(&["a"]), &[], true, false).await.unwrap()), [ApplyOutcome::Unchanged]);
}

#[tokio::test]
async fn pruning_more_than_a_transaction_takes_says_so_and_does_nothing() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let many: Vec<_> = (0..100).map(|index| format!("s{index:03}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    apply_set(&client, services(&many), &[], false, false).await.unwrap();
    let refused = apply_set(&client, services(&["a"]), &[], true, false).await;
    assert!(matches!(refused, Err(Error::TransactionTooLarge { objects: 101, .. })), "{refused:?}");
    assert_eq!(names(&client).await.len(), 100);
    let half = apply_set(&client, services(&["a"]), &many[..50], true, false).await.unwrap();
    assert_eq!(half.results.len(), 51);
    assert_eq!(apply_set(&client, services(&["a"]), &[], true, false).await.unwrap().results.len(), 51);
    assert_eq!(names(&client).await, ["a"]);
}

#[tokio::test]
async fn what_is_removed_counts_with_its_bytes() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    for index in 0..8 {
        let mut large = service(&format!("s{index}"));
        large.meta_mut().annotations.insert("padding".into(), "x".repeat(200_000));
        apply_set(&client, vec![large.into_object()], &[], false, false).await.unwrap();
    }
    let refused = apply_set(&client, vec![], &[], true, false).await;
    assert!(matches!(refused, Err(Error::TransactionTooLarge { objects: 8, bytes }) if bytes > 1_600_000), "{refused:?}");
    assert_eq!(apply_set(&client, vec![], &["s0"], true, false).await.unwrap().results.len(), 7);
}

#[tokio::test]
async fn a_namespace_is_not_pruned_from_around_what_stays() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let inside = || in_namespace(pod("web"), "lab").into_object();
    apply_set(&client, vec![namespace("lab").into_object(), inside()], &[], true, false).await.unwrap();
    let refused = apply_set(&client, vec![inside()], &[], true, false).await;
    assert!(matches!(&refused, Err(Error::Precondition(why)) if why.contains("Pod/lab/web")), "{refused:?}");
    let both = apply_set(&client, services(&["a"]), &[], true, false).await.unwrap();
    assert_eq!(outcomes(&both), [ApplyOutcome::Created, ApplyOutcome::Pruned, ApplyOutcome::Pruned]);
}

#[tokio::test]
async fn a_malformed_apply_set_is_refused() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let ask = async |request: ApplyRequest| {
        client.apply_as(ApplyRequest { field_manager: "test".into(), objects: services(&["a"]), ..request }).await
    };
    assert_eq!(paths(ask(ApplyRequest { prune: true, ..Default::default() }).await), ["prune"]);
    let keep = vec![ObjectRef { kind: "Sevrice".into(), name: "a".into(), ..Default::default() }];
    assert_eq!(paths(ask(ApplyRequest { keep: keep.clone(), ..Default::default() }).await), ["keep"]);
    assert_eq!(paths(ask(ApplyRequest { keep, apply_set: "a".into(), ..Default::default() }).await), ["keep[0].kind"]);
    assert_eq!(paths(ask(ApplyRequest { apply_set: "a b".into(), ..Default::default() }).await), ["apply_set"]);
    let other = ApplyRequest {
        objects: vec![labelled("a", APPLY_SET_LABEL, "x")],
        field_manager: "test".into(),
        apply_set: "y".into(),
        ..Default::default()
    };
    assert_eq!(paths(client.apply_as(other).await), ["objects[0].service.metadata.labels[bluebird/apply-set]"]);
    assert_eq!(names(&client).await, [""; 0]);
}
