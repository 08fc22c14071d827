use super::*;
use crate::api::v1::Object;
use crate::api::v1::event::Type::{Added, Deleted, Modified};
use crate::store::fixtures::{delete, large_pod, pod, pod_key, put, service};
use crate::watch::Known;

#[tokio::test]
async fn an_empty_initial_state_is_one_message_that_is_synced() {
    let watching = Watching::new();
    watching.commit([put(service("s"))]).await;
    let mut cursor = watching.watch(&[kind("Pod")], Start::Initial).unwrap();
    let first = next(&mut cursor).await.unwrap();
    assert_eq!((first.events.len(), first.revision, first.synced), (0, 1, true));
}

#[tokio::test]
async fn the_initial_state_comes_in_pages_of_one_revision_and_the_changes_follow_without_a_gap() {
    let watching = Watching::new();
    for page in 0..13 {
        watching.commit((0..100).map(|number| put(pod(&format!("p{page:02}-{number:02}"), "", &[])))).await;
    }
    let mut cursor = watching.watch(&[kind("Pod")], Start::Initial).unwrap();
    watching.commit([put(pod("p00-00", "n", &[])), delete("p12-99"), put(pod("new", "", &[]))]).await;
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = next(&mut cursor).await.unwrap();
        assert!(rows(&page).iter().all(|(kind, _, revision)| *kind == Added && *revision <= 13));
        assert_eq!(page.revision, if page.synced { 13 } else { 0 });
        names.extend(rows(&page).into_iter().map(|(_, name, _)| name));
        sizes.push(page.events.len());
        if page.synced {
            break;
        }
    }
    assert_eq!(sizes, [500, 500, 300]);
    assert!(names.is_sorted() && names.len() == 1300);
    let after = next(&mut cursor).await.unwrap();
    assert_eq!((after.events.len(), after.revision, after.synced), (3, 14, false));
}

#[tokio::test]
async fn a_page_of_large_objects_has_fewer_of_them() {
    let watching = Watching::new();
    for number in 0..8 {
        watching.commit([put(large_pod(&format!("p{number}"), 200 * 1024))]).await;
    }
    let mut cursor = watching.watch(&[], Start::Initial).unwrap();
    let mut sizes = Vec::new();
    loop {
        let page = next(&mut cursor).await.unwrap();
        sizes.push(page.events.len());
        if page.synced {
            break;
        }
    }
    assert_eq!(sizes, [3, 3, 2]);
}

#[tokio::test]
async fn the_initial_state_is_what_the_selectors_select_each_object_once() {
    let watching = Watching::new();
    watching.commit([put(pod("a", "n1", &[("app", "web")])), put(pod("b", "n1", &[])), put(service("a")), put(service("b"))]).await;
    let named = |kind_name: &str, name: &str| Selector { name: name.into(), namespace: "default".into(), ..kind(kind_name) };
    let cases: [(&[Selector], &[&str]); 8] = [
        (&[], &["a", "b", "a", "b"]),
        (&[kind("Pod"), on_node("n1"), named("Pod", "a")], &["a", "b"]),
        (&[labelled("app", "web"), named("Service", "b")], &["a", "b"]),
        (&[named("Pod", "b"), named("Service", "b"), named("Service", "b")], &["b", "b"]),
        (&[Selector { name: "a".into(), ..Default::default() }], &["a", "a"]),
        (&[Selector { namespace: "elsewhere".into(), ..Default::default() }], &[]),
        (&[Selector { namespace: "default".into(), node_name: "n1".into(), ..Default::default() }], &["a", "b"]),
        (&[on_node("n2")], &[]),
    ];
    for (selectors, expected) in cases {
        let state = next(&mut watching.watch(selectors, Start::Initial).unwrap()).await.unwrap();
        let names: Vec<_> = rows(&state).into_iter().map(|(_, name, _)| name).collect();
        assert_eq!(
            (names.as_slice(), state.synced),
            (&expected.iter().map(|name| name.to_string()).collect::<Vec<_>>()[..], true),
            "{selectors:?}"
        );
    }
}

#[tokio::test]
async fn a_watch_resumes_exactly_after_the_revision_that_it_names() {
    let watching = Watching::new();
    for _ in 0..5 {
        watching.commit([put(pod("a", "", &[]))]).await;
    }
    let mut cursor = watching.watch(&[], Start::After(Revision(3))).unwrap();
    let seen = rows_up_to(&mut cursor, Revision(5)).await;
    assert_eq!(seen, [(Modified, "a".to_owned(), 4), (Modified, "a".to_owned(), 5)]);
}

#[tokio::test]
async fn a_watch_resumes_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), HistoryLimits::default());
    for node in ["n1", "n2", "n1"] {
        store.commit(transaction([put(pod("a", node, &[]))])).await.unwrap();
    }
    store.kill();
    let store = open(folder.path(), HistoryLimits::default());
    let watching = Watching { hub: Hub::new(&store), store, _folder: folder };
    let mut cursor = watching.watch(&[on_node("n1")], Start::After(Revision(1))).unwrap();
    let seen: Vec<_> = rows_up_to(&mut cursor, Revision(3)).await.into_iter().map(|(kind, _, revision)| (kind, revision)).collect();
    assert_eq!(seen, [(Type::Deleted, 2), (Type::Added, 3)]);
}

#[tokio::test]
async fn revisions_that_are_gone_or_to_come_are_refused_at_once() {
    let watching = Watching::with_history(HistoryLimits { revisions: 2, bytes: usize::MAX, ..HistoryLimits::default() });
    for _ in 0..5 {
        watching.commit([put(pod("a", "", &[]))]).await;
    }
    let error = |revision| watching.watch(&[], Start::After(Revision(revision))).unwrap_err();
    assert_eq!(error(6), Error::Future { requested: Revision(6), current: Revision(5) });
    assert_eq!(error(2), Error::Compacted { requested: Revision(2), oldest: Revision(3) });
    assert!(watching.watch(&[], Start::After(Revision(3))).is_ok());
    assert!(watching.watch(&[], Start::After(Revision(5))).is_ok());
}

