//! A real etcd for a test, of those that the machine has.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::LOOK_AGAIN;

/// An etcd of one member with a folder of its own. It ends with this, whatever happens to the test.
#[derive(Debug)]
pub struct Etcd {
    process: Option<Child>,
    client: SocketAddr,
    peer: SocketAddr,
    flags: Vec<String>,
    folder: TempDir,
}

/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

impl Etcd {
    /// Starts the machine's etcd on free ports, with more flags if wanted. `None`, and a line that says so, when there is none (on Debian: `apt
    /// install etcd-server etcd-client`).
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start(flags: &[&str]) -> Option<Etcd> {
        if let Err(error) = run("etcd", &["--version"]).and(run("etcdctl", &["version"])) {
            println!("SKIPPED: this needs etcd and etcdctl ({error}); Debian has them as etcd-server and etcd-client");
            return None;
        }
        let folder = TempDir::with_prefix("bluebird-etcd-").expect("a temporary folder");
        let [client, peer] = [free_address(), free_address()];
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut etcd = Etcd { process: None, client, peer, flags, folder };
        etcd.start_again().await;
        Some(etcd)
    }

    /// Starts it after it was killed, with the data that it had.
    ///
    /// # Panics
    /// When it runs, or doesn't start.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "etcd runs");
        let log = File::options().append(true).create(true).open(self.log()).expect("the test's own folder");
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let member = format!("default={peer}");
        let data = self.folder.path().join("data");
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data).args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &member]);
        // Alone, it needn't wait long for others before it leads.
        command.args(["--heartbeat-interval", "20", "--election-timeout", "200"]).args(&self.flags);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("an open file")).stderr(log);
        self.process = Some(command.spawn().expect("it was there a moment ago"));
        let healthy = async {
            while !(self.connects().await && self.control(&["endpoint", "health"]).status.success()) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(START, healthy).await.is_err() {
            panic!("etcd does not start; it says:\n{}", std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }

    /// Ends it, as `kill -9` does.
    ///
    /// # Panics
    /// When that is impossible.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a process of this test");
            process.wait().expect("a child of this test");
        }
    }

    /// Starts it anew with other flags.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn restart_with(&mut self, flags: &[&str]) {
        self.kill();
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.start_again().await;
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// What `apiserver --store` is given.
    pub fn url(&self) -> String {
        format!("etcd://{}", self.client)
    }

    /// Runs etcdctl on it.
    ///
    /// # Panics
    /// When there is none.
    pub fn control(&self, args: &[&str]) -> Output {
        let endpoint = format!("--endpoints={}", self.client);
        let output = Command::new("etcdctl").arg(endpoint).args(args).env("ETCDCTL_API", "3").output();
        output.expect("it was there a moment ago")
    }

    /// Its current revision.
    ///
    /// # Panics
    /// When it doesn't answer.
    pub fn revision(&self) -> u64 {
        let status = self.control(&["endpoint", "status", "--write-out=json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("etcd answers");
        status[0]["Status"]["header"]["revision"].as_u64().expect("a revision")
    }

    async fn connects(&self) -> bool {
        TcpStream::connect(self.client).await.is_ok()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("etcd.log")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().map(drop)
}

/// An address of this machine that was free a moment ago.
fn free_address() -> SocketAddr {
    let bound = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.expect("a free port")
}
