//! A kubelet is replaced by another file of the same name, as a package does it.

use std::path::{Path, PathBuf};

use bluebird::api::v1::{Pod, RestartPolicy};
use bluebird::testing::free_port;

use super::follower::{Follower, pid};
use super::program::{Program, free_range};

/// Puts a copy of the kubelet there, in the place of what is there.
fn install(folder: &Path) -> PathBuf {
    let (new, installed) = (folder.join("kubelet.new"), folder.join("bin-kubelet"));
    std::fs::copy(env!("CARGO_BIN_EXE_kubelet"), &new).expect("a copy");
    std::fs::rename(new, &installed).expect("the test's own folder");
    installed
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_kubelet_finds_its_pods_with_the_same_processes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, root) = (folder.path().join("data"), folder.path().join("node"));
    let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let mut apiserver = Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let url = format!("http://{listen}");
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root.to_str().expect("text")];
    let start = |program: &Path| Program::start(folder.path(), "kubelet", program.to_str().expect("text"), &args);

    let installed = install(folder.path());
    let mut kubelet = start(&installed);
    let follower = Follower::connect(&url).await;
    let old = follower.run("old", "exec sleep 1000", RestartPolicy::Always).await;
    // The file first, as packages do: a pod that is started in between has a shim of the new one.
    install(folder.path());
    let between = follower.run("between", "exec sleep 1000", RestartPolicy::Always).await;
    assert!(kubelet.interrupt().await.success());
    let mut kubelet = start(&installed);
    // The kubelet has taken the pods up again once it runs another one.
    follower.run("new", "exec sleep 1000", RestartPolicy::Always).await;
    for (name, process) in [("old", old), ("between", between)] {
        let pod = follower.client.get::<Pod>("", name).await.expect("it exists");
        assert_eq!(pid(&pod), Some(process), "{name}");
        assert_eq!(pod.status.expect("it runs").container_statuses[0].restart_count, 0, "{name}");
    }
    for name in ["old", "between", "new"] {
        follower.client.delete::<Pod>("", name, Default::default()).await.expect("it exists");
        follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", name).is_none().then_some(())).await;
    }
    assert!(kubelet.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
    #[cfg(target_os = "linux")]
    assert_eq!(super::program::processes_of(folder.path()), []);
}
