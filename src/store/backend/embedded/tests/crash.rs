use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::super::disk::Disk;
use super::faulty::{FaultyDisk, Kept, Trouble};
use super::{TINY, life, load, open_on, open_tiny, record_of};
use crate::api::Revision;
use crate::store::fixtures::{Script, contents, pod, put, transaction};
use crate::store::{Commit, Snapshot};

/// What a run that may have been cut short has promised and tried.
#[derive(Default)]
struct Outcome {
    /// The last state that was acknowledged.
    acknowledged: Snapshot,
    commits: Vec<Arc<Commit>>,
    /// What a last batch that was neither acknowledged nor cleanly refused would have made of it.
    in_doubt: Option<(Snapshot, Vec<Arc<Commit>>)>,
}

/// Lives a life on a disk that may fail. With `retry`, a refused batch is tried again once.
fn live(disk: Arc<FaultyDisk>, folder: &Path, retry: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok(mut backend) = open_on(disk as Arc<dyn Disk>, folder, TINY) else { return outcome };
    let Ok((state, _)) = load(&mut backend) else { return outcome };
    let mut script = Script { state };
    for batch in life() {
        let (state, commits) = script.batch(batch);
        let appended = backend
            .append(&mut record_of(&commits))
            .or_else(|error| if retry { backend.append(&mut record_of(&commits)) } else { Err(error) });
        if appended.is_err() {
            outcome.in_doubt = Some((state, commits));
            return outcome;
        }
        backend.settle();
        script.state = state;
        outcome.acknowledged = script.state.clone();
        outcome.commits.extend(commits);
        backend.compact(&script.state, Revision(script.state.revision().0.saturating_sub(12)));
        backend.settle();
    }
    backend.close(&script.state);
    outcome
}

/// Opens what was left: everything acknowledged is there, nothing is half there, and life goes on.
fn check_what_is_left(folder: &Path, mut outcome: Outcome, what: &str) {
    let mut backend = open_tiny(folder).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (state, history) = load(&mut backend).unwrap_or_else(|error| panic!("{what}: {error}"));
    if contents(&state) != contents(&outcome.acknowledged) {
        let (tried, commits) = outcome.in_doubt.unwrap_or_else(|| panic!("{what}: the state is not what was acknowledged"));
        assert_eq!(contents(&state), contents(&tried), "{what}");
        outcome.commits.extend(commits);
    }
    assert!(history.len() >= outcome.commits.len().min(12), "{what}: the history is kept");
    assert_eq!(history, outcome.commits[outcome.commits.len() - history.len()..], "{what}");

    let (state, commits) = Script { state }.batch([transaction([put(pod("after", "", &[]))])]);
    backend.append(&mut record_of(&commits)).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(backend);
    assert_eq!(contents(&load(&mut open_tiny(folder).unwrap()).unwrap().0), contents(&state), "{what}");
}

/// Runs a life again and again, with the trouble at one operation after the other, and looks at what is left each time.
fn at_every_operation(trouble: Trouble, retry: bool) {
    let mut at = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyDisk::new(at, trouble));
        let outcome = live(Arc::clone(&disk), folder.path(), retry);
        disk.lose_what_was_not_synced();
        check_what_is_left(folder.path(), outcome, &format!("{trouble:?} at operation {at}"));
        if !disk.has_struck() {
            assert!(at > 100, "a life has writes, syncs, checkpoints and new segments: {at}");
            return;
        }
        at += 1;
    }
}

#[test]
fn a_crash_before_any_operation_loses_nothing_acknowledged() {
    at_every_operation(Trouble::Crash, false);
}

#[test]
fn a_crash_in_the_middle_of_any_operation_loses_nothing_acknowledged() {
    at_every_operation(Trouble::Tear, false);
}

#[test]
fn a_power_failure_at_any_operation_loses_nothing_acknowledged() {
    at_every_operation(Trouble::PowerFailure(Kept::First), false);
}

#[test]
fn a_power_failure_that_keeps_the_end_of_a_write_and_not_its_beginning_loses_nothing_acknowledged() {
    at_every_operation(Trouble::PowerFailure(Kept::Last), false);
}

#[test]
fn an_error_of_any_operation_loses_nothing_acknowledged() {
    at_every_operation(Trouble::Error(ErrorKind::Other), false);
}

#[test]
fn a_disk_that_is_full_at_any_operation_loses_nothing_acknowledged_and_the_store_goes_on() {
    at_every_operation(Trouble::Error(ErrorKind::StorageFull), true);
}
