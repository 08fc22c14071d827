use super::*;
use crate::api::v1::event::Type::{Added, Modified};
use crate::store::fixtures::{delete, large_pod, pod, put, service};

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
    let watching = Watching::with_history(HistoryLimits { revisions: 2, bytes: usize::MAX });
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
    let watching = Watching::with_history(HistoryLimits { revisions: 3, bytes: usize::MAX });
    watching.commit([put(pod("a", "", &[]))]).await;
    let mut cursor = watching.watch(&[], Start::Initial).unwrap();
    for _ in 0..10 {
        watching.commit([put(pod("a", "", &[]))]).await;
    }
    assert_eq!(next(&mut cursor).await.unwrap().revision, 1);
    assert_eq!(next(&mut cursor).await, Err(Error::Compacted { requested: Revision(1), oldest: Revision(8) }));
}
