//! Several apiservers on one etcd.

use std::time::Duration;

use bluebird::api::v1::{LogsRequest, Node, Pod, PodPhase};
use bluebird::apiserver::{Config, Listen};
use bluebird::client::{Cache, Client, Patience};
use bluebird::cluster::ControlPlane;
use bluebird::error::Error;
use bluebird::kubelet::{self, Kubelet};
use bluebird::store::EtcdOptions;
use bluebird::tasks::Tasks;
use bluebird::testing::Etcd;
use bluebird::time::Clock;
use tokio_util::sync::CancellationToken;

use super::objects::{PodExt, phase, pid, pod};
use super::steps::{is_alive, logs};

/// Longer than a leader's lease, a node's grace period and a kubelet's way to another apiserver together.
const BOUND: Duration = Duration::from_secs(60);

struct Scene {
    etcd: Etcd,
    folder: tempfile::TempDir,
    tasks: Tasks,
}

impl Scene {
    async fn apiserver(&self, listen: Listen) -> ControlPlane {
        let mut config = Config::new(self.folder.path().join("unused"), listen);
        config.etcd = Some(EtcdOptions::new(self.etcd.addresses().iter().map(ToString::to_string)));
        ControlPlane::start(config, Clock::system()).await.expect("an apiserver")
    }

    async fn kubelet(&self, servers: &[&str]) -> Kubelet {
        let mut config = kubelet::Config::new("n1", self.folder.path().join("n1"));
        config.shim_program = env!("CARGO_BIN_EXE_kubelet").into();
        config.routes = false;
        let client = client(servers);
        kubelet::start(config, client, Clock::system()).await.expect("a kubelet")
    }
}

impl Drop for Scene {
    /// For a test that failed: its processes must not outlive it.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Err(error) = kubelet::kill_processes_of(&self.folder.path().join("n1"))
        {
            eprintln!("processes may be left: {error}");
        }
    }
}

fn client(servers: &[&str]) -> Client {
    Client::with_servers(servers.iter().copied(), Patience::default()).expect("addresses")
}

/// Waits until the cache shows a pod's process, and returns it.
async fn running(cache: &Cache, name: &str) -> i32 {
    let mut changes = cache.subscribe();
    let found = async {
        loop {
            let pod = cache.get::<Pod>("default", name);
            if let Some(process) = pod.filter(|pod| phase(pod) == PodPhase::Running).and_then(|pod| pid(&pod)) {
                return process;
            }
            changes.next().await.expect("the cache lives");
        }
    };
    tokio::time::timeout(BOUND, found).await.unwrap_or_else(|_| panic!("{name} does not run: {:?}", cache.get::<Pod>("default", name)))
}

/// Creates a pod when the apiserver that is asked first was killed just now: what it took and never answered may be done, or not.
async fn create_on_the_other(client: &Client, pod: Pod) {
    match client.create(pod.clone()).await {
        Ok(_) => {}
        Err(Error::Unavailable(_)) => match client.create(pod).await {
            Ok(_) | Err(Error::AlreadyExists(_)) => {}
            Err(error) => panic!("not created by the other one: {error}"),
        },
        Err(error) => panic!("not created by the other one: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apiservers_of_one_etcd_end_one_after_the_other_and_pods_clients_and_kubelets_go_on() {
    let Some(etcd) = Etcd::start(&[]).await else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene { etcd, folder, tasks: Tasks::new(CancellationToken::new()) };
    let one = scene.apiserver(Listen::LOCAL).await;
    let two = scene.apiserver(Listen::LOCAL).await;
    let (first, second, place) = (one.url(), two.url(), one.listen().clone());
    let servers = [first.as_str(), second.as_str()];
    let client = client(&servers);
    let cache = Cache::start(client.clone(), Vec::new(), &scene.tasks);
    assert!(cache.synced().await);
    let kubelet = scene.kubelet(&servers).await;
    client.create(pod("steady", "echo here; exec sleep 1000").grace(0)).await.expect("created");
    let process = running(&cache, "steady").await;

    one.kill().await;
    create_on_the_other(&client, pod("after", "exec sleep 1000").grace(0)).await;
    running(&cache, "after").await;
    assert_eq!((cache.relists(), cache.bridges()), (0, 0), "the watch went on where it was");
    let session = cache.get::<Node>("", "n1").and_then(|node| node.status.as_ref()?.session.clone());
    assert!(session.is_some(), "{session:?}");
    assert_eq!(logs(&client, LogsRequest { pod: "steady".into(), ..Default::default() }).await, "here\n");

    let three = scene.apiserver(place).await;
    two.shutdown().await;
    client.create(pod("last", "exec sleep 1000").grace(0)).await.expect("created by the third one");
    running(&cache, "last").await;
    assert_eq!((cache.relists(), cache.bridges()), (0, 0), "the watch went on where it was");
    assert_eq!(running(&cache, "steady").await, process, "the pod never noticed");
    assert!(is_alive(process));

    kubelet.shutdown_and_stop_pods().await;
    assert_eq!(kubelet::kill_processes_of(&scene.folder.path().join("n1")).expect("processes can be looked at"), 0);
    scene.tasks.shutdown(Duration::from_secs(1)).await;
    three.shutdown().await;
}
