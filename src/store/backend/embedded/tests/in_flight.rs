//! What is decided while a batch is on its way to the disk.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::super::{Embedded, LIMITS, Limits};
use super::faulty::{FaultyDisk, Held, Trouble};
use super::open_on;
use crate::api::Revision;
use crate::error::{Error, Result};
use crate::store::fixtures::{contents, delete, open, pod, pod_key, put, transaction};
use crate::store::{Committed, Condition, HistoryLimits, Options, Store, Write};
use crate::time::Clock;

/// A store, a disk that can hold it up, and how many transactions have been decided to happen.
struct Scene {
    folder: TempDir,
    disk: Arc<FaultyDisk>,
    decided: Arc<AtomicUsize>,
    /// Whether a kill has begun.
    killed: Arc<AtomicBool>,
    store: Store,
}

type Answer = JoinHandle<Result<Committed>>;

impl Scene {
    /// The pod `first` is there, and the pods `a` and `b`, a batch, are on their way to the disk, which holds them up.
    async fn begin(held: Held) -> (Self, [Answer; 2]) {
        let (folder, disk, decided) = (tempfile::tempdir().unwrap(), Arc::new(FaultyDisk::default()), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&decided);
        let clock = Clock::from_fn(move || {
            counted.fetch_add(1, Ordering::AcqRel);
            SystemTime::UNIX_EPOCH
        });
        let files = open_on(Arc::clone(&disk) as _, folder.path(), Limits { beside_bytes: 0, ..LIMITS }).unwrap();
        let (backend, cluster_id, feed) = Embedded::start(files, Options { history: HistoryLimits::default(), clock }).unwrap();
        let killed = Arc::clone(&backend.killed);
        let scene = Self { folder, disk, decided, killed, store: Store::new(backend, cluster_id, feed) };
        // It lands alone, and what comes meanwhile is the next batch.
        scene.disk.hold(held);
        let first = scene.commit([put(pod("first", "", &[]))]);
        scene.disk.until_held(1);
        let batch = ["a", "b"].map(|name| scene.commit([put(pod(name, "", &[]))]));
        scene.disk.let_one_go();
        assert_eq!(revision(first).await, Ok(Revision(1)));
        scene.disk.until_held(2);
        (scene, batch)
    }

    /// Sends a transaction to the committer while something is held up. When this returns it waits there.
    #[allow(clippy::disallowed_methods, reason = "the tests await it")]
    fn commit(&self, writes: impl IntoIterator<Item = Write>) -> Answer {
        let (store, transaction) = (self.store.clone(), transaction(writes));
        let mut commit = Box::pin(async move { store.commit(transaction).await });
        assert!(commit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        tokio::spawn(commit)
    }

    /// Puts a pod while nothing is held up.
    async fn put_now(&self, name: &str) -> Result<Revision> {
        self.store.commit(transaction([put(pod(name, "", &[]))])).await.map(|committed| committed.revision)
    }

    /// Begins to close the store.
    #[allow(clippy::disallowed_methods, reason = "the tests await it")]
    fn close(&self) -> JoinHandle<()> {
        let store = self.store.clone();
        tokio::spawn(async move { store.close().await })
    }

    /// Returns when so many transactions were decided to happen, with everything that was sent before the last of them.
    async fn until_decided(&self, count: usize) {
        until(|| self.decided.load(Ordering::Acquire) >= count).await;
    }

    /// Nobody has been told anything, and nobody sees anything but the pod `first`.
    async fn check_that_nothing_shows(&self, waiting: &[&Answer]) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.iter().all(|answer| !answer.is_finished()));
        for state in [self.store.snapshot(), self.store.current().await.unwrap()] {
            assert_eq!((state.revision(), state.len()), (Revision(1), 1));
        }
        assert_eq!(self.store.feed().after(Revision(1), 10), Ok(vec![]));
    }

    /// The state after a restart is what was visible before.
    async fn check_after_a_restart(self, names: &[&str]) {
        let before = contents(&self.store.snapshot());
        self.store.kill();
        let again = open(self.folder.path(), HistoryLimits::default());
        assert_eq!(contents(&again.snapshot()), before);
        assert_eq!(names_in(&again), names);
    }
}

