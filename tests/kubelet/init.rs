//! Init containers, sidecars, and restart policies and back-offs of single containers.

use std::time::Duration;

use bluebird::api::condition;
use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{Container, ContainerStatus, LogsRequest, Pod, PodPhase, PodSpec, RestartBackoff, RestartPolicy};

use crate::machine::{FOREVER, Machine, phase, pid, script};
use crate::processes::{eventually, is_alive};

/// Shorter than what people want, so that tests needn't wait.
pub(crate) fn quickly(container: Container) -> Container {
    let initial = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    Container { restart_backoff: Some(RestartBackoff { initial, factor: 1.0, ..RestartBackoff::default() }), ..container }
}

fn with_policy(container: Container, policy: RestartPolicy) -> Container {
    Container { restart_policy: policy.into(), ..container }
}

fn sidecar(name: &str, text: &str) -> Container {
    quickly(with_policy(script(name, text), RestartPolicy::Always))
}

async fn create(machine: &Machine, name: &str, policy: RestartPolicy, init_containers: Vec<Container>, containers: Vec<Container>) -> Pod {
    machine.create_spec(name, PodSpec { init_containers, containers, restart_policy: policy.into(), ..PodSpec::default() }).await
}

fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    status.init_container_statuses.iter().chain(&status.container_statuses).find(|container| container.name == name)
}

pub(crate) fn state<'a>(pod: &'a Pod, name: &str) -> Option<&'a State> {
    status(pod, name)?.state.as_ref()?.state.as_ref()
}

pub(crate) fn pid_of(pod: &Pod, name: &str) -> Option<i32> {
    match state(pod, name)? {
        State::Running(running) => Some(running.pid as i32),
        _ => None,
    }
}

fn exit_code(pod: &Pod, name: &str) -> Option<i32> {
    match state(pod, name)? {
        State::Terminated(ended) => Some(ended.exit_code),
        _ => None,
    }
}

fn is_so(pod: &Pod, condition_type: &str) -> bool {
    condition::is_true(&pod.status.as_ref().unwrap().conditions, condition_type)
}

