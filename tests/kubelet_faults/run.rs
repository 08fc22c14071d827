//! A run: pods come and go, the kubelet is killed again and again, and from time to time everything comes to rest and is looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bluebird::api::v1::Pod;
use bluebird::client::DeleteOptions;
use bluebird::tasks::Tasks;
use bluebird::testing::TestCluster;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::actor::Actor;
use crate::checks::{check_log, check_remains, check_runs, is_at_rest};
use crate::history::History;
use crate::processes::{guarded, is_alive, of_pods};
use crate::program::{Program, eventually};

const NODE: &str = "n1";
/// After so many kills everything comes to rest and is looked at.
const KILLS_PER_REST: usize = 10;
/// The most pods at a time.
const ACTORS: usize = 14;
/// The longest time from the start of a kubelet to its end, and from that to its next start, in milliseconds.
const LONGEST_LIFE: u64 = 250;
const LONGEST_DEATH: u64 = 60;
/// How long anything may take to come to rest on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What was done, for the last line.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kills: usize,
    pub(crate) pods: usize,
    pub(crate) deleted: usize,
    /// Runs that began, of the pods that were looked at in the end.
    pub(crate) starts: usize,
    /// Runs that ended, of the same; and those of them that the apiserver was told of one by one.
    pub(crate) ends: usize,
    pub(crate) ends_told: usize,
    pub(crate) lines: u64,
}

/// Everything that a run needs.
pub(crate) struct Run {
    rng: fastrand::Rng,
    cluster: TestCluster,
    history: History,
    tasks: Tasks,
    kubelet: Option<Program>,
    actors: BTreeMap<String, Actor>,
    /// Deleted, and not looked at since.
    leaving: Vec<Actor>,
    counts: Counts,
    /// The last field: whatever uses it is gone before it.
    evidence: Evidence,
}

impl Run {
    pub(crate) async fn start(seed: u64) -> Run {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["node", "journals"] {
            std::fs::create_dir(folder.path().join(name)).expect("the test's own folder");
        }
        let cluster = TestCluster::builder().seed(seed).deadline(DEADLINE).start().await;
        let tasks = Tasks::new(CancellationToken::new());
        let history = History::follow(&cluster.client(), &tasks);
        let (rng, evidence) = (fastrand::Rng::with_seed(seed), Evidence { seed, folder: Some(folder) });
        let (actors, leaving, counts) = (BTreeMap::new(), Vec::new(), Counts::default());
        Run { rng, cluster, history, tasks, kubelet: None, actors, leaving, counts, evidence }
    }

    /// Kills the kubelet so many times; panics when anything is not as it must be.
    pub(crate) async fn suffer(mut self, kills: usize) -> Counts {
        self.start_kubelet();
        for number in 1..=kills {
            self.act(4).await;
            self.pass_time(LONGEST_LIFE).await;
            self.act(1).await;
            self.kubelet.take().expect("it was started").kill();
            self.counts.kills += 1;
            self.act(2).await;
            self.pass_time(LONGEST_DEATH).await;
            self.start_kubelet();
            if number % KILLS_PER_REST == 0 || number == kills {
                self.rest().await;
                println!("{number} kills, {} pods", self.counts.pods);
            }
        }
        self.end().await
    }

