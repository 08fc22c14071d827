//! The processes of a kubelet's pods, as /proc has them.

use std::path::Path;

/// A process of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) pid: i32,
    pub(crate) pod: String,
}

/// Every living process that a pod of this root folder has started, however it came to be: it has the kubelet's mark in its environment, or is in the
/// pod's folder, which the kubelet itself doesn't go by.
pub(crate) fn of_pods(root: &Path) -> Vec<Known> {
    let found = pids().filter_map(|pid| {
        let pod = marked(pid, root).or_else(|| working_in(pid, root))?;
        is_alive(pid).then_some(Known { pid, pod })
    });
    found.collect()
}

fn marked(pid: i32, root: &Path) -> Option<String> {
    let mark = format!("BLUEBIRD_ROOT={}", root.display());
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let pod = variables.clone().find_map(|variable| variable.strip_prefix("BLUEBIRD_POD_UID=").map(str::to_owned))?;
    variables.any(|variable| *variable == *mark).then_some(pod)
}

/// Shims are elsewhere.
fn working_in(pid: i32, root: &Path) -> Option<String> {
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let mut parts = folder.strip_prefix(root.join("pods")).ok()?.iter();
    let pod = parts.next()?.to_string_lossy().into_owned();
    parts.next().is_some_and(|part| part.to_string_lossy().starts_with("work")).then_some(pod)
}

/// The pods whose shims live, once for each shim.
pub(crate) fn guarded(root: &Path) -> Vec<String> {
    let found = pids().filter_map(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let folder = words.iter().position(|word| word == "shim").and_then(|role| words.get(role + 1))?;
        let folder = Path::new(&**folder);
        // A child that has not become its program yet still looks like its shim, and is its child.
        let is_shim = folder.starts_with(root) && is_alive(pid) && !is_child_of_shim(pid, root);
        is_shim.then(|| folder.file_name().unwrap_or_default().to_string_lossy().into_owned())
    });
    let mut pods: Vec<_> = found.collect();
    pods.sort();
    pods
}

fn is_child_of_shim(pid: i32, root: &Path) -> bool {
    let parent = stat(pid).and_then(|fields| fields.get(1)?.parse::<i32>().ok()).unwrap_or(0);
    let command = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).into_owned();
    command.contains("\0shim\0") && command.contains(&*root.to_string_lossy())
}

/// A zombie counts as dead.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields.first().map(String::as_str), Some("Z" | "X") | None))
}

/// State, parent and so on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat[stat.rfind(')')? + 1..].split_whitespace().map(str::to_owned).collect())
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").expect("Linux has it");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