async fn log_of(machine: &Machine, pod: &str, container: &str) -> String {
    let request = LogsRequest { pod: pod.into(), container: container.into(), follow: true, ..LogsRequest::default() };
    let mut pieces = machine.client.logs(request).await.unwrap();
    let mut log = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        log.extend(piece.data);
    }
    String::from_utf8(log).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_to_success_one_after_the_other_before_the_main_container() {
    let machine = Machine::new().await;
    // The second fails until the gate is open; each leaves its trace in the folder that they share.
    let gate = machine.folder.path().join("gate");
    let second = format!("[ -e {} ] || exit 3; cat trace && echo second >> trace", gate.display());
    let init = vec![script("first", "echo first > trace"), quickly(script("second", &second))];
    create(&machine, "web", RestartPolicy::Never, init.clone(), vec![script("main", "cat trace; echo main")]).await;
    let failed = machine.until("web", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!((exit_code(&failed, "first"), exit_code(&failed, "second"), exit_code(&failed, "main")), (Some(0), Some(3), None));
    assert!(!is_so(&failed, condition::INITIALIZED));

    create(&machine, "again", RestartPolicy::OnFailure, init, vec![script("main", "cat trace; echo main")]).await;
    let retried = machine.until("again", "retried", |pod| status(pod, "second").is_some_and(|second| second.restart_count > 1)).await;
    assert_eq!((phase(&retried), status(&retried, "first").unwrap().restart_count), (PodPhase::Pending, 0));
    assert!(matches!(state(&retried, "main"), Some(State::Waiting(waiting)) if waiting.reason == "PodInitializing"));
    std::fs::write(gate, "").unwrap();
    let done = machine.until("again", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    assert!(is_so(&done, condition::INITIALIZED) && status(&done, "first").unwrap().ready);
    assert_eq!(log_of(&machine, "again", "main").await, "first\nsecond\nmain\n");
    assert_eq!(log_of(&machine, "again", "second").await, "first\n");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_runs_beside_the_main_container_is_started_again_and_ends_after_it() {
    let mut machine = Machine::new().await;
    let go = machine.folder.path().join("go");
    let main = format!("while [ ! -e {} ]; do sleep 0.01; done; exit 4", go.display());
    let init = vec![sidecar("proxy", FOREVER), script("setup", "true")];
    create(&machine, "web", RestartPolicy::Never, init, vec![script("main", &main)]).await;
    let pod = machine.until("web", "ready", |pod| is_so(pod, condition::READY)).await;
    let (proxy, main) = (pid_of(&pod, "proxy").unwrap(), pid_of(&pod, "main").unwrap());
    assert!(status(&pod, "proxy").unwrap().started);

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(proxy), nix::sys::signal::Signal::SIGKILL).unwrap();
    let pod = machine.until("web", "whole again", |pod| pid_of(pod, "proxy").is_some_and(|pid| pid != proxy)).await;
    assert_eq!((status(&pod, "proxy").unwrap().restart_count, pid_of(&pod, "main")), (1, Some(main)));

    // Neither the init container nor the sidecar begins anew under the next kubelet.
    machine.kill_kubelet().await;
    machine.start_kubelet().await;
    std::fs::write(go, "").unwrap();
    let over = machine.until("web", "over", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!((exit_code(&over, "main"), exit_code(&over, "proxy"), exit_code(&over, "setup")), (Some(4), Some(143), Some(0)));
    assert_eq!(machine.cleanup.marked(), Vec::<i32>::new(), "it was called over while something ran");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_does_not_keep_its_pod_from_succeeding() {
    let machine = Machine::new().await;
    let init = vec![sidecar("proxy", &format!("trap 'exit 9' TERM; {FOREVER}"))];
    create(&machine, "job", RestartPolicy::OnFailure, init, vec![script("main", "exit 0")]).await;
    let done = machine.until("job", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    assert_eq!(exit_code(&done, "main"), Some(0));
    assert!(exit_code(&done, "proxy").is_some());
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_container_of_a_pod_has_a_restart_policy_and_a_back_off_of_its_own() {
    let machine = Machine::new().await;
    let slow = Container {
        restart_backoff: Some(RestartBackoff {
            initial: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            ..RestartBackoff::default()
        }),
        ..script("slow", "exit 1")
    };
    let containers = vec![
        quickly(script("quick", "exit 1")),
        slow,
        with_policy(script("once", "exit 7"), RestartPolicy::Never),
        with_policy(quickly(script("tries", "[ -e done ] && exit 0; touch done; exit 1")), RestartPolicy::OnFailure),
    ];
    create(&machine, "mixed", RestartPolicy::Always, vec![], containers).await;
    let is_settled = |pod: &Pod| {
        status(pod, "quick").is_some_and(|quick| quick.restart_count >= 5)
            && exit_code(pod, "tries") == Some(0)
            && exit_code(pod, "once").is_some()
    };
    let pod = machine.until("mixed", "settled", is_settled).await;
    let slow = status(&pod, "slow").unwrap();
    let wait = bluebird::time::elapsed(&slow.last_termination.as_ref().unwrap().finished_at.unwrap(), &slow.next_retry_time.unwrap());
    assert_eq!((slow.restart_count, wait), (0, Duration::from_secs(3_600)));
    assert_eq!((status(&pod, "once").unwrap().restart_count, exit_code(&pod, "once")), (0, Some(7)));
    assert_eq!((status(&pod, "tries").unwrap().restart_count, phase(&pod)), (1, PodPhase::Running));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_its_init_container_and_starts_nothing_more() {
    let machine = Machine::new().await;
    let pod = create(&machine, "slow", RestartPolicy::Always, vec![script("setup", FOREVER)], vec![script("main", FOREVER)]).await;
    let running = machine.until("slow", "initializing", |pod| pid_of(pod, "setup").is_some()).await;
    let setup = pid_of(&running, "setup").unwrap();
    assert_eq!(pid(&running), None);
    machine.delete("slow", None).await;
    machine.until_gone("slow").await;
    assert!(!is_alive(setup));
    let folder = machine.folder_of(&pod);
    eventually("the end of the folder", || (!folder.exists()).then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_sidecar_that_ended_with_its_kubelet_starts_again_in_order_and_without_back_off() {
    let mut machine = Machine::new().await;
    let patiently = |container: Container| {
        let initial = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
        Container { restart_backoff: Some(RestartBackoff { initial, ..RestartBackoff::default() }), ..container }
    };
    let init = vec![script("setup", "echo >> runs"), patiently(with_policy(script("proxy", FOREVER), RestartPolicy::Always))];
    create(&machine, "web", RestartPolicy::Always, init, vec![patiently(script("main", FOREVER))]).await;
    let pod = machine.until("web", "ready", |pod| is_so(pod, condition::READY)).await;
    let old = (pid_of(&pod, "proxy"), pid_of(&pod, "main"));
    machine.kubelet.take().unwrap().shutdown_and_stop_pods().await;
    machine.start_kubelet().await;
    let is_new = |pod: &Pod| is_so(pod, condition::READY) && pid_of(pod, "proxy") != old.0 && pid_of(pod, "main") != old.1;
    let again = machine.until("web", "ready again", is_new).await;
    let counts = ["setup", "proxy", "main"].map(|name| status(&again, name).unwrap().restart_count);
    assert_eq!(counts, [0, 1, 1]);
    assert_eq!(std::fs::read_to_string(machine.folder_of(&again).join("work/runs")).unwrap(), "\n", "what has ended well is done");
    machine.finish().await;
}
