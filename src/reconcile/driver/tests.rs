use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::api::Kind;

/// Takes a second for a run, and writes down when each began.
struct Recording {
    begun: Instant,
    runs: Mutex<Vec<(String, Duration)>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    answer: fn(run: usize) -> Result<Outcome>,
}

impl Reconciler for Arc<Recording> {
    type Key = String;
    const NAME: &'static str = "recording";

    fn affected(&self, changed: &ObjectKey) -> Vec<String> {
        vec![changed.name().to_owned()]
    }

    async fn reconcile(&self, key: String) -> Result<Outcome> {
        let run = {
            let mut runs = self.runs.lock().expect("no panic while held");
            runs.push((key.clone(), self.begun.elapsed()));
            runs.iter().filter(|(name, _)| *name == key).count()
        };
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        (self.answer)(run)
    }
}

struct Scene {
    recording: Arc<Recording>,
    changes: mpsc::UnboundedSender<BTreeSet<ObjectKey>>,
    tasks: Tasks,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::Pod, "", name)
}

fn scene(options: Options, answer: fn(usize) -> Result<Outcome>) -> Scene {
    let (runs, at_once, most_at_once) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
    let recording = Arc::new(Recording { begun: Instant::now(), runs, at_once, most_at_once, answer });
    let (changes, received) = mpsc::unbounded_channel();
    let tasks = Tasks::new(Default::default());
    let (driven, token) = (recording.clone(), tasks.token());
    tasks.spawn("driver", async move {
        let all = || vec![key("a"), key("b")];
        token.run_until_cancelled(drive(driven, UnboundedReceiverStream::new(received), all, options)).await;
    });
    Scene { recording, changes, tasks }
}

impl Scene {
    fn change(&self, names: &[&str]) {
        self.changes.send(names.iter().map(|name| key(name)).collect()).expect("the driver runs");
    }

    /// When the runs of a key began, in whole seconds, of those so far.
    fn runs(&self, name: &str) -> Vec<u64> {
        let runs = self.recording.runs.lock().expect("no panic while held");
        runs.iter().filter(|(key, _)| key == name).map(|(_, at)| at.as_secs()).collect()
    }
}

const NEVER: Duration = Duration::from_secs(1_000_000);

/// Time is paused: it moves on when everything waits.
async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_run_cause_exactly_one_more() {
    let scene = scene(Options { concurrency: 4, resync: NEVER }, |_| Ok(Outcome::Done));
    scene.change(&["a"]);
    pass(Duration::from_millis(500)).await;
    for _ in 0..5 {
        scene.change(&["a"]);
    }
    pass(Duration::from_secs(60)).await;
    assert_eq!(scene.runs("a"), [0, 1]);
    assert_eq!(scene.recording.most_at_once.load(Ordering::SeqCst), 1, "one key never runs twice at once");
    scene.tasks.shutdown(NEVER).await;
}

#[tokio::test(start_paused = true)]
async fn different_keys_run_at_once_up_to_the_bound() {
    let scene = scene(Options { concurrency: 3, resync: NEVER }, |_| Ok(Outcome::Done));
    scene.change(&["a", "b", "c", "d", "e", "f", "g"]);
    pass(Duration::from_secs(60)).await;
    assert_eq!(scene.recording.most_at_once.load(Ordering::SeqCst), 3);
    assert_eq!([scene.runs("a"), scene.runs("d"), scene.runs("g")], [[0], [1], [2]]);
    scene.tasks.shutdown(NEVER).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_asks_to_be_looked_at_later() {
    let scene = scene(Options { concurrency: 1, resync: NEVER }, |run| match run {
        1 => Ok(Outcome::After(Duration::from_secs(10))),
        _ => Ok(Outcome::Done),
    });
    scene.change(&["a"]);
    pass(Duration::from_secs(100)).await;
    assert_eq!(scene.runs("a"), [0, 11]);
    scene.tasks.shutdown(NEVER).await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_ever_more_slowly_and_others_do_not_wait() {
    let scene = scene(Options { concurrency: 1, resync: NEVER }, |_| Err(Error::Unavailable("down".into())));
    scene.change(&["a"]);
    pass(Duration::from_secs(300)).await;
    let runs = scene.runs("a");
    assert!((10..30).contains(&runs.len()), "{runs:?}");
    let last = runs.len() - 1;
    let (first_pause, last_pause) = (runs[1] - runs[0], runs[last] - runs[last - 1]);
    assert!(first_pause <= 2 && (15..=32).contains(&last_pause), "{runs:?}");
    scene.change(&["b"]);
    pass(Duration::from_secs(2)).await;
    assert!(!scene.runs("b").is_empty());
    scene.tasks.shutdown(NEVER).await;
}

#[tokio::test(start_paused = true)]
async fn everything_is_looked_at_again_on_a_period() {
    let scene = scene(Options { concurrency: 4, resync: Duration::from_secs(100) }, |_| Ok(Outcome::Done));
    pass(Duration::from_secs(250)).await;
    assert_eq!([scene.runs("a"), scene.runs("b")], [[100, 200], [100, 200]]);
    scene.tasks.shutdown(NEVER).await;
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_with_its_cache() {
    let scene = scene(Options::default(), |_| Ok(Outcome::Done));
    let Scene { recording, changes, tasks } = scene;
    drop(changes);
    pass(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&recording), 1, "the driver let go of its reconciler");
    tasks.shutdown(NEVER).await;
}
