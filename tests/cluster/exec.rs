//! Commands in containers: what they are told and tell, and what becomes of them when somebody on their way is killed or goes away.

use std::path::Path;
use std::time::Duration;

use bluebird::api::Resource;
use bluebird::api::v1::exec_request::Message as Said;
use bluebird::api::v1::exec_response::Message as Told;
use bluebird::api::v1::{ExecEnd, ExecRequest, ExecResponse, ExecStart, Pod};
use bluebird::client::{Client, DeleteOptions, Incoming};
use bluebird::error::Error;
use bluebird::testing::TestCluster;
use tokio::sync::mpsc::Sender;

use super::objects::{PodExt, pod};
use super::steps::{cluster, is_alive, run};

const PATIENCE: Duration = Duration::from_secs(20);

fn sh(pod: &str, script: &str) -> ExecStart {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    ExecStart { pod: pod.into(), command, stdin: true, ..Default::default() }
}

/// A script that starts a process two forks away, in a session of its own, deaf to SIGTERM, writes its id to a file, and goes on as said.
fn with_daemon(file: &Path, then: &str) -> String {
    let daemon = "trap '' TERM HUP; echo $$ > \"$0.new\"; mv \"$0.new\" \"$0\"; while :; do sleep 100; done";
    format!("(setsid sh -c '{}' {} &); {then}", daemon.replace('\'', "'\\''"), file.display())
}

struct Command {
    inputs: Sender<ExecRequest>,
    outputs: Incoming<ExecResponse>,
}

impl Command {
    async fn start(client: &Client, start: ExecStart) -> Result<Self, Error> {
        client.exec(start).await.map(|(inputs, outputs)| Self { inputs, outputs })
    }

    async fn next(&mut self) -> Result<Option<Told>, Error> {
        let next = tokio::time::timeout(PATIENCE, self.outputs.next()).await.expect("an answer")?;
        Ok(next.and_then(|response| response.message))
    }

    /// Everything that it writes to standard output, and how it ends.
    async fn read_all(&mut self) -> Result<(String, ExecEnd), Error> {
        let mut text = Vec::new();
        loop {
            match self.next().await? {
                Some(Told::Stdout(data)) => text.extend(data),
                Some(Told::Stderr(data)) => panic!("{}", String::from_utf8_lossy(&data)),
                Some(Told::End(end)) => return Ok((String::from_utf8(text).expect("text"), end)),
                None => panic!("it has no end"),
            }
        }
    }
}

/// Waits for the process that a script has left behind.
async fn daemon_in(cluster: &TestCluster, file: &Path) -> i32 {
    cluster.eventually("the process of the command", || std::fs::read_to_string(file).ok()?.trim().parse().ok()).await
}

