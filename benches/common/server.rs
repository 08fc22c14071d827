//! Servers as processes of their own, and what they cost.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::machine::data_root;

/// How long a server may take until it listens.
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
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // Linux shows 100 ticks a second to programs, whatever the kernel's own rate is.
        Some(Duration::from_millis(ticks * 10))
    }

    /// Resident memory in bytes; `None` where this system doesn't tell.
    pub fn rss(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
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

/// An apiserver with its data folder.
pub struct Apiserver {
    pub process: Process,
    pub url: String,
    folder: TempDir,
}

impl Apiserver {
    /// Starts one on an empty folder and a free port.
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(data_root())?;
        let (process, url) = Self::serve(folder.path())?;
        Ok(Self { process, url, folder })
    }

    /// Starts another one on the folder of one that was ended.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        (self.process, self.url) = Self::serve(self.folder.path())?;
        Ok(())
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

    fn serve(folder: &Path) -> anyhow::Result<(Process, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apiserver"));
        command.arg("--data-dir").arg(folder).args(["--listen", "127.0.0.1:0"]).env("RUST_LOG", "info").env("NO_COLOR", "1");
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
}

/// The address in a line of the apiserver's log that says where it listens.
fn url_in(line: &str) -> Option<String> {
    let rest = &line[line.find("http://127.0.0.1:")?..];
    let end = rest.find(|c: char| c == '"' || c.is_whitespace() || c == '\u{1b}').unwrap_or(rest.len());
    line.contains("listening").then(|| rest[..end].to_owned())
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

/// An etcd server beside ours, for comparison.
pub struct Etcd {
    pub process: Process,
    pub url: String,
    _folder: TempDir,
}

impl Etcd {
    /// Starts the `etcd` in PATH with its defaults; `None` when there is none.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir_in(data_root())?;
        let (client, peer) = (free_port()?, free_port()?);
        let (url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.path());
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("default={peer_url}")]);
        let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.context("starting etcd")?,
        };
        let process = Process { child, name: "etcd".to_owned() };
        let deadline = Instant::now() + START_DEADLINE;
        while std::net::TcpStream::connect(("127.0.0.1", client)).is_err() {
            if Instant::now() > deadline {
                bail!("etcd did not listen in time");
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(Some(Self { process, url, _folder: folder }))
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
