//! Probes against real processes.

use std::path::{Path, PathBuf};

use bluebird::api::condition;
use bluebird::api::v1::{
    ClusterEvent, Container, ContainerPort, ExecAction, HttpGetAction, Pod, Probe, RestartBackoff, RestartPolicy, TcpSocketAction,
    probe::Handler,
};
use bluebird::client::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::machine::{FOREVER, Machine, main_status, pid, script};
use crate::processes::{eventually, is_alive, pid_in};

fn every_second(handler: Handler) -> Option<Probe> {
    Some(Probe { handler: Some(handler), period_seconds: 1, failure_threshold: 1, timeout_seconds: 10, ..Probe::default() })
}

fn exec(text: &str) -> Handler {
    Handler::Exec(ExecAction { command: vec!["sh".into(), "-c".into(), text.into()] })
}

/// Passes while there is such a file.
fn file_is_there(path: &Path) -> Handler {
    exec(&format!("test -e {} || {{ echo no file; exit 1; }}", path.display()))
}

fn quickly(container: Container) -> Container {
    let initial = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    Container { restart_backoff: Some(RestartBackoff { initial, factor: 1.0, ..RestartBackoff::default() }), ..container }
}

fn is_ready(pod: &Pod) -> bool {
    condition::is_true(&pod.status.as_ref().unwrap().conditions, condition::READY)
}

fn why_unready(pod: &Pod) -> String {
    condition::get(&pod.status.as_ref().unwrap().conditions, condition::READY).unwrap().message.clone()
}

/// The notes of the events of one reason.
async fn notes(machine: &Machine, reason: &str) -> Vec<String> {
    let events = machine.client.list::<ClusterEvent>("").await.unwrap();
    let specs = events.into_iter().filter_map(|event| event.spec);
    specs.filter(|spec| spec.reason == reason).map(|spec| spec.note).collect()
}

