//! What can't work is refused with a sentence, and harms nothing.

use std::path::Path;

use bluebird::api::Resource;
use bluebird::api::v1::{Lease, LeaseSpec, Node, Pod, RestartPolicy};
use bluebird::error::Error;

use super::follower::{Follower, pid};
use super::program::{Program, free_range};
use bluebird::testing::free_port;

fn apiserver(folder: &Path, name: &str, data: &Path, port: u16) -> Program {
    apiserver_with(folder, name, data, port, &free_range())
}

fn apiserver_with(folder: &Path, name: &str, data: &Path, port: u16, range: &str) -> Program {
    let listen = format!("127.0.0.1:{port}");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", range];
    Program::start(folder, name, env!("CARGO_BIN_EXE_apiserver"), &args)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_and_a_port_serve_one_apiserver_at_a_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, port) = (folder.path().join("data"), free_port());
    let mut first = apiserver(folder.path(), "first", &data, port);
    let follower = Follower::connect(&format!("http://127.0.0.1:{port}")).await;

    let mut second = apiserver(folder.path(), "same-data", &data, free_port());
    assert!(!second.ended().await.success());
    assert!(second.said().contains(&format!("{} is in use by another apiserver", data.display())), "{}", second.said());

    let mut third = apiserver(folder.path(), "same-port", &folder.path().join("other"), port);
    assert!(!third.ended().await.success());
    assert!(third.said().contains(&format!("127.0.0.1:{port} is taken by another program")), "{}", third.said());

    follower.client.create(lease("still-there", 10)).await.expect("the first one is unharmed");
    assert!(first.interrupt().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_answers_reads_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, port, range) = (folder.path().join("data"), free_port(), free_range());
    let url = format!("http://127.0.0.1:{port}");
    // No file may grow beyond 256 blocks of 512 or 1024 bytes, which depends on the shell.
    let script = format!(
        "trap '' XFSZ; ulimit -f 256; exec {} --data-dir {} --listen 127.0.0.1:{port} --service-cidr {range}",
        env!("CARGO_BIN_EXE_apiserver"),
        data.display()
    );
    // What it says must not fill up its own log.
    let mut starved = Program::start(folder.path(), "starved", "/bin/sh", &["-c", &format!("RUST_LOG=error; export RUST_LOG; {script}")]);
    let follower = Follower::connect(&url).await;
    let mut acknowledged = Vec::new();
    let refused = loop {
        let name = format!("lease-{}", acknowledged.len());
        match follower.client.create(lease(&name, 10_000)).await {
            Ok(lease) => acknowledged.push(lease),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Exhausted { retry_after: Some(_), .. }), "{refused:?}");
    assert!(acknowledged.len() > 5);
    assert_eq!(follower.client.list::<Lease>("").await.expect("reads are answered"), sorted(&acknowledged));
    starved.kill();

    let mut fed = apiserver_with(folder.path(), "fed", &data, port, &range);
    let follower = Follower::connect(&url).await;
    assert_eq!(follower.client.list::<Lease>("").await.expect("reads are answered"), sorted(&acknowledged));
    follower.client.create(lease("more", 10_000)).await.expect("there is space again");
    assert!(fed.interrupt().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_sentence_without_a_trace_of_the_program_also_where_traces_are_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let no_folder = folder.path().join("file");
    std::fs::write(&no_folder, "").expect("the test's own folder");
    let no_folder = no_folder.to_str().expect("text");
    let (kubelet, apiserver, bluebird) = (env!("CARGO_BIN_EXE_kubelet"), env!("CARGO_BIN_EXE_apiserver"), env!("CARGO_BIN_EXE_bluebird"));
    let refused: [(&str, &[&str]); 4] = [
        ("kubelet: ", &[kubelet, "--root-dir", no_folder, "--node-name", "n1"]),
        ("kubelet: ", &[kubelet, "--server", "ftp://x", "--root-dir", "/nowhere", "--node-name", "n1"]),
        ("apiserver: ", &[apiserver, "--data-dir", no_folder, "--listen", "127.0.0.1:0"]),
        ("error: ", &[bluebird, "up", "--data-dir", no_folder, "--listen", "127.0.0.1:0"]),
    ];
    for (number, (begins, words)) in refused.into_iter().enumerate() {
        let words: Vec<&str> = ["RUST_BACKTRACE=1", "RUST_LOG=error"].into_iter().chain(words.iter().copied()).collect();
        let mut program = Program::start(folder.path(), &number.to_string(), "/usr/bin/env", &words);
        let ended = program.ended().await;
        let said = program.said();
        assert!(!ended.success() && said.starts_with(begins) && said.lines().count() == 1, "{words:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_folder_serves_one_kubelet_at_a_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut apiserver = apiserver(folder.path(), "apiserver", &folder.path().join("data"), port);
    let root = folder.path().join("node");
    let kubelet = |name: &str| {
        let args = ["--server", &url, "--node-name", name, "--root-dir", root.to_str().expect("text")];
        Program::start(folder.path(), name, env!("CARGO_BIN_EXE_kubelet"), &args)
    };
    let follower = Follower::connect(&url).await;
    let mut first = kubelet("first");
    follower.wait_for("the first kubelet to join", |cache| cache.get::<Node>("", "first").map(drop)).await;
    let steady = follower.run("steady", "exec sleep 1000", RestartPolicy::Always).await;
    let mut second = kubelet("second");
    assert!(!second.ended().await.success());
    let refusal = format!("another kubelet uses the root folder {}", root.canonicalize().expect("it is there").display());
    assert!(second.said().contains(&refusal), "{}", second.said());
    // The first one's pod is what it was, and is ended when it is asked to.
    follower.run("later", "exec sleep 1000", RestartPolicy::Always).await;
    let pod = follower.client.get::<Pod>("", "steady").await.expect("it exists");
    assert_eq!((pid(&pod), pod.status.as_ref().expect("it runs").container_statuses[0].restart_count), (Some(steady), 0));
    assert!(follower.client.get::<Node>("", "second").await.is_err(), "it never joined");
    for name in ["steady", "later"] {
        follower.client.delete::<Pod>("", name, Default::default()).await.expect("it exists");
        follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", name).is_none().then_some(())).await;
    }
    assert!(first.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
}

/// A lease with so many bytes in it.
fn lease(name: &str, bytes: usize) -> Lease {
    let spec = LeaseSpec { holder_identity: "x".into(), lease_duration_seconds: 1, ..Default::default() };
    let mut lease = Lease { spec: Some(spec), ..Default::default() };
    lease.meta_mut().name = name.into();
    lease.meta_mut().annotations.insert("filler".into(), "x".repeat(bytes));
    lease
}

fn sorted(leases: &[Lease]) -> Vec<Lease> {
    let mut leases = leases.to_vec();
    leases.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    leases
}
