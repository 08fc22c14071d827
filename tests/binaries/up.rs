//! One command brings everything up, and down again.

use bluebird::api::condition;
use bluebird::api::v1::Pod;

use super::follower::Follower;
use super::program::{Program, eventually, free_range};

#[tokio::test(flavor = "multi_thread")]
async fn up_wait_exit_brings_an_example_up_and_leaves_no_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.yaml");
    let range = free_range();
    let args = [
        "up",
        example,
        "--wait",
        "--exit",
        "--data-dir",
        data.to_str().expect("text"),
        "--listen",
        "127.0.0.1:0",
        "--service-cidr",
        &range,
    ];
    let mut up = Program::start(folder.path(), "up", env!("CARGO_BIN_EXE_bluebird"), &args);
    let ended = up.ended().await;
    assert!(ended.success(), "{ended}");
    #[cfg(target_os = "linux")]
    assert_eq!(super::program::processes_of(folder.path()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn up_ends_its_pods_when_it_is_interrupted_and_runs_them_again_the_next_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.yaml");
    let range = free_range();
    for (round, manifest) in [(1, Some(example)), (2, None)] {
        let mut args = vec!["up"];
        args.extend(manifest);
        args.extend(["--data-dir", data.to_str().expect("text"), "--listen", "127.0.0.1:0", "--service-cidr", &range]);
        let mut up = Program::start(folder.path(), &format!("up-{round}"), env!("CARGO_BIN_EXE_bluebird"), &args);
        let url = eventually(|| format!("round {round} to be up; it said:\n{}", up.said()), || url_in(&up.said())).await;
        let follower = Follower::connect(&url).await;
        follower
            .wait_for("three pods to be ready", |cache| {
                let pods = cache.list::<Pod>();
                (pods.len() == 3 && pods.iter().all(|pod| is_ready(pod))).then_some(())
            })
            .await;
        drop(follower);
        let ended = up.interrupt().await;
        assert!(ended.success(), "{ended}");
        #[cfg(target_os = "linux")]
        assert_eq!(super::program::processes_of(folder.path()), []);
    }
}

/// The apiserver's address in what `up` says.
fn url_in(said: &str) -> Option<String> {
    let (_, after) = said.split_once("is up at ")?;
    after.split_once(',').map(|(url, _)| url.to_owned())
}

fn is_ready(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::READY))
}
