use super::*;
use crate::api::v1::{CreateRequest, CreateResponse, NamespacePhase, PodPhase};
use crate::api::{Kind, ObjectKey, Revision};
use crate::client::DeleteOptions;

#[tokio::test]
async fn a_created_object_has_what_the_apiserver_sets_and_can_be_read_back() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut given = pod("web");
    let meta = given.meta_mut();
    (meta.uid, meta.resource_version, meta.generation) = ("mine".into(), 77, 9);
    meta.deletion_time = Some(Default::default());
    given.status = Some(PodStatus { phase: PodPhase::Failed.into(), ..Default::default() });
    let created = client.create(given).await.unwrap();
    let meta = created.meta();
    assert_eq!((meta.namespace.as_str(), meta.generation), ("default", 1));
    assert!(uuid::Uuid::parse_str(&meta.uid).is_ok(), "{}", meta.uid);
    assert!(meta.creation_time.is_some() && meta.deletion_time.is_none() && meta.resource_version > 0);
    assert_eq!(created.status.as_ref().map(PodStatus::phase), Some(PodPhase::Pending));
    assert_eq!(client.get::<Pod>("", "web").await.unwrap(), created);
}

#[tokio::test]
async fn a_second_object_of_the_same_name_is_refused() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let first = client.create(pod("web")).await.unwrap();
    assert!(matches!(client.create(pod("web")).await, Err(Error::AlreadyExists(object)) if object.name == "web"));
    assert_eq!(client.get::<Pod>("", "web").await.unwrap(), first);
}

#[tokio::test]
async fn the_namespace_must_exist_and_not_be_on_its_way_out() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let create = || client.create(in_namespace(pod("web"), "lab"));
    assert!(matches!(create().await, Err(Error::NotFound(object)) if object.kind == "Namespace" && object.name == "lab"));
    let lab = client.create(namespace("lab")).await.unwrap();
    assert_eq!(lab.status.map(|status| status.phase()), Some(NamespacePhase::Active));
    create().await.unwrap();
    client.delete::<Namespace>("", "lab", DeleteOptions::default()).await.unwrap();
    let late = client.create(in_namespace(pod("late"), "lab")).await;
    assert!(matches!(late, Err(Error::Precondition(_))), "{late:?}");
}

#[tokio::test]
async fn no_object_slips_into_a_namespace_that_is_being_deleted() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    for round in 0..20 {
        let name = format!("lab{round}");
        client.create(namespace(&name)).await.unwrap();
        let creates = (0..8).map(|index| client.create(in_namespace(pod(&format!("p{index}")), &name)));
        let delete = client.delete::<Namespace>("", &name, DeleteOptions::default());
        let (created, marked) = tokio::join!(futures_util::future::join_all(creates), delete);
        let marked = marked.unwrap().meta().resource_version;
        for outcome in created {
            match outcome {
                Ok(pod) => assert!(pod.meta().resource_version < marked, "{} came after {marked}", pod.meta().resource_version),
                Err(error) => assert!(matches!(error, Error::Precondition(_)), "{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn every_fault_of_an_object_is_named_by_its_path() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut wrong = pod("Web");
    wrong.spec.get_or_insert_default().containers[0].name = "no spaces".into();
    assert_eq!(paths(client.create(wrong).await), ["pod.metadata.name", "pod.spec.containers[0].name"]);
    assert_eq!(paths(client.create_object(Object::default()).await), ["kind"]);
    assert_eq!(paths(client.create(pod("")).await), ["pod.metadata.name"]);
}

#[tokio::test]
async fn an_object_over_one_mebibyte_is_refused() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let mut large = pod("large");
    large.spec.get_or_insert_default().containers[0].args = vec!["x".repeat(1024 * 1024)];
    paths(client.create(large).await);
    let message = client.create(pod(&"x".repeat(5 * 1024 * 1024))).await;
    assert!(matches!(message, Err(Error::Invalid(_))), "a request over 4 MiB: {message:?}");
    client.create(pod("small")).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_changes_nothing() {
    let Running { client, apiserver, folder: _folder } = running().await;
    let dry = async |object: Pod| {
        let request = CreateRequest { object: Some(object.into_object()), dry_run: true };
        let response: CreateResponse = unary(apiserver.channel(), "ControlPlaneService/Create", request).await?;
        Ok(typed::<Pod>(response.object.unwrap()))
    };
    let planned = dry(pod("web")).await.unwrap();
    assert_eq!((planned.meta().resource_version, planned.meta().generation), (0, 1));
    assert!(matches!(client.get::<Pod>("", "web").await, Err(Error::NotFound(_))));
    client.create(pod("web")).await.unwrap();
    assert!(matches!(dry(pod("web")).await, Err(Error::AlreadyExists(_))));
    assert!(matches!(dry(in_namespace(pod("web"), "nowhere")).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn the_namespace_default_is_there_from_the_start_and_once_only() {
    let running = running().await;
    let first = running.client.get::<Namespace>("", "default").await.unwrap();
    let running = running.restarted().await;
    assert_eq!(running.client.get::<Namespace>("", "default").await.unwrap(), first);
    assert_eq!(first.meta().resource_version, 1);
}

#[tokio::test]
async fn a_get_of_what_is_not_there_or_is_no_kind_is_told_apart() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    assert!(matches!(client.get::<Pod>("", "web").await, Err(Error::NotFound(_))));
    let node = client.get_object(&ObjectKey::new(Kind::Node, "", "n1")).await;
    assert!(matches!(node, Err(Error::NotFound(object)) if object.namespace.is_empty()));
    assert_eq!(paths(client.get::<Pod>("", "").await), ["ref.name"]);
}

#[tokio::test]
async fn acknowledged_writes_are_there_after_a_kill() {
    let Running { client, apiserver, folder } = running().await;
    let created = client.create(pod("web")).await.unwrap();
    apiserver.kill().await;
    let apiserver = start(config(&folder), Clock::system()).await.unwrap();
    let client = Client::from_channel(apiserver.channel());
    assert_eq!(client.get::<Pod>("", "web").await.unwrap(), created);
    let next = client.create(pod("next")).await.unwrap();
    assert_eq!(Revision(next.meta().resource_version), Revision(created.meta().resource_version).next());
}
