//! The same troubles as in `crash`, on a store to which many write at once: one batch is being written, and the next one is decided on top of it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::super::disk::Disk;
use super::faulty::{FaultyDisk, Kept, Trouble};
use super::{TINY, life, load, open_on, open_tiny, record_of, store_in};
use crate::api::Revision;
use crate::error::{Error, Result};
use crate::store::fixtures::{Script, contents, pod, put, transaction};
use crate::store::{Commit, Committed, Condition, HistoryLimits, Options, Snapshot, Store, Stored, Transaction, Write};
use crate::time::Clock;

/// What many clients heard and saw, while the disk may have failed.
#[derive(Default)]
struct Heard {
    answers: Vec<Result<Committed>>,
    /// States that were visible.
    seen: Vec<Snapshot>,
    /// What was asked for when the trouble was over was done.
    goes_on: bool,
}

/// Lives a life of many at once on a disk that may fail, and returns what they heard. `None` if the store didn't open.
fn live(disk: Arc<FaultyDisk>, folder: &Path) -> Option<Heard> {
    let files = open_on(Arc::clone(&disk) as Arc<dyn Disk>, folder, TINY).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    runtime.block_on(async {
        let store = store_in(files, Options { history: HistoryLimits::default(), clock: Clock::system() }).ok()?;
        let mut heard = Heard::default();
        for (number, transactions) in life().concat().chunks(7).enumerate() {
            let all = transactions.iter().cloned().chain([create_the_same(), compare_and_set(number as u64)]);
            // Tasks, so that some come while others are on their way.
            let commits: JoinSet<_> = all.map(|transaction| commit(store.clone(), transaction)).collect();
            for (outcome, seen) in commits.join_all().await {
                heard.answers.push(outcome);
                heard.seen.push(seen);
            }
        }
        // The trouble comes once: what begins after it finds a disk in order.
        let is_after = disk.has_struck();
        let (outcome, seen) = commit(store.clone(), transaction([put(pod("last", "", &[]))])).await;
        heard.goes_on = !is_after || outcome.is_ok();
        heard.answers.push(outcome);
        heard.seen.push(seen);
        store.close().await;
        Some(heard)
    })
}

/// Commits, and looks at once.
async fn commit(store: Store, transaction: Transaction) -> (Result<Committed>, Snapshot) {
    let outcome = store.commit(transaction).await;
    (outcome, store.snapshot())
}

fn create_the_same() -> Transaction {
    transaction([Write::Put { object: pod("same", "", &[]), condition: Condition::Absent }])
}

/// Refused by a revision that tells which write it rests on, nearly always.
fn compare_and_set(number: u64) -> Transaction {
    transaction([Write::Put { object: pod("shared", "", &[]), condition: Condition::At(Revision(number + 1)) }])
}

/// Opens what was left: it is one history, of which everything is a part that anybody heard or saw; and life goes on.
fn check_what_is_left(folder: &Path, heard: &Heard, what: &str) {
    let mut files = open_tiny(folder).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (state, history) = load(&mut files).unwrap_or_else(|error| panic!("{what}: {error}"));
    let states = states_of(&history);
    assert_eq!(states.last(), Some(&contents(&state)), "{what}");
    for (answer, seen) in heard.answers.iter().zip(&heard.seen) {
        assert!(seen.revision() <= state.revision(), "{what}: what was visible at {} is gone", seen.revision());
        assert_eq!(contents(seen), states[seen.revision().0 as usize], "{what}");
        match answer {
            Ok(Committed { revision, objects }) => {
                assert!(*revision <= seen.revision(), "{what}: {revision} was acknowledged and not visible");
                let events = &history[revision.0 as usize - 1].events;
                let there: Vec<_> = events.iter().map(|event| event.object()).collect();
                assert_eq!(there, objects.iter().flatten().map(|stored| stored.bytes.clone()).collect::<Vec<_>>(), "{what}");
            }
            // A refusal by what isn't visible tells of what may vanish.
            Err(Error::Conflict { actual, .. }) => assert!(*actual <= seen.revision(), "{what}: told of {actual}"),
            Err(Error::AlreadyExists(object)) => {
                assert!(seen.iter().any(|stored| stored.key.to_ref() == *object), "{what}: told of {object:?}");
            }
            Err(Error::NotFound(_) | Error::Exhausted { .. } | Error::Unavailable(_)) => {}
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    let (after, commits) = Script { state }.batch([transaction([put(pod("after", "", &[]))])]);
    files.append(&mut record_of(&commits)).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(files);
    assert_eq!(contents(&load(&mut open_tiny(folder).unwrap()).unwrap().0), contents(&after), "{what}");
}

/// The states that a whole history leads to, from the empty one on.
fn states_of(history: &[Arc<Commit>]) -> Vec<(Revision, Vec<Stored>)> {
    let mut state = Snapshot::default();
    let mut states = vec![contents(&state)];
    for commit in history {
        state.apply(&commit.events, commit.revision);
        states.push(contents(&state));
    }
    states
}

fn at_every_operation(trouble: Trouble, check: impl Fn(&Heard, &str)) {
    for at in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (disk, what) = (Arc::new(FaultyDisk::new(at, trouble)), format!("{trouble:?} at operation {at}"));
        let heard = live(Arc::clone(&disk), folder.path());
        disk.lose_what_was_not_synced();
        let heard = heard.unwrap_or_default();
        check_what_is_left(folder.path(), &heard, &what);
        check(&heard, &what);
        if !disk.has_struck() {
            assert!(at > 50, "a life has writes, syncs, checkpoints and new segments: {at}");
            assert!(heard.answers.iter().filter(|answer| answer.is_ok()).count() > 25);
            return;
        }
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_anybody_of_many_heard_or_saw() {
    at_every_operation(Trouble::Crash, |_, _| {});
    at_every_operation(Trouble::Tear, |_, _| {});
}

#[test]
fn a_power_failure_at_any_operation_loses_nothing_that_anybody_of_many_heard_or_saw() {
    at_every_operation(Trouble::PowerFailure(Kept::First), |_, _| {});
    at_every_operation(Trouble::PowerFailure(Kept::Last), |_, _| {});
}

#[test]
fn an_error_of_any_operation_loses_nothing_that_anybody_of_many_heard_or_saw() {
    at_every_operation(Trouble::Error(ErrorKind::Other), |_, _| {});
}

#[test]
fn a_disk_that_is_full_at_any_operation_loses_nothing_that_anybody_of_many_heard_or_saw_and_the_store_goes_on() {
    at_every_operation(Trouble::Error(ErrorKind::StorageFull), |heard, what| {
        let failed_sync = heard.answers.iter().any(|answer| matches!(answer, Err(Error::Unavailable(_))));
        assert!(failed_sync || heard.goes_on || heard.answers.is_empty(), "{what}");
    });
}
