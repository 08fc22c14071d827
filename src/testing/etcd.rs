//! A real etcd for a test, of those that the machine has.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{LOOK_AGAIN, free_port};

/// An etcd with a folder of its own. It ends with this, whatever happens to the test.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    flags: Vec<String>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    name: String,
    process: Option<Child>,
    client: SocketAddr,
    peer: SocketAddr,
}

/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

impl Etcd {
    /// Starts the machine's etcd on free ports, with more flags if wanted. `None`, and a line that says so, when there is none (on Debian: `apt
    /// install etcd-server etcd-client`). With the flag `--cert-file` its clients have to speak TLS.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start(flags: &[&str]) -> Option<Etcd> {
        Self::start_members(1, flags).await
    }

    /// As [`Etcd::start`], with so many members.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start_members(members: usize, flags: &[&str]) -> Option<Etcd> {
        if let Err(error) = run("etcd", &["--version"]).and(run("etcdctl", &["version"])) {
            println!("SKIPPED: this needs etcd and etcdctl ({error}); Debian has them as etcd-server and etcd-client");
            return None;
        }
        let folder = TempDir::with_prefix("bluebird-etcd-").expect("a temporary folder");
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let member = |number| Member { name: format!("m{number}"), process: None, client: address(), peer: address() };
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut etcd = Etcd { members: (0..members).map(member).collect(), flags, folder };
        etcd.start_again().await;
        Some(etcd)
    }

    /// Starts every member that doesn't run, with the data that it had.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start_again(&mut self) {
        let peers: Vec<_> = self.members.iter().map(|member| format!("{}=http://{}", member.name, member.peer)).collect();
        let scheme = if self.is_secure() { "https" } else { "http" };
        for member in self.members.iter_mut().filter(|member| member.process.is_none()) {
            let folder = self.folder.path();
            let log = File::options().append(true).create(true).open(folder.join("etcd.log")).expect("the test's own folder");
            let (client, peer) = (format!("{scheme}://{}", member.client), format!("http://{}", member.peer));
            let mut command = Command::new("etcd");
            command.args(["--name", &member.name, "--data-dir"]).arg(folder.join(&member.name));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &peers.join(",")]);
            // On one machine nobody needs to wait long for the others.
            command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]).args(&self.flags);
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("an open file")).stderr(log);
            member.process = Some(command.spawn().expect("it was there a moment ago"));
        }
        let healthy = async {
            while !self.is_healthy().await {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(START, healthy).await.is_err() {
            panic!("etcd does not start; it says:\n{}", std::fs::read_to_string(self.folder.path().join("etcd.log")).unwrap_or_default());
        }
    }

    /// Ends it, as `kill -9` does.
    ///
    /// # Panics
    /// When that is impossible.
    pub fn kill(&mut self) {
        for member in 0..self.members.len() {
            self.kill_member(member);
        }
    }

    /// Ends one member, as `kill -9` does.
    ///
    /// # Panics
    /// When that is impossible.
    pub fn kill_member(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
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

    /// Starts it anew without the data that it had.
    ///
    /// # Panics
    /// When it doesn't start.
    pub async fn start_empty(&mut self) {
        self.kill();
        for member in &self.members {
            std::fs::remove_dir_all(self.folder.path().join(&member.name)).expect("the test's own folder");
        }
        self.start_again().await;
    }

    /// The processes of the members that run.
    pub fn pids(&self) -> Vec<i32> {
        let running = self.members.iter().filter_map(|member| member.process.as_ref());
        running.filter_map(|process| i32::try_from(process.id()).ok()).collect()
    }

    /// Where clients connect to each member.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// What `apiserver --store` is given.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.addresses().iter().map(SocketAddr::to_string).collect();
        format!("etcd://{}", addresses.join(","))
    }

    /// Runs etcdctl on it.
    ///
    /// # Panics
    /// When there is none.
    pub fn control(&self, args: &[&str]) -> Output {
        let running = self.members.iter().filter(|member| member.process.is_some());
        let addresses: Vec<_> = running.map(|member| member.client.to_string()).collect();
        let endpoints = format!("--endpoints={}", addresses.join(","));
        let output = Command::new("etcdctl").arg(endpoints).args(args).env("ETCDCTL_API", "3").output();
        output.expect("it was there a moment ago")
    }

    /// Its current revision, and which member leads.
    ///
    /// # Panics
    /// When it doesn't answer.
    pub fn status(&self) -> (u64, usize) {
        let output = self.control(&["endpoint", "status", "--write-out=json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("etcd answers");
        let members = status.as_array().expect("a member each");
        let leads = |member: &serde_json::Value| member["Status"]["header"]["member_id"] == member["Status"]["leader"];
        let revision = members[0]["Status"]["header"]["revision"].as_u64().expect("a revision");
        (revision, members.iter().position(leads).expect("a leader"))
    }

    async fn is_healthy(&self) -> bool {
        for member in &self.members {
            if TcpStream::connect(member.client).await.is_err() {
                return false;
            }
        }
        self.is_secure() || self.control(&["endpoint", "health"]).status.success()
    }

    fn is_secure(&self) -> bool {
        self.flags.iter().any(|flag| flag == "--cert-file")
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
