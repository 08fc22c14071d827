mod crash;
mod crash_in_flight;
mod damage;
mod faulty;
mod files;
mod in_flight;
mod restore;
mod trouble;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{Disk, RealDisk};
use super::record::LogRecord;
use super::{Embedded, Files, LIMITS, Limits, OpenError};
use crate::api::Revision;
use crate::store::fixtures::{Script, contents, delete, large_pod, pod, put, transaction};
use crate::store::{Commit, History, HistoryLimits, Options, Snapshot, Store, Transaction};
use faulty::FaultyDisk;

/// Everything happens within a few commits.
const TINY: Limits = Limits { beside_bytes: 0, segment_bytes: 700, step_bytes: 300, checkpoint_bytes: 1500, close_bytes: 0 };

fn open_tiny(folder: &Path) -> Result<Files, OpenError> {
    open_on(Arc::new(FaultyDisk::default()), folder, TINY)
}

fn open_on(disk: Arc<dyn Disk>, folder: &Path, limits: Limits) -> Result<Files, OpenError> {
    when_free(|| Files::open_on(Arc::clone(&disk), folder.to_owned(), limits))
}

/// A test beside this one may be starting a process, which has the files of this one, locks included, until it runs its own program.
fn when_free<T>(mut attempt: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(OpenError::InUse { .. }) if begun.elapsed() < Duration::from_secs(10) => std::thread::yield_now(),
            outcome => return outcome,
        }
    }
}

/// Opens a folder and reads it: the state, and the commits that are kept.
fn load(backend: &mut Files) -> Result<(Snapshot, Vec<Arc<Commit>>), OpenError> {
    let mut history = History::new(HistoryLimits::default(), Revision::ZERO);
    let state = backend.load(&mut history)?.state;
    Ok((state, history.after(history.oldest(), usize::MAX).expect("the oldest can be resumed from")))
}

/// The transactions of a small but eventful life: creates, changes, deletes, several at once, small and large.
fn life() -> Vec<Vec<Transaction>> {
    let mut life = vec![vec![transaction([put(pod("first", "", &[("app", "web")]))])]];
    for number in 0..9 {
        let name = format!("p{number}");
        let label = number.to_string();
        life.push(vec![transaction([put(pod(&name, "", &[("n", &label)])), put(pod("shared", &format!("n{number}"), &[]))])]);
        life.push(vec![transaction([put(pod(&name, "n1", &[]))]), transaction([put(large_pod(&name, 100 * number))])]);
        if number % 3 == 2 {
            life.push(vec![transaction([delete(&name), put(pod("first", &label, &[("app", "db")]))])]);
        }
    }
    life
}

/// Lives through it all on one thread: a checkpoint is finished before the next batch. Returns the states after each batch.
fn live(backend: &mut Files, script: &mut Script) -> Vec<Snapshot> {
    let mut states = Vec::new();
    for batch in life() {
        let (state, commits) = script.batch(batch);
        backend.append(&mut record_of(&commits)).expect("a disk that works");
        backend.settle();
        script.state = state;
        backend.compact(&script.state, Revision(script.state.revision().0.saturating_sub(12)));
        backend.settle();
        states.push(script.state.clone());
    }
    states
}

impl Files {
    /// Waits for the segment and the checkpoint in the making.
    fn settle(&mut self) {
        let opened = self.opened.as_mut().expect("loaded first");
        while opened.log.next.as_ref().is_some_and(|making| !making.is_finished()) {
            std::thread::yield_now();
        }
        opened.finish_checkpoint(&*self.disk, &self.folder);
    }
}

/// Commits as a record of the log.
fn record_of(commits: &[Arc<Commit>]) -> LogRecord {
    let mut record = LogRecord::default();
    commits.iter().for_each(|commit| record.push(commit));
    record
}

fn store_in(files: Files, options: Options) -> Result<Store, OpenError> {
    let (backend, cluster_id, feed) = Embedded::start(files, options)?;
    Ok(Store::new(backend, cluster_id, feed))
}

impl Store {
    /// On a disk that is never synced, as a test that ends before the power does needs no more, and is faster. Whenever something can be decided while a batch
    /// is written, it is.
    pub(crate) fn unsynced(folder: &Path, options: Options) -> Result<Self, OpenError> {
        store_in(open_on(Arc::new(FaultyDisk::default()), folder, Limits { beside_bytes: 0, ..LIMITS })?, options)
    }
}

/// Every file but the lock, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()));
    named.filter(|(name, _)| name != "LOCK").collect()
}

fn put_files(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

#[test]
fn segments_that_neither_checkpoint_nor_history_need_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open_tiny(folder.path()).unwrap();
    let mut script = Script { state: load(&mut backend).unwrap().0 };
    live(&mut backend, &mut script);
    let opened = backend.opened.as_ref().unwrap();
    let names: Vec<_> = files(folder.path()).into_keys().collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("checkpoint-")).count(), 1, "{names:?}");
    let first: u64 = names.iter().find_map(|name| name.strip_prefix("log-")).unwrap().parse().unwrap();
    assert!(first > 1, "the first segment is gone: {names:?}");
    assert!(first <= opened.checkpoint.0 + 1 && first + 12 <= script.state.revision().0 + 1, "no more is gone than may: {names:?}");
}

#[test]
fn endless_overwrites_of_few_objects_keep_the_folder_small() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open_tiny(folder.path()).unwrap();
    let mut script = Script { state: load(&mut backend).unwrap().0 };
    let mut largest = 0;
    for number in 0..2000 {
        let (state, commits) = script.batch([transaction([put(large_pod(&format!("p{}", number % 3), 100))])]);
        backend.append(&mut record_of(&commits)).unwrap();
        backend.settle();
        script.state = state;
        backend.compact(&script.state, Revision(script.state.revision().0.saturating_sub(12)));
        backend.settle();
        largest = largest.max(files(folder.path()).values().map(Vec::len).sum::<usize>());
    }
    // Two checkpoints while one replaces the other; the log that is not in them; the history of 12 revisions; two segments, this one and the next.
    let bound = 2 * 1000 + TINY.checkpoint_bytes as usize + 12 * 300 + 2 * TINY.segment_bytes as usize + 1000;
    assert!(largest < bound, "{largest} bytes in the folder, of at most {bound}");
}

#[test]
fn on_the_machines_own_disk_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open_on(Arc::new(RealDisk), folder.path(), TINY).unwrap();
    let mut script = Script { state: load(&mut backend).unwrap().0 };
    live(&mut backend, &mut script);
    drop(backend);
    let mut again = open_on(Arc::new(RealDisk), folder.path(), TINY).unwrap();
    assert_eq!(contents(&load(&mut again).unwrap().0), contents(&script.state));
}
