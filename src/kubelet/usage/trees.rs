//! Which processes are a container's. Everything here is a function of what was seen.

use std::collections::HashMap;

use super::RunningPod;
use crate::kubelet::os::usage::ProcessUsage;

/// No tree of processes is deeper: a pid that is used again while it is looked at could make a circle.
const DEEPEST: usize = 1_000;

/// What a process is to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The main process of a container: which pod, which of its containers.
    Main(usize, usize),
    /// The shim of a pod.
    Shim(usize),
}

/// What the processes of each container have used and use together, pods and containers in their order; `None` where there is none. `container_of` tells to which
/// container a process belongs whose parent has ended. The shim itself doesn't count, but what it has waited for does.
pub(super) fn sums(
    pods: &[RunningPod],
    processes: &[ProcessUsage],
    own_pid: i32,
    container_of: impl Fn(i32) -> Option<String>,
) -> Vec<Vec<Option<ProcessUsage>>> {
    let by_pid: HashMap<i32, &ProcessUsage> = processes.iter().map(|process| (process.pid, process)).collect();
    let parts = parts(pods, &by_pid, own_pid);
    let mut sums: Vec<Vec<Option<ProcessUsage>>> = pods.iter().map(|pod| vec![None; pod.containers.len()]).collect();
    for process in processes {
        match owner(process, &by_pid, &parts) {
            Some((Part::Main(pod, container), _)) => add(&mut sums[pod][container], process),
            Some((Part::Shim(pod), None)) => {
                // Of several containers it isn't known which one it waited for.
                if let [only] = &mut sums[pod][..] {
                    let waited_for = ProcessUsage { cpu: std::time::Duration::ZERO, memory: 0, ..*process };
                    add(only, &waited_for);
                }
            }
            Some((Part::Shim(pod), Some(top))) => {
                let containers = &pods[pod].containers;
                let name = if containers.len() > 1 { container_of(top) } else { None };
                let place = name.and_then(|name| containers.iter().position(|(known, _)| *known == name)).unwrap_or(0);
                if let Some(sum) = sums[pod].get_mut(place) {
                    add(sum, process);
                }
            }
            None => {}
        }
    }
    sums
}

fn parts(pods: &[RunningPod], by_pid: &HashMap<i32, &ProcessUsage>, own_pid: i32) -> HashMap<i32, Part> {
    let mut parts = HashMap::new();
    for (place, pod) in pods.iter().enumerate() {
        for (container, (_, main)) in pod.containers.iter().enumerate() {
            let Some(process) = by_pid.get(main) else { continue };
            // The number of one that has just ended may be another's by now; but then it isn't a shim that started it.
            if process.parent > 1 && process.parent != own_pid {
                parts.insert(*main, Part::Main(place, container));
                parts.insert(process.parent, Part::Shim(place));
            }
        }
    }
    parts
}

/// Whose a process is; and which child of that it is itself or descends from, unless it is that itself.
fn owner(process: &ProcessUsage, by_pid: &HashMap<i32, &ProcessUsage>, parts: &HashMap<i32, Part>) -> Option<(Part, Option<i32>)> {
    let mut top = None;
    let mut next = process.pid;
    for _ in 0..DEEPEST {
        if let Some(part) = parts.get(&next) {
            return Some((*part, top));
        }
        top = Some(next);
        next = by_pid.get(&next)?.parent;
    }
    None
}

fn add(sum: &mut Option<ProcessUsage>, process: &ProcessUsage) {
    let sum = sum.get_or_insert(ProcessUsage { cpu: Default::default(), cpu_of_ended_children: Default::default(), memory: 0, ..*process });
    sum.cpu += process.cpu;
    sum.cpu_of_ended_children += process.cpu_of_ended_children;
    sum.memory += process.memory;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kubelet::uid::PodUid;

    /// Each has used as many milliseconds as its number says, its ended children a thousand times as many, and has so many bytes.
    fn process(pid: i32, parent: i32) -> ProcessUsage {
        let number = u64::from(pid.unsigned_abs());
        let cpu = Duration::from_millis(number);
        ProcessUsage { pid, parent, cpu, cpu_of_ended_children: cpu * 1000, memory: number }
    }

    fn pod(uid: &str, containers: &[(&str, i32)]) -> RunningPod {
        let containers = containers.iter().map(|(name, main)| ((*name).to_owned(), *main)).collect();
        RunningPod { uid: PodUid::new(uid).unwrap(), containers }
    }

    /// Milliseconds, those of ended children, and bytes.
    type Sum = (u64, u64, u64);

    /// The sums of each container.
    fn check(pods: &[RunningPod], processes: &[(i32, i32)], expected: &[&[Option<Sum>]]) {
        let processes: Vec<_> = processes.iter().map(|(pid, parent)| process(*pid, *parent)).collect();
        let container_of = |pid: i32| (pid == 77).then(|| "side".to_owned());
        let sums = sums(pods, &processes, 9, container_of);
        let told = |sum: &Option<ProcessUsage>| {
            sum.map(|sum| (sum.cpu.as_millis() as u64, sum.cpu_of_ended_children.as_millis() as u64, sum.memory))
        };
        let told: Vec<Vec<_>> = sums.iter().map(|pod| pod.iter().map(told).collect()).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_container_is_its_main_process_and_all_below_it() {
        // The shim is 10; what it waited for counts for the only container.
        let processes = [(1, 0), (10, 1), (11, 10), (12, 11), (13, 12), (500, 1)];
        check(&[pod("a", &[("main", 11)])], &processes, &[&[Some((36, 46_000, 36))]]);
    }

    #[test]
    fn what_lost_its_parent_is_the_container_that_its_mark_names_or_the_first() {
        let processes = [(10, 1), (11, 10), (12, 10), (77, 10), (78, 77), (20, 10), (21, 20)];
        let both = pod("a", &[("main", 11), ("side", 12)]);
        check(&[both], &processes, &[&[Some((52, 52_000, 52)), Some((167, 167_000, 167))]]);
    }

    #[test]
    fn pods_do_not_mix_and_what_is_gone_has_nothing() {
        let processes = [(10, 1), (11, 10), (20, 1), (21, 20), (22, 21)];
        let pods = [pod("a", &[("main", 11)]), pod("b", &[("main", 21)]), pod("c", &[("main", 31)])];
        check(&pods, &processes, &[&[Some((11, 21_000, 11))], &[Some((43, 63_000, 43))], &[None]]);
    }

    #[test]
    fn a_number_that_has_become_a_strangers_is_nobodys() {
        // 11 is now a child of init, 21 one of this kubelet, and 31 and 32 are each other's.
        let processes = [(1, 0), (9, 1), (11, 1), (21, 9), (22, 21), (31, 32), (32, 31)];
        check(&[pod("a", &[("main", 11)]), pod("b", &[("main", 21)])], &processes, &[&[None], &[None]]);
    }
}
