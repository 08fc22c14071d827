//! Parts are killed, and nothing is lost.

use std::time::Duration;

use bluebird::api::v1::{ConditionStatus, LogsRequest, Node, Pod, PodPhase, RestartPolicy, Selector, container_state::State};
use bluebird::client::DeleteOptions;
use bluebird::testing::Link;
use nix::sys::signal::Signal;

use super::objects::{PodExt, container, node_condition, phase, pid, pod, pod_condition};
use super::steps::{builder, cluster, is_alive, logs, run, signal_process, wait_for_pod, wait_until_pod_is_gone};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_keeps_its_process_when_its_kubelet_is_killed() {
    let mut cluster = cluster(1).await;
    let (_, process) = run(&cluster, pod("steady", "exec sleep 1000").grace(0)).await;
    cluster.kill_kubelet(0).await;
    assert!(is_alive(process));
    cluster.start_kubelet(0).await;
    // The kubelet has taken the pod up again once it runs another one.
    run(&cluster, pod("later", "exec sleep 1000").grace(0)).await;
    let pod = cluster.client().get::<Pod>("default", "steady").await.expect("it exists");
    assert_eq!((phase(&pod), pid(&pod), container(&pod).map(|status| status.restart_count)), (PodPhase::Running, Some(process), Some(0)));
    assert!(is_alive(process));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_the_kubelet_is_dead_is_reported_with_its_exit_code_and_its_words() {
    let mut cluster = cluster(1).await;
    let go = cluster.folder().join("go");
    let script = format!("echo first; while ! [ -e {} ]; do sleep 0.02; done; echo last; exit 7", go.display());
    let (_, process) = run(&cluster, pod("mortal", &script).restart(RestartPolicy::Never)).await;
    cluster.kill_kubelet(0).await;
    std::fs::write(&go, "").expect("the cluster's own folder");
    cluster.eventually("the process to end", || (!is_alive(process)).then_some(())).await;
    cluster.start_kubelet(0).await;
    let pod = wait_for_pod(&cluster, "mortal", "to have failed", |pod| phase(pod) == PodPhase::Failed).await;
    match container(&pod).and_then(|container| container.state.as_ref()).and_then(|state| state.state.as_ref()) {
        Some(State::Terminated(end)) => assert_eq!((end.exit_code, end.reason.as_str()), (7, "Error")),
        other => panic!("{other:?}"),
    }
    let request = LogsRequest { pod: "mortal".into(), ..Default::default() };
    assert_eq!(logs(&cluster.client(), request).await, "first\nlast\n");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_while_its_kubelet_is_dead_leaves_no_orphan() {
    let mut cluster = cluster(1).await;
    let (_, marked) = run(&cluster, pod("marked", "exec sleep 1000").grace(1)).await;
    let (_, removed) = run(&cluster, pod("removed", "exec sleep 1000").grace(1)).await;
    cluster.kill_kubelet(0).await;
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    cluster.client().delete::<Pod>("default", "marked", DeleteOptions::default()).await.expect("it exists");
    cluster.client().delete::<Pod>("default", "removed", at_once).await.expect("it exists");
    wait_until_pod_is_gone(&cluster, "removed").await;
    assert!(is_alive(marked) && is_alive(removed));
    cluster.start_kubelet(0).await;
    wait_until_pod_is_gone(&cluster, "marked").await;
    cluster.eventually("both processes to be gone", || (!is_alive(marked) && !is_alive(removed)).then_some(())).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_and_pods_go_on_over_restarts_of_the_apiserver_without_a_relist() {
    let mut cluster = cluster(1).await;
    cluster.watch("pods", vec![Selector { kind: "Pod".into(), ..Default::default() }]);
    let mut processes = Vec::new();
    for round in 0..3 {
        let (_, process) = run(&cluster, pod(&format!("round-{round}"), "exec sleep 1000").grace(0)).await;
        processes.push(process);
        cluster.restart_apiserver().await;
    }
    run(&cluster, pod("last", "exec sleep 1000").grace(0)).await;
    assert!(processes.iter().all(|process| is_alive(*process)));
    assert!(cluster.resumes() >= 2 * 3, "both watches were cut off and resumed");
    assert_eq!(cluster.cache().relists(), 0);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_are_resumed() {
    let cluster = cluster(1).await;
    for round in 0..5 {
        cluster.cut_connections();
        let (_, process) = run(&cluster, pod(&format!("round-{round}"), "exec sleep 1000").grace(0)).await;
        assert!(is_alive(process));
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_becomes_unknown_its_pods_are_marked_and_all_is_well_when_it_returns() {
    let grace = Duration::from_secs(2);
    let cluster = builder(1).configure(move |config| config.node_grace_period = grace).start().await;
    let (_, process) = run(&cluster, pod("lonely", "exec sleep 1000").grace(0)).await;
    cluster.set_node_link(0, Link::Silent);
    let ready = |status: ConditionStatus| {
        let name = cluster.node_name(0).to_owned();
        move |state: &bluebird::client::Cache| {
            let node = state.get::<Node>("", &name)?;
            (node_condition(&node, "Ready")?.status() == status).then_some(())
        }
    };
    cluster.wait_for("the node to be unknown", ready(ConditionStatus::Unknown)).await;
    let lost = |pod: &Pod| {
        pod_condition(pod, "Ready").is_some_and(|ready| ready.status() == ConditionStatus::Unknown && ready.reason == "NodeLost")
    };
    wait_for_pod(&cluster, "lonely", "to be marked", lost).await;
    assert!(is_alive(process), "nobody stops what nobody can see");
    cluster.set_node_link(0, Link::Good);
    cluster.wait_for("the node to be ready", ready(ConditionStatus::True)).await;
    let well = |pod: &Pod| pod_condition(pod, "Ready").is_some_and(|ready| ready.status() == ConditionStatus::True);
    let pod = wait_for_pod(&cluster, "lonely", "to be ready again", well).await;
    assert_eq!(pid(&pod), Some(process));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_somebody_killed_is_reported_with_the_signal_and_started_again() {
    let cluster = cluster(1).await;
    let (_, process) = run(&cluster, pod("victim", "exec sleep 1000").grace(0)).await;
    signal_process(process, Signal::SIGKILL);
    let pod = wait_for_pod(&cluster, "victim", "to run again", |pod| pid(pod).is_some_and(|pid| pid != process)).await;
    let last = container(&pod).and_then(|container| container.last_termination.as_ref()).expect("it ended before");
    assert_eq!((last.exit_code, last.signal), (137, 9));
    cluster.finish().await;
}
