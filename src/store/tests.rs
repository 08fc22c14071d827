use super::fixtures::{contents, delete, large_pod, open, pod, pod_key, put, service, transaction};
use super::*;
use crate::api::v1::event::Type;
use crate::api::{MAX_OBJECT_BYTES, MAX_TRANSACTION_OBJECTS, Revision};

fn fresh() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), HistoryLimits::default());
    (folder, store)
}

async fn commit(store: &Store, writes: impl IntoIterator<Item = Write>) -> Result<Committed> {
    store.commit(transaction(writes)).await
}

fn put_if(object: crate::api::v1::Object, condition: Condition) -> Write {
    Write::Put { object, condition }
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_every_object_in_it_carries_it() {
    let (_folder, store) = fresh();
    let first = commit(&store, [put(pod("a", "", &[])), put(pod("b", "", &[]))]).await.unwrap();
    let second = commit(&store, [put(pod("b", "n", &[])), put(service("s")), delete("a")]).await.unwrap();
    assert_eq!((first.revision, second.revision), (Revision(1), Revision(2)));
    for object in second.objects.iter().map(|stored| stored.as_ref().unwrap()) {
        assert_eq!((object.revision, object.decode().meta().resource_version), (Revision(2), 2));
    }
    let snapshot = store.snapshot();
    assert_eq!((snapshot.revision(), snapshot.len()), (Revision(2), 2));
    assert_eq!(snapshot.get(&pod_key("b")), second.objects[0].as_ref());
    assert_eq!(snapshot.get(&pod_key("a")), None);
}

#[tokio::test]
async fn a_snapshot_never_changes_and_is_in_key_order() {
    let (_folder, store) = fresh();
    for name in ["c", "a", "b"] {
        commit(&store, [put(pod(name, "", &[]))]).await.unwrap();
    }
    let before = store.snapshot();
    commit(&store, [delete("a"), put(pod("b", "n", &[])), put(service("s"))]).await.unwrap();
    let names = |snapshot: &Snapshot| snapshot.range(&pod_key("b")).map(|stored| stored.key.name().to_owned()).collect::<Vec<_>>();
    assert_eq!((before.revision(), before.len(), names(&before)), (Revision(3), 3, vec!["b".into(), "c".into()]));
    assert_eq!(before.get(&pod_key("b")).unwrap().decode().node_name(), "");
    assert_eq!(names(&store.snapshot()), ["b", "c", "s"]);
    assert_eq!(store.snapshot().bytes(), store.snapshot().iter().map(|stored| stored.bytes.len()).sum::<usize>());
}

#[tokio::test]
async fn conditions_hold_or_nothing_of_the_transaction_happens() {
    let (_folder, store) = fresh();
    commit(&store, [put(pod("a", "", &[]))]).await.unwrap();
    commit(&store, [put(pod("a", "n", &[]))]).await.unwrap();
    let key = pod_key("a").to_ref();
    let b = || put(pod("b", "", &[]));
    let gone = |name| Error::not_found(&pod_key(name));
    let delete_at = |name, condition| Write::Delete { key: pod_key(name), condition };
    let conflict = Error::Conflict { object: key.clone(), expected: Revision(1), actual: Revision(2) };
    let cases = [
        (put_if(pod("a", "", &[]), Condition::Absent), Error::AlreadyExists(key.clone())),
        (put_if(pod("a", "", &[]), Condition::At(Revision(1))), conflict.clone()),
        (put_if(pod("x", "", &[]), Condition::At(Revision(1))), gone("x")),
        (delete_at("a", Condition::At(Revision(1))), conflict.clone()),
        (delete_at("x", Condition::Any), gone("x")),
        (delete_at("x", Condition::At(Revision(1))), gone("x")),
        (Write::Require { key: pod_key("x"), condition: Condition::Any }, gone("x")),
        (Write::Require { key: pod_key("a"), condition: Condition::At(Revision(1)) }, conflict.clone()),
    ];
    for (write, error) in cases {
        assert_eq!(commit(&store, [b(), write]).await.unwrap_err(), error);
    }
    assert_eq!((store.snapshot().revision(), store.snapshot().len()), (Revision(2), 1));
    let holding = [put_if(pod("a", "", &[]), Condition::At(Revision(2))), put_if(pod("b", "", &[]), Condition::Absent)];
    assert_eq!(commit(&store, holding).await.unwrap().revision, Revision(3));
}

#[tokio::test]
async fn what_is_required_may_come_in_the_same_transaction_and_must_not_go_in_it() {
    let (_folder, store) = fresh();
    let required = || Write::Require { key: pod_key("ns"), condition: Condition::Any };
    let committed = commit(&store, [required(), put(pod("ns", "", &[])), put(pod("a", "", &[]))]).await.unwrap();
    assert_eq!(committed.objects.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(commit(&store, [required(), delete("ns")]).await.unwrap_err(), Error::not_found(&pod_key("ns")));
}

#[tokio::test]
async fn a_transaction_without_writes_is_no_revision() {
    let (_folder, store) = fresh();
    commit(&store, [put(pod("a", "", &[]))]).await.unwrap();
    assert_eq!(commit(&store, []).await.unwrap().revision, Revision(1));
    assert_eq!(
        commit(&store, [Write::Require { key: pod_key("a"), condition: Condition::At(Revision(1)) }]).await.unwrap().revision,
        Revision(1)
    );
    assert_eq!(store.snapshot().revision(), Revision(1));
}

#[tokio::test]
async fn what_exceeds_a_limit_is_invalid_and_says_so() {
    let (_folder, store) = fresh();
    let invalid = |result: Result<Committed>, word: &str| {
        let Err(Error::Invalid(violations)) = result else { panic!("not invalid: {result:?}") };
        assert!(violations[0].message.contains(word), "{violations:?}");
    };
    invalid(commit(&store, [put(large_pod("a", MAX_OBJECT_BYTES))]).await, "1048576");
    let too_many = (0..=MAX_TRANSACTION_OBJECTS).map(|number| put(pod(&format!("p{number}"), "", &[])));
    invalid(commit(&store, too_many).await, "101 objects");
    let large = |name| put(large_pod(name, MAX_OBJECT_BYTES - 1000));
    invalid(commit(&store, [large("a"), large("b")]).await, "1441792");
    invalid(commit(&store, [put(pod("a", "", &[])), delete("a")]).await, "named twice");
    invalid(commit(&store, [put(Default::default())]).await, "no kind");
    invalid(commit(&store, [put(pod("", "", &[]))]).await, "empty");
    assert_eq!(store.snapshot().revision(), Revision::ZERO);

    // Deleted objects count as well: they are sent to watches.
    commit(&store, [large("a")]).await.unwrap();
    commit(&store, [large("b")]).await.unwrap();
    invalid(commit(&store, [delete("a"), delete("b")]).await, "1441792");
    commit(&store, [delete("a")]).await.unwrap();
}

#[tokio::test]
async fn events_stand_alone_with_what_was_before_where_it_differs() {
    let (_folder, store) = fresh();
    commit(&store, [put(pod("a", "", &[("app", "web")]))]).await.unwrap();
    commit(&store, [put(pod("a", "n1", &[("app", "web")]))]).await.unwrap();
    commit(&store, [put(pod("a", "n1", &[("app", "web")]))]).await.unwrap();
    commit(&store, [delete("a")]).await.unwrap();
    let commits = store.feed().after(Revision::ZERO, 10).unwrap();
    let nodes = |view: Option<&View>| view.map(|view| crate::api::LabelView::node_name(view).to_owned());
    let seen: Vec<_> = commits.iter().map(|commit| &commit.events[0]).collect();
    let rows: Vec<_> = seen.iter().map(|event| (event.kind(), nodes(event.view_before()), nodes(Some(event.view())))).collect();
    let node = |name: &str| Some(name.to_owned());
    assert_eq!(
        rows,
        [
            (Type::Added, None, node("")),
            (Type::Modified, node(""), node("n1")),
            (Type::Modified, node("n1"), node("n1")),
            (Type::Deleted, node("n1"), node("n1")),
        ]
    );
    for (index, event) in seen.iter().enumerate() {
        let message: crate::api::v1::WatchResponse = prost::Message::decode(event.record().as_ref()).unwrap();
        let [sent] = &message.events[..] else { panic!("one record is one event") };
        assert_eq!((sent.r#type(), sent.object.as_ref().unwrap().meta().resource_version), (event.kind(), index as u64 + 1));
        assert_eq!(prost::Message::encode_to_vec(sent.object.as_ref().unwrap()), event.object());
    }
}

#[tokio::test]
async fn an_objects_memory_is_shared_by_state_and_history_and_pins_nothing_else() {
    let (folder, store) = fresh();
    commit(&store, (0..50).map(|number| put(large_pod(&format!("p{number}"), 1000)))).await.unwrap();
    store.close().await;
    drop(store);
    let store = open(folder.path(), HistoryLimits::default());
    let commits = store.feed().after(Revision::ZERO, 10).unwrap();
    for event in &commits[0].events {
        let stored = store.snapshot().get(event.key()).unwrap().bytes.clone();
        assert_eq!(stored.as_ptr_range().end, event.record().as_ptr_range().end, "one allocation");
        assert!(event.record().len() - stored.len() <= 16);
    }
    let mut starts: Vec<_> = commits[0].events.iter().map(|event| event.record().as_ptr() as usize).collect();
    starts.sort();
    let shortest = commits[0].events.iter().map(|event| event.record().len()).min().unwrap();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= shortest), "an allocation for each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_write_at_once_each_gets_its_own_revision_and_nothing_is_lost() {
    let (folder, store) = fresh();
    let writers = (0..64).map(|writer| {
        let store = store.clone();
        async move {
            let mut revisions = Vec::new();
            for number in 0..5 {
                revisions.push(commit(&store, [put(pod(&format!("w{writer}-{number}"), "", &[]))]).await.unwrap().revision);
            }
            revisions
        }
    });
    let mut all: Vec<_> = futures_util::future::join_all(writers).await.concat();
    all.sort();
    assert_eq!(all, (1..=320).map(Revision).collect::<Vec<_>>());
    let before = contents(&store.snapshot());
    store.kill();
    assert_eq!(contents(&open(folder.path(), HistoryLimits::default()).snapshot()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_create_the_same_object_one_does() {
    let (_folder, store) = fresh();
    let tries = (0..32).map(|_| commit(&store, [put_if(pod("a", "", &[]), Condition::Absent)]));
    let results = futures_util::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|error| matches!(error, Error::AlreadyExists(_))));
}

#[tokio::test]
async fn a_restart_keeps_state_history_and_cluster_and_revisions_go_on() {
    let (folder, store) = fresh();
    for number in 0..10 {
        commit(&store, [put(pod(&format!("p{}", number % 3), "n", &[("number", &number.to_string())]))]).await.unwrap();
    }
    let (before, id, commits) = (contents(&store.snapshot()), store.cluster_id().to_owned(), store.feed().after(Revision(4), 100).unwrap());
    store.close().await;
    for clean in [true, false, true] {
        let store = open(folder.path(), HistoryLimits::default());
        assert_eq!((contents(&store.snapshot()), store.cluster_id()), (before.clone(), id.as_str()));
        assert_eq!(store.feed().after(Revision(4), 100).unwrap(), commits);
        if clean { store.close().await } else { store.kill() }
    }
    let store = open(folder.path(), HistoryLimits { revisions: 3, bytes: usize::MAX });
    assert_eq!(commit(&store, [delete("p0")]).await.unwrap().revision, Revision(11));
    assert_eq!(store.feed().oldest(), Revision(8));
    let compacted = Error::Compacted { requested: Revision(7), oldest: Revision(8) };
    assert_eq!(store.feed().after(Revision(7), 1), Err(compacted));
}

#[tokio::test]
async fn after_close_or_kill_commits_are_unavailable_and_the_folder_is_free() {
    let (folder, store) = fresh();
    commit(&store, [put(pod("a", "", &[]))]).await.unwrap();
    let other = store.clone();
    store.close().await;
    assert!(matches!(commit(&other, [put(pod("b", "", &[]))]).await, Err(Error::Unavailable(_))));
    assert!(other.feed().is_closed());
    other.close().await;

    let second = open(folder.path(), HistoryLimits::default());
    second.kill();
    assert!(matches!(commit(&second, [put(pod("b", "", &[]))]).await, Err(Error::Unavailable(_))));
    let third = open(folder.path(), HistoryLimits::default());
    drop(third);
    assert_eq!(open(folder.path(), HistoryLimits::default()).snapshot().len(), 1);
}

#[test]
fn a_store_that_is_killed_in_the_moment_of_an_answer_stops_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (done, finished) = std::sync::mpsc::channel();
    let killer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..200 {
            let store = open(&path, HistoryLimits::default());
            // Refused, and so answered while the committer still looks whether more is waiting.
            assert!(runtime.block_on(commit(&store, [delete("nothing")])).is_err());
            store.kill();
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(std::time::Duration::from_secs(60)).expect("killing never hangs");
    killer.join().unwrap();
}
