//! `kill -9` of the apiserver in the middle of writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bluebird::api::Resource;
use bluebird::api::v1::{ConditionStatus, Lease, LeaseSpec, Node, Pod, RestartPolicy, Selector};
use bluebird::client::{Cache, Client};
use bluebird::testing::{Witness, free_port};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::follower::{Follower, pid};
use super::program::{DEADLINE, Program, free_range};

const WRITERS: usize = 64;
const KILLS: usize = 10;
/// How many writes are acknowledged before each kill.
const WRITES_PER_LIFE: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_survives_ten_kills_and_nothing_unacknowledged_is_there_by_half() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
    let url = format!("http://{listen}");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let start = || Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let mut apiserver = start();

    let follower = Follower::connect(&url).await;
    let Follower { client, cache, tasks } = &follower;
    let mut witness = Witness::start(client, tasks).await.expect("the apiserver answers");
    witness.watch("leases", client.clone(), vec![Selector { kind: "Lease".into(), ..Default::default() }], tasks);
    let root = folder.path().join("node");
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root.to_str().expect("text")];
    let mut kubelet = Program::start(folder.path(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args);
    let process = follower.run("steady", "exec sleep 1000", RestartPolicy::Always).await;

    let (count, mut acknowledged) = watch::channel(0);
    let over = CancellationToken::new();
    let writes = Arc::new(Mutex::new(BTreeSet::new()));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Client::new(&url).expect("a URL"), writer, over.clone(), writes.clone(), count.clone()));
    }
    for kill in 1..=KILLS {
        let enough = acknowledged.wait_for(|count| *count >= kill * WRITES_PER_LIFE);
        tokio::time::timeout(DEADLINE, enough).await.expect("writes are acknowledged").expect("the writers run");
        apiserver.kill();
        apiserver = start();
    }
    over.cancel();
    while let Some(writer) = writers.join_next().await {
        writer.expect("a writer does not panic");
    }

    let listed = client.list_objects(Selector { kind: "Lease".into(), ..Default::default() }).await.expect("the apiserver answers");
    let mut pairs: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for object in &listed.objects {
        let lease = Lease::from_object_ref(object).expect("asked for");
        let Some((pair, half)) = lease.meta().name.rsplit_once('-') else { continue };
        let holder = lease.spec.as_ref().map(|spec| spec.holder_identity.clone());
        assert_eq!(holder.as_deref(), Some(pair));
        pairs.entry(pair.to_owned()).or_default().push((half.to_owned(), lease.meta().resource_version));
    }
    let writes = writes.lock().expect("no writer panicked").clone();
    for (pair, halves) in &pairs {
        assert!(
            matches!(halves.as_slice(), [(a, at), (b, also)] if a == "a" && b == "b" && at == also),
            "{pair} is there by half: {halves:?}"
        );
    }
    let lost: Vec<_> = writes.iter().filter(|(pair, revision)| pairs.get(pair).is_none_or(|halves| halves[0].1 != *revision)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), writes.len());
    assert!(writes.len() >= KILLS * WRITES_PER_LIFE);

    let now = client.list_objects(Selector::default()).await.expect("the apiserver answers").revision;
    tokio::time::timeout(DEADLINE, witness.verify(client)).await.expect("watches catch up").unwrap_or_else(|broken| panic!("{broken}"));
    assert!(witness.resumes() >= KILLS, "watches were cut off and resumed: {}", witness.resumes());
    assert!(cache.reached(now).await);
    assert_eq!(cache.relists(), 0);
    let ready = |cache: &Cache| {
        let node = cache.get::<Node>("", "n1")?;
        let ready = node.status.as_ref()?.conditions.iter().find(|condition| condition.r#type == "Ready")?;
        (ready.status() == ConditionStatus::True).then_some(())
    };
    follower.wait_for("the kubelet to be back", ready).await;
    assert_eq!(cache.get::<Pod>("", "steady").and_then(|pod| pid(&pod)), Some(process), "the pod never noticed");

    client.delete::<Pod>("", "steady", Default::default()).await.expect("it exists");
    follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", "steady").is_none().then_some(())).await;
    assert!(kubelet.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
    follower.tasks.shutdown(Duration::from_secs(1)).await;
    #[cfg(target_os = "linux")]
    assert_eq!(super::program::processes_of(folder.path()), []);
}

/// Writes pairs of leases, each pair at one revision, and notes what was acknowledged.
async fn write(
    client: Client,
    writer: usize,
    over: CancellationToken,
    writes: Arc<Mutex<BTreeSet<(String, u64)>>>,
    count: watch::Sender<usize>,
) {
    for number in 0.. {
        if over.is_cancelled() {
            return;
        }
        let pair = format!("w{writer}-{number}");
        let halves = ["a", "b"].map(|half| {
            let mut lease = Lease {
                spec: Some(LeaseSpec { holder_identity: pair.clone(), lease_duration_seconds: 1, ..Default::default() }),
                ..Default::default()
            };
            lease.meta_mut().name = format!("{pair}-{half}");
            lease.into_object()
        });
        match client.apply(halves.to_vec(), "writer", false).await {
            Ok(applied) => {
                writes.lock().expect("no writer panicked").insert((pair, applied.revision));
                count.send_modify(|count| *count += 1);
            }
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{pair} was refused: {error}"),
        }
    }
}
