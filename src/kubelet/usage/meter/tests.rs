use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn uid(name: &str) -> PodUid {
    PodUid::new(name).unwrap()
}

fn pod(name: &str) -> RunningPod {
    RunningPod { uid: uid(name), containers: vec![("main".to_owned(), 5)] }
}

/// What was seen after so many seconds: of the machine, and of the container of each pod.
fn look(began: Instant, seconds: u32, machine: Option<Duration>, pods: &[(&str, Counter)]) -> Look {
    let counted = |(name, cpu): &(&str, Counter)| ((uid(name), "main".to_owned()), Counted { cpu: Some(*cpu), memory: Some(77) });
    Look {
        at: began + SECOND * seconds,
        machine: machine.map(|cpu| MachineUsage { cpu, memory: 1 << 30 }),
        containers: pods.iter().map(counted).collect(),
    }
}

fn cpu_of(usage: &Usage, pod: &str) -> Option<u64> {
    usage.pods.iter().find(|known| known.uid == pod).unwrap().containers[0].cpu_millis
}

#[test]
fn cpu_is_what_was_used_between_two_looks() {
    let began = Instant::now();
    let before = look(began, 0, Some(SECOND * 100), &[("a", Counter::Fence(SECOND * 10)), ("b", Counter::Processes(SECOND))]);
    let now = look(began, 4, Some(SECOND * 106), &[("a", Counter::Fence(SECOND * 11)), ("b", Counter::Processes(SECOND))]);
    let disk = Some(DiskUsage { used: 3, total: 9 });
    let usage = usage(Some(&before), &now, &[pod("a"), pod("b")], &[(uid("b"), 4096)].into(), disk);
    assert_eq!((cpu_of(&usage, "a"), cpu_of(&usage, "b")), (Some(250), Some(0)));
    assert_eq!(usage.pods.iter().map(|pod| pod.disk_bytes).collect::<Vec<_>>(), [None, Some(4096)]);
    let expected = NodeUsage { cpu_millis: Some(1500), memory_bytes: Some(1 << 30), disk_bytes: Some(3), disk_total_bytes: Some(9) };
    assert_eq!(usage.node, Some(expected));
    assert_eq!(usage.window, Some(prost_types::Duration { seconds: 4, nanos: 0 }));
}

#[test]
fn a_first_look_knows_no_cpu_but_memory() {
    let now = look(Instant::now(), 0, Some(SECOND), &[("a", Counter::Fence(SECOND))]);
    let usage = usage(None, &now, &[pod("a")], &HashMap::new(), None);
    assert_eq!(usage.pods[0].containers, [ContainerUsage { name: "main".into(), cpu_millis: None, memory_bytes: Some(77) }]);
    assert_eq!(usage.node.unwrap().cpu_millis, None);
}

#[test]
fn counts_that_can_not_be_compared_are_no_figure() {
    let began = Instant::now();
    let before = look(began, 0, None, &[("again", Counter::Fence(SECOND * 9)), ("other", Counter::Processes(SECOND))]);
    let now = look(
        began,
        1,
        Some(SECOND),
        &[("again", Counter::Fence(SECOND)), ("other", Counter::Fence(SECOND * 2)), ("new", Counter::Fence(SECOND))],
    );
    let pods = ["again", "other", "new"].map(pod);
    let usage = usage(Some(&before), &now, &pods, &HashMap::new(), None);
    assert_eq!(pods.map(|pod| cpu_of(&usage, pod.uid.as_str())), [None, None, None]);
    assert_eq!(usage.node.unwrap().cpu_millis, None);
}

#[test]
fn figures_of_very_many_pods_stay_within_a_bound() {
    let pods: Vec<_> = (0..30_000).map(|number| pod(&format!("{number:036}"))).collect();
    let containers = pods.iter().map(|pod| ((pod.uid.clone(), "main".to_owned()), Counted { cpu: None, memory: Some(u64::MAX) }));
    let now = Look { at: Instant::now(), machine: None, containers: containers.collect() };
    let usage = usage(None, &now, &pods, &HashMap::new(), None);
    assert!((5_000..30_000).contains(&usage.pods.len()), "{}", usage.pods.len());
    assert!(usage.encoded_len() <= MAX_BYTES + 1024, "{}", usage.encoded_len());
    let thousand = usage.pods[..1000].iter().map(|pod| pod.encoded_len() + 8).sum::<usize>();
    assert!(thousand < 100_000, "{thousand}");
}