#[tokio::test]
async fn an_initial_state_that_is_read_too_slowly_ends_with_compacted_instead_of_a_gap() {
    let watching = Watching::with_history(HistoryLimits { revisions: 3, bytes: usize::MAX, ..HistoryLimits::default() });
    watching.commit([put(pod("a", "", &[]))]).await;
    let mut cursor = watching.watch(&[], Start::Initial).unwrap();
    for _ in 0..10 {
        watching.commit([put(pod("a", "", &[]))]).await;
    }
    assert_eq!(next(&mut cursor).await.unwrap().revision, 1);
    assert_eq!(next(&mut cursor).await, Err(Error::Compacted { requested: Revision(1), oldest: Revision(8) }));
}

fn known(objects: &[(&str, u64)]) -> Known {
    Known::new(objects.iter().map(|(name, revision)| (pod_key(name), Revision(*revision))).collect()).unwrap()
}

#[tokio::test]
async fn who_tells_what_it_knows_is_sent_only_what_differs() {
    let watching = Watching::new();
    watching.commit(["same", "changed", "gone", "unlabelled"].map(|name| put(pod(name, "", &[("app", "web")])))).await;
    watching.commit([put(pod("changed", "n", &[("app", "web")])), put(pod("unlabelled", "", &[])), delete("gone")]).await;
    watching.commit([put(pod("new", "", &[("app", "web")])), put(service("s"))]).await;
    let told = known(&[("same", 1), ("changed", 1), ("gone", 1), ("unlabelled", 1), ("never", 7)]);
    let start = Start::Difference { known: told, after: None };
    let mut cursor = watching.watch(&[labelled("app", "web")], start).unwrap();
    let difference = next(&mut cursor).await.unwrap();
    let row = |kind: Type, name: &str, revision: u64| (kind, name.to_owned(), revision);
    assert_eq!(
        rows(&difference),
        [
            row(Modified, "changed", 2),
            row(Deleted, "gone", 3),
            row(Deleted, "never", 3),
            row(Added, "new", 3),
            row(Deleted, "unlabelled", 3)
        ]
    );
    assert_eq!((difference.revision, difference.synced), (3, true));
    assert_eq!(difference.events[1].object, Some(Object::bare(&pod_key("gone"), 3)), "nothing but its name");
    watching.commit([delete("new")]).await;
    assert_eq!(rows(&next(&mut cursor).await.unwrap()), [row(Deleted, "new", 4)], "and goes on");
}

#[tokio::test]
async fn who_knows_everything_is_sent_nothing_but_that_this_is_so() {
    let watching = Watching::new();
    watching.commit([put(pod("a", "", &[])), put(pod("b", "", &[]))]).await;
    let start = Start::Difference { known: known(&[("b", 1), ("a", 1)]), after: None };
    let difference = next(&mut watching.watch(&[], start).unwrap()).await.unwrap();
    assert_eq!((difference.events.len(), difference.revision, difference.synced), (0, 1, true));
}

#[tokio::test]
async fn what_is_gone_comes_in_pages_too() {
    let watching = Watching::new();
    watching.commit([put(pod("m", "", &[]))]).await;
    let told: Vec<_> = (0..700).map(|number| format!("{}{number:03}", if number < 600 { "a" } else { "z" })).collect();
    let told = Known::new(told.iter().map(|name| (pod_key(name), Revision(1))).collect()).unwrap();
    let mut cursor = watching.watch(&[kind("Service"), kind("Pod")], Start::Difference { known: told, after: None }).unwrap();
    let (first, second) = (next(&mut cursor).await.unwrap(), next(&mut cursor).await.unwrap());
    assert_eq!((first.events.len(), first.revision, first.synced), (500, 0, false));
    assert_eq!((second.events.len(), second.revision, second.synced), (201, 1, true));
    let names: Vec<_> = rows(&first).into_iter().chain(rows(&second)).map(|(_, name, _)| name).collect();
    assert!(names.is_sorted());
}

#[tokio::test]
async fn the_history_is_preferred_to_a_difference_as_long_as_it_reaches_back() {
    let watching = Watching::with_history(HistoryLimits { revisions: 2, bytes: usize::MAX, ..HistoryLimits::default() });
    for _ in 0..5 {
        watching.commit([put(pod("a", "", &[]))]).await;
    }
    let from = |revision| Start::Difference { known: known(&[("a", 1)]), after: Some(Revision(revision)) };
    let mut resumed = watching.watch(&[], from(3)).unwrap();
    let first = next(&mut resumed).await.unwrap();
    assert_eq!(rows(&first), [(Modified, "a".to_owned(), 4), (Modified, "a".to_owned(), 5)]);
    assert!(!first.synced);
    let mut compared = watching.watch(&[], from(2)).unwrap();
    let first = next(&mut compared).await.unwrap();
    assert_eq!((rows(&first), first.synced), (vec![(Modified, "a".to_owned(), 5)], true));
    let future = watching.watch(&[], from(6)).unwrap_err();
    assert_eq!(future, Error::Future { requested: Revision(6), current: Revision(5) });
}

#[test]
fn an_object_can_not_be_known_twice() {
    let twice = Known::new(vec![(pod_key("a"), Revision(1)), (pod_key("b"), Revision(1)), (pod_key("a"), Revision(2))]);
    assert_eq!(twice, Err(pod_key("a")));
}
