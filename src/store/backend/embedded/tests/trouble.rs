use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::super::{Files, LIMITS, OpenError};
use super::faulty::{FaultyDisk, Trouble};
use super::{TINY, load, open_on, open_tiny, record_of, store_in, when_free};
use crate::api::Revision;
use crate::error::Error;
use crate::store::fixtures::{Script, contents, pod, pod_key, put, transaction};
use crate::store::{HistoryLimits, Options, Store};
use crate::time::Clock;

fn store_on(disk: &Arc<FaultyDisk>, folder: &Path) -> Store {
    let files = open_on(Arc::clone(disk) as _, folder, LIMITS).unwrap();
    store_in(files, Options { history: HistoryLimits::default(), clock: Clock::system() }).unwrap()
}

/// A small backend on a disk, and what is written to it.
fn tiny_on(disk: &Arc<FaultyDisk>, folder: &Path) -> (Files, Script) {
    let mut backend = open_on(Arc::clone(disk) as _, folder, TINY).unwrap();
    let script = Script { state: load(&mut backend).unwrap().0 };
    (backend, script)
}

async fn put_pod(store: &Store, name: &str) -> Result<Revision, Error> {
    store.commit(transaction([put(pod(name, "", &[]))])).await.map(|committed| committed.revision)
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_with_that_reason_until_there_is_space() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyDisk::default());
        let store = store_on(&disk, folder.path());
        put_pod(&store, "a").await.unwrap();
        disk.trouble_next(Trouble::Error(kind));
        let error = put_pod(&store, "b").await.unwrap_err();
        assert!(matches!(&error, Error::Exhausted { message, retry_after: Some(_) } if message.contains("disk is full")), "{error:?}");
        assert_eq!((store.snapshot().revision(), store.snapshot().get(&pod_key("b"))), (Revision(1), None));
        assert_eq!(put_pod(&store, "c").await, Ok(Revision(2)));
        store.kill();
        let again = store_on(&disk, folder.path());
        assert_eq!((again.snapshot().len(), again.snapshot().get(&pod_key("b"))), (2, None));
    }
}

#[tokio::test]
async fn a_write_that_fails_otherwise_is_unavailable_and_the_next_may_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let store = store_on(&disk, folder.path());
    disk.trouble_next(Trouble::Error(ErrorKind::Other));
    assert!(matches!(put_pod(&store, "a").await, Err(Error::Unavailable(_))));
    assert_eq!(put_pod(&store, "a").await, Ok(Revision(1)));
}

#[tokio::test]
async fn after_a_failed_sync_the_store_is_read_only_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let store = store_on(&disk, folder.path());
    put_pod(&store, "a").await.unwrap();
    // The write comes first, then the sync.
    disk.trouble_after_next(Trouble::Error(ErrorKind::Other));
    for name in ["b", "c"] {
        let error = put_pod(&store, name).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(message) if message.contains("read-only until")), "{error:?}");
    }
    assert_eq!(store.snapshot().len(), 1);
    assert!(!store.feed().is_closed(), "reads and watches go on");
    store.kill();
    let again = store_on(&disk, folder.path());
    assert!(again.snapshot().get(&pod_key("a")).is_some() && again.snapshot().get(&pod_key("c")).is_none());
    put_pod(&again, "d").await.unwrap();
}

