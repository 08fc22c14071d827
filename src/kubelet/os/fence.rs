//! Fences: what holds the processes of a container within their limits. On Linux they are control groups, which this knows by their files, whether they
//! are of version 1 or 2; elsewhere there are none, and so no folders: there the system holds them by itself, or not at all.

mod used;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
pub(crate) use used::Used;

use super::{Host, Os, until_none_is_left};

/// What the processes of a container may use together, and what they get when the machine is busy. Absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    /// Thousandths of a core.
    pub(crate) cpu_millis: Option<u64>,
    /// Their share of a busy machine, in thousandths of a core.
    pub(crate) cpu_request_millis: Option<u64>,
    /// Memory, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
}

/// Where a kubelet may raise fences: for each kind of limit a folder of its own, if there can be one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) cpu: Option<PathBuf>,
    pub(crate) memory: Option<PathBuf>,
    pub(crate) pids: Option<PathBuf>,
    /// Where all processes of a fence can be killed at once.
    pub(crate) kill: Option<PathBuf>,
    /// What the system enforces without a place.
    pub(crate) without: Kinds,
}

/// Kinds of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) cpu: bool,
    pub(crate) memory: bool,
    pub(crate) pids: bool,
}

impl Limits {
    /// Those of these kinds.
    pub(crate) fn of(self, kinds: Kinds) -> Self {
        Self {
            cpu_millis: self.cpu_millis.filter(|_| kinds.cpu),
            cpu_request_millis: self.cpu_request_millis.filter(|_| kinds.cpu),
            memory_bytes: self.memory_bytes.filter(|_| kinds.memory),
            pids: self.pids.filter(|_| kinds.pids),
        }
    }
}

impl Places {
    /// The limits that are enforced here.
    pub(crate) fn enforced(&self) -> Kinds {
        Kinds {
            cpu: self.cpu.is_some() || self.without.cpu,
            memory: self.memory.is_some() || self.without.memory,
            pids: self.pids.is_some() || self.without.pids,
        }
    }

    /// The folders of a container's fence.
    pub(crate) fn of(&self, pod: &str, container: &str, limits: &Limits) -> Vec<PathBuf> {
        let cpu = self.cpu.as_ref().filter(|_| limits.cpu_millis.or(limits.cpu_request_millis).is_some());
        let memory = self.memory.as_ref().filter(|_| limits.memory_bytes.is_some());
        let pids = self.pids.as_ref().filter(|_| limits.pids.is_some());
        let mut folders: Vec<PathBuf> =
            [cpu, memory, pids, self.kill.as_ref()].into_iter().flatten().map(|place| place.join(pod).join(container)).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// What the processes of a container use, as far as a fence of theirs counts it.
    pub(crate) fn used(&self, pod: &str, container: &str) -> Used {
        self.all().fold(Used::default(), |known, place| known.or(|| Used::within(&place.join(pod).join(container))))
    }

    /// Removes the fences of a pod of which nothing runs.
    pub(crate) fn remove(&self, pod: &str) -> io::Result<()> {
        self.all().try_for_each(|place| {
            remove_pod(&place.join(pod))?;
            remove_empty(place);
            Ok(())
        })
    }

    /// Kills all that is in the fences of a pod, however it hides, and gives which processes there were; it doesn't wait for their ends.
    pub(crate) fn kill(&self, pod: &str) -> io::Result<Vec<i32>> {
        let mut folders = Vec::new();
        for place in self.all() {
            folders.extend(folders_in(&place.join(pod))?);
        }
        kill_once(&folders)
    }

    /// Removes the fences of all pods that are not `known`, with what is still in them. Each is tried; the first error is given.
    pub(crate) fn sweep(&self, known: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut result = Ok(());
        for place in self.all() {
            for pod in folders_in(place)?.into_iter().filter(|pod| !pod.file_name().and_then(|name| name.to_str()).is_some_and(&known)) {
                let removed = kill_in(&folders_in(&pod)?).and_then(|_| remove_pod(&pod));
                result = result.and(removed);
            }
            remove_empty(place);
        }
        result
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        let mut all: Vec<&Path> = [&self.cpu, &self.memory, &self.pids, &self.kill].into_iter().filter_map(Option::as_deref).collect();
        all.sort();
        all.dedup();
        all.into_iter()
    }
}

/// The fence around one run of a container.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    folders: Vec<PathBuf>,
    /// How many processes had been killed for want of memory at the last look,
    killed: u64,
    /// and when there were first seen to be more than before.
    killed_at: Option<Instant>,
}

