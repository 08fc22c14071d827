use super::{Home, commit};
use crate::api::Revision;
use crate::api::v1::event::Type;
use crate::error::Error;
use crate::store::HistoryLimits;
use crate::store::fixtures::{contents, delete, large_pod, pod, put};

pub(super) async fn a_restart_keeps_state_history_and_cluster_and_revisions_go_on(home: Home) {
    let store = home.open().await;
    let mut revisions = Vec::new();
    for number in 0..10 {
        let pod = pod(&format!("p{}", number % 3), "n", &[("number", &number.to_string())]);
        revisions.push(commit(&store, [put(pod)]).await.unwrap().revision);
    }
    let (before, id) = (contents(&store.snapshot()), store.cluster_id().to_owned());
    let commits = store.feed().after(revisions[3], 100).unwrap();
    assert_eq!(commits.len(), 6);
    store.close().await;
    for clean in [true, false, true] {
        let store = home.open().await;
        assert_eq!((contents(&store.snapshot()), store.cluster_id()), (before.clone(), id.as_str()));
        assert_eq!(store.feed().after(revisions[3], 100).unwrap(), commits);
        if clean { store.close().await } else { store.kill() }
    }
    let store = home.open_with(HistoryLimits { revisions: 3, ..HistoryLimits::default() }).await;
    let last = commit(&store, [delete("p0")]).await.unwrap().revision;
    assert!(last > revisions[9]);
    assert_eq!(store.feed().oldest(), revisions[7]);
    let compacted = Error::Compacted { requested: revisions[6], oldest: revisions[7] };
    assert_eq!(store.feed().after(revisions[6], 1), Err(compacted));
    assert_eq!(store.feed().after(revisions[7], 9).unwrap().len(), 3);
}

pub(super) async fn many_objects_of_all_sizes_are_there_after_a_restart(home: Home) {
    let store = home.open().await;
    for batch in 0..40 {
        let size = |number: usize| if number == 0 { 500_000 } else { 40 * number };
        commit(&store, (0..50).map(|number| put(large_pod(&format!("p{batch}-{number}"), size(number))))).await.unwrap();
    }
    let before = contents(&store.snapshot());
    assert_eq!(before.1.len(), 2000);
    store.close().await;
    for revisions in [100_000, 0] {
        let store = home.open_with(HistoryLimits { revisions, ..HistoryLimits::default() }).await;
        assert!(contents(&store.snapshot()) == before, "the same objects");
        store.close().await;
    }
}

pub(super) async fn a_deleted_objects_last_state_is_in_the_history_after_a_restart(home: Home) {
    let store = home.open().await;
    let begin = store.snapshot().revision();
    commit(&store, [put(pod("a", "n1", &[("app", "web")]))]).await.unwrap();
    let gone = commit(&store, [delete("a")]).await.unwrap();
    commit(&store, [put(pod("a", "n2", &[]))]).await.unwrap();
    store.kill();
    let store = home.open().await;
    let commits = store.feed().after(begin, 10).unwrap();
    let kinds: Vec<_> = commits.iter().map(|commit| commit.events[0].kind()).collect();
    assert_eq!(kinds, [Type::Added, Type::Deleted, Type::Added]);
    assert_eq!(commits[1].events[0].object(), gone.objects[0].as_ref().unwrap().bytes);
    assert_eq!(commits[1].revision, gone.revision);
    assert_eq!(commits[2].events[0].view_before(), None);
}

pub(super) async fn after_close_or_kill_commits_are_unavailable_and_the_feed_is_closed(home: Home) {
    let store = home.open().await;
    let revision = commit(&store, [put(pod("a", "", &[]))]).await.unwrap().revision;
    let other = store.clone();
    store.close().await;
    assert!(matches!(commit(&other, [put(pod("b", "", &[]))]).await, Err(Error::Unavailable(_))));
    assert!(other.feed().is_closed());
    other.close().await;

    let second = home.open().await;
    second.kill();
    assert!(matches!(commit(&second, [put(pod("b", "", &[]))]).await, Err(Error::Unavailable(_))));
    assert!(second.feed().is_closed());
    let third = home.open().await;
    drop(third);
    let fourth = home.open().await;
    assert_eq!((fourth.snapshot().revision(), fourth.snapshot().len()), (revision, 1));
    assert!(revision > Revision::ZERO);
}