async fn until_noted(machine: &Machine, reason: &str, part: &str) {
    let waited = tokio::time::timeout(crate::processes::DEADLINE, async {
        while !notes(machine, reason).await.iter().any(|note| note.contains(part)) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "no event {reason} says {part:?}: {:?}", notes(machine, reason).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_ready_while_its_readiness_probe_passes_and_says_why_when_it_is_not() {
    let machine = Machine::new().await;
    let flag = machine.folder.path().join("ready");
    let main = Container { readiness_probe: every_second(file_is_there(&flag)), ..script("main", FOREVER) };
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    let (_, first) = machine.running("web").await;
    let pod = machine.until("web", "unready for a reason", |pod| why_unready(pod).contains("no file")).await;
    assert!(!is_ready(&pod) && main_status(&pod).unwrap().started && !main_status(&pod).unwrap().ready);
    std::fs::write(&flag, "").unwrap();
    machine.until("web", "ready", is_ready).await;
    std::fs::remove_file(&flag).unwrap();
    let pod = machine.until("web", "unready again", |pod| !is_ready(pod)).await;
    assert!(why_unready(&pod).contains("its readiness probe failed: exit code 1: no file"), "{}", why_unready(&pod));
    until_noted(&machine, "Unhealthy", "Readiness probe of container main failed").await;
    assert_eq!((pid(&pod), main_status(&pod).unwrap().restart_count), (Some(first), 0), "readiness ends nothing");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_liveness_probe_fails_is_ended_with_its_tree_and_started_again_while_others_run_on() {
    let machine = Machine::new().await;
    let (flag, child) = (machine.folder.path().join("alive"), machine.folder.path().join("child.pid"));
    std::fs::write(&flag, "").unwrap();
    let text = format!("trap '' TERM; (trap '' TERM; sh -c 'echo $$ > {0}.n; mv {0}.n {0}; {FOREVER}' &); {FOREVER}", child.display());
    let main = quickly(Container { liveness_probe: every_second(file_is_there(&flag)), ..script("main", &text) });
    let pod = machine.create("web", RestartPolicy::OnFailure, vec![main, script("beside", FOREVER)]).await;
    let (_, first) = machine.running("web").await;
    let child_pid = pid_in(&child).await;
    let health = machine.folder_of(&pod).join("health.json");
    eventually("what the probe said", || health.exists().then_some(())).await;
    std::fs::remove_file(&child).unwrap();

    std::fs::remove_file(&flag).unwrap();
    let ended = machine.until("web", "ended", |pod| main_status(pod).is_some_and(|main| main.last_termination.is_some())).await;
    std::fs::write(&flag, "").unwrap();
    let last = main_status(&ended).unwrap().last_termination.clone().unwrap();
    assert_eq!((last.signal, last.message.contains("liveness probe failed")), (9, true), "{last:?}");
    assert!(!is_alive(first) && !is_alive(child_pid));
    let again = machine.until("web", "running again", |pod| pid(pod).is_some_and(|pid| pid != first)).await;
    assert!(main_status(&again).unwrap().restart_count >= 1);
    assert_eq!(again.status.as_ref().unwrap().container_statuses[1].restart_count, 0);
    until_noted(&machine, "Killing", "its liveness probe failed").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn until_a_startup_probe_has_passed_the_others_wait_and_so_do_the_containers_after_a_sidecar() {
    let machine = Machine::new().await;
    let (flag, probed) = (machine.folder.path().join("started"), machine.folder.path().join("probed"));
    let startup = Probe { failure_threshold: 1_000, ..every_second(file_is_there(&flag)).unwrap() };
    let proxy = Container {
        startup_probe: Some(startup),
        readiness_probe: every_second(exec(&format!("touch {}", probed.display()))),
        restart_policy: RestartPolicy::Always.into(),
        ..script("proxy", FOREVER)
    };
    let spec = bluebird::api::v1::PodSpec { init_containers: vec![proxy], containers: vec![script("main", FOREVER)], ..Default::default() };
    machine.create_spec("web", spec).await;
    until_noted(&machine, "Unhealthy", "Startup probe of container proxy failed").await;
    let pod = machine.get("web").await.unwrap();
    assert_eq!((pid(&pod), probed.exists()), (None, false));
    assert!(!pod.status.as_ref().unwrap().init_container_statuses[0].started);
    std::fs::write(&flag, "").unwrap();
    let pod = machine.until("web", "ready", is_ready).await;
    assert!(pid(&pod).is_some() && probed.exists() && pod.status.unwrap().init_container_statuses[0].started);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_starts_up_is_ended_and_its_pod_fails_by_its_policy() {
    let machine = Machine::new().await;
    let ready = machine.folder.path().join("ready");
    // Whatever it returns when it is asked to end, which it has to be able to hear first.
    let fails = format!("until [ -e {} ]; do sleep 0.01; done; exit 5", ready.display());
    let probe = Probe { timeout_seconds: 60, ..every_second(exec(&fails)).unwrap() };
    let runs = format!("trap 'exit 0' TERM; : > {}; while :; do sleep 0.01; done", ready.display());
    let main = Container { startup_probe: Some(probe), ..script("main", &runs) };
    machine.create("never", RestartPolicy::Never, vec![main]).await;
    let pod = machine.until("never", "failed", |pod| crate::machine::phase(pod) == bluebird::api::v1::PodPhase::Failed).await;
    let ended = crate::machine::terminated(&pod).unwrap();
    assert_eq!((ended.exit_code, ended.message.as_str()), (0, "its startup probe failed: exit code 5"));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_hangs_ends_at_its_timeout_with_all_that_it_started() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("probe.pid");
    let hangs = format!("(sh -c 'trap \"\" TERM; echo $$ > {0}.n; mv {0}.n {0}; {FOREVER}' &); {FOREVER}", file.display());
    let probe = Probe { timeout_seconds: 1, period_seconds: 1_000, ..every_second(exec(&hangs)).unwrap() };
    machine.create("web", RestartPolicy::Always, vec![Container { readiness_probe: Some(probe), ..script("main", FOREVER) }]).await;
    let stuck = pid_in(&file).await;
    machine.until("web", "unready for a reason", |pod| why_unready(pod).contains("no answer within 1 s")).await;
    eventually("the end of what the probe started", || (!is_alive(stuck)).then_some(())).await;
    machine.finish().await;
}

/// What a server that is the test itself answers to HTTP; the port that it has.
#[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn http_server(status: std::sync::Arc<std::sync::atomic::AtomicU16>) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = status.load(std::sync::atomic::Ordering::Acquire);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                if matches!(stream.read(&mut request).await, Ok(1..)) {
                    let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    let _gone = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn http_and_tcp_probes_reach_ports_by_number_and_by_name() {
    let machine = Machine::new().await;
    let status = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(503));
    let port = http_server(status.clone()).await;
    let http = HttpGetAction { port: port.to_string(), ..HttpGetAction::default() };
    let http = Container { readiness_probe: every_second(Handler::HttpGet(http)), ..script("http", FOREVER) };
    let script_of_server = "exec python3 -c 'import os, socket; s = socket.create_server((\"127.0.0.1\", int(os.environ[\"PORT\"]))); [s.accept()[0].close() for _ in iter(int, 1)]'";
    let tcp = TcpSocketAction { port: "data".into(), ..TcpSocketAction::default() };
    let tcp = Container {
        readiness_probe: every_second(Handler::TcpSocket(tcp)),
        ports: vec![ContainerPort { name: "data".into(), ..ContainerPort::default() }],
        ..script("tcp", script_of_server)
    };
    machine.create("web", RestartPolicy::Always, vec![http, tcp]).await;
    let pod =
        machine.until("web", "half ready", |pod| pod.status.as_ref().unwrap().container_statuses.get(1).is_some_and(|tcp| tcp.ready)).await;
    assert!(!is_ready(&pod));
    machine.until("web", "unready for a reason", |pod| why_unready(pod).contains("HTTP status 503")).await;
    status.store(204, std::sync::atomic::Ordering::Release);
    machine.until("web", "ready", is_ready).await;
    machine.finish().await;
}

/// Whether the pod was ready, each time that it was seen from now on until it has the label `seen`.
#[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
fn record(client: Client, name: &'static str) -> JoinHandle<Vec<bool>> {
    tokio::spawn(async move {
        let tasks = bluebird::tasks::Tasks::new(Default::default());
        let cache = bluebird::client::Cache::of_kinds(client, &[bluebird::api::Kind::Pod], &tasks);
        let mut changes = cache.subscribe();
        let mut seen = Vec::new();
        while changes.next().await.is_some() {
            let Some(pod) = cache.get::<Pod>("", name) else { continue };
            seen.push(is_ready(&pod));
            if pod.metadata.as_ref().is_some_and(|meta| meta.labels.contains_key("seen")) {
                break;
            }
        }
        tasks.shutdown(std::time::Duration::ZERO).await;
        seen
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_pod_stays_ready_under_the_next_kubelet() {
    let mut machine = Machine::new().await;
    let count: PathBuf = machine.folder.path().join("tries");
    let counting = || exec(&format!("echo >> {}", count.display()));
    let main = Container { startup_probe: every_second(counting()), readiness_probe: every_second(counting()), ..script("main", FOREVER) };
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    let pod = machine.until("web", "ready", is_ready).await;
    let health = machine.folder_of(&pod).join("health.json");
    eventually("what the probes said", || std::fs::read_to_string(&health).ok()?.contains("\"ready\":true").then_some(())).await;
    let seen = record(machine.client.clone(), "web");
    machine.kill_kubelet().await;
    let tries = std::fs::read_to_string(&count).unwrap().len();
    machine.start_kubelet().await;
    eventually("two more tries", || (std::fs::read_to_string(&count).unwrap().len() >= tries + 2).then_some(())).await;
    let mut pod = machine.get("web").await.unwrap();
    pod.metadata.as_mut().unwrap().labels.insert("seen".into(), "yes".into());
    machine.client.update(pod).await.unwrap();
    let seen = seen.await.unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|ready| *ready), "{seen:?}");
    machine.finish().await;
}
