//! Real executables, ended with the test whatever happens.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bluebird::kubelet::routes::LOCK_PORT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take that should take a moment.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running program whose words go to a file.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `program` with everything that it says in `folder`/`name`.log.
    pub(crate) fn start(folder: &Path, name: &str, program: &str, args: &[&str]) -> Program {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().append(true).create(true).open(&log).expect("the test's own folder");
        let err = out.try_clone().expect("an open file");
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(out).stderr(err).env("NO_COLOR", "1");
        Program { child: command.spawn().expect("a program"), log }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Everything that it has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this test")
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process of this test");
        self.child.wait().expect("a child of this test");
    }

    /// As Ctrl-C does; returns how it ended.
    pub(crate) async fn interrupt(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.pid()), Signal::SIGINT).expect("a process of this test");
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        eventually(|| format!("a program to end; it said:\n{}", std::fs::read_to_string(&log).unwrap_or_default()), || self.status()).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.status().is_none() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.said());
            // Pods outlive a kubelet that was killed, but not their test.
            for root in ["node", "data/kubelet"] {
                if let Err(error) = bluebird::kubelet::kill_processes_of(&self.log.with_file_name(root)) {
                    eprintln!("processes may be left: {error}");
                }
            }
        }
    }
}

/// Waits for something outside of the cluster, which nobody tells: looks every 10 ms.
pub(crate) async fn eventually<T>(what: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("waited in vain for {}", what()))
}

/// Every process that works in a folder or names it in its command line.
#[cfg(target_os = "linux")]
pub(crate) fn processes_of(folder: &Path) -> Vec<(i32, String)> {
    let folder = folder.to_str().expect("text");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux has it").filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let works_there = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if pid != std::process::id() as i32 && (works_there || words.contains(folder)) {
            found.push((pid, words));
        }
    }
    found
}

/// A /24 of service addresses in which nobody routes.
pub(crate) fn free_range() -> String {
    loop {
        let (second, third) = (fastrand::u8(96..112), fastrand::u8(..));
        if std::net::TcpListener::bind(std::net::SocketAddr::from(([127, second, third, 0], LOCK_PORT))).is_ok() {
            return format!("127.{second}.{third}.0/24");
        }
    }
}
