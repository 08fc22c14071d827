//! Limits that the machine enforces. Without control groups that can be written they are not tested here.

use std::path::{Path, PathBuf};

use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{Container, Pod, PodPhase, ResourceRequirements, RestartPolicy};

use serde_json::{Value, json};

use crate::init;
use crate::machine::{FOREVER, Machine, phase, pid, script, terminated};
use crate::processes::{eventually, is_alive, kill_hard};
use crate::shim::Fixture;

/// A machine that has these capabilities; says so and gives none otherwise.
async fn machine_with(needed: &[&str]) -> Option<Machine> {
    let machine = Machine::new().await;
    let capabilities = machine.capabilities().await;
    if needed.iter().all(|needed| capabilities.iter().any(|capability| capability == needed)) {
        return Some(machine);
    }
    println!("SKIPPED: this machine lacks one of {}", needed.join(", "));
    machine.finish().await;
    None
}

pub(crate) fn limited(mut container: Container, limits: &[(&str, &str)]) -> Container {
    let limits = limits.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect();
    container.resources = Some(ResourceRequirements { limits, ..ResourceRequirements::default() });
    container
}

/// The control groups of a process that are a kubelet's, as folders, by the names of their controllers.
fn groups(pid: i32) -> Vec<(String, PathBuf)> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = own.lines().filter(|line| line.contains("/bluebird/"));
    let folder = |line: &str| {
        let [_, controllers, group] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let kind = if controllers.is_empty() { " - cgroup2 ".to_owned() } else { format!("{controllers}\n") };
        let mount = mounts.split_inclusive('\n').find(|mount| mount.contains(&kind) && mount.contains(" - cgroup")).unwrap();
        let fields: Vec<&str> = mount.split(' ').collect();
        let below = Path::new(group).strip_prefix(fields[3]).unwrap();
        (controllers.to_owned(), Path::new(fields[4]).join(below))
    };
    ours.map(folder).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_uses_more_memory_than_its_limit_is_oom_killed_and_its_neighbour_lives() {
    let Some(machine) = machine_with(&["memory-limits"]).await else { return };
    let eater = limited(script("main", "exec tail /dev/zero"), &[("memory", "16Mi")]);
    machine.create("neighbour", RestartPolicy::Never, vec![script("main", FOREVER)]).await;
    let (_, neighbour) = machine.running("neighbour").await;
    machine.create("eater", RestartPolicy::Never, vec![eater]).await;
    let pod = machine.until("eater", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    let ended = terminated(&pod).unwrap();
    assert_eq!((ended.exit_code, ended.signal, ended.reason.as_str()), (137, 9, "OOMKilled"));
    assert_eq!(ended.message, "it was killed at its limit of memory");
    assert!(is_alive(neighbour));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_memory_that_no_program_can_start_with_is_told_as_such() {
    let Some(machine) = machine_with(&["memory-limits"]).await else { return };
    let cramped = limited(script("main", FOREVER), &[("memory", "8Ki")]);
    machine.create("cramped", RestartPolicy::Never, vec![cramped]).await;
    let pod = machine.until("cramped", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    let ended = terminated(&pod).unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"), "{}", ended.message);
    machine.finish().await;
}

/// Below what a shell needs, below what its program needs, and between: the kernel may kill in the middle of the start.
const TOO_LITTLE: [&str; 6] = ["4Ki", "64Ki", "256Ki", "512Ki", "1Mi", "4Mi"];

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_memory_below_what_a_program_needs_is_told_however_low_it_is_and_its_neighbours_go_on() {
    let Some(machine) = machine_with(&["memory-limits"]).await else { return };
    let name = |limit: &str| format!("with-{}", limit.to_lowercase());
    let eaters = TOO_LITTLE.map(|limit| limited(script(&name(limit), "exec tail /dev/zero"), &[("memory", limit)]));
    let containers = [vec![script("main", FOREVER)], eaters.to_vec()].concat();
    machine.create("cramped", RestartPolicy::Never, containers).await;
    let ended = |pod: &Pod, limit: &str| match init::state(pod, &name(limit)) {
        Some(State::Terminated(ended)) => Some(ended.clone()),
        _ => None,
    };
    let (_, main) = machine.running("cramped").await;
    let have_ended = |pod: &Pod| TOO_LITTLE.iter().all(|limit| ended(pod, limit).is_some());
    let pod = machine.until("cramped", "without those that have too little", have_ended).await;
    for limit in TOO_LITTLE {
        let ended = ended(&pod, limit).unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"), "{limit}: {ended:?}");
        assert_eq!(ended.message, "it was killed at its limit of memory", "{limit}");
    }
    assert!(pid(&pod) == Some(main) && is_alive(main));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_forks_without_end_has_no_more_processes_than_its_limit_and_ends_with_all_of_them() {
    let Some(machine) = machine_with(&["pids-limits"]).await else { return };
    let tried = machine.folder.path().join("tried");
    let bomb = format!("for i in $(seq 1 100); do setsid sh -c 'sleep 1000' 2>/dev/null & echo x >> {}; done; {FOREVER}", tried.display());
    // A shell that can't fork ends; this one is asked again by its parent, which keeps what it has started.
    let bomb = format!("trap '' TERM; (while :; do ({bomb}); read pause < /dev/null; done) 2>/dev/null");
    machine.create("bomb", RestartPolicy::Never, vec![limited(script("main", &bomb), &[("pids", "20")])]).await;
    let (_, main) = machine.running("bomb").await;
    let folder = groups(main).into_iter().find(|(name, _)| name == "pids").map(|(_, folder)| folder).unwrap();
    let refused = || std::fs::read_to_string(folder.join("pids.events")).ok()?.trim().strip_prefix("max ")?.parse::<u64>().ok();
    eventually("a fork that was refused", || refused().filter(|count| *count > 0)).await;
    assert!(machine.cleanup.marked().len() <= 20, "{:?}", machine.cleanup.marked());
    machine.delete("bomb", Some(0)).await;
    eventually("the end of all of it", || machine.cleanup.marked().is_empty().then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_cpu_holds_a_busy_container_back() {
    let Some(machine) = machine_with(&["cpu-limits"]).await else { return };
    machine.create("busy", RestartPolicy::Never, vec![limited(script("main", "while :; do :; done"), &[("cpu", "50m")])]).await;
    let (_, main) = machine.running("busy").await;
    let folder = groups(main).into_iter().find(|(name, _)| name.split(',').any(|name| name == "cpu")).map(|(_, folder)| folder).unwrap();
    let throttled = || {
        let stat = std::fs::read_to_string(folder.join("cpu.stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok()).filter(|count| *count > 2)
    };
    eventually("a container that was held back", throttled).await;
    let quota = ["cpu.cfs_quota_us", "cpu.max"].into_iter().find_map(|file| std::fs::read_to_string(folder.join(file)).ok()).unwrap();
    assert_eq!(quota.split_whitespace().next(), Some("5000"));
    machine.delete("busy", Some(0)).await;
    machine.until_gone("busy").await;
    eventually("the end of its group", || (!folder.exists()).then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_pod_left_of_its_control_groups_is_swept_and_that_of_a_living_one_stays() {
    let Some(mut machine) = machine_with(&["pids-limits"]).await else { return };
    let pod = machine.create("lives", RestartPolicy::Never, vec![limited(script("main", FOREVER), &[("pids", "20")])]).await;
    let (_, main) = machine.running("lives").await;
    let living = groups(main);
    assert!(living.iter().all(|(_, folder)| folder.ends_with(format!("{}/main", pod.metadata.as_ref().unwrap().uid))), "{living:?}");
    machine.kill_kubelet().await;
    let leftovers: Vec<PathBuf> = living.iter().map(|(_, folder)| folder.ancestors().nth(2).unwrap().join("dead/main")).collect();
    leftovers.iter().for_each(|leftover| std::fs::create_dir_all(leftover).unwrap());
    machine.start_kubelet().await;
    eventually("the end of what is left", || leftovers.iter().all(|leftover| !leftover.parent().unwrap().exists()).then_some(())).await;
    assert!(is_alive(main) && groups(main) == living);
    machine.finish().await;
    assert!(living.iter().all(|(_, folder)| !folder.exists()));
}

/// A run in a control group that is none: it counts what the test says.
fn fenced(pod: &Fixture, container: &str, script: &str) -> Value {
    let folder = pod.path(&format!("fence-{container}"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("cgroup.procs"), "").unwrap();
    count_killed(pod, container, 0);
    let mut run = pod.script(container, 0, script);
    run["fence"] = json!([folder]);
    run
}

fn count_killed(pod: &Fixture, container: &str, killed: u32) {
    std::fs::write(pod.path(&format!("fence-{container}/memory.events")), format!("oom_kill {killed}\n")).unwrap();
}

#[tokio::test]
async fn only_a_kill_for_want_of_memory_is_told_as_one() {
    let mut pod = Fixture::new();
    let runs = ["asked", "deaf", "starved"].map(|name| {
        let trap = if name == "deaf" { "trap '' TERM; echo ready; " } else { "echo ready; " };
        fenced(&pod, name, &format!("{trap}{FOREVER}"))
    });
    pod.want(&runs, None);
    pod.start();
    let starved = pod.running("starved", 0).await;
    for name in ["asked", "deaf", "starved"] {
        pod.running(name, 0).await;
        eventually("the trap", || (pod.log(name, 0) == "ready\n").then_some(())).await;
        // A process that it had started, say.
        count_killed(&pod, name, 1);
    }
    kill_hard(starved);
    assert_eq!(pod.ended("starved", 0).await, json!("OomKilled"));
    pod.want(&runs, Some(300));
    assert_eq!(pod.ended("asked", 0).await, json!({ "Signaled": 15 }));
    assert_eq!(pod.ended("deaf", 0).await, json!({ "Signaled": 9 }));
    pod.shim_ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_test_whose_shims_and_kubelet_were_killed_no_control_group_is_left() {
    let Some(mut machine) = machine_with(&["pids-limits"]).await else { return };
    machine.create("lives", RestartPolicy::Never, vec![limited(script("main", FOREVER), &[("pids", "20")])]).await;
    let (_, main) = machine.running("lives").await;
    let its_own = groups(main);
    machine.kill_kubelet().await;
    machine.lose_all_processes().await;
    assert!(its_own.iter().all(|(_, folder)| folder.exists()), "nobody was left to remove them");
    drop(machine);
    assert!(!its_own.is_empty() && its_own.iter().all(|(_, folder)| !folder.exists()), "{its_own:?}");
}
