//! A run: clients at work, watches that follow, faults one after the other, and the question whether all promises were kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bluebird::api::v1::{Lease, Selector};
use bluebird::client::Client;
use bluebird::tasks::Tasks;
use bluebird::testing::{Etcd, Witness};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::clients::{Clients, objects, perform};
use crate::fault::Fault;
use crate::fleet::Fleet;
use crate::history::Group;
use crate::model::{Answered, Asked, Objects};

/// After so many faults the histories are checked, and new ones begin.
const FAULTS_PER_ROUND: usize = 25;
/// How many operations are answered before the next fault, as a rule.
const ANSWERS_PER_FAULT: usize = 500;
/// What takes longer is told.
const SLOW: Duration = Duration::from_secs(10);
/// How long a server may take until it answers again, and a check.
const DEADLINE: Duration = Duration::from_secs(60);

/// What was done, for the last line.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) faults: BTreeMap<Fault, usize>,
    pub(crate) operations: usize,
    pub(crate) unknown: usize,
    pub(crate) acknowledged: usize,
    pub(crate) histories: usize,
    pub(crate) resumes: usize,
    /// How often a server had to be started again that no fault had ended.
    pub(crate) revived: usize,
}

/// Everything that a run needs.
pub(crate) struct Run {
    rng: fastrand::Rng,
    fleet: Fleet,
    counts: Counts,
    /// The last state of every group that was checked.
    settled: Vec<(String, Objects)>,
    /// The last field: whatever uses it is gone before it.
    evidence: Evidence,
}

impl Run {
    /// Starts one apiserver, or three on an etcd.
    pub(crate) async fn start(seed: u64, etcd: Option<Etcd>) -> Run {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fleet = Fleet::start(folder.path(), etcd).await;
        let (rng, evidence) = (fastrand::Rng::with_seed(seed), Evidence { seed, folder });
        Run { rng, fleet, counts: Counts::default(), settled: Vec::new(), evidence }
    }

    /// So many faults. Panics at the first promise that was not kept.
    pub(crate) async fn suffer(mut self, faults: usize) -> Counts {
        let start = Instant::now();
        let mut done = 0;
        while done < faults {
            let now = FAULTS_PER_ROUND.min(faults - done);
            self.round(now).await;
            done += now;
            let Counts { operations, unknown, histories, resumes, .. } = self.counts;
            println!(
                "{done} of {faults} faults in {:.0?}: {operations} operations, {unknown} without an answer, {histories} histories checked, {resumes} \
                 resumed watches",
                start.elapsed()
            );
        }
        self.check_what_is_left().await;
        self.counts.revived = self.fleet.revived();
        self.fleet.end().await;
        self.counts
    }

    async fn round(&mut self, faults: usize) {
        let client = self.fleet.client(0);
        self.answers().await;
        let tasks = Tasks::new(CancellationToken::new());
        let mut witness = Witness::start(&client, &tasks).await.expect("it answers");
        self.fleet.begins_at(witness.revision().0);
        let (urls, leases) = (self.fleet.urls(), Selector { kind: "Lease".into(), ..Default::default() });
        for url in &urls {
            witness.watch(&format!("leases of {url}"), Client::new(url).expect("a URL"), vec![leases.clone()], &tasks);
        }
        let clients = Clients::start(&urls, &mut self.rng, 1000 * self.counts.histories as u64);
        let mut answered = clients.answered();
        for _ in 0..faults {
            let begun = Instant::now();
            let fault = self.fleet.suffer(&mut self.rng).await;
            *self.counts.faults.entry(fault).or_default() += 1;
            // Some come before the servers have recovered from the one before.
            let enough = *answered.borrow_and_update() + if self.rng.u8(..8) == 0 { 1 } else { ANSWERS_PER_FAULT };
            let progress = tokio::time::timeout(DEADLINE, answered.wait_for(|answered| *answered >= enough)).await;
            drop(progress.unwrap_or_else(|_| panic!("nothing is answered after {fault:?}")).expect("the clients run"));
            if begun.elapsed() > SLOW {
                println!("{fault:?} was felt for {:.1?}", begun.elapsed());
            }
        }
        self.answers().await;
        let (groups, operations, unknown) = clients.stop().await;
        self.counts.operations += operations;
        self.counts.unknown += unknown;
        self.check_histories(&client, groups.clone()).await;
        let verified = tokio::time::timeout(DEADLINE, witness.verify(&client)).await.expect("watches catch up");
        let changes = Changes::of(&verified.unwrap_or_else(|broken| panic!("{broken}")));
        self.counts.resumes += witness.resumes();
        for group in &groups {
            self.counts.acknowledged += changes.check(group).unwrap_or_else(|lost| panic!("{lost}"));
        }
        tasks.shutdown(Duration::from_secs(1)).await;
    }

    /// Waits until every server answers.
    async fn answers(&mut self) {
        for number in 0..self.fleet.len() {
            let client = self.fleet.client(number);
            let answers = async {
                while let Err(error) = client.list::<Lease>("nowhere").await {
                    assert!(error.is_retryable(), "{error}");
                    self.fleet.revive();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(DEADLINE, answers).await.expect("it answers again");
        }
    }

    /// Each history ends with a list, which has to show whatever was acknowledged.
    async fn check_histories(&mut self, client: &Client, groups: Vec<Arc<Group>>) {
        for group in &groups {
            let listed = perform(client, group, Asked::List).await;
            let Some((_, Answered::Listed { objects, .. })) = listed else { panic!("the last list was answered with {listed:?}") };
            self.settled.push((group.name.clone(), objects));
        }
        self.counts.histories += groups.len();
        let check = tokio::task::spawn_blocking(move || groups.iter().try_for_each(|group| group.check()));
        let checked = tokio::time::timeout(DEADLINE, check).await.expect("the checker comes to an end").expect("no panic");
        if let Err(fault) = checked {
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{}.txt", self.evidence.seed));
            std::fs::write(&path, &fault).expect("a file in the target folder");
            panic!("{}\nthe whole history is in {}", fault.lines().next().unwrap_or_default(), path.display());
        }
    }

    /// Whatever all groups were when they were checked, they still are.
    async fn check_what_is_left(&self) {
        for number in 0..self.fleet.len() {
            let listed =
                self.fleet.client(number).list_objects(Selector { kind: "Lease".into(), ..Default::default() }).await.expect("it answers");
            for (group, settled) in &self.settled {
                assert_eq!(objects(group, &listed.objects), *settled, "group {group} has changed by itself");
            }
        }
    }
}

/// The run's folder, which is kept when the run fails.
struct Evidence {
    seed: u64,
    folder: TempDir,
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("repeat with BLUEBIRD_SEED={}; data and logs are in {}", self.seed, self.folder.path().display());
        }
    }
}
