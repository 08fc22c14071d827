//! What becomes of pods when nothing fails but they.

use bluebird::api::Resource;
use bluebird::api::v1::{ConditionStatus, LogsRequest, Namespace, Pod, PodPhase, RestartPolicy, container_state::State};
use bluebird::client::DeleteOptions;
use bluebird::error::Error;

use super::objects::{PodExt, container, phase, pod, pod_condition};
use super::steps::{cluster, is_alive, logs, run, wait_for_pod, wait_until_pod_is_gone};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_shows_the_back_off_the_next_try_and_the_last_end() {
    let cluster = cluster(1).await;
    cluster.client().create(pod("crash", "echo oh no; exit 3")).await.expect("a valid pod");
    let pod = wait_for_pod(&cluster, "crash", "to wait for its second restart", |pod| {
        container(pod).is_some_and(|container| container.restart_count >= 1 && container.next_retry_time.is_some())
    })
    .await;
    assert_eq!(phase(&pod), PodPhase::Running);
    let status = container(&pod).expect("waited for");
    assert!(!status.ready);
    match status.state.as_ref().and_then(|state| state.state.as_ref()) {
        Some(State::Waiting(waiting)) => assert_eq!(waiting.reason, "CrashLoopBackOff"),
        other => panic!("{other:?}"),
    }
    let last = status.last_termination.as_ref().expect("it ended before");
    assert_eq!((last.exit_code, last.signal, last.reason.as_str()), (3, 0, "Error"));
    let previous = LogsRequest { pod: "crash".into(), previous: true, ..Default::default() };
    assert_eq!(logs(&cluster.client(), previous).await, "oh no\n");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ignores_the_request_to_stop_is_gone_with_its_whole_tree_after_the_grace_period() {
    let cluster = cluster(1).await;
    let pids = cluster.folder().join("pids");
    // The grandchild outlives its parent, in a session of its own where there is `setsid`.
    let script = format!(
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' & ); echo $$ >> {0}; while :; do sleep 1; done",
        pids.display()
    );
    run(&cluster, pod("stubborn", &script).grace(1)).await;
    let tree: Vec<i32> = cluster
        .eventually("both processes to have told their ids", || {
            let pids = std::fs::read_to_string(&pids).ok()?;
            let pids: Vec<i32> = pids.lines().filter_map(|pid| pid.parse().ok()).collect();
            (pids.len() == 2).then_some(pids)
        })
        .await;
    assert!(tree.iter().all(|pid| is_alive(*pid)));
    cluster.client().delete::<Pod>("default", "stubborn", DeleteOptions::default()).await.expect("it exists");
    wait_until_pod_is_gone(&cluster, "stubborn").await;
    assert_eq!(tree.iter().filter(|pid| is_alive(**pid)).count(), 0);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_restart_policy_does_what_it_says() {
    let cluster = cluster(1).await;
    let policies = [("always", RestartPolicy::Always), ("on-failure", RestartPolicy::OnFailure), ("never", RestartPolicy::Never)];
    for (name, policy) in policies {
        for code in [0, 1] {
            cluster.client().create(pod(&format!("{name}-{code}"), &format!("exit {code}")).restart(policy)).await.expect("a valid pod");
        }
    }
    let restarted = |pod: &Pod| container(pod).is_some_and(|container| container.restart_count > 0);
    for name in ["always-0", "always-1", "on-failure-1"] {
        wait_for_pod(&cluster, name, "to be restarted", restarted).await;
    }
    for (name, expected, code) in
        [("on-failure-0", PodPhase::Succeeded, 0), ("never-0", PodPhase::Succeeded, 0), ("never-1", PodPhase::Failed, 1)]
    {
        let pod = wait_for_pod(&cluster, name, "to have ended", |pod| phase(pod) == expected).await;
        match container(&pod).and_then(|container| container.state.as_ref()).and_then(|state| state.state.as_ref()) {
            Some(State::Terminated(end)) => assert_eq!(end.exit_code, code, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(!restarted(&pod), "{name}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_exist_is_said_to_and_tried_again_later() {
    let cluster = cluster(1).await;
    let mut missing = pod("missing", "");
    missing.spec.as_mut().expect("it has").containers[0].command = vec!["/nowhere/program".into()];
    cluster.client().create(missing).await.expect("a valid pod");
    let pod = wait_for_pod(&cluster, "missing", "to wait for its next try", |pod| {
        container(pod).is_some_and(|container| container.next_retry_time.is_some())
    })
    .await;
    assert!(format!("{:?}", container(&pod)).contains("/nowhere/program"), "{pod:?}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_no_node_says_why_and_runs_when_one_fits() {
    let cluster = cluster(1).await;
    cluster.client().create(pod("picky", "exec sleep 1000").where_label("disk", "fast").grace(0)).await.expect("a valid pod");
    let pod = wait_for_pod(&cluster, "picky", "to be refused by the scheduler", |pod| {
        pod_condition(pod, "PodScheduled").is_some_and(|condition| condition.status() == ConditionStatus::False)
    })
    .await;
    let condition = pod_condition(&pod, "PodScheduled").expect("waited for");
    assert_eq!(condition.reason, "Unschedulable");
    assert!(condition.message.contains("0/1") && condition.message.contains("disk"), "{}", condition.message);

    let mut node = cluster.client().get::<bluebird::api::v1::Node>("", cluster.node_name(0)).await.expect("it joined");
    node.meta_mut().labels.insert("disk".into(), "fast".into());
    node.meta_mut().resource_version = 0;
    cluster.client().update(node).await.expect("a valid node");
    wait_for_pod(&cluster, "picky", "to run", |pod| phase(pod) == PodPhase::Running).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_is_emptied_first_and_takes_nothing_new() {
    let cluster = cluster(1).await;
    let client = cluster.client();
    let mut namespace = Namespace::default();
    namespace.meta_mut().name = "team".into();
    client.create(namespace).await.expect("a valid namespace");
    let created = client.create(pod("worker", "trap 'exit 0' TERM; sleep 1000 & wait").in_namespace("team")).await;
    created.expect("a valid pod");
    let running = |state: &bluebird::client::Cache| state.get::<Pod>("team", "worker").filter(|pod| phase(pod) == PodPhase::Running);
    cluster.wait_for("the pod to run", running).await;
    client.delete::<Namespace>("", "team", DeleteOptions::default()).await.expect("it exists");
    match client.create(pod("late", "true").in_namespace("team")).await {
        Err(Error::Precondition(_) | Error::NotFound(_)) => {}
        other => panic!("{other:?}"),
    }
    cluster.wait_for("the namespace to be gone", |state| state.get::<Namespace>("", "team").is_none().then_some(())).await;
    assert!(client.list::<Pod>("team").await.expect("the apiserver answers").is_empty());
    cluster.finish().await;
}