    fn start_kubelet(&mut self) {
        let (url, root) = (self.cluster.url(), self.root());
        let args = ["--server", &url, "--node-name", NODE, "--root-dir", root.to_str().expect("text"), "--no-routes"];
        self.kubelet = Some(Program::start(self.evidence.folder(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args));
    }

    fn root(&self) -> PathBuf {
        self.evidence.folder().join("node")
    }

    /// The chosen moment itself: there is nothing to wait for.
    #[allow(clippy::disallowed_methods, reason = "a random moment is what is tested")]
    async fn pass_time(&mut self, longest: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(0..longest))).await;
    }

    /// Creates and deletes pods, at most so many.
    async fn act(&mut self, most: usize) {
        for _ in 0..self.rng.usize(0..=most) {
            let must_leave = self.actors.len() >= ACTORS;
            if must_leave || (self.rng.u8(0..3) == 0 && !self.actors.is_empty()) {
                let name = self.rng.choice(self.actors.keys().cloned().collect::<Vec<_>>()).expect("there is one");
                self.delete(&name).await;
            } else {
                self.create().await;
            }
        }
    }

    async fn create(&mut self) {
        let mut actor = Actor::random(&mut self.rng, self.counts.pods, &self.evidence.folder().join("journals"));
        let made = self.cluster.client().create(actor.pod(NODE, env!("CARGO_BIN_EXE_testapp"))).await.expect("a valid pod");
        actor.uid = made.metadata.unwrap_or_default().uid;
        self.counts.pods += 1;
        self.actors.insert(actor.name.clone(), actor);
    }

    async fn delete(&mut self, name: &str) {
        let actor = self.actors.remove(name).expect("it was chosen");
        let grace_period_seconds = [None, None, Some(0), Some(1)][self.rng.usize(0..4)];
        let options = DeleteOptions { grace_period_seconds, ..Default::default() };
        self.cluster.client().delete::<Pod>("", name, options).await.expect("it exists");
        self.counts.deleted += 1;
        self.leaving.push(actor);
    }

    /// Waits until every pod has done what its part asks for, looks at everything, and lets half of the pods go.
    async fn rest(&mut self) {
        for actor in std::mem::take(&mut self.leaving) {
            let gone = |cache: &bluebird::client::Cache| cache.get::<Pod>("", &actor.name).is_none().then_some(());
            self.cluster.wait_for(&format!("{} to be gone", actor.name), gone).await;
            check_remains(&actor).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        for actor in self.actors.values() {
            let at_rest = |cache: &bluebird::client::Cache| cache.get::<Pod>("", &actor.name).filter(|pod| is_at_rest(actor, pod));
            let pod = self.cluster.wait_for(&format!("{actor:?} to come to rest"), at_rest).await;
            self.cluster.eventually(&format!("all words of {actor:?}"), || said_all(actor)).await;
            check_runs(actor, &pod, &self.history).unwrap_or_else(|wrong| panic!("{wrong}"));
            self.counts.lines += self.log_lines(actor).await;
            self.counts.starts += actor.starts();
            self.counts.ends += actor.ends().len();
            self.counts.ends_told += self.history.of(&actor.uid).len();
        }
        self.look_for_orphans().await;
        let names: Vec<String> = self.actors.keys().cloned().collect();
        for name in names {
            if self.rng.bool() {
                self.delete(&name).await;
            }
        }
    }

    /// A run that stays may still be writing; one that has ended may not.
    async fn log_lines(&self, actor: &Actor) -> u64 {
        let client = self.cluster.client();
        let read = async {
            loop {
                match check_log(actor, &client).await {
                    Err(_) if actor.stays() => tokio::time::sleep(Duration::from_millis(20)).await,
                    outcome => return outcome,
                }
            }
        };
        match tokio::time::timeout(DEADLINE, read).await {
            Ok(outcome) => outcome.unwrap_or_else(|wrong| panic!("{wrong}")),
            Err(_) => panic!("{}", check_log(actor, &client).await.expect_err("it was wrong all the time")),
        }
    }

    /// Every process belongs to a pod that stays, every such pod has one shim and its own process, and nobody else has any.
    async fn look_for_orphans(&self) {
        let root = self.root();
        let mut staying: Vec<String> = self.actors.values().filter(|actor| actor.stays()).map(|actor| actor.uid.clone()).collect();
        staying.sort();
        let only_theirs = || {
            let all_known = of_pods(&root).iter().all(|process| staying.contains(&process.pod));
            (all_known && guarded(&root) == staying).then_some(())
        };
        let told = || {
            let (processes, shims) = (of_pods(&root), guarded(&root));
            format!("nothing but the pods {staying:?} to have processes; there are {processes:?} and the shims of {shims:?}")
        };
        eventually(told, only_theirs).await;
        for actor in self.actors.values().filter(|actor| actor.stays()) {
            let pid = crate::checks::Journal::of(actor).starts.last().copied();
            assert!(pid.is_some_and(is_alive), "the process of {actor:?} is gone");
        }
    }

    async fn end(mut self) -> Counts {
        for name in self.actors.keys().cloned().collect::<Vec<_>>() {
            self.delete(&name).await;
        }
        self.rest().await;
        assert!(self.kubelet.take().expect("it was started").interrupt().await.success());
        assert_eq!((of_pods(&self.root()), guarded(&self.root())), (Vec::new(), Vec::new()));
        self.tasks.shutdown(Duration::from_secs(1)).await;
        self.cluster.finish().await;
        self.counts
    }
}

/// Whether all runs have been written down. What a status tells may be ahead of what a process has got to write.
fn said_all(actor: &Actor) -> Option<()> {
    let journal = crate::checks::Journal::of(actor);
    (journal.starts.len() >= actor.starts() && journal.ends.len() >= actor.ends().len()).then_some(())
}

/// What is left to look at when something was wrong.
struct Evidence {
    seed: u64,
    folder: Option<TempDir>,
}

impl Evidence {
    fn folder(&self) -> &std::path::Path {
        self.folder.as_ref().expect("until it is dropped").path()
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("repeat with BLUEBIRD_SEED={}; everything is left in {}", self.seed, folder.keep().display());
        }
    }
}
