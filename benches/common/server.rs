//! Servers as processes of their own, and what they cost.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tempfile::TempDir;

use super::machine::data_root;
use super::objects::What;
use super::peer::Peer;
use super::wire::{Method, connect};

/// How long a server may take until it listens, and until it answers.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A process that is ended, at the latest, when this goes out of scope.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program with both outputs as given.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Processor time used so far by user code and kernel; `None` where this system doesn't tell.
    pub fn cpu(&self) -> Option<Duration> {
        Self::cpu_of(self.child.id())
    }

    /// As [`Process::cpu`], of any process.
    pub fn cpu_of(pid: u32) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // Linux shows 100 ticks a second to programs, whatever the kernel's own rate is.
        Some(Duration::from_millis(ticks * 10))
    }

    /// Resident memory now, in bytes; `None` where this system doesn't tell.
    pub fn rss(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes; `None` where this system doesn't tell.
    pub fn peak_rss(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with(field))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    /// Ends it at once and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("ending {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name)).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child may be gone already; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processor time between two looks at a server.
pub fn cpu_between(before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    Some(after?.saturating_sub(before?))
}

/// One of the peers with its data folder.
pub struct Server {
    pub peer: Peer,
    pub process: Process,
    pub url: String,
    folder: TempDir,
}

impl Server {
    /// Starts one on an empty folder and free ports, and waits until it answers.
    pub async fn start(peer: Peer) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(data_root())?;
        let (process, url) = serve(peer, folder.path())?;
        let server = Self { peer, process, url, folder };
        server.read(What::Lease, 0).await?;
        Ok(server)
    }

    /// Ends it with `kill -9` and starts another one on its folder, without waiting for an answer.
    pub fn kill_and_start_again(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        (self.process, self.url) = serve(self.peer, self.folder.path())?;
        Ok(())
    }

    /// Reads until there is an answer: whether the first object of the batch of this number exists.
    pub async fn read(&self, what: What, batch: u64) -> anyhow::Result<bool> {
        let (path, request) = self.peer.get(what, batch);
        let start = Instant::now();
        loop {
            match read(&self.url, path, request.clone()).await {
                Ok(answer) => return Ok(answer.is_some_and(|answer| self.peer.has_found(&answer))),
                Err(error) => ensure!(start.elapsed() < START_DEADLINE, "{} does not answer: {error:#}", self.peer.name()),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The data on disk, in bytes.
    pub fn disk_bytes(&self) -> anyhow::Result<u64> {
        fn size(folder: &Path) -> std::io::Result<u64> {
            let mut sum = 0;
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                sum += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
            }
            Ok(sum)
        }
        Ok(size(self.folder.path())?)
    }
}

/// The answer, or `None` for "there is no such object".
async fn read(url: &str, path: &'static str, request: Bytes) -> anyhow::Result<Option<Bytes>> {
    let channels = connect(url, 1).await?;
    match Method::new(&channels[0], path).call(request).await {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

fn serve(peer: Peer, folder: &Path) -> anyhow::Result<(Process, String)> {
    match peer {
        Peer::Bluebird => apiserver(folder),
        Peer::Etcd => etcd(folder),
    }
}

fn apiserver(folder: &Path) -> anyhow::Result<(Process, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apiserver"));
    command
        .arg("--data-dir")
        .arg(folder)
        .args(["--listen", "127.0.0.1:0", "--client-requests", "1000000", "--client-watches", "100000"])
        .env("RUST_LOG", "info")
        .env("NO_COLOR", "1");
    let mut process = Process::start("apiserver", command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let stderr = process.child.stderr.take().context("a pipe from the apiserver")?;
    let (tell, told) = mpsc::channel();
    // Reads on to the end, so that the server never waits for somebody to read its log.
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(url) = url_in(&line) {
                let _ = tell.send(Ok(url));
            } else if seen.len() < 20 {
                seen.push(line);
            }
        }
        let _ = tell.send(Err(seen.join("\n")));
    });
    match told.recv_timeout(START_DEADLINE).context("the apiserver told no address in time")? {
        Ok(url) => Ok((process, url)),
        Err(log) => bail!("the apiserver ended before it listened:\n{log}"),
    }
}

/// The address in a line of the apiserver's log that says where it listens.
fn url_in(line: &str) -> Option<String> {
    let rest = &line[line.find("http://127.0.0.1:")?..];
    let end = rest.find(|c: char| c == '"' || c.is_whitespace() || c == '\u{1b}').unwrap_or(rest.len());
    line.contains("listening").then(|| rest[..end].to_owned())
}

fn etcd(folder: &Path) -> anyhow::Result<(Process, String)> {
    let [client, peer] = free_ports()?;
    let (url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
    command.args(["--initial-cluster", &format!("default={peer_url}")]);
    let process = Process::start("etcd", &mut command)?;
    let deadline = Instant::now() + START_DEADLINE;
    while std::net::TcpStream::connect(("127.0.0.1", client)).is_err() {
        if Instant::now() > deadline {
            bail!("etcd did not listen in time");
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok((process, url))
}

/// The version of the etcd in PATH; `None` when there is none.
pub fn etcd_version() -> Option<String> {
    let output = Command::new("etcd").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}

/// A kubelet of the apiserver at `server`, with its folder.
pub struct Kubelet {
    pub process: Process,
    _root: TempDir,
}

impl Kubelet {
    /// Starts one.
    pub fn start(server: &str, node_name: &str) -> anyhow::Result<Self> {
        let root = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubelet"));
        command.args(["--server", server, "--node-name", node_name, "--root-dir"]).arg(root.path()).env("RUST_LOG", "warn");
        Ok(Self { process: Process::start("kubelet", command.stdout(Stdio::null()))?, _root: root })
    }
}

fn free_ports() -> std::io::Result<[u16; 2]> {
    let listeners = [std::net::TcpListener::bind("127.0.0.1:0")?, std::net::TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}
