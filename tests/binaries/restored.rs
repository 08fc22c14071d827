//! A backup under writes, a disaster, and a restore: with the real executables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bluebird::api::Resource;
use bluebird::api::Revision;
use bluebird::api::v1::{Lease, LeaseSpec, WatchRequest};
use bluebird::client::Client;
use bluebird::error::Error;
use tokio_util::sync::CancellationToken;

use super::follower::Follower;
use super::program::{DEADLINE, Program, free_range};
use bluebird::testing::free_port;

const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_is_that_of_the_backup_and_every_watcher_of_the_old_one_heals() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
    let url = format!("http://{listen}");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let start = |data: &str| {
        let args = ["--data-dir", data, "--listen", &listen, "--service-cidr", &range];
        Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args)
    };
    let (old, new, file) = (path("old"), path("new"), path("backup"));
    let mut apiserver = start(&old);
    let follower = Follower::connect(&url).await;

    let over = CancellationToken::new();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Client::new(&url).expect("a URL"), writer, over.clone()));
    }
    let count = |wanted: usize| move |cache: &bluebird::client::Cache| (cache.list::<Lease>().len() >= wanted).then_some(());
    follower.wait_for("writes", count(200)).await;
    let backup = run(folder.path(), env!("CARGO_BIN_EXE_bluebird"), &["backup", &file, "--server", &url]).await.expect("a backup");
    let so_far = follower.cache.list::<Lease>().len();
    follower.wait_for("writes after the backup", count(so_far + 100)).await;
    let in_use = run(folder.path(), env!("CARGO_BIN_EXE_apiserver"), &["restore", &file, "--data-dir", &old]).await;
    assert!(in_use.as_ref().is_err_and(|said| said.contains("in use by another apiserver")), "{in_use:?}");
    over.cancel();
    let mut acknowledged = BTreeMap::new();
    while let Some(written) = writers.join_next().await {
        acknowledged.extend(written.expect("a writer does not panic"));
    }
    let newest = *acknowledged.values().max().expect("writes");
    follower.wait_for("all of them", |cache| (cache.revision() >= Revision(newest)).then_some(())).await;
    let backed_up: u64 = backup
        .split(" at revision ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok())
        .expect("a revision");
    apiserver.kill();

    let restored = run(folder.path(), env!("CARGO_BIN_EXE_apiserver"), &["restore", &file, "--data-dir", &new]).await.expect("a restore");
    assert!(restored.contains(&format!("objects of revision {backed_up} are in {new}")), "{restored}");
    let again = run(folder.path(), env!("CARGO_BIN_EXE_apiserver"), &["restore", "--data-dir", &new, &file]).await;
    assert!(again.as_ref().is_err_and(|said| said.contains("there is a store in")), "{again:?}");
    let mut apiserver = start(&new);

    // The cache, which had seen more than there is now, has exactly what there is.
    let expected: BTreeMap<_, _> = acknowledged.into_iter().filter(|(_, revision)| *revision <= backed_up).collect();
    let leases = |cache: &bluebird::client::Cache| -> BTreeMap<String, u64> {
        cache.list::<Lease>().iter().map(|lease| (lease.meta().name.clone(), lease.meta().resource_version)).collect()
    };
    let names: BTreeSet<_> = expected.keys().cloned().collect();
    follower
        .wait_for("the cache to heal", |cache| {
            let found: BTreeMap<_, _> = leases(cache).into_iter().filter(|(name, _)| name.starts_with('w')).collect();
            (found.keys().cloned().collect::<BTreeSet<_>>() == names && found == expected).then_some(())
        })
        .await;
    for from in [1, backed_up, newest] {
        let refused = end(&follower.client, from).await;
        assert!(matches!(refused, Error::Compacted { requested, .. } if requested == Revision(from)), "{refused:?}");
    }
    let created = follower.client.create(lease("after")).await.expect("the apiserver answers").meta().resource_version;
    assert!(created > newest + 100_000_000, "{created} after {newest}");
    assert!(follower.cache.reached(Revision(created)).await);
    assert!(apiserver.interrupt().await.success());
    follower.tasks.shutdown(Duration::from_secs(1)).await;
}

/// What a watch that resumes from a revision ends with.
async fn end(client: &Client, from_revision: u64) -> Error {
    match client.watch(WatchRequest { from_revision, ..Default::default() }).await {
        Err(error) => error,
        Ok(mut watch) => tokio::time::timeout(DEADLINE, watch.next()).await.expect("an answer").expect_err("the history is gone"),
    }
}

/// Runs a program to its end: what it has said, as an error if it failed.
async fn run(folder: &Path, program: &str, args: &[&str]) -> Result<String, String> {
    let name = format!("{}-{}", args[0], fastrand::u64(..));
    let mut program = Program::start(folder, &name, program, args);
    let status = program.ended().await;
    if status.success() { Ok(program.said()) } else { Err(program.said()) }
}

fn lease(name: &str) -> Lease {
    let spec = LeaseSpec { holder_identity: name.to_owned(), lease_duration_seconds: 1, ..Default::default() };
    let mut lease = Lease { spec: Some(spec), ..Default::default() };
    lease.meta_mut().name = name.to_owned();
    lease
}

/// Creates leases until it is over; returns their revisions.
async fn write(client: Client, writer: usize, over: CancellationToken) -> Vec<(String, u64)> {
    let mut written = Vec::new();
    while !over.is_cancelled() {
        let name = format!("w{writer}-{}", written.len());
        let created = client.create(lease(&name)).await.expect("the apiserver answers");
        written.push((name, created.meta().resource_version));
    }
    written
}
