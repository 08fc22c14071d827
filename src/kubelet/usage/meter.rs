//! Measures: what was used since the last look, and what is used now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;

use super::RunningPod;
use super::folders::Sizes;
use super::trees::sums;
use crate::api::v1::{ContainerUsage, NodeUsage, PodUsage, Usage};
use crate::kubelet::os::fence::{Places, Used};
use crate::kubelet::os::usage::{DiskUsage, MachineUsage};
use crate::kubelet::os::{Host, Os};
use crate::kubelet::root::Root;
use crate::kubelet::shim::CONTAINER_VARIABLE;
use crate::kubelet::uid::PodUid;

/// The most bytes of pods in one heartbeat: about 10,000 pods.
const MAX_BYTES: usize = 1024 * 1024;

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) root: Arc<Root>,
    pub(crate) places: Places,
}

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<Look>,
}

#[derive(Debug)]
struct Look {
    at: Instant,
    machine: Option<MachineUsage>,
    containers: HashMap<(PodUid, String), Counted>,
}

/// What a container has used so far and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    cpu: Option<Counter>,
    memory: Option<u64>,
}

/// A count of time on processors, which can be compared only with another of the same source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    Fence(Duration),
    Processes(Duration),
}

impl Meter {
    /// Looks, and tells what changed since the last look.
    pub(super) fn look(&mut self, pods: &[RunningPod], ground: &Ground, sizes: &Sizes) -> Usage {
        let look =
            Look { at: Instant::now(), machine: told("the machine", Host::machine_usage()), containers: containers(pods, &ground.places) };
        let usage = usage(self.last.as_ref(), &look, pods, sizes, told("the disk", Host::disk_usage(ground.root.path())));
        self.last = Some(look);
        usage
    }
}

fn told<T>(what: &str, looked: std::io::Result<T>) -> Option<T> {
    looked.inspect_err(|error| tracing::debug!(%error, what, "what is used can't be told")).ok()
}

/// What fences count, and of the rest what all processes say. These are looked at together, and only if there is a rest.
fn containers(pods: &[RunningPod], places: &Places) -> HashMap<(PodUid, String), Counted> {
    let mut counted = HashMap::new();
    let mut is_complete = true;
    for pod in pods {
        for (container, _) in &pod.containers {
            let Used { cpu, memory } = places.used(pod.uid.as_str(), container);
            is_complete &= cpu.is_some() && memory.is_some();
            counted.insert((pod.uid.clone(), container.clone()), Counted { cpu: cpu.map(Counter::Fence), memory });
        }
    }
    let processes = if is_complete { None } else { told("the processes", Host::process_usage()) };
    let Some(processes) = processes else { return counted };
    let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
    let sums = sums(pods, &processes, own_pid, |pid| Host::variable_of(pid, CONTAINER_VARIABLE));
    for (pod, sums) in pods.iter().zip(sums) {
        for ((container, _), sum) in pod.containers.iter().zip(sums) {
            if let (Some(counted), Some(sum)) = (counted.get_mut(&(pod.uid.clone(), container.clone())), sum) {
                counted.cpu = counted.cpu.or(Some(Counter::Processes(sum.cpu + sum.cpu_of_ended_children)));
                counted.memory = counted.memory.or(Some(sum.memory));
            }
        }
    }
    counted
}

/// What is told of two looks.
fn usage(before: Option<&Look>, now: &Look, pods: &[RunningPod], sizes: &HashMap<PodUid, u64>, disk: Option<DiskUsage>) -> Usage {
    let window = before.map(|before| now.at.saturating_duration_since(before.at)).unwrap_or_default();
    let since = |before: Duration, now: Duration| millis(now.checked_sub(before), window);
    let cpu_of_machine = before.and_then(|before| since(before.machine?.cpu, now.machine?.cpu));
    let node = NodeUsage {
        cpu_millis: cpu_of_machine,
        memory_bytes: now.machine.map(|machine| machine.memory),
        disk_bytes: disk.map(|disk| disk.used),
        disk_total_bytes: disk.map(|disk| disk.total),
    };
    let container = |uid: &PodUid, name: &str| {
        let key = (uid.clone(), name.to_owned());
        let Counted { cpu, memory } = *now.containers.get(&key)?;
        let earlier = before.and_then(|before| before.containers.get(&key)?.cpu);
        let cpu_millis = match (earlier, cpu) {
            (Some(Counter::Fence(before)), Some(Counter::Fence(now))) => since(before, now),
            (Some(Counter::Processes(before)), Some(Counter::Processes(now))) => since(before, now),
            _ => None,
        };
        Some(ContainerUsage { name: name.to_owned(), cpu_millis, memory_bytes: memory })
    };
    let pod = |pod: &RunningPod| PodUsage {
        uid: pod.uid.to_string(),
        containers: pod.containers.iter().filter_map(|(name, _)| container(&pod.uid, name)).collect(),
        disk_bytes: sizes.get(&pod.uid).copied(),
    };
    let mut room = MAX_BYTES;
    let fits = |usage: PodUsage| {
        // What stands around it in a list is a few bytes.
        room = room.checked_sub(usage.encoded_len() + 8)?;
        Some(usage)
    };
    let pods = pods.iter().map(pod).map_while(fits).collect();
    Usage { window: prost_types::Duration::try_from(window).ok(), node: Some(node), pods }
}

/// Thousandths of a core. A count that went back is another one: its container was started again, and the next look tells.
fn millis(used: Option<Duration>, window: Duration) -> Option<u64> {
    let used = used?.as_nanos() * 1000;
    let nanos = window.as_nanos();
    (nanos > 0).then(|| u64::try_from((used + nanos / 2) / nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
