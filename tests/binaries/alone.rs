//! The power goes, and when it is back there is no apiserver.

use std::net::SocketAddr;
use std::path::Path;

use bluebird::api::v1::{
    Container, ContainerPort, EndpointSlice, Pod, PodPhase, PodSpec, RestartPolicy, Service, ServicePort, ServiceSpec,
};
use bluebird::api::{Resource as _, condition};
use bluebird::testing::free_port;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::follower::{Follower, phase, pid};
use super::program::{DEADLINE, Program, eventually, free_range, processes_of};

/// A pod that answers HTTP with its process, behind a service.
async fn serve_web(follower: &Follower) -> SocketAddr {
    let labels = std::collections::HashMap::from([("app".to_owned(), "web".to_owned())]);
    let ports = vec![ServicePort { port: 8080, target_port: "http".into(), ..Default::default() }];
    let spec = ServiceSpec { selector: labels.clone(), ports, ..Default::default() };
    let mut service = Service { spec: Some(spec), ..Default::default() };
    service.meta_mut().name = "web".into();
    follower.client.create(service).await.expect("a valid service");
    let command = [env!("CARGO_BIN_EXE_bluebird"), "echo", "--name", "web", "--port", "$(PORT)"].map(str::to_owned).to_vec();
    let ports = vec![ContainerPort { name: "http".into(), ..Default::default() }];
    let containers = vec![Container { name: "main".into(), command, ports, ..Default::default() }];
    let spec = PodSpec { containers, termination_grace_period_seconds: Some(0), ..Default::default() };
    let mut pod = Pod { spec: Some(spec), ..Default::default() };
    (pod.meta_mut().name, pod.meta_mut().labels) = ("web".into(), labels);
    follower.client.create(pod).await.expect("a valid pod");
    let listed = |cache: &bluebird::client::Cache| {
        let slice = cache.get::<EndpointSlice>("", "web")?;
        slice.spec.as_ref()?.endpoints.first()?;
        let service = cache.get::<Service>("", "web")?;
        format!("{}:8080", service.spec.as_ref()?.cluster_ip).parse().ok()
    };
    follower.wait_for("the service to lead to the pod", listed).await
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Asks until the answer is as `is_so` says.
async fn until_answered<T>(what: &str, address: SocketAddr, is_so: impl Fn(std::io::Result<String>) -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = is_so(ask(address).await) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// What the power took: everything that works below the folder. What shims had noted is of another boot, in which a stranger has the process ids.
async fn lose_power(folder: &Path, root: &Path, stranger: i32) {
    let left = || {
        let left = processes_of(folder);
        for (pid, _) in &left {
            // It may be gone by now.
            let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    };
    eventually(|| "the end of all processes".into(), left).await;
    for entry in std::fs::read_dir(root.join("pods")).expect("the kubelet's folder") {
        let file = entry.expect("the kubelet's folder").path().join("state.json");
        let mut state: Value = serde_json::from_slice(&std::fs::read(&file).expect("its shim has written it")).expect("JSON");
        state["boot_id"] = "an earlier one".into();
        for container in state["containers"].as_array_mut().expect("containers") {
            if let Some(pid) = container.pointer_mut("/stage/Running/pid") {
                *pid = stranger.into();
            }
        }
        std::fs::write(&file, state.to_string()).expect("the test's own folder");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_without_an_apiserver_pods_run_are_reached_as_before_and_the_truth_is_told_later() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let [data, root, go] = ["data", "node", "go"].map(|name| folder.path().join(name));
    let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
    let url = format!("http://{listen}");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let start_apiserver = || Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root.to_str().expect("text")];
    let start_kubelet = || Program::start(folder.path(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args);

    let (mut apiserver, mut kubelet) = (start_apiserver(), start_kubelet());
    let follower = Follower::connect(&url).await;
    let address = serve_web(&follower).await;
    let job = format!("[ -e {} ] && exit 0; exec sleep 1000", go.display());
    let before = follower.run("job", &job, RestartPolicy::OnFailure).await;
    until_answered("the pod to answer", address, |answer| answer.ok()?.contains("web").then_some(())).await;
    // The routes are written a moment after they are in effect.
    let port = follower.cache.get::<Pod>("", "web").and_then(|pod| Some(pod.status.as_ref()?.ports.first()?.port)).expect("it has one");
    let kept = || String::from_utf8_lossy(&std::fs::read(root.join("routes.binpb")).ok()?).contains(&format!(":{port}")).then_some(());
    eventually(|| "the routes to be kept".into(), kept).await;

    let mut stranger = Program::start(elsewhere.path(), "stranger", "sleep", &["1000"]);
    apiserver.kill();
    kubelet.kill();
    lose_power(folder.path(), &root, stranger.pid()).await;
    std::fs::write(&go, "").expect("the test's own folder");
    assert!(ask(address).await.is_err(), "somebody else routes");

    let mut kubelet = start_kubelet();
    until_answered("the pod to answer without an apiserver", address, |answer| answer.ok()?.contains("web").then_some(())).await;

    let mut apiserver = start_apiserver();
    let told = |cache: &bluebird::client::Cache| {
        let pod = cache.get::<Pod>("", "web")?;
        let (status, running) = (pod.status.as_ref()?, pid(&pod)?);
        let main = status.container_statuses.first()?;
        let is_ready = condition::is_true(&status.conditions, condition::READY);
        (main.restart_count == 1 && is_ready).then(|| (running, main.last_termination.clone()))
    };
    let (web, last) = follower.wait_for("the pod's run after the reboot to be told", told).await;
    assert_eq!(last.expect("it ended").reason, "Lost");
    assert!(std::fs::read_dir(format!("/proc/{web}")).is_ok());
    let done = |cache: &bluebird::client::Cache| cache.get::<Pod>("", "job").filter(|pod| phase(pod) == PodPhase::Succeeded);
    let job = follower.wait_for("what ended meanwhile to be told", done).await;
    assert_eq!(job.status.as_ref().expect("told").container_statuses[0].restart_count, 1);
    assert!(before != stranger.pid() && stranger.status().is_none(), "a stranger was killed for its process id");

    // What the apiserver says counts again.
    follower.client.delete::<Service>("", "web", Default::default()).await.expect("it exists");
    until_answered("the route to go", address, |answer| answer.is_err().then_some(())).await;
    for name in ["web", "job"] {
        follower.client.delete::<Pod>("", name, Default::default()).await.expect("it exists");
        follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", name).is_none().then_some(())).await;
    }
    assert!(kubelet.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
    assert_eq!(processes_of(folder.path()), []);
}
