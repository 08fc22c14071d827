use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::checkpoint::Pieces;
use super::super::disk::Disk;
use super::super::inspect::inspect;
use super::super::restore::{Restored, marker, restore_on};
use super::faulty::{FaultyDisk, Kept, Trouble};
use super::{files, load, open_tiny, record_of, when_free};
use crate::api::Revision;
use crate::error::Error;
use crate::store::fixtures::{Script, contents, large_pod, pod, put, transaction};
use crate::store::{History, HistoryLimits, OpenError, Snapshot, Stored};

/// A state of several pages.
fn state() -> Snapshot {
    let script = Script { state: Snapshot::default() };
    let small = (0..20).map(|number| transaction([put(pod(&format!("p{number}"), "n1", &[("app", "web")]))]));
    script.batch(small.chain([transaction([put(large_pod("large", 300_000))])])).0
}

fn backup(folder: &Path, state: &Snapshot) -> PathBuf {
    let file = folder.join("backup");
    std::fs::write(&file, Pieces::of("the-cluster", state.clone()).collect::<Vec<_>>().concat()).unwrap();
    file
}

fn restore(file: &Path, folder: &Path) -> Result<Restored, OpenError> {
    when_free(|| restore_on(Arc::new(FaultyDisk::default()), file, folder.to_owned()))
}

fn objects(state: &Snapshot) -> Vec<Stored> {
    contents(state).1
}

#[test]
fn a_backup_above_whose_revision_there_is_no_room_is_refused() {
    let (folder, mut state) = (tempfile::tempdir().unwrap(), state());
    let data = folder.path().join("data");
    for revision in [(1 << 53) + 1, u64::MAX - 1, u64::MAX] {
        state.set_revision(Revision(revision));
        let refused = restore(&backup(folder.path(), &state), &data).unwrap_err();
        assert!(matches!(&refused, OpenError::DamagedBackup { fault, .. } if fault.contains("revision")), "{refused}");
        assert!(!data.exists(), "nothing was begun");
    }
}

#[test]
fn a_restored_store_has_every_object_and_goes_on_far_above() {
    let (folder, state) = (tempfile::tempdir().unwrap(), state());
    let (file, data) = (backup(folder.path(), &state), folder.path().join("data"));
    let restored = restore(&file, &data).unwrap();
    assert_eq!((restored.objects, restored.backup), (state.len(), state.revision()));
    assert!(restored.now.0 >= state.revision().0 + 1_000_000_000 && restored.now.0 < 1 << 53, "{restored:?}");

    let mut opened = open_tiny(&data).unwrap();
    let mut history = History::new(HistoryLimits::default(), Revision::ZERO);
    let loaded = opened.load(&mut history).unwrap();
    assert_eq!(loaded.cluster_id, "the-cluster");
    assert_eq!((objects(&loaded.state), loaded.state.revision()), (objects(&state), restored.now));
    for before in [Revision(1), state.revision(), Revision(state.revision().0 + 100_000), Revision(restored.now.0 - 1)] {
        assert_eq!(history.after(before, 1), Err(Error::Compacted { requested: before, oldest: restored.now }));
    }
    let (state, commits) = Script { state: loaded.state }.batch([transaction([put(pod("after", "", &[]))])]);
    opened.append(&mut record_of(&commits)).unwrap();
    assert_eq!(state.revision(), restored.now.next());
    drop(opened);
    assert_eq!(contents(&load(&mut open_tiny(&data).unwrap()).unwrap().0), contents(&state));
}

#[test]
fn two_clusters_of_one_backup_have_no_revisions_in_common() {
    let (folder, state) = (tempfile::tempdir().unwrap(), state());
    let file = backup(folder.path(), &state);
    let [first, second] = ["a", "b"].map(|name| restore(&file, &folder.path().join(name)).unwrap().now.0);
    assert!(first.abs_diff(second) >= 1_000_000_000, "one chance in 100,000: {first} and {second}");
}

#[test]
fn an_empty_cluster_can_be_restored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    restore(&backup(folder.path(), &Snapshot::default()), &data).unwrap();
    assert!(load(&mut open_tiny(&data).unwrap()).unwrap().0.is_empty());
}

#[test]
fn a_folder_that_has_a_store_or_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (backup(folder.path(), &state()), folder.path().join("data"));
    let mut used = open_tiny(&data).unwrap();
    let disk = Arc::new(FaultyDisk::default());
    assert!(matches!(restore_on(disk, &file, data.clone()), Err(OpenError::InUse { .. })));
    load(&mut used).unwrap();
    drop(used);
    let before = files(&data);
    assert!(matches!(restore(&file, &data), Err(OpenError::NotEmpty { .. })));
    assert_eq!(files(&data), before);
}

