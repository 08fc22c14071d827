//! A kubelet, an apiserver, and real processes. No controllers and no scheduler: the tests bind their pods themselves.

use std::path::PathBuf;
use std::time::Duration;

use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{
    Container, ContainerStateTerminated, ContainerStatus, LogsRequest, Node, ObjectMeta, Pod, PodPhase, PodSpec, RestartPolicy,
};
use bluebird::apiserver::{self, Apiserver, Listen};
use bluebird::client::{Client, DeleteOptions};
use bluebird::error::Error;
use bluebird::kubelet::{self, Kubelet};
use bluebird::time::Clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::processes::{Cleanup, DEADLINE, eventually, shims};

/// A kubelet with an apiserver of its own. Nothing of it may be left when it is finished.
pub(crate) struct Machine {
    pub(crate) apiserver: Apiserver,
    pub(crate) client: Client,
    pub(crate) kubelet: Option<Kubelet>,
    /// For the kubelets from now on.
    pub(crate) static_pods: Option<PathBuf>,
    /// Before the folder goes, by which it knows what is the test's.
    pub(crate) cleanup: Cleanup,
    pub(crate) folder: TempDir,
}

impl Machine {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("node")).unwrap();
        let config = apiserver::Config::new(folder.path().join("data"), Listen::Tcp(([127, 0, 0, 1], 0).into()));
        let apiserver = apiserver::start(config, Clock::system()).await.unwrap();
        let client = Client::from_channels(apiserver.channels());
        let cleanup = Cleanup::of(&folder.path().join("node"));
        let mut machine = Self { apiserver, client, kubelet: None, static_pods: None, folder, cleanup };
        machine.start_kubelet().await;
        machine
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    pub(crate) fn config(&self) -> kubelet::Config {
        let shim_program = env!("CARGO_BIN_EXE_kubelet").into();
        kubelet::Config { shim_program, routes: false, static_pods: self.static_pods.clone(), ..kubelet::Config::new("n1", self.root()) }
    }

    pub(crate) async fn start_kubelet(&mut self) {
        self.kubelet = Some(kubelet::start(self.config(), self.client.clone(), Clock::system()).await.unwrap());
    }

    /// A kubelet on the same root folder that reaches no apiserver.
    pub(crate) async fn start_kubelet_alone(&mut self) {
        let nobody = Client::new("http://127.0.0.1:9").unwrap();
        self.kubelet = Some(kubelet::start(self.config(), nobody, Clock::system()).await.unwrap());
    }

    /// What a reboot leaves of pods without a kubelet: their folders.
    pub(crate) async fn lose_all_processes(&self) {
        assert!(self.kubelet.is_none(), "a machine does not reboot around its kubelet");
        let left = || {
            let left: Vec<i32> = shims(&self.root()).into_iter().chain(self.cleanup.marked()).collect();
            for pid in &left {
                // It may be gone by now.
                let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        };
        eventually("the end of all processes", left).await;
    }

    pub(crate) async fn kill_kubelet(&mut self) {
        self.kubelet.take().unwrap().kill().await;
    }

    pub(crate) async fn create(&self, name: &str, policy: RestartPolicy, containers: Vec<Container>) -> Pod {
        self.create_spec(name, PodSpec { containers, restart_policy: policy.into(), ..PodSpec::default() }).await
    }

    /// A pod on this machine, with a short grace period.
    pub(crate) async fn create_spec(&self, name: &str, spec: PodSpec) -> Pod {
        let spec = PodSpec { node_name: "n1".into(), termination_grace_period_seconds: Some(1), ..spec };
        let metadata = Some(ObjectMeta { name: name.into(), ..ObjectMeta::default() });
        self.client.create(Pod { metadata, spec: Some(spec), status: None }).await.unwrap()
    }

    /// What its node can do.
    pub(crate) async fn capabilities(&self) -> Vec<String> {
        let node = tokio::time::timeout(DEADLINE, async {
            loop {
                if let Ok(node) = self.client.get::<Node>("", "n1").await {
                    return node;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        node.await.expect("the node joins").status.unwrap().capabilities
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Pod, Error> {
        self.client.get::<Pod>("", name).await
    }

    /// Waits until the pod is as `is_so` says.
    pub(crate) async fn until(&self, name: &str, what: &str, is_so: impl Fn(&Pod) -> bool) -> Pod {
        let mut last = None;
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                let pod = self.get(name).await.unwrap();
                if is_so(&pod) {
                    return pod;
                }
                last = Some(pod);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{name} never was {what}: {last:#?}"))
    }

    pub(crate) async fn running(&self, name: &str) -> (Pod, i32) {
        let pod = self.until(name, "running", |pod| pid(pod).is_some()).await;
        let pid = pid(&pod).unwrap();
        (pod, pid)
    }

    /// Waits until the pod runs after so many restarts.
    pub(crate) async fn until_running_again(&self, name: &str, restarts: u32) -> (Pod, i32) {
        let is_so = |pod: &Pod| pid(pod).is_some() && main_status(pod).is_some_and(|main| main.restart_count == restarts);
        let pod = self.until(name, &format!("running after {restarts} restarts"), is_so).await;
        let pid = pid(&pod).unwrap();
        (pod, pid)
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while self.get(name).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{name} was never gone"));
    }

    pub(crate) async fn delete(&self, name: &str, grace_period_seconds: Option<i64>) {
        self.client.delete::<Pod>("", name, DeleteOptions { grace_period_seconds, ..DeleteOptions::default() }).await.unwrap();
    }

    pub(crate) fn folder_of(&self, pod: &Pod) -> PathBuf {
        self.root().join("pods").join(&pod.metadata.as_ref().unwrap().uid)
    }

    pub(crate) async fn log(&self, name: &str, previous: bool, follow: bool) -> Result<String, Error> {
        let request = LogsRequest { pod: name.into(), previous, follow, ..LogsRequest::default() };
        let mut pieces = self.client.logs(request).await?;
        let mut log = Vec::new();
        while let Some(piece) = pieces.next().await? {
            log.extend(piece.data);
        }
        Ok(String::from_utf8(log).unwrap())
    }

    /// Ends a test: nothing of it may be left.
    pub(crate) async fn finish(mut self) {
        if let Some(kubelet) = self.kubelet.take() {
            kubelet.shutdown_and_stop_pods().await;
        }
        assert_eq!(self.cleanup.marked(), Vec::<i32>::new());
        eventually("the end of all shims", || shims(&self.root()).is_empty().then_some(())).await;
        self.apiserver.shutdown().await;
    }
}

/// Runs a shell script. In a pod's command `$$` stands for `$`.
pub(crate) fn script(name: &str, script: &str) -> Container {
    Container { name: name.into(), command: vec!["sh".into(), "-c".into(), script.replace("$$", "$$$$")], ..Container::default() }
}

pub(crate) const FOREVER: &str = "while :; do sleep 100; done";

pub(crate) fn main_status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.first()
}

pub(crate) fn state(pod: &Pod) -> Option<&State> {
    main_status(pod)?.state.as_ref()?.state.as_ref()
}

pub(crate) fn pid(pod: &Pod) -> Option<i32> {
    match state(pod)? {
        State::Running(running) => Some(running.pid as i32),
        State::Waiting(_) | State::Terminated(_) => None,
    }
}

pub(crate) fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    match state(pod)? {
        State::Terminated(ended) => Some(ended),
        State::Waiting(_) | State::Running(_) => None,
    }
}

pub(crate) fn waits_for(pod: &Pod, reason: &str) -> bool {
    matches!(state(pod), Some(State::Waiting(waiting)) if waiting.reason == reason)
}

pub(crate) fn phase(pod: &Pod) -> PodPhase {
    pod.status.as_ref().map(|status| status.phase()).unwrap_or_default()
}
