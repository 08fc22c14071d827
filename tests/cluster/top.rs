//! What nodes and pods use, from their processes to the answer.

use std::time::Duration;

use bluebird::api::v1::{NodeUsage, PodUsage, Selector, TopPod, TopRequest};
use bluebird::client::Client;
use bluebird::error::Error;
use bluebird::testing::TestCluster;

use super::objects::{PodExt, pod};
use super::steps::{cluster, run};

/// How long a figure may take to be as it should.
const PATIENCE: Duration = Duration::from_secs(60);

fn request(kind: &str, name: &str) -> TopRequest {
    TopRequest { selector: Some(Selector { kind: kind.into(), name: name.into(), ..Default::default() }) }
}

async fn pod_row(client: &Client, name: &str) -> TopPod {
    client.top(request("Pod", name)).await.expect("an answer").pods.remove(0)
}

/// Asks until what a pod uses is as it should be.
async fn until(client: &Client, name: &str, what: &str, is_so: impl Fn(&PodUsage) -> bool) -> PodUsage {
    let mut last = None;
    let search = async {
        loop {
            let row = pod_row(client, name).await;
            match row.usage.clone().filter(|usage| is_so(usage)) {
                Some(usage) => return usage,
                None => last = Some(row),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("{name} never was {what}: {last:?}"))
}

fn cpu(usage: &PodUsage) -> u64 {
    usage.containers[0].cpu_millis.unwrap_or_default()
}

fn memory(usage: &PodUsage) -> u64 {
    usage.containers[0].memory_bytes.unwrap_or_default()
}

async fn node_usage(cluster: &TestCluster) -> NodeUsage {
    let answer = cluster.client().top(request("Node", cluster.node_name(0))).await.expect("an answer");
    answer.nodes[0].usage.expect("figures")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_use_is_seen_while_they_use_it_and_nothing_of_it_is_stored() {
    let cluster = cluster(1).await;
    let client = cluster.client();
    // Its work is done by processes that come and go, and by one whose parent has gone.
    run(
        &cluster,
        pod("busy", "(setsid sh -c 'while :; do :; done' &); while :; do sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; done")
            .grace(0),
    )
    .await;
    run(
        &cluster,
        pod(
            "large",
            "x=$(head -c 40000000 /dev/zero | tr '\\0' x); head -c 5000000 /dev/zero > file; exec 3>&1; while :; do sleep 100; done",
        )
        .grace(0),
    )
    .await;
    run(&cluster, pod("idle", "exec sleep 1000").grace(0)).await;

    let busy = until(&client, "busy", "busy", |usage| cpu(usage) >= 150).await;
    let large = until(&client, "large", "large", |usage| memory(usage) >= 35_000_000 && usage.disk_bytes >= Some(5_000_000)).await;
    let idle = until(&client, "idle", "idle", |usage| usage.containers[0].cpu_millis.is_some_and(|millis| millis <= 20)).await;
    assert!(cpu(&busy) < 64_000 && memory(&idle) > 0 && memory(&idle) < memory(&large), "{busy:?} {large:?} {idle:?}");
    assert_eq!(idle.containers[0].name, "main");
    let node = node_usage(&cluster).await;
    assert!(node.memory_bytes >= Some(memory(&large)), "{node:?}");
    assert!(node.cpu_millis.is_some() && node.disk_bytes <= node.disk_total_bytes && node.disk_total_bytes > Some(0), "{node:?}");

    // Whatever else there was to tell has been told by and by.
    let revision = async || client.list_objects(Selector::default()).await.expect("a list").revision;
    let quiet = async {
        loop {
            let before = revision().await;
            for name in ["busy", "large", "idle"] {
                assert!(pod_row(&client, name).await.usage.is_some());
            }
            if revision().await == before {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, quiet).await.expect("asking what is used writes nothing");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_shows_no_stale_figures() {
    let mut cluster = cluster(1).await;
    let client = cluster.client();
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    until(&client, "web", "measured", |usage| memory(usage) > 0).await;
    cluster.kill_kubelet(0).await;
    let gone = async {
        loop {
            let row = pod_row(&client, "web").await;
            if let Some(missing) = row.missing {
                assert_eq!(row.usage, None);
                return missing.message;
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, gone).await.expect("it is known that the node is gone");
    assert_eq!(why, format!("node {:?} is not connected at the moment", cluster.node_name(0)));
    assert!(matches!(client.top(request("Pod", "nobody")).await, Err(Error::NotFound(_))));
    // The next kubelet measures the same processes.
    cluster.start_kubelet(0).await;
    until(&client, "web", "measured again", |usage| memory(usage) > 0).await;
    cluster.finish().await;
}
