use super::*;
use crate::api::v1::{LabelSelector, ListRequest, ListResponse, Node, Selector};
use crate::client::DeleteOptions;

fn pods() -> Selector {
    Selector { kind: "Pod".into(), ..Default::default() }
}

fn names(response: &ListResponse) -> Vec<&str> {
    response.objects.iter().map(|object| object.meta().name.as_str()).collect()
}

async fn page(client: &Client, selector: Selector, limit: u32, continue_token: &str) -> Result<ListResponse, Error> {
    client.list_page(ListRequest { selector: Some(selector), limit, continue_token: continue_token.into() }).await
}

#[tokio::test]
async fn a_list_is_ordered_by_kind_namespace_and_name() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(namespace("a")).await.unwrap();
    client.create(service("s")).await.unwrap();
    for (name, namespace) in [("b", "default"), ("a", "default"), ("z", "a")] {
        client.create(in_namespace(pod(name), namespace)).await.unwrap();
    }
    let all = client.list_objects(Selector::default()).await.unwrap();
    let keys: Vec<_> = all.objects.iter().map(|object| object.key().unwrap().to_string()).collect();
    let expected = ["Pod/a/z", "Pod/default/a", "Pod/default/b", "Service/default/s", "Namespace/a", "Namespace/default"];
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_selector_picks_by_kind_namespace_name_labels_and_node() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(namespace("lab")).await.unwrap();
    client.create(with_label(bound_pod("a", "n1"), "app", "web")).await.unwrap();
    client.create(with_label(bound_pod("b", "n2"), "app", "web")).await.unwrap();
    client.create(with_label(in_namespace(pod("a"), "lab"), "app", "db")).await.unwrap();
    let found = async |selector: Selector| {
        let objects = client.list_objects(selector).await.unwrap().objects;
        objects.into_iter().map(|object| object.key().unwrap().to_string()).collect::<Vec<_>>()
    };
    let web = LabelSelector { match_labels: [("app".to_owned(), "web".to_owned())].into(), ..Default::default() };
    assert_eq!(found(Selector { labels: Some(web), ..pods() }).await, ["Pod/default/a", "Pod/default/b"]);
    assert_eq!(found(Selector { node_name: "n2".into(), ..Default::default() }).await, ["Pod/default/b"]);
    assert_eq!(found(Selector { name: "a".into(), ..pods() }).await, ["Pod/default/a", "Pod/lab/a"]);
    assert_eq!(found(Selector { name: "a".into(), namespace: "lab".into(), ..pods() }).await, ["Pod/lab/a"]);
    assert_eq!(found(Selector { namespace: "lab".into(), ..Default::default() }).await, ["Pod/lab/a"]);
    assert_eq!(found(Selector { kind: "Namespace".into(), name: "lab".into(), ..Default::default() }).await, ["Namespace/lab"]);
    assert_eq!(found(Selector { kind: "Node".into(), ..Default::default() }).await, [""; 0]);
    assert_eq!(paths(client.list_objects(Selector { kind: "pod".into(), ..Default::default() }).await), ["selector.kind"]);
}

#[tokio::test]
async fn all_pages_show_the_revision_of_the_first_whatever_happens_meanwhile() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    for index in 0..5 {
        client.create(pod(&format!("p{index}"))).await.unwrap();
    }
    let first = page(&client, pods(), 2, "").await.unwrap();
    client.delete::<Pod>("", "p3", DeleteOptions::default()).await.unwrap();
    client.create(pod("p22")).await.unwrap();
    let second = page(&client, pods(), 2, &first.continue_token).await.unwrap();
    let third = page(&client, pods(), 2, &second.continue_token).await.unwrap();
    assert_eq!([names(&first), names(&second), names(&third)], [vec!["p0", "p1"], vec!["p2", "p3"], vec!["p4"]]);
    assert_eq!([second.revision, third.revision], [first.revision; 2]);
    assert_eq!(third.continue_token, "");
    let used_up = page(&client, pods(), 2, &second.continue_token).await;
    assert!(matches!(used_up, Err(Error::TokenExpired { revision }) if revision.0 == first.revision), "{used_up:?}");
}

#[tokio::test]
async fn a_full_last_page_has_no_token() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    client.create(pod("a")).await.unwrap();
    client.create(service("later-in-order")).await.unwrap();
    assert_eq!(page(&client, pods(), 1, "").await.unwrap().continue_token, "");
}

#[tokio::test]
async fn without_a_limit_a_page_is_bounded_by_bytes() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    for index in 0..4 {
        let mut large = pod(&format!("p{index}"));
        large.spec.get_or_insert_default().containers[0].args = vec!["x".repeat(900 * 1024)];
        client.create(large).await.unwrap();
    }
    let first = page(&client, pods(), 0, "").await.unwrap();
    assert_eq!(names(&first), ["p0", "p1", "p2"]);
    let second = page(&client, pods(), 0, &first.continue_token).await.unwrap();
    assert_eq!((names(&second), second.continue_token.as_str()), (vec!["p3"], ""));
}

#[tokio::test]
async fn a_continue_token_of_another_query_garbage_and_one_from_before_a_restart_are_refused() {
    let running = running().await;
    for name in ["a", "b"] {
        running.client.create(pod(name)).await.unwrap();
    }
    let token = page(&running.client, pods(), 1, "").await.unwrap().continue_token;
    let other = Selector { namespace: "default".into(), ..pods() };
    assert_eq!(paths(page(&running.client, other, 1, &token).await), ["continue_token"]);
    assert_eq!(paths(page(&running.client, pods(), 1, "what?").await), ["continue_token"]);
    let running = running.restarted().await;
    assert!(matches!(page(&running.client, pods(), 1, &token).await, Err(Error::TokenExpired { .. })));
}

#[tokio::test]
async fn a_list_that_looks_at_many_objects_and_finds_few_still_answers() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let nodes = (0..30).map(|batch| {
        let nodes = (0..100).map(|index| {
            let mut node = Node::default();
            node.meta_mut().name = format!("n{batch:02}{index:02}");
            node.into_object()
        });
        nodes.collect::<Vec<_>>()
    });
    for batch in nodes {
        client.apply(batch, "test", false).await.unwrap();
    }
    let selector = Selector { kind: "Node".into(), name: "n2999".into(), ..Default::default() };
    assert_eq!(client.list_objects(selector).await.unwrap().objects.len(), 1);
    let never = LabelSelector { match_labels: [("never".to_owned(), "there".to_owned())].into(), ..Default::default() };
    assert_eq!(client.list_objects(Selector { labels: Some(never), ..Default::default() }).await.unwrap().objects.len(), 0);
    assert_eq!(client.list::<Node>("").await.unwrap().len(), 3_000);
}