#[test]
fn without_space_for_zeros_the_log_grows_by_what_is_written_and_goes_on_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let (mut backend, mut script) = tiny_on(&disk, folder.path());
    let used = |folder: &Path| super::files(folder).values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let (mut acknowledged, mut refused) = (0, 0);
    for round in 0..400 {
        // Space comes in pieces that fit a record sometimes, and a segment or a step never, until it is there for everything.
        disk.space((round < 300).then(|| used(folder.path()) + 97 * (round % 3)));
        let (state, commits) = script.batch([transaction([put(pod(&format!("p{round}"), "", &[]))])]);
        match backend.append(&mut record_of(&commits)) {
            Ok(()) => {
                script.state = state;
                acknowledged += 1;
            }
            Err(error) => {
                assert!(matches!(&error, Error::Exhausted { message, .. } if message.contains("disk is full")), "{error:?}");
                assert!(round < 300, "there is space again");
                refused += 1;
            }
        }
        backend.settle();
    }
    assert!(acknowledged > 150 && refused > 50, "{acknowledged} written, {refused} refused");
    drop(backend);
    disk.space(None);
    let (state, _) = load(&mut open_tiny(folder.path()).unwrap()).unwrap();
    assert_eq!(contents(&state), contents(&script.state));
}

#[test]
fn a_segment_is_full_of_zeros_before_it_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open_tiny(folder.path()).unwrap();
    let mut script = Script { state: load(&mut backend).unwrap().0 };
    let newest = || super::files(folder.path()).into_iter().rfind(|(name, _)| name.starts_with("log-0")).unwrap();
    for _ in 0..20 {
        let (name, _) = newest();
        let (state, commits) = script.batch([transaction([put(pod("p", "", &[]))])]);
        backend.append(&mut record_of(&commits)).unwrap();
        backend.settle();
        script.state = state;
        let (now, bytes) = newest();
        assert!(now == name || bytes.len() as u64 == TINY.segment_bytes, "{now} has {} bytes", bytes.len());
    }
    assert!(newest().0.as_str() > "log-00000000000000000010", "{}", newest().0);
    drop(backend);
    assert!(super::files(folder.path()).keys().all(|name| !name.ends_with(".unfinished")), "what was prepared is gone");
}

#[test]
fn a_folder_in_use_is_refused_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let first = Files::open(folder.path()).unwrap();
    let error = Files::open(folder.path()).err().unwrap();
    assert!(matches!(&error, OpenError::InUse { folder: named } if named == folder.path()));
    assert!(error.to_string().contains("another apiserver"), "{error}");
    drop(first);
    when_free(|| Files::open(folder.path())).unwrap();
}

#[test]
fn a_folder_that_cant_be_written_to_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    drop(Files::open(folder.path()).unwrap());
    for at in 0..5 {
        let disk = Arc::new(FaultyDisk::new(at, Trouble::Error(ErrorKind::ReadOnlyFilesystem)));
        let opened = open_on(disk, folder.path(), TINY).and_then(|mut backend| load(&mut backend));
        let error = opened.unwrap_err();
        assert!(matches!(&error, OpenError::Io { source, .. } if source.kind() == ErrorKind::ReadOnlyFilesystem), "{error}");
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(Files::open(&file), Err(OpenError::Io { doing: "make the folder", .. })));
}

#[test]
fn a_checkpoint_that_finds_no_space_is_made_later_and_the_log_kept() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let (mut backend, mut script) = tiny_on(&disk, folder.path());
    let mut next = |backend: &mut Files| {
        let name = format!("p{}", script.state.revision());
        let (state, commits) = script.batch([transaction([put(pod(&name, "", &[]))])]);
        backend.append(&mut record_of(&commits)).unwrap();
        backend.compact(&state, state.revision());
        backend.settle();
        script.state = state;
        backend.opened.as_ref().unwrap().checkpoint
    };
    disk.no_space_for(Some("checkpoint"));
    assert!((0..100).all(|_| next(&mut backend) == Revision::ZERO), "no checkpoint without space");
    let names: Vec<_> = super::files(folder.path()).into_keys().collect();
    assert!(names.iter().all(|name| !name.ends_with(".unfinished")) && names[0].ends_with("log-00000000000000000001"), "{names:?}");
    disk.no_space_for(None);
    assert!((0..100).any(|_| next(&mut backend) > Revision::ZERO), "a checkpoint when there is space again");
    drop(backend);
    load(&mut open_tiny(folder.path()).unwrap()).unwrap();
}