async fn until(level: impl Fn() -> bool) {
    let reached = async {
        while !level() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("it comes about while a batch is on its way");
}

async fn revision(answer: Answer) -> Result<Revision> {
    answer.await.unwrap().map(|committed| committed.revision)
}

fn names_in(store: &Store) -> Vec<String> {
    store.snapshot().iter().map(|stored| stored.key.name().to_owned()).collect()
}

fn create(name: &str) -> Write {
    Write::Put { object: pod(name, "", &[]), condition: Condition::Absent }
}

fn is_read_only(outcome: &Result<Revision>) -> bool {
    matches!(outcome, Err(Error::Unavailable(message)) if message.contains("read-only until"))
}

#[tokio::test]
async fn what_is_decided_while_a_batch_syncs_shows_when_both_are_on_disk() {
    let (scene, [a, b]) = Scene::begin(Held::Syncs).await;
    let c = scene.commit([delete("a"), put(pod("c", "", &[]))]);
    scene.until_decided(4).await;
    scene.check_that_nothing_shows(&[&a, &b, &c]).await;
    scene.disk.let_one_go();
    assert_eq!((revision(a).await, revision(b).await), (Ok(Revision(2)), Ok(Revision(3))));
    scene.disk.until_held(3);
    assert_eq!((scene.store.snapshot().revision(), c.is_finished()), (Revision(3), false));
    scene.disk.let_all_go();
    assert_eq!(revision(c).await, Ok(Revision(4)));
    scene.check_after_a_restart(&["b", "c", "first"]).await;
}

#[tokio::test]
async fn a_refusal_is_told_when_what_it_rests_on_is_on_disk() {
    let (scene, [a, b]) = Scene::begin(Held::Syncs).await;
    let refused = scene.commit([create("a")]);
    let c = scene.commit([create("c")]);
    scene.until_decided(4).await;
    scene.check_that_nothing_shows(&[&a, &b, &refused, &c]).await;
    scene.disk.let_all_go();
    assert_eq!(revision(refused).await, Err(Error::AlreadyExists(pod_key("a").to_ref())));
    assert_eq!((revision(a).await, revision(b).await, revision(c).await), (Ok(Revision(2)), Ok(Revision(3)), Ok(Revision(4))));
    scene.check_after_a_restart(&["a", "b", "c", "first"]).await;
}

#[tokio::test]
async fn a_refusal_by_a_write_that_vanished_is_not_told() {
    let (scene, [a, b]) = Scene::begin(Held::Syncs).await;
    let (refused, c) = (scene.commit([create("a")]), scene.commit([create("c")]));
    scene.until_decided(4).await;
    scene.disk.trouble_next(Trouble::Error(ErrorKind::Other));
    scene.disk.let_all_go();
    for answer in [a, b, refused, c] {
        let outcome = revision(answer).await;
        assert!(is_read_only(&outcome), "{outcome:?}");
    }
    assert_eq!(names_in(&scene.store), ["first"]);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_that_was_decided_on_top_is_ever_there() {
    let (scene, [a, b]) = Scene::begin(Held::Syncs).await;
    let c = scene.commit([put(pod("c", "", &[])), delete("a")]);
    scene.until_decided(4).await;
    scene.disk.trouble_next(Trouble::Error(ErrorKind::Other));
    scene.disk.let_all_go();
    for outcome in [revision(a).await, revision(b).await, revision(c).await, scene.put_now("d").await] {
        assert!(is_read_only(&outcome), "{outcome:?}");
    }
    assert_eq!((names_in(&scene.store), scene.store.snapshot().revision()), (vec!["first".to_owned()], Revision(1)));
    assert!(!scene.store.feed().is_closed(), "reads and watches go on");
    scene.store.kill();
    // What failed to sync may be there, as a whole; what was decided on top was never written.
    let again = open(scene.folder.path(), HistoryLimits::default());
    assert!([&["first"][..], &["a", "b", "first"]].iter().any(|names| names_in(&again) == *names), "{:?}", names_in(&again));
}

#[tokio::test]
async fn on_a_full_disk_what_was_decided_on_top_is_refused_too_until_there_is_space() {
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
        let (scene, [a, b]) = Scene::begin(Held::Writes).await;
        let (refused, c) = (scene.commit([create("a")]), scene.commit([delete("b"), put(pod("c", "", &[]))]));
        scene.until_decided(4).await;
        scene.check_that_nothing_shows(&[&a, &b, &refused, &c]).await;
        scene.disk.trouble_next(Trouble::Error(kind));
        scene.disk.let_all_go();
        for answer in [a, b, refused, c] {
            let outcome = revision(answer).await;
            assert!(matches!(&outcome, Err(Error::Exhausted { message, .. }) if message.contains("disk is full")), "{outcome:?}");
        }
        assert_eq!(names_in(&scene.store), ["first"]);
        // There is space again, and the revisions of what never happened are given again.
        assert_eq!(scene.put_now("a").await, Ok(Revision(2)));
        assert_eq!(scene.put_now("c").await, Ok(Revision(3)));
        scene.check_after_a_restart(&["a", "c", "first"]).await;
    }
}

#[tokio::test]
async fn a_kill_finishes_what_is_being_written_and_acknowledges_nothing_that_was_only_decided() {
    let (scene, [a, b]) = Scene::begin(Held::Syncs).await;
    let c = scene.commit([put(pod("c", "", &[]))]);
    scene.until_decided(4).await;
    let store = scene.store.clone();
    let killed = tokio::task::spawn_blocking(move || store.kill());
    until(|| scene.killed.load(Ordering::Acquire)).await;
    scene.disk.let_all_go();
    killed.await.unwrap();
    assert_eq!((revision(a).await, revision(b).await), (Ok(Revision(2)), Ok(Revision(3))));
    assert!(matches!(revision(c).await, Err(Error::Unavailable(_))));
    assert!(scene.store.feed().is_closed());
    scene.check_after_a_restart(&["a", "b", "first"]).await;
}

#[tokio::test]
async fn a_close_finishes_what_is_on_its_way_and_what_was_decided() {
    let (scene, [a, b]) = Scene::begin(Held::Syncs).await;
    let c = scene.commit([put(pod("c", "", &[]))]);
    let closed = scene.close();
    scene.until_decided(4).await;
    scene.check_that_nothing_shows(&[&a, &b, &c]).await;
    assert!(!closed.is_finished());
    scene.disk.let_all_go();
    closed.await.unwrap();
    let answers = (revision(a).await, revision(b).await, revision(c).await);
    assert_eq!(answers, (Ok(Revision(2)), Ok(Revision(3)), Ok(Revision(4))));
    assert_eq!(names_in(&open(scene.folder.path(), HistoryLimits::default())), ["a", "b", "c", "first"]);
}

#[tokio::test]
async fn a_close_waits_for_a_batch_that_is_on_its_way_alone() {
    let (scene, [a, b]) = Scene::begin(Held::Syncs).await;
    let closed = scene.close();
    scene.check_that_nothing_shows(&[&a, &b]).await;
    assert!(!closed.is_finished());
    scene.disk.let_all_go();
    closed.await.unwrap();
    assert_eq!((revision(a).await, revision(b).await), (Ok(Revision(2)), Ok(Revision(3))));
    assert!(scene.store.feed().is_closed());
    assert!(matches!(scene.store.commit(transaction([create("c")])).await, Err(Error::Unavailable(_))));
    assert_eq!(names_in(&open(scene.folder.path(), HistoryLimits::default())), ["a", "b", "first"]);
}
