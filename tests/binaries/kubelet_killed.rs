//! `kill -9` of the kubelet: its pods never notice.

use bluebird::api::Resource as _;
use bluebird::api::v1::exec_request::Message as Said;
use bluebird::api::v1::{
    Container, ExecAction, ExecRequest, ExecStart, LogsRequest, Pod, PodPhase, PodSpec, Probe, RestartPolicy, container_state::State, probe,
};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::follower::{Follower, phase, pid, state};
use super::program::{Program, eventually, free_range};
use bluebird::testing::free_port;

#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_their_processes_ends_and_words_and_nothing_is_orphaned() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, root, go) = (folder.path().join("data"), folder.path().join("node"), folder.path().join("go"));
    let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
    let url = format!("http://{listen}");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let mut apiserver = Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root.to_str().expect("text")];
    let start = || Program::start(folder.path(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args);
    let mut kubelet = start();
    let follower = Follower::connect(&url).await;

    let steady = follower.run("steady", "exec sleep 1000", RestartPolicy::Always).await;
    let doomed = follower.run("doomed", "exec sleep 1000", RestartPolicy::Always).await;
    let script = format!("echo first; while ! [ -e {} ]; do sleep 0.02; done; echo last; exit 7", go.display());
    let mortal = follower.run("mortal", &script, RestartPolicy::Never).await;

    // A command with a process two forks away that is deaf to requests; it does something more when its input is complete.
    let (deaf, complete) = (folder.path().join("deaf"), folder.path().join("complete"));
    let daemon = format!("trap \"\" TERM HUP; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 100; done", deaf.display());
    let script = format!("(setsid sh -c '{daemon}' &); cat > /dev/null; echo > {}; sleep 1000", complete.display());
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let start_of_it = ExecStart { pod: "steady".into(), command, stdin: true, ..Default::default() };
    let (inputs, mut outputs) = follower.client.exec(start_of_it).await.expect("it is run");
    inputs.send(ExecRequest { message: Some(Said::Stdin(b"half".into())) }).await.expect("it listens");
    let deaf = eventually(|| "the command to run".into(), || std::fs::read_to_string(&deaf).ok()?.trim().parse().ok()).await;

    kubelet.kill();
    assert!(outputs.next().await.is_err(), "a command without a kubelet has no end that anybody knows");
    eventually(|| "the end of the command's tree".into(), || is_gone(deaf).then_some(())).await;
    assert!(!complete.exists(), "half of an input was taken for all of it");
    std::fs::write(&go, "").expect("the test's own folder");
    eventually(|| "the process to end".into(), || is_gone(mortal).then_some(())).await;
    follower.client.delete::<Pod>("", "doomed", Default::default()).await.expect("it exists");
    assert!(!is_gone(steady) && !is_gone(doomed));

    let mut kubelet = start();
    follower.wait_for("the deleted pod to be gone", |cache| cache.get::<Pod>("", "doomed").is_none().then_some(())).await;
    assert!(is_gone(doomed), "an orphan");
    let failed =
        follower.wait_for("the end to be known", |cache| cache.get::<Pod>("", "mortal").filter(|pod| phase(pod) == PodPhase::Failed)).await;
    match state(&failed) {
        Some(State::Terminated(end)) => assert_eq!((end.exit_code, end.reason.as_str()), (7, "Error")),
        other => panic!("{other:?}"),
    }
    let mut log = follower.client.logs(LogsRequest { pod: "mortal".into(), ..Default::default() }).await.expect("there is a log");
    let mut words = Vec::new();
    while let Some(piece) = log.next().await.expect("the log can be read") {
        words.extend(piece.data);
    }
    assert_eq!(String::from_utf8_lossy(&words), "first\nlast\n");

    let pod = follower.client.get::<Pod>("", "steady").await.expect("it exists");
    assert_eq!((pid(&pod), is_gone(steady)), (Some(steady), false));
    assert_eq!(pod.status.expect("it has run").container_statuses[0].restart_count, 0);
    for name in ["steady", "mortal"] {
        follower.client.delete::<Pod>("", name, Default::default()).await.expect("it exists");
        follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", name).is_none().then_some(())).await;
    }
    assert!(kubelet.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
    #[cfg(target_os = "linux")]
    assert_eq!(super::program::processes_of(folder.path()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_runs_when_its_kubelet_is_killed_ends_with_all_that_it_started_and_counts_for_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [data, root, probing, over] = ["data", "node", "probing", "over"].map(|name| folder.path().join(name));
    let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
    let url = format!("http://{listen}");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let mut apiserver = Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root.to_str().expect("text"), "--no-routes"];
    let start = || Program::start(folder.path(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args);
    let mut kubelet = start();
    let follower = Follower::connect(&url).await;

    // It hangs, and so does what it has started two forks away, which is deaf to requests.
    let daemon = format!("trap \"\" TERM HUP; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 100; done", probing.display());
    let script = format!("[ -e {} ] && exit 0; (setsid sh -c '{daemon}' &); sleep 1000", over.display());
    let handler = Some(probe::Handler::Exec(ExecAction { command: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec() }));
    let liveness_probe = Some(Probe { handler, period_seconds: 1, timeout_seconds: 600, failure_threshold: 1, ..Default::default() });
    let command = ["/bin/sh", "-c", "exec sleep 1000"].map(str::to_owned).to_vec();
    let main = Container { name: "main".into(), command, readiness_probe: liveness_probe.clone(), liveness_probe, ..Default::default() };
    let mut pod = Pod { spec: Some(PodSpec { containers: vec![main], ..Default::default() }), ..Default::default() };
    pod.meta_mut().name = "probed".into();
    follower.client.create(pod).await.expect("a valid pod");
    let probed = follower.wait_for("the pod to run", |cache| pid(&*cache.get::<Pod>("", "probed")?)).await;
    let deaf = || std::fs::read_to_string(&probing).ok()?.trim().parse().ok();
    let deaf = eventually(|| "the probe to run".into(), deaf).await;

    kubelet.kill();
    eventually(|| "the end of the probe's tree".into(), || is_gone(deaf).then_some(())).await;
    assert!(!is_gone(probed), "the probe alone ends");
    std::fs::write(&over, "").expect("the test's own folder");
    let mut kubelet = start();
    let ready = |cache: &bluebird::client::Cache| {
        let pod = cache.get::<Pod>("", "probed")?;
        let main = pod.status.as_ref()?.container_statuses.first()?;
        main.ready.then(|| (pid(&pod), main.restart_count))
    };
    assert_eq!(follower.wait_for("the next kubelet to probe", ready).await, (Some(probed), 0));
    let options = bluebird::client::DeleteOptions { grace_period_seconds: Some(1), ..Default::default() };
    follower.client.delete::<Pod>("", "probed", options).await.expect("it exists");
    follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", "probed").is_none().then_some(())).await;
    assert!(kubelet.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
    #[cfg(target_os = "linux")]
    assert_eq!(super::program::processes_of(folder.path()), []);
}

/// Gone for good: the shim, which is its parent or guardian, has taken note of its end.
fn is_gone(process: i32) -> bool {
    kill(Pid::from_raw(process), None) == Err(Errno::ESRCH)
}
