//! Looking at, and cleaning up, the processes of a test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("this never happened: {what}"))
}

/// Kills, when it is dropped, every process whose environment names this root folder, and removes their control groups. No other process is touched.
pub(crate) struct Cleanup(PathBuf);

impl Cleanup {
    pub(crate) fn of(root: &Path) -> Self {
        Self(root.canonicalize().unwrap())
    }

    /// The processes that carry the mark and live.
    pub(crate) fn marked(&self) -> Vec<i32> {
        let mark = format!("BLUEBIRD_ROOT={}", self.0.display()).into_bytes();
        let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            is_alive(*pid) && environment.split(|byte| *byte == 0).any(|entry| entry == mark)
        })
        .collect()
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Shims first: their containers then die with them.
        for pid in shims(&self.0).into_iter().chain(self.marked()) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if let Err(error) = bluebird::kubelet::kill_processes_of(&self.0) {
            eprintln!("something of the test's kubelets may be left: {error}");
        }
    }
}

/// The shims of the pods below a root folder.
pub(crate) fn shims(root: &Path) -> Vec<i32> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        matches!(words.as_slice(), [_, role, folder, ..] if *role == b"shim" && Path::new(&*String::from_utf8_lossy(folder)).starts_with(&root))
    })
    .collect()
}

/// A zombie counts as dead.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !matches!(stat[stat.rfind(')').unwrap() + 1..].split_whitespace().next(), Some("Z" | "X") | None)
}

pub(crate) fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The pid that a script has written to a file.
pub(crate) async fn pid_in(file: &Path) -> i32 {
    let read = || std::fs::read_to_string(file).ok()?.trim().parse().ok();
    eventually(&format!("a pid in {}", file.display()), read).await
}

/// A script that starts a process: two forks away from its parent, in a session of its own, and deaf to SIGTERM.
pub(crate) fn daemon(pid_file: &Path) -> String {
    format!(
        "(setsid sh -c 'trap \"\" TERM; echo $$ > {file}.new; mv {file}.new {file}; while :; do sleep 100; done' &)",
        file = pid_file.display()
    )
}