async fn until_dead(cluster: &TestCluster, pid: i32) {
    cluster.eventually("the tree of the command to be gone", || (!is_alive(pid)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_its_pods_container_on_whichever_node_that_is() {
    let cluster = cluster(2).await;
    for name in ["a", "b", "c", "d"] {
        run(&cluster, pod(name, "exec sleep 1000").grace(0)).await;
    }
    for name in ["a", "b", "c", "d"] {
        let uid = cluster.client().get::<Pod>("default", name).await.expect("it runs").meta().uid.clone();
        let mut command = Command::start(&cluster.client(), sh(name, "cat; echo $BLUEBIRD_POD_UID; exit 4")).await.expect("it is run");
        command.inputs.send(ExecRequest { message: Some(Said::Stdin(b"hello ".into())) }).await.expect("it listens");
        (command.inputs, _) = tokio::sync::mpsc::channel(1);
        let (text, end) = command.read_all().await.expect("an end");
        assert_eq!((text, end.exit_code), (format!("hello {uid}\n"), 4));
        assert_eq!(command.next().await, Ok(None));
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_container_that_does_not_run_is_refused_with_the_reason() {
    let cluster = cluster(1).await;
    cluster.client().create(pod("over", "exit 3").restart(bluebird::api::v1::RestartPolicy::Never)).await.expect("valid");
    let failed = |pod: &Pod| super::objects::phase(pod) == bluebird::api::v1::PodPhase::Failed;
    super::steps::wait_for_pod(&cluster, "over", "to have failed", failed).await;
    let mut command = Command::start(&cluster.client(), sh("over", "true")).await.expect("the node answers");
    match command.next().await {
        Err(Error::Precondition(why)) => assert_eq!(why, "container main has ended with exit code 3"),
        other => panic!("{other:?}"),
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_whole_tree_when_whoever_asked_for_it_goes_away() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    // One that reads nothing, one that writes without being read, and one that waits.
    for (number, then) in ["exec sleep 1000", "exec yes", "cat"].into_iter().enumerate() {
        let file = cluster.folder().join(format!("pid{number}"));
        let command = Command::start(&cluster.client(), sh("web", &with_daemon(&file, then))).await.expect("it is run");
        let daemon = daemon_in(&cluster, &file).await;
        let piece = || ExecRequest { message: Some(Said::Stdin(vec![7; 32 * 1024])) };
        if number == 0 {
            while tokio::time::timeout(Duration::from_millis(300), command.inputs.send(piece())).await.is_ok() {}
        }
        assert!(is_alive(daemon));
        drop(command);
        until_dead(&cluster, daemon).await;
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_client_does_not_read_ends_with_its_pod() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    let file = cluster.folder().join("pid");
    let mut command = Command::start(&cluster.client(), sh("web", &with_daemon(&file, "exec yes"))).await.expect("it is run");
    let daemon = daemon_in(&cluster, &file).await;
    cluster.client().delete::<Pod>("default", "web", DeleteOptions::default()).await.expect("it exists");
    super::steps::wait_until_pod_is_gone(&cluster, "web").await;
    until_dead(&cluster, daemon).await;
    let refusal = loop {
        match command.next().await {
            Ok(Some(Told::Stdout(_))) => {}
            other => break other,
        }
    };
    // Whichever is seen first, that its container has ended or that the command has, by the same kill.
    let is_told = match &refusal {
        Err(Error::Precondition(why)) => why.contains("has ended, and the command with it"),
        Ok(Some(Told::End(end))) => end.exit_code == 137,
        _ => false,
    };
    assert!(is_told, "{refusal:?}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_client_does_not_read_waits_and_is_not_kept_in_memory() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    let file = cluster.folder().join("written");
    let script = format!("while head -c 65536 /dev/zero; do printf x >> {}; done", file.display());
    let mut command = Command::start(&cluster.client(), sh("web", &script)).await.expect("it is run");
    let written = || std::fs::metadata(&file).map_or(0, |file| file.len());
    let mut before = u64::MAX;
    let stands = async {
        while before != written() {
            before = written();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stands).await.expect("something holds it up");
    // All the windows and buffers between the two ends: about three megabytes.
    assert!((1..160).contains(&before), "{before} pieces of 64 KiB are on their way");
    let mut read = 0;
    while read <= before * 64 * 1024 {
        match command.next().await {
            Ok(Some(Told::Stdout(data))) => read += data.len() as u64,
            other => panic!("{other:?}"),
        }
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_container_and_its_client_is_told() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(1)).await;
    let file = cluster.folder().join("pid");
    let mut command = Command::start(&cluster.client(), sh("web", &with_daemon(&file, "exec sleep 1000"))).await.expect("it is run");
    let daemon = daemon_in(&cluster, &file).await;
    cluster.client().delete::<Pod>("default", "web", DeleteOptions::default()).await.expect("it exists");
    match command.next().await {
        Err(Error::Precondition(why)) => assert_eq!(why, "container main has ended, and the command with it"),
        other => panic!("{other:?}"),
    }
    until_dead(&cluster, daemon).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_when_the_apiserver_or_the_kubelet_is_killed_and_its_client_is_told() {
    let mut cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    for victim in ["apiserver", "kubelet", "connections"] {
        let file = cluster.folder().join(victim);
        let client = cluster.client();
        let mut command = Command::start(&client, sh("web", &with_daemon(&file, "exec sleep 1000"))).await.expect("it is run");
        let daemon = daemon_in(&cluster, &file).await;
        match victim {
            "apiserver" => cluster.restart_apiserver().await,
            "kubelet" => cluster.restart_kubelet(0).await,
            _ => cluster.cut_connections(),
        }
        let told = command.next().await;
        assert!(matches!(told, Err(Error::Unavailable(_))), "{victim}: {told:?}");
        until_dead(&cluster, daemon).await;
        // The node is there again once a command can be run.
        let again = async {
            loop {
                match Command::start(&cluster.client(), sh("web", "echo again")).await {
                    Ok(mut command) => break command.read_all().await.expect("an end").0,
                    Err(error) if error.is_unavailable() => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, again).await.expect("the node comes back"), "again\n");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_commands_run_at_once_and_one_more_is_refused_until_one_has_ended() {
    let cluster = cluster(1).await;
    run(&cluster, pod("web", "exec sleep 1000").grace(0)).await;
    let mut commands = Vec::new();
    for _ in 0..100 {
        let mut command = Command::start(&cluster.client(), sh("web", "echo up; exec sleep 1000")).await.expect("it is run");
        assert_eq!(command.next().await, Ok(Some(Told::Stdout(b"up\n".into()))));
        commands.push(command);
    }
    let mut refused = Command::start(&cluster.client(), sh("web", "true")).await.expect("the node answers");
    match refused.next().await {
        Err(Error::Exhausted { message, .. }) => assert_eq!(message, "100 commands run on this node already"),
        other => panic!("{other:?}"),
    }
    commands.pop();
    let again = async {
        loop {
            let mut command = Command::start(&cluster.client(), sh("web", "echo one more")).await.expect("the node answers");
            match command.read_all().await {
                Ok((text, _)) => break text,
                Err(Error::Exhausted { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, again).await.expect("there is room again"), "one more\n");
    cluster.finish().await;
}