#[test]
fn a_backup_that_is_cut_off_or_has_a_flipped_bit_is_refused_before_anything_is_touched() {
    let (folder, state) = (tempfile::tempdir().unwrap(), state());
    let file = backup(folder.path(), &state);
    let right = std::fs::read(&file).unwrap();
    let data = folder.path().join("data");
    let places = (0..right.len()).step_by(4_999).chain([0, 9, 20, right.len() - 1]);
    for place in places {
        let mut flipped = right.clone();
        flipped[place] ^= 0x10;
        let cut = &right[..place];
        for wrong in [flipped.as_slice(), cut] {
            std::fs::write(&file, wrong).unwrap();
            let refused = restore(&file, &data);
            assert!(matches!(refused, Err(OpenError::DamagedBackup { .. } | OpenError::NewerFormat { .. })), "{place}: {refused:?}");
            assert!(!data.exists());
        }
    }
}

/// Restores with trouble at one operation after the other. What is left is no store or all of it, and a second try makes it whole.
fn at_every_operation(trouble: Trouble) {
    with_disks(&format!("{trouble:?}"), |at| FaultyDisk::new(at, trouble));
}

/// As [`at_every_operation`], with a second trouble in one of the operations after that, which clean up.
fn at_every_two_operations(first: Trouble, second: Trouble) {
    for later in 1..=5 {
        with_disks(&format!("{first:?}, {later} later {second:?}"), |at| FaultyDisk::with_two(at, first, later, second));
    }
}

fn with_disks(trouble: &str, disk: impl Fn(usize) -> FaultyDisk) {
    let state = state();
    for at in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (file, data) = (backup(folder.path(), &state), folder.path().join("data"));
        let disk = Arc::new(disk(at));
        let outcome = restore_on(Arc::clone(&disk) as Arc<dyn Disk>, &file, data.clone());
        disk.lose_what_was_not_synced();
        let is_whole = match inspect(&data) {
            Ok(inspected) => {
                assert_eq!(objects(&inspected.state), objects(&state), "{trouble} at {at}");
                true
            }
            Err(OpenError::NoStore { .. } | OpenError::HalfRestored { .. }) => false,
            Err(error) => panic!("{trouble} at {at}: {error}"),
        };
        assert!(is_whole || outcome.is_err(), "{trouble} at {at}: what was said to be restored is there");
        if !is_whole {
            if marker(&data).exists() {
                let mut half = open_tiny(&data).unwrap();
                assert!(matches!(load(&mut half), Err(OpenError::HalfRestored { .. })), "{trouble} at {at}");
            } else {
                assert!(!files(&data).keys().any(|name| name.starts_with("log-") || name.starts_with("checkpoint-")), "{trouble} at {at}");
            }
            restore(&file, &data).unwrap_or_else(|error| panic!("{trouble} at {at}: {error}"));
            assert_eq!(objects(&load(&mut open_tiny(&data).unwrap()).unwrap().0), objects(&state), "{trouble} at {at}");
        }
        if !disk.has_struck() {
            assert!(at > 10, "a restore has many operations: {at}");
            return;
        }
    }
}

#[test]
fn a_crash_at_any_operation_of_a_restore_leaves_no_store_or_all_of_it() {
    at_every_operation(Trouble::Crash);
    at_every_operation(Trouble::Tear);
}

#[test]
fn a_power_failure_at_any_operation_of_a_restore_leaves_no_store_or_all_of_it() {
    at_every_operation(Trouble::PowerFailure(Kept::First));
    at_every_operation(Trouble::PowerFailure(Kept::Last));
}

#[test]
fn a_disk_that_is_full_at_any_operation_of_a_restore_leaves_no_store_or_all_of_it() {
    at_every_operation(Trouble::Error(ErrorKind::StorageFull));
}

#[test]
fn a_failure_while_a_failed_restore_cleans_up_leaves_no_store_or_all_of_it() {
    let full = Trouble::Error(ErrorKind::StorageFull);
    for second in [Trouble::Crash, Trouble::PowerFailure(Kept::First), Trouble::PowerFailure(Kept::Last), full] {
        at_every_two_operations(full, second);
    }
}

#[test]
fn a_folder_can_be_inspected_while_it_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut used = open_tiny(folder.path()).unwrap();
    let mut script = Script { state: load(&mut used).unwrap().0 };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut looks, mut last) = (0, Revision::ZERO);
            while !over.load(std::sync::atomic::Ordering::Acquire) {
                let inspected = inspect(folder.path()).expect("a sound store");
                assert!(inspected.state.revision() >= last);
                assert_eq!(inspected.commits.last().map_or(last, |commit| commit.revision), inspected.state.revision());
                (looks, last) = (looks + 1, inspected.state.revision());
            }
            (looks, last)
        });
        for number in 0..400 {
            let (state, commits) = script.batch([transaction([put(large_pod(&format!("p{}", number % 7), 50 + number))])]);
            used.append(&mut record_of(&commits)).expect("a disk that works");
            script.state = state;
            used.compact(&script.state, Revision(script.state.revision().0.saturating_sub(12)));
        }
        over.store(true, std::sync::atomic::Ordering::Release);
        let (looks, last) = reader.join().expect("no panic");
        assert!(looks > 0 && last <= script.state.revision());
    });
    assert_eq!(contents(&inspect(folder.path()).unwrap().state), contents(&script.state));
}
