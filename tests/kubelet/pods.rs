//! Pods as their users see them.

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bluebird::api::v1::{Container, ContainerPort, Endpoint, EndpointSlice, EndpointSliceSpec, ObjectMeta, Pod, PodPhase, RestartPolicy};
use bluebird::client::Client;
use bluebird::error::Error;
use bluebird::kubelet;
use bluebird::time::Clock;

use crate::machine::{FOREVER, Machine, main_status, phase, pid, script, terminated, waits_for};
use crate::processes::{DEADLINE, daemon, eventually, is_alive, kill_hard, pid_in, shims};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_is_reported_ready_and_is_told_its_ports() {
    let machine = Machine::new().await;
    let mut main = script("main", "echo $PORT $PORT_ADMIN; exec sleep 1000");
    main.ports =
        vec![ContainerPort { name: "http".into(), ..Default::default() }, ContainerPort { name: "admin".into(), ..Default::default() }];
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    let (pod, pid) = machine.running("web").await;
    assert!(is_alive(pid));
    let status = pod.status.as_ref().unwrap();
    assert_eq!((status.phase(), status.host_ip.as_str()), (PodPhase::Running, "127.0.0.1"));
    assert!(bluebird::api::condition::is_true(&status.conditions, bluebird::api::condition::READY));
    let ports: Vec<u32> = status.ports.iter().map(|port| port.port).collect();
    let expected = format!("{} {}\n", ports[0], ports[1]);
    let mut log = String::new();
    for _ in 0..200 {
        log = machine.log("web", false, false).await.unwrap();
        if !log.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(log, expected);
    machine.finish().await;
    assert!(!is_alive(pid));
}

/// A kubelet that is killed between writing what it wants of a shim and ringing it leaves exactly this.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_kubelet_wrote_and_never_said_is_done_under_the_next_one() {
    let mut machine = Machine::new().await;
    let pod = machine.create("web", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, main) = machine.running("web").await;
    machine.kill_kubelet().await;
    machine.delete("web", Some(1)).await;
    let desired = machine.folder_of(&pod).join("desired.json");
    let mut wishes: serde_json::Value = serde_json::from_slice(&std::fs::read(&desired).unwrap()).unwrap();
    wishes["stop"] = serde_json::json!({ "grace_ms": 1000 });
    std::fs::write(&desired, wishes.to_string()).unwrap();
    assert!(is_alive(main), "nobody has rung");

    machine.start_kubelet().await;
    machine.until_gone("web").await;
    assert!(!is_alive(main));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_its_kubelet_and_is_taken_over_with_the_same_pid() {
    let mut machine = Machine::new().await;
    machine.create("stays", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let go = machine.folder.path().join("go");
    let ends = format!("while [ ! -e {} ]; do sleep 0.01; done; echo last words; exit 7", go.display());
    let ending = machine.create("ends", RestartPolicy::Never, vec![script("main", &ends)]).await;
    let (_, stays) = machine.running("stays").await;
    let (_, ends) = machine.running("ends").await;
    machine.kill_kubelet().await;
    std::fs::write(go, "").unwrap();
    eventually("the end of a process without a kubelet", || (!is_alive(ends)).then_some(())).await;
    let state = machine.folder_of(&ending).join("state.json");
    eventually("its record", || std::fs::read_to_string(&state).unwrap().contains("Ended").then_some(())).await;

    machine.start_kubelet().await;
    let ended = machine.until("ends", "terminated", |pod| terminated(pod).is_some()).await;
    assert_eq!((phase(&ended), terminated(&ended).unwrap().exit_code), (PodPhase::Failed, 7));
    assert_eq!(machine.log("ends", false, false).await.unwrap(), "last words\n");
    let (pod, pid) = machine.running("stays").await;
    assert_eq!((pid, main_status(&pod).unwrap().restart_count), (stays, 0));
    assert!(is_alive(stays));
    assert_eq!(shims(&machine.root()).len(), 1);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_deleted_while_no_kubelet_lived_leaves_no_orphan() {
    let mut machine = Machine::new().await;
    let deleted = machine.create("deleted", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let forced = machine.create("forced", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let pids = [machine.running("deleted").await.1, machine.running("forced").await.1];
    machine.kill_kubelet().await;
    machine.delete("deleted", None).await;
    machine.delete("forced", Some(0)).await;
    assert!(pids.into_iter().all(is_alive));
    machine.start_kubelet().await;
    eventually("the end of both", || pids.into_iter().all(|pid| !is_alive(pid)).then_some(())).await;
    machine.until_gone("deleted").await;
    for pod in [deleted, forced] {
        let folder = machine.folder_of(&pod);
        eventually("the end of the folder", || (!folder.exists()).then_some(())).await;
    }
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_followed_by_a_restart_and_both_logs_can_be_read() {
    let machine = Machine::new().await;
    let first = machine.folder.path().join("first");
    let text = format!("if [ -e {0} ]; then echo second; exec sleep 1000; fi; touch {0}; echo first; exit 3", first.display());
    machine.create("crashes", RestartPolicy::Always, vec![script("main", &text)]).await;
    let waiting = machine.until("crashes", "backing off", |pod| waits_for(pod, "CrashLoopBackOff")).await;
    let status = main_status(&waiting).unwrap();
    let last = status.last_termination.as_ref().unwrap();
    assert_eq!((phase(&waiting), last.exit_code, last.signal), (PodPhase::Running, 3, 0));
    let wait = bluebird::time::elapsed(&last.finished_at.unwrap(), &status.next_retry_time.unwrap());
    assert_eq!(wait, Duration::from_secs(1));

    let (running, _) = machine.running("crashes").await;
    let status = main_status(&running).unwrap();
    assert_eq!((status.restart_count, status.last_termination.as_ref().unwrap().exit_code), (1, 3));
    assert_eq!(machine.log("crashes", true, false).await.unwrap(), "first\n");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_goes_on_across_restarts_and_ends_with_the_pod() {
    let machine = Machine::new().await;
    let (first, go) = (machine.folder.path().join("first"), machine.folder.path().join("go"));
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let text = format!("if [ -e {0} ]; then echo second; exit 0; fi; touch {0}; echo first; {wait}; exit 3", first.display());
    machine.create("talks", RestartPolicy::OnFailure, vec![script("main", &text)]).await;
    machine.running("talks").await;
    let (log, ()) = tokio::join!(machine.log("talks", false, true), async { std::fs::write(&go, "").unwrap() });
    assert_eq!(log.unwrap(), "first\nsecond\n");
    let done = machine.until("talks", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    assert_eq!(main_status(&done).unwrap().restart_count, 1);
    assert!(matches!(machine.log("none", false, false).await, Err(Error::NotFound(_))));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_exist_is_told_and_tried_again() {
    let machine = Machine::new().await;
    let absent = Container { name: "main".into(), command: vec!["no-such-program".into()], ..Container::default() };
    machine.create("absent", RestartPolicy::Always, vec![absent.clone()]).await;
    let pod = machine.until("absent", "a start error", |pod| waits_for(pod, "StartError")).await;
    let status = main_status(&pod).unwrap();
    assert_eq!((phase(&pod), status.last_termination.as_ref().unwrap().exit_code), (PodPhase::Pending, 127));
    assert!(status.next_retry_time.is_some());
    machine.until("absent", "tried again", |pod| main_status(pod).is_some_and(|status| status.restart_count > 0)).await;

    machine.create("once", RestartPolicy::Never, vec![absent]).await;
    let pod = machine.until("once", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!((terminated(&pod).unwrap().exit_code, terminated(&pod).unwrap().reason.as_str()), (127, "StartError"));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_waited_for() {
    let machine = Machine::new().await;
    let thief = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = u32::from(thief.local_addr().unwrap().port());
    let mut main = script("main", FOREVER);
    main.ports = vec![ContainerPort { container_port: number, ..Default::default() }];
    machine.create("wants", RestartPolicy::Always, vec![main]).await;
    let pod = machine.until("wants", "waiting for its port", |pod| waits_for(pod, "PortTaken")).await;
    assert!(main_status(&pod).unwrap().next_retry_time.is_some());
    drop(thief);
    let (pod, _) = machine.running("wants").await;
    assert_eq!((pod.status.as_ref().unwrap().ports[0].port, main_status(&pod).unwrap().restart_count), (number, 0));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_with_all_that_it_started_and_leaves_nothing() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("daemon.pid");
    let text =
        format!("trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ > {0}.n; mv {0}.n {0}; {FOREVER}' &); {FOREVER}", file.display());
    let pod = machine.create("stubborn", RestartPolicy::Always, vec![script("main", &text)]).await;
    let (_, main) = machine.running("stubborn").await;
    let daemon = pid_in(&file).await;
    machine.delete("stubborn", None).await;
    machine.until_gone("stubborn").await;
    assert!(!is_alive(main) && !is_alive(daemon), "the object is gone before its processes");
    let folder = machine.folder_of(&pod);
    eventually("the end of the folder", || (!folder.exists()).then_some(())).await;
    machine.finish().await;
}

/// What the endpoint controller would write.
pub(crate) async fn list_in_slice(client: &Client, pod: &Pod) -> EndpointSlice {
    let meta = pod.metadata.as_ref().unwrap();
    let endpoint = Endpoint { address: "127.0.0.1".into(), pod_name: meta.name.clone(), pod_uid: meta.uid.clone(), ..Endpoint::default() };
    let metadata = Some(ObjectMeta { name: meta.name.clone(), ..ObjectMeta::default() });
    client.create(EndpointSlice { metadata, spec: Some(EndpointSliceSpec { endpoints: vec![endpoint] }) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_not_asked_to_end_while_a_slice_names_it() {
    let machine = Machine::new().await;
    // A machine that is busy may be slow once; if the slice's change was not noticed, it is five seconds every time.
    let mut took = Vec::new();
    for name in ["web-1", "web-2", "web-3"] {
        let pod = machine.create(name, RestartPolicy::Always, vec![script("main", FOREVER)]).await;
        let mut slice = list_in_slice(&machine.client, &pod).await;
        let (_, pid) = machine.running(name).await;
        machine.delete(name, None).await;
        let deleted = std::time::Instant::now();
        while deleted.elapsed() < Duration::from_millis(500) {
            assert!(is_alive(pid), "ended {:?} after it was deleted", deleted.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        slice.spec.as_mut().unwrap().endpoints.clear();
        machine.client.update(slice).await.unwrap();
        machine.until_gone(name).await;
        took.push(deleted.elapsed());
        if deleted.elapsed() < Duration::from_secs(4) {
            break;
        }
    }
    assert!(took.last().is_some_and(|took| *took < Duration::from_secs(4)), "gone after {took:?}: the slice's change was not noticed");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_nobody_changes_holds_up_a_deleted_pod_for_five_seconds_only() {
    let machine = Machine::new().await;
    let pod = machine.create("web", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    list_in_slice(&machine.client, &pod).await;
    machine.running("web").await;
    machine.delete("web", None).await;
    let deleted = std::time::Instant::now();
    machine.until_gone("web").await;
    assert!(deleted.elapsed() >= Duration::from_secs(5), "gone after {:?}", deleted.elapsed());
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_shim_is_killed_is_lost_and_started_again_without_remains() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("daemon.pid");
    let text = format!("{}; {FOREVER}", daemon(&file));
    machine.create("main", RestartPolicy::Always, vec![script("main", &text)]).await;
    let (_, first) = machine.running("main").await;
    let daemon = pid_in(&file).await;
    std::fs::remove_file(&file).unwrap();
    let shims = shims(&machine.root());
    assert_eq!(shims.len(), 1);
    kill_hard(shims[0]);
    let is_next = |pod: &Pod| pid(pod).is_some_and(|pid| pid != first);
    let next = machine.until("main", "started again", is_next).await;
    let status = main_status(&next).unwrap();
    assert_eq!((status.restart_count, status.last_termination.as_ref().unwrap().reason.as_str()), (1, "Lost"));
    assert!(!is_alive(first) && !is_alive(daemon));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_while_no_kubelet_lived_is_noticed_at_the_next_start() {
    let mut machine = Machine::new().await;
    machine.create("main", RestartPolicy::Never, vec![script("main", FOREVER)]).await;
    let (_, first) = machine.running("main").await;
    machine.kill_kubelet().await;
    shims(&machine.root()).into_iter().for_each(kill_hard);
    eventually("the end of the process", || (!is_alive(first)).then_some(())).await;
    machine.start_kubelet().await;
    let pod = machine.until("main", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!(terminated(&pod).unwrap().reason, "Lost");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_apiserver_a_node_starts_its_pods_again_but_none_that_was_to_end() {
    let mut machine = Machine::new().await;
    let kept = machine.create("kept", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let stubborn = machine.create("stubborn", RestartPolicy::Always, vec![script("main", &format!("trap '' TERM; {FOREVER}"))]).await;
    let (_, first) = machine.running("kept").await;
    let (_, doomed) = machine.running("stubborn").await;
    machine.delete("stubborn", None).await;
    let desired = machine.folder_of(&stubborn).join("desired.json");
    eventually("the request to end", || std::fs::read_to_string(&desired).ok()?.contains("grace_ms").then_some(())).await;
    machine.kill_kubelet().await;
    shims(&machine.root()).into_iter().for_each(kill_hard);
    eventually("the end of both", || (!is_alive(first) && !is_alive(doomed)).then_some(())).await;

    let nobody = Client::new("http://127.0.0.1:9").unwrap();
    machine.kubelet = Some(kubelet::start(machine.config(), nobody, Clock::system()).await.unwrap());
    let state = machine.folder_of(&kept).join("state.json");
    eventually("another run", || std::fs::read_to_string(&state).ok()?.contains("\"attempt\":1").then_some(())).await;
    eventually("its process", || (!machine.cleanup.marked().is_empty()).then_some(())).await;
    assert!(!std::fs::read_to_string(machine.folder_of(&stubborn).join("state.json")).unwrap().contains("\"attempt\":1"));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_shim_that_is_killed_is_noticed_at_once() {
    let mut machine = Machine::new().await;
    machine.create("main", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, first) = machine.running("main").await;
    machine.kill_kubelet().await;
    machine.start_kubelet().await;
    // In session again before the shim dies, so that only its silence can tell.
    let touched = machine.create("other", RestartPolicy::Never, vec![script("main", "exit 0")]).await;
    machine.until("other", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    let killed = std::time::Instant::now();
    let other = touched.metadata.unwrap().uid;
    for shim in shims(&machine.root()) {
        let command = std::fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap_or_default();
        if !command.contains(&other) {
            kill_hard(shim);
        }
    }
    machine.until("main", "lost", |pod| main_status(pod).is_some_and(|status| status.last_termination.is_some())).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "noticed only after {:?}", killed.elapsed());
    // It was killed before it was called lost; the kernel takes a moment.
    eventually("the end of the process", || (!is_alive(first)).then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_needs_what_the_node_lacks_says_so() {
    let machine = Machine::new().await;
    let image = Container { name: "main".into(), image: "nginx".into(), ..Container::default() };
    machine.create("image", RestartPolicy::Always, vec![image]).await;
    let pod = machine.until("image", "refused", |pod| waits_for(pod, "MissingCapability")).await;
    let status = pod.status.unwrap();
    assert_eq!((status.phase(), status.reason.as_str()), (PodPhase::Pending, "MissingCapability"));
    assert!(status.message.contains("runtime.docker"), "{}", status.message);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_kubelet_of_the_same_name_is_refused() {
    let machine = Machine::new().await;
    machine.create("main", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    machine.running("main").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let config = kubelet::Config { root_dir: elsewhere.path().into(), ..machine.config() };
    let second = kubelet::start(config, machine.client.clone(), Clock::system()).await.unwrap();
    let refusal = tokio::time::timeout(DEADLINE, second.refused()).await.unwrap();
    assert!(matches!(refusal, Error::Precondition(_)), "{refusal}");
    second.shutdown().await;
    assert_eq!(std::fs::read_dir(elsewhere.path().join("pods")).unwrap().count(), 0);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_refuses_the_apiserver_of_another_cluster_and_keeps_its_pods() {
    let mut machine = Machine::new().await;
    machine.create("main", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, pid) = machine.running("main").await;
    machine.kill_kubelet().await;

    let other = Machine::new().await;
    let config = kubelet::Config { node_name: "n2".into(), ..machine.config() };
    let confused = kubelet::start(config, other.client.clone(), Clock::system()).await.unwrap();
    let refusal = tokio::time::timeout(DEADLINE, confused.refused()).await.unwrap();
    assert!(refusal.to_string().contains("holds pods of cluster"), "{refusal}");
    confused.shutdown().await;
    assert!(is_alive(pid));
    other.finish().await;
    machine.start_kubelet().await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_start_once_each_and_all_end_with_their_kubelets_owner() {
    let machine = Machine::new().await;
    let names: Vec<String> = (0..40).map(|number| format!("p{number}")).collect();
    for name in &names {
        machine.create(name, RestartPolicy::Always, vec![script("main", "exec sleep 1000")]).await;
    }
    let mut pids = HashSet::new();
    for name in &names {
        let (pod, pid) = machine.running(name).await;
        assert_eq!(main_status(&pod).unwrap().restart_count, 0);
        assert!(pids.insert(pid));
    }
    assert_eq!(machine.cleanup.marked().len(), names.len());
    machine.finish().await;
}

/// The real executable, killed as only a process can be.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_kubelet_process_leaves_its_pods_to_the_next_one() {
    let mut machine = Machine::new().await;
    machine.kill_kubelet().await;
    let start = || -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubelet"));
        command.args(["--server", &machine.apiserver.url(), "--node-name", "n1", "--no-routes", "--root-dir"]).arg(machine.root());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut kubelet = Guard(start());
    machine.create("main", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, pid) = machine.running("main").await;
    kubelet.0.kill().unwrap();
    kubelet.0.wait().unwrap();
    assert!(is_alive(pid));
    let _second = Guard(start());
    machine.delete("main", None).await;
    machine.until_gone("main").await;
    assert!(!is_alive(pid));
    machine.finish().await;
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_when_the_kubelet_is_killed_while_a_pod_writes() {
    let mut machine = Machine::new().await;
    let go = machine.folder.path().join("go");
    let text = format!("i=0; while [ ! -e {} ]; do i=$((i+1)); echo line $i; done; echo last", go.display());
    let pod = machine.create("writes", RestartPolicy::Never, vec![script("main", &text)]).await;
    machine.running("writes").await;
    let log = machine.folder_of(&pod).join("logs/main/0.log");
    for _ in 0..3 {
        machine.kill_kubelet().await;
        let before = std::fs::metadata(&log).unwrap().len();
        eventually("more lines without a kubelet", || (std::fs::metadata(&log).unwrap().len() > before + 1000).then_some(())).await;
        machine.start_kubelet().await;
    }
    std::fs::write(&go, "").unwrap();
    machine.until("writes", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    let log = machine.log("writes", false, false).await.unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let (last, numbered) = lines.split_last().unwrap();
    assert_eq!(*last, "last");
    for (number, line) in (1..).zip(numbered) {
        assert_eq!(*line, format!("line {number}"));
    }
    machine.finish().await;
}