impl Fence {
    /// Makes these folders ready for the processes of a run. What is there already is used.
    pub(crate) fn raise(folders: &[PathBuf], limits: &Limits) -> io::Result<Self> {
        for folder in folders {
            make(folder)?;
            set(folder, limits)?;
        }
        let mut fence = Self { folders: folders.to_vec(), ..Self::default() };
        fence.killed = fence.killed_for_memory();
        Ok(fence)
    }

    /// Takes note of what was killed in it for want of memory. To be called now and then: what is seen late is taken for new.
    pub(crate) fn look(&mut self, now: Instant) {
        let killed = self.killed_for_memory();
        if killed > self.killed {
            self.killed_at = Some(now);
        }
        self.killed = killed;
    }

    /// Whether a process in it was killed lately because its limit of memory was reached.
    pub(crate) fn is_starved(&mut self, now: Instant) -> bool {
        self.look(now);
        self.killed_at.is_some_and(|killed_at| now.duration_since(killed_at) < LATELY)
    }

    /// Kills all that is in it, at once, where the system can do that; false where it can't.
    pub(crate) fn kill(&self) -> io::Result<bool> {
        let mut any = false;
        for folder in &self.folders {
            any |= write_if_there(&folder.join("cgroup.kill"), "1")?;
        }
        Ok(any)
    }

    /// The processes in it.
    pub(crate) fn pids(&self) -> io::Result<Vec<i32>> {
        pids(&self.folders)
    }

    /// Removes it, with what is empty above it. What isn't yet is left to the removal of the pod.
    pub(crate) fn lower(&self) {
        for folder in self.folders.iter().flat_map(|folder| folder.ancestors().take(1 + DEPTH)) {
            let _in_use = std::fs::remove_dir(folder);
        }
    }

    fn killed_for_memory(&self) -> u64 {
        let count = |file: PathBuf| {
            let events = std::fs::read_to_string(file).ok()?;
            events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        };
        let files = self.folders.iter().flat_map(|folder| ["memory.events", "memory.oom_control"].map(|file| folder.join(file)));
        files.filter_map(count).sum()
    }
}

/// How long a process may take to be gone that was killed for want of memory.
const LATELY: Duration = Duration::from_secs(10);

/// In what `cpu` is counted, in microseconds.
const PERIOD: u64 = 100_000;
/// The least that the kernel takes for a period.
const LEAST_QUOTA: u64 = 1_000;

/// Sets the limits that this folder has files for: it is of version 1 and for one kind of limit, or of version 2 and for all.
pub(super) fn set(folder: &Path, limits: &Limits) -> io::Result<()> {
    let write = |file: &str, value: String| write_if_there(&folder.join(file), &value);
    if let Some(millis) = limits.cpu_millis {
        let quota = (millis.saturating_mul(PERIOD) / 1000).max(LEAST_QUOTA);
        write("cpu.max", format!("{quota} {PERIOD}"))?;
        // A quota of an earlier run may not fit the period, and the other way round.
        write("cpu.cfs_quota_us", "-1".to_owned())?;
        write("cpu.cfs_period_us", PERIOD.to_string())?;
        write("cpu.cfs_quota_us", quota.to_string())?;
    }
    if let Some(millis) = limits.cpu_request_millis {
        // As Kubernetes does it: a core is 1024 shares, and 2 to 262144 shares become weights from 1 to 10000.
        let shares = (millis.saturating_mul(1024) / 1000).clamp(2, 262_144);
        write("cpu.shares", shares.to_string())?;
        write("cpu.weight", (1 + (shares - 2) * 9999 / 262_142).to_string())?;
    }
    if let Some(bytes) = limits.memory_bytes {
        write("memory.max", bytes.to_string())?;
        write("memory.swap.max", "0".to_owned())?;
        write("memory.oom.group", "1".to_owned())?;
        // The second may never be below the first.
        write("memory.memsw.limit_in_bytes", "-1".to_owned())?;
        write("memory.limit_in_bytes", bytes.to_string())?;
        write("memory.memsw.limit_in_bytes", bytes.to_string())?;
    }
    if let Some(pids) = limits.pids {
        write("pids.max", pids.to_string())?;
    }
    Ok(())
}

