//! The kubelets of a test's cluster.

use std::path::Path;

use super::TestCluster;
use super::cable::{Cable, Link};
use crate::client::Client;
use crate::kubelet::{self, Kubelet};
use crate::time::Clock;

/// Kubelets and their faults.
impl TestCluster {
    /// The name of the nth kubelet's node.
    pub fn node_name(&self, node: usize) -> &str {
        &self.nodes[node].config.node_name
    }

    /// The folder of the nth kubelet.
    pub fn root_dir(&self, node: usize) -> &Path {
        &self.nodes[node].config.root_dir
    }

    /// Ends the nth kubelet at once and unprepared. Its pods keep running.
    pub async fn kill_kubelet(&mut self, node: usize) {
        self.nodes[node].kill().await;
    }

    /// Starts the nth kubelet again, on the folder it had.
    pub async fn start_kubelet(&mut self, node: usize) {
        self.nodes[node].start().await;
    }

    /// Kills and starts the nth kubelet.
    pub async fn restart_kubelet(&mut self, node: usize) {
        self.kill_kubelet(node).await;
        self.start_kubelet(node).await;
    }

    /// Changes the network between the nth node and the apiserver.
    pub fn set_node_link(&self, node: usize, link: Link) {
        self.nodes[node].cable.set_link(link);
    }
}

/// A node that can be killed and started again on the folder it had.
#[derive(Debug)]
pub(super) struct TestNode {
    config: kubelet::Config,
    pub(super) cable: Cable,
    clock: Clock,
    kubelet: Option<Kubelet>,
}

impl TestNode {
    /// Not started yet. The cable leads to the apiserver.
    pub(super) fn new(name: &str, root_dir: &Path, shim: &Path, cable: Cable, clock: Clock) -> TestNode {
        let mut config = kubelet::Config::new(name, root_dir.to_owned());
        config.shim_program = shim.to_owned();
        TestNode { config, cable, clock, kubelet: None }
    }

    pub(super) async fn start(&mut self) {
        assert!(self.kubelet.is_none(), "kubelet {} runs", self.config.node_name);
        let client = Client::new(&self.cable.url()).expect("a URL");
        match kubelet::start(self.config.clone(), client, self.clock.clone()).await {
            Ok(kubelet) => self.kubelet = Some(kubelet),
            Err(error) => panic!("kubelet {} of a test cluster does not start: {error}", self.config.node_name),
        }
    }

    pub(super) async fn kill(&mut self) {
        if let Some(kubelet) = self.kubelet.take() {
            kubelet.kill().await;
        }
    }

    /// Stops all pods, and checks that nothing of them is left.
    pub(super) async fn end(&mut self) {
        if self.kubelet.is_none() {
            self.start().await;
        }
        if let Some(kubelet) = self.kubelet.take() {
            kubelet.shutdown_and_stop_pods().await;
        }
        let left = kubelet::kill_processes_of(&self.config.root_dir).expect("processes can be looked at");
        assert_eq!(left, 0, "processes of kubelet {} were left after it had stopped its pods", self.config.node_name);
    }
}

impl Drop for TestNode {
    /// For a test that failed: its processes must not outlive it.
    fn drop(&mut self) {
        let may_have_left_some = self.kubelet.take().is_some() || std::thread::panicking();
        if may_have_left_some && let Err(error) = kubelet::kill_processes_of(&self.config.root_dir) {
            eprintln!("processes of kubelet {} may be left: {error}", self.config.node_name);
        }
    }
}
