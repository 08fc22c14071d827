//! Services lead to ready pods, and never to a pod that was asked to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bluebird::api::v1::{ExecAction, Pod, Probe, probe};
use bluebird::client::DeleteOptions;
use bluebird::testing::Link;

use super::objects::{PodExt, pod, service, web};
use super::steps::{cluster, get, run, wait_for_endpoints, wait_until_pod_is_gone};

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_answer_in_turn() {
    let cluster = cluster(1).await;
    cluster.client().create(service("web", "web")).await.expect("a valid service");
    for name in ["web-1", "web-2", "web-3"] {
        run(&cluster, web(name, "web")).await;
    }
    let vip = wait_for_endpoints(&cluster, "web", 3).await;
    wait_for_answers(&cluster, vip, 3).await;
    let mut answers = BTreeMap::new();
    for _ in 0..9 {
        *answers.entry(get(vip).await.expect("a replica answers")).or_insert(0) += 1;
    }
    assert_eq!(answers.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{answers:?}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_go_to_pods_whose_readiness_probe_passes_and_to_no_others() {
    let cluster = cluster(1).await;
    cluster.client().create(service("web", "web")).await.expect("a valid service");
    let flag = cluster.folder().join("ready");
    let mut probed = web("web-2", "web");
    let command = vec!["test".into(), "-e".into(), flag.display().to_string()];
    probed.spec.as_mut().expect("a spec").containers[0].readiness_probe = Some(Probe {
        handler: Some(probe::Handler::Exec(ExecAction { command })),
        period_seconds: 1,
        failure_threshold: 1,
        timeout_seconds: 10,
        ..Probe::default()
    });
    run(&cluster, web("web-1", "web")).await;
    run(&cluster, probed).await;
    let vip = wait_for_endpoints(&cluster, "web", 1).await;
    wait_for_answers(&cluster, vip, 1).await;
    std::fs::write(&flag, "").expect("a writable folder");
    wait_for_endpoints(&cluster, "web", 2).await;
    wait_for_answers(&cluster, vip, 2).await;
    std::fs::remove_file(&flag).expect("it is there");
    wait_for_endpoints(&cluster, "web", 1).await;
    wait_for_answers(&cluster, vip, 1).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_every_pod_is_replaced() {
    let cluster = cluster(2).await;
    cluster.client().create(service("web", "web")).await.expect("a valid service");
    for number in 0..3 {
        run(&cluster, web(&format!("web-{number}"), "web")).await;
    }
    let vip = wait_for_endpoints(&cluster, "web", 3).await;
    wait_for_answers(&cluster, vip, 3).await;

    let over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let over = over.clone();
        clients.spawn(async move {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                get(vip).await?;
                answered += 1;
            }
            Ok::<u32, std::io::Error>(answered)
        });
    }
    for number in 3..9 {
        run(&cluster, web(&format!("web-{number}"), "web")).await;
        wait_for_endpoints(&cluster, "web", 4).await;
        let old = format!("web-{}", number - 3);
        cluster.client().delete::<Pod>("default", &old, DeleteOptions::default()).await.expect("it exists");
        wait_until_pod_is_gone(&cluster, &old).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client.expect("no panic").expect("every request is answered");
    }
    assert!(answered > 100, "{answered}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_not_asked_to_stop_before_every_router_has_let_go_of_it() {
    let cluster = cluster(2).await;
    cluster.client().create(service("web", "web")).await.expect("a valid service");
    let asked = cluster.folder().join("asked");
    let script = format!("trap 'touch {}; exit 0' TERM; sleep 1000 & wait", asked.display());
    let mut behind = web("web", "web").on(cluster.node_name(0));
    behind.spec.as_mut().expect("it has").containers[0].command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    run(&cluster, behind).await;
    wait_for_endpoints(&cluster, "web", 1).await;

    // The other node's router can't tell that it has let go.
    cluster.set_node_link(1, Link::Silent);
    cluster.client().delete::<Pod>("default", "web", DeleteOptions::default()).await.expect("it exists");
    wait_for_endpoints(&cluster, "web", 0).await;
    run(&cluster, pod("later", "exec sleep 1000").on(cluster.node_name(0)).grace(0)).await;
    assert!(!asked.exists(), "asked to stop while a router may still lead to it");
    cluster.set_node_link(1, Link::Good);
    wait_until_pod_is_gone(&cluster, "web").await;
    assert!(asked.exists());
    cluster.finish().await;
}

/// The routers may be a moment behind the slice that the test has seen.
async fn wait_for_answers(cluster: &bluebird::testing::TestCluster, vip: std::net::SocketAddr, replicas: usize) {
    let mut answers = std::collections::BTreeSet::new();
    let all = async {
        while answers.len() < replicas {
            match get(vip).await {
                Ok(answer) => drop(answers.insert(answer)),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), all)
        .await
        .unwrap_or_else(|_| panic!("seed {}: {vip} is not routed", cluster.seed()));
}