/// How many folders above that of a container are ours: the pod's, the kubelet's, and that of all kubelets.
const DEPTH: usize = 3;
/// How often a folder is made when another pod's end has just removed what was empty above it.
const TRIES: usize = 5;

fn make(folder: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        result = std::fs::create_dir_all(folder).map_err(|error| about(folder, &error));
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result?;
    let above: Vec<&Path> = folder.ancestors().skip(1).take(DEPTH).collect();
    above.into_iter().rev().try_for_each(pass_on_controllers)
}

/// Removes a kubelet's folder, and that of all kubelets, unless something is in them.
pub(super) fn remove_empty(place: &Path) {
    for folder in place.ancestors().take(DEPTH - 1) {
        let _in_use = std::fs::remove_dir(folder);
    }
}

/// Lets what is below a folder of version 2 have its controllers.
pub(super) fn pass_on_controllers(folder: &Path) -> io::Result<()> {
    let Ok(controllers) = std::fs::read_to_string(folder.join("cgroup.controllers")) else { return Ok(()) };
    let wanted: Vec<String> =
        controllers.split_whitespace().filter(|name| ["cpu", "memory", "pids"].contains(name)).map(|name| format!("+{name}")).collect();
    match wanted.is_empty() {
        true => Ok(()),
        false => write_if_there(&folder.join("cgroup.subtree_control"), &wanted.join(" ")).map(drop),
    }
}

/// False when there is no such file.
fn write_if_there(path: &Path, value: &str) -> io::Result<bool> {
    match std::fs::File::options().write(true).open(path).and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(about(path, &error)),
    }
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// All that is in these groups: at once where the system can do that, also what this process may not kill by itself; else one by one.
fn kill_once(folders: &[PathBuf]) -> io::Result<Vec<i32>> {
    let found = pids(folders)?;
    let mut killed = Vec::new();
    for folder in folders.iter().filter(|_| !found.is_empty()) {
        let in_it = pids(std::slice::from_ref(folder))?;
        if write_if_there(&folder.join("cgroup.kill"), "1")? {
            killed.extend(in_it);
        }
    }
    for pid in found.iter().filter(|pid| !killed.contains(pid)) {
        Host::kill_if(*pid, || pids(folders).is_ok_and(|found| found.contains(pid)))?;
    }
    Ok(found)
}

fn kill_in(folders: &[PathBuf]) -> io::Result<usize> {
    until_none_is_left(|| Ok(kill_once(folders)?.len()))
}

/// The processes in any of these groups.
fn pids(folders: &[PathBuf]) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for folder in folders {
        match std::fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(pids) => found.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(about(folder, &error)),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn remove_pod(pod: &Path) -> io::Result<()> {
    let all = folders_in(pod)?.into_iter().chain([pod.to_owned()]);
    for folder in all {
        match std::fs::remove_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(about(&folder, &error)),
            _ => {}
        }
    }
    Ok(())
}

fn folders_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(about(folder, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_killed_for_want_of_memory_long_ago_is_no_reason_for_an_end_now() {
        let folder = tempfile::tempdir().unwrap();
        let count = |killed: u64| std::fs::write(folder.path().join("memory.events"), format!("oom 7\noom_kill {killed}\n")).unwrap();
        count(2);
        let mut fence = Fence::raise(&[folder.path().to_owned()], &Limits::default()).unwrap();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!fence.is_starved(start), "what was killed before it was raised is another run's");
        count(3);
        fence.look(after(60));
        assert!(fence.is_starved(after(61)), "it was seen a second ago");
        assert!(!fence.is_starved(after(75)));
        count(4);
        assert!(fence.is_starved(after(80)));
    }

    #[test]
    fn only_limits_that_are_enforced_are_set() {
        let all = Limits { cpu_millis: Some(1), cpu_request_millis: Some(2), memory_bytes: Some(3), pids: Some(4) };
        let places = Places { memory: Some("unused".into()), without: Kinds { pids: true, ..Kinds::default() }, ..Places::default() };
        assert_eq!(places.enforced(), Kinds { cpu: false, memory: true, pids: true });
        assert_eq!(all.of(places.enforced()), Limits { cpu_millis: None, cpu_request_millis: None, ..all });
        assert_eq!(all.of(Kinds { cpu: true, ..Kinds::default() }), Limits { memory_bytes: None, pids: None, ..all });
    }
}
