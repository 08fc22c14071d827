mod conformance;

use super::fixtures::{delete, large_pod, open, put, transaction};
use super::*;
use crate::api::Revision;

async fn commit(store: &Store, writes: impl IntoIterator<Item = Write>) -> Result<Committed> {
    store.commit(transaction(writes)).await
}

#[tokio::test]
async fn an_objects_memory_is_shared_by_state_and_history_and_pins_nothing_else() {
    // So much that a checkpoint is made when the store is closed, and so little that there is none.
    for (bytes, checkpoints) in [(1_000, 0), (25_000, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), HistoryLimits::default());
        commit(&store, (0..50).map(|number| put(large_pod(&format!("p{number}"), bytes)))).await.unwrap();
        store.close().await;
        drop(store);
        let names = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.starts_with("checkpoint-")).count(), checkpoints);
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

#[tokio::test]
async fn after_close_kill_or_drop_the_folder_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let reopen = || open(folder.path(), HistoryLimits::default());
    reopen().close().await;
    reopen().kill();
    drop(reopen());
    reopen().close().await;
}

#[tokio::test(start_paused = true)]
async fn history_that_is_too_old_goes_without_a_commit_and_the_state_stays() {
    let folder = tempfile::tempdir().unwrap();
    let age = std::time::Duration::from_secs(60);
    let store = open(folder.path(), HistoryLimits { age, ..HistoryLimits::default() });
    commit(&store, [put(large_pod("a", 10))]).await.unwrap();
    store.expire_history();
    assert_eq!(store.feed().oldest(), Revision::ZERO);
    tokio::time::advance(2 * age).await;
    store.expire_history();
    assert_eq!((store.feed().oldest(), store.snapshot().len()), (Revision(1), 1));
    assert_eq!(store.feed().after(Revision(1), 10), Ok(vec![]));
    assert!(store.feed().after(Revision::ZERO, 10).is_err());
}
