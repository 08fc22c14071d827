//! The commands, asking an apiserver in this process.

mod config;
mod top;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use tempfile::TempDir;

use super::super::args::{Cli, Command};
use super::super::{Console, watch};
use super::{Outcome, bluebird, check, surroundings};
use crate::api::v1::*;
use crate::api::{Kind, ObjectKey, Resource as _, condition, manifest};
use crate::apiserver::{self, Apiserver, Config, Limits, Listen};
use crate::client::{Client, Patience};
use crate::testing::Link;
use crate::testing::cable::Cable;
use crate::time::Clock;

/// An apiserver of its own, and the console that asks it.
struct Served {
    apiserver: Apiserver,
    client: Client,
    folder: TempDir,
}

impl Served {
    async fn start() -> Self {
        Self::start_as(|_| {}).await
    }

    async fn start_as(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::new(folder.path(), Listen::LOCAL);
        change(&mut config);
        let apiserver = apiserver::start(config, Clock::system()).await.expect("an apiserver");
        let client = Client::from_channel(apiserver.channel());
        Self { apiserver, client, folder }
    }

    async fn run(&self, line: &str) -> Outcome {
        self.run_with(line, "").await
    }

    async fn run_with(&self, line: &str, input: &str) -> Outcome {
        bluebird(&format!("{line} --server {}", self.apiserver.url()), input).await
    }

    /// What a line prints that must succeed.
    async fn print(&self, line: &str) -> String {
        let outcome = self.run(line).await;
        assert_eq!(outcome.code, 0, "{line}: {}{}", outcome.out, outcome.err);
        outcome.out
    }

    async fn apply(&self, text: &str) -> String {
        let outcome = self.run_with("apply -f -", text).await;
        assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
        outcome.out
    }
}

const WEB: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: main, command: [serve], ports: [{name: http}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
";

/// The lines with their columns one blank apart.
fn columns(table: &str) -> Vec<String> {
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn apply_tells_what_became_of_each_object() {
    let served = Served::start().await;
    assert_eq!(served.run_with("apply -f - --dry-run", WEB).await.out, "pod/web created (dry run)\nservice/web created (dry run)\n");
    assert_eq!(served.apply(WEB).await, "pod/web created\nservice/web created\n");
    assert_eq!(served.apply(WEB).await, "pod/web unchanged\nservice/web unchanged\n");
    assert_eq!(served.apply(&WEB.replace("port: 80", "port: 81")).await, "pod/web unchanged\nservice/web configured\n");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn what_get_prints_can_be_applied() {
    let served = Served::start().await;
    served.apply(WEB).await;
    for output in ["yaml", "json"] {
        let printed = served.print(&format!("get pods,svc -o {output}")).await;
        assert_eq!(manifest::parse(&printed, "out").expect("a manifest").len(), 2);
        // It gives more than was given before: what had been filled in.
        served.apply(&printed).await;
        let printed = served.print(&format!("get pods,svc -o {output}")).await;
        assert_eq!(served.apply(&printed).await, "pod/web unchanged\nservice/web unchanged\n");
    }
    assert!(served.print("get pod web -o yaml").await.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n"));
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn a_conflict_is_told_with_field_and_manager_and_force_takes_it_over() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let (other, line) =
        (WEB.replace("port: 80", "port: 80, targetPort: x").replace(", targetPort: http}", "}"), "apply -f - --field-manager ci");
    let outcome = served.run_with(line, &other).await;
    check(
        &outcome,
        1,
        "standard input:6 (document 2): service/web: spec.ports[80].targetPort: is owned by \"bluebird-cli\", with another value",
    );
    check(&outcome, 1, "Leave these fields out, or take them over with --force.");
    assert_eq!(outcome.out, "");
    let forced = served.run_with(&format!("{line} --force"), &other).await;
    assert_eq!(forced.out, "pod/web configured\nservice/web configured\n", "{}", forced.err);
    let shown = served.print("get svc web -o yaml --show-managed-fields").await;
    assert!(shown.contains("manager: bluebird-cli") && shown.contains("ports([80](target_port))"), "{shown}");
    assert!(!served.print("get svc web -o yaml").await.contains("managed"));
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn what_left_the_manifests_is_pruned_also_when_it_is_very_much() {
    let served = Served::start().await;
    let service = |index: usize| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}}}\nspec: {{ports: [{{port: 80}}]}}\n");
    let manifest = |range: std::ops::Range<usize>| range.map(service).collect::<Vec<_>>().join("---\n");
    let line = "apply -f - --apply-set web --prune";
    check(&served.run_with("apply -f - --prune", &service(0)).await, 2, "--apply-set");
    check(&served.run_with(line, &manifest(0..250)).await, 0, "they go in 3");
    let dry = served.run_with(&format!("{line} --dry-run"), &manifest(1..250)).await;
    assert_eq!(dry.out.lines().filter(|line| line.ends_with(" pruned (dry run)")).collect::<Vec<_>>(), ["service/s0 pruned (dry run)"]);
    let outcome = served.run_with(line, &manifest(240..260)).await;
    check(&outcome, 0, "it goes afterwards, in several");
    let count = |outcome: &str, end: &str| outcome.lines().filter(|line| line.ends_with(end)).count();
    assert_eq!((count(&outcome.out, " created"), count(&outcome.out, " unchanged"), count(&outcome.out, " pruned")), (10, 10, 240));
    assert_eq!(served.print("get svc -o name").await.lines().count(), 20);
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn a_backup_is_whole_or_not_there_and_can_be_looked_into() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (backup, data) = (path("backup"), served.folder.path().display().to_string());
    let told = served.print(&format!("backup {backup}")).await;
    assert!(told.starts_with("3 objects at revision ") && told.ends_with(&format!(" are in {backup}\n")), "{told}");
    check(&served.run(&format!("backup {backup}")).await, 1, "exists already; --force replaces it");
    served.print(&format!("backup {backup} --force")).await;
    check(&served.run(&format!("backup {}", path("no/such/folder"))).await, 1, "cannot write");

    for place in [&backup, &data] {
        assert!(served.print(&format!("store check {place}")).await.starts_with("sound: 3 objects at revision "));
        let dump = served.print(&format!("store dump {place}")).await;
        assert_eq!(manifest::parse(&dump, "dump").expect("a manifest").len(), 3);
        let lines = served.print(&format!("store dump {place} -o json")).await;
        assert_eq!(lines.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count(), 3);
        let stats = columns(&served.print(&format!("store stats {place}")).await);
        assert!(stats.iter().any(|line| line.starts_with("Pod 1 ")) && stats.iter().any(|line| line.starts_with("all 3 ")), "{stats:?}");
    }
    let log = served.print(&format!("store dump {data} --log")).await;
    let last: serde_json::Value = serde_json::from_str(log.lines().last().expect("commits")).expect("JSON");
    assert_eq!((&last["events"][0]["type"], &last["events"][1]["object"]["metadata"]["name"]), (&"ADDED".into(), &"web".into()), "{last}");

    let mut damaged = std::fs::read(&backup).expect("a backup");
    let place = damaged.len() / 2;
    damaged[place] ^= 1;
    std::fs::write(path("damaged"), damaged).expect("a folder");
    check(&served.run(&format!("store check {}", path("damaged"))).await, 1, "is no sound backup: at byte ");
    check(&served.run(&format!("store stats {}", folder.path().display())).await, 1, "there is no store in ");
    let late = format!("backup {} --server {}", path("late"), served.apiserver.url());
    served.apiserver.shutdown().await;
    check(&bluebird(&late, "").await, 1, "cannot reach");
    let mut names: Vec<_> = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["backup", "damaged"]);
}

#[tokio::test]
async fn very_many_faults_and_very_long_names_get_their_answer() {
    let served = Served::start().await;
    let pod = |index: usize| WEB.split("---").next().expect("a pod").replace("{name: web,", &format!("{{name: Not_A_Name_{index},"));
    let text: Vec<_> = (0..100).map(pod).collect();
    let outcome = served.run_with("apply -f -", &text.join("---\n")).await;
    check(&outcome, 1, "pod/Not_A_Name_0: metadata.name: ");
    check(&outcome, 1, "\nand ");
    check(&served.run(&format!("get pod {}", "x".repeat(100_000))).await, 1, "there is no Pod \"xxx");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn a_fault_that_the_apiserver_finds_has_its_place() {
    let served = Served::start().await;
    let wrong =
        WEB.replace("port: 80", "port: 70000").replace("kind: Service\nmetadata: {name: web}", "kind: Service\nmetadata: {name: We_b}");
    let outcome = served.run_with("apply -f -", &wrong).await;
    check(&outcome, 1, "standard input:6 (document 2): service/We_b: metadata.name: ");
    check(&outcome, 1, "spec.ports[0].port: 70000 is no port: 1 to 65535");
    check(&served.run("get pods").await, 0, "No resources found in default namespace.");
    let label = WEB.replace("labels: {app: web}", "labels: {app: a b}");
    check(&served.run_with("apply -f -", &label).await, 1, "metadata.labels[app]: \"a b\" is not a label value");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn a_pod_that_cannot_change_says_what_to_do() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let outcome = served.run_with("apply -f -", &WEB.replace("[serve]", "[other]")).await;
    check(
        &outcome,
        1,
        "standard input:1 (document 1): pod/web: spec.containers[0].command: can't change in a pod that exists; delete the pod",
    );
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn many_objects_are_applied_in_several_requests() {
    let served = Served::start().await;
    let pod = |index: usize| WEB.split("---").next().expect("a pod").replace("name: web,", &format!("name: web-{index},"));
    let text: Vec<_> = (0..150).map(pod).collect();
    let outcome = served.run_with("apply -f -", &text.join("---\n")).await;
    check(&outcome, 0, "150 objects are more than one request takes; they go in 2, one after the other.");
    assert_eq!(outcome.out.lines().filter(|line| line.ends_with(" created")).count(), 150);
    assert_eq!(served.print("get pods -o name").await.lines().count(), 150);
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn get_prints_tables_as_kubectl_does() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let table = columns(&served.print("get po").await);
    assert_eq!(table[0], "NAME READY STATUS RESTARTS AGE");
    assert!(table[1].starts_with("web 0/1 Pending 0 "), "{table:?}");
    assert!(columns(&served.print("get pods -A").await)[1].starts_with("default web 0/1"));
    assert!(columns(&served.print("get pods -o wide").await)[1].ends_with("<none> <none> <none>"));
    assert!(columns(&served.print("get po,svc").await).iter().any(|line| line.starts_with("service/web <none> 80/TCP ")));
    assert_eq!(served.print("get pods -o name").await, "pod/web\n");
    assert_eq!(served.print("get pod/web svc/web -o name").await, "pod/web\nservice/web\n");
    assert_eq!(served.print("get pods --no-headers").await.lines().count(), 1);
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn get_selects_by_label_and_namespace() {
    let served = Served::start().await;
    served.apply(WEB).await;
    assert_eq!(served.print("get pods -l app=web -o name").await, "pod/web\n");
    assert_eq!(served.print("get pods -l app!=web -o name").await, "");
    check(&served.run("get pods -n other").await, 1, "there is no Namespace \"other\"");
    check(&served.run("get nodes").await, 0, "No resources found\n");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_answered_with_what_may_be_meant() {
    let served = Served::start().await;
    served.apply(WEB).await;
    check(&served.run("get pod wbe").await, 1, "there is no Pod \"wbe\" in namespace default; did you mean \"web\"?");
    check(&served.run("get pod web -n other").await, 1, "there is one in namespace default: add -n default");
    let outcome = served.run("get pod web zzz").await;
    check(&outcome, 1, "there is no Pod \"zzz\"");
    assert_eq!(columns(&outcome.out).len(), 2, "what exists is shown");
    served.apiserver.shutdown().await;
}

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  initContainers:
  - {name: proxy, command: [proxy], restartPolicy: Always}
  containers:
  - name: main
    command: [serve]
    ports: [{name: http}]
    startupProbe: {exec: {command: [check]}}
    livenessProbe: {tcpSocket: {port: 8080}}
    readinessProbe: {httpGet: {port: http, path: /healthz}, initialDelaySeconds: 5}
";

#[tokio::test]
async fn describe_shows_containers_conditions_and_events() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let mut pod: Pod = served.client.get("", "web").await.expect("the pod");
    let status = pod.status.get_or_insert_default();
    status.phase = PodPhase::Running.into();
    let now = Clock::system().now();
    condition::set(&mut status.conditions, condition::READY, ConditionStatus::False, "ContainersNotReady", "main waits", now);
    let waiting = ContainerStateWaiting { reason: "CrashLoopBackOff".into(), message: "starts again in 10 s".into() };
    let ended = ContainerStateTerminated { exit_code: 3, reason: "Error".into(), ..Default::default() };
    status.container_statuses = vec![ContainerStatus {
        name: "main".into(),
        state: Some(ContainerState { state: Some(container_state::State::Waiting(waiting)) }),
        last_termination: Some(ended),
        restart_count: 4,
        ..Default::default()
    }];
    served.client.update_status(vec![pod.clone().into_object()]).await.expect("an answer").remove(0).expect("a status");
    let regarding = crate::client::subject(&pod);
    let spec = ClusterEventSpec { regarding: Some(regarding), reason: "BackOff".into(), note: "waits 10 s".into(), ..Default::default() };
    let metadata = ObjectMeta { name: "web.1".into(), ..Default::default() };
    served.client.create(ClusterEvent { metadata: Some(metadata), spec: Some(spec) }).await.expect("an event");

    let page = served.print("describe pod web").await;
    for line in [
        "Name: web",
        "Labels: app=web",
        "Status: CrashLoopBackOff",
        "Restart Policy: Always",
        "main:",
        "Command: serve",
        "State: Waiting (CrashLoopBackOff)",
        "Message: starts again in 10 s",
        "Last State: Terminated (Error): exit code 3",
        "Restart Count: 4",
        "Ready False ContainersNotReady main waits",
    ] {
        assert!(columns(&page).iter().any(|found| found == line), "{line:?} is missing in\n{page}");
    }
    assert!(columns(&page).last().is_some_and(|line| line.starts_with("Normal BackOff ") && line.ends_with("waits 10 s")), "{page}");
    assert!(columns(&served.print("get events").await)[1].ends_with("Normal BackOff pod/web waits 10 s"));
    served.apply(PROBED).await;
    let page = served.print("describe pod probed").await;
    for line in [
        "Init Containers:",
        "proxy:",
        "Restart Policy: Always (a sidecar)",
        "Containers:",
        "Startup: exec [\"check\"] delay=0s timeout=1s period=10s #success=1 #failure=3",
        "Readiness: http-get :http/healthz delay=5s timeout=1s period=10s #success=1 #failure=3",
        "Liveness: tcp-socket :8080 delay=0s timeout=1s period=10s #success=1 #failure=3",
    ] {
        assert!(columns(&page).iter().any(|found| found == line), "{line:?} is missing in\n{page}");
    }
    let page = served.print("describe svc web").await;
    assert!(columns(&page).contains(&"Target Port: http".to_owned()) && columns(&page).contains(&"Endpoints: <none>".to_owned()), "{page}");
    assert!(served.print("describe namespace default").await.contains("phase: Active"));
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn delete_takes_names_manifests_and_selectors() {
    let served = Served::start().await;
    served.apply(WEB).await;
    assert_eq!(served.print("delete pod web").await, "pod/web deleted\n");
    check(&served.run("delete pod web").await, 1, "there is no Pod \"web\" in namespace default");
    assert_eq!(served.print("delete pod web --ignore-not-found").await, "");
    served.apply(WEB).await;
    let outcome = served.run_with("delete -f -", WEB).await;
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "pod/web deleted\nservice/web deleted\n"));
    served.apply(WEB).await;
    assert_eq!(served.print("delete pods -l app=web").await, "pod/web deleted\n");
    check(&served.run("delete namespace default").await, 1, "default");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn delete_waits_until_the_object_is_gone() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let mut pod: Pod = served.client.get("", "web").await.expect("the pod");
    pod.spec.get_or_insert_default().node_name = "n1".into();
    served.client.update(pod).await.expect("bound to a node that does not exist");
    let asked = served.run("delete pod web --timeout 50ms").await;
    check(&asked, 1, "still there after 0s: pod/web");
    assert_eq!(asked.out, "", "it is not gone");
    assert_eq!(served.print("delete pod web --wait=false").await, "pod/web is being deleted\n");
    let (waiting, forced) = tokio::join!(served.run("delete pod web"), async {
        // Whoever waits is told of it also when it began to wait before.
        served.run("delete pod web --force").await
    });
    assert_eq!((waiting.code, forced.code), (0, 0), "{}{}", waiting.err, forced.err);
    assert_eq!((waiting.out.as_str(), forced.out.as_str()), ("pod/web deleted\n", "pod/web deleted\n"));
    assert!(waiting.err.contains("pod/web is being deleted"), "{}", waiting.err);
    check(&forced, 0, "Warning: with --force");
    served.apiserver.shutdown().await;
}

/// Output that can be looked at while it grows.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>, Arc<tokio::sync::Notify>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while held").extend_from_slice(bytes);
        self.1.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    async fn contains(&self, text: &str) {
        let has_it = || String::from_utf8_lossy(&self.0.lock().expect("no panic while held")).contains(text);
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !has_it() {
                self.1.notified().await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{text:?} does not come in {:?}", String::from_utf8_lossy(&self.0.lock().expect("not held"))));
    }
}

#[tokio::test]
async fn a_watch_prints_what_there_is_and_then_every_change() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let mut out = Shared::default();
    let printed = out.clone();
    let args = ["bluebird", "get", "pods", "-w", "-o", "name", "--server"].map(Into::into).into_iter();
    let args = args.chain([served.apiserver.url().into()]);
    let (mut err, mut nothing) = (Vec::new(), std::io::empty());
    let watching = super::run(args, surroundings(&mut out, &mut err, &mut nothing));
    let changing = async {
        printed.contains("pod/web\n").await;
        served.apply(&WEB.replace("name: web,", "name: other,")).await;
        printed.contains("pod/web\npod/other\n").await;
        served.print("delete pod web").await;
        printed.contains("pod/web\npod/other\npod/web deleted\n").await;
    };
    tokio::select! {
        code = watching => panic!("the watch ended with {code}"),
        () = changing => {}
    }
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn a_watch_over_a_network_that_went_silent_goes_on_over_another_one() {
    let served = Served::start().await;
    served.apply(WEB).await;
    let Listen::Tcp(address) = served.apiserver.listen() else { panic!("it was told to listen on TCP") };
    let cable = Cable::new(*address).await.expect("a free port");
    let patience =
        Patience { keepalive_interval: Duration::from_millis(200), keepalive_timeout: Duration::from_millis(200), ..Patience::default() };
    let (silent, good) = (cable.url(), served.apiserver.url());
    let client = Client::with_servers([silent.as_str(), good.as_str()], patience).expect("addresses");
    let mut out = Shared::default();
    let printed = out.clone();
    let (mut err, mut nothing) = (Vec::new(), std::io::empty());
    let Cli { target, command: Command::Get(args) } = Cli::parse_from(["bluebird", "get", "pods", "-w", "-o", "name"]) else {
        panic!("that was get");
    };
    let mut console = Console { io: surroundings(&mut out, &mut err, &mut nothing), target };
    let selectors = vec![Selector { kind: "Pod".into(), ..Default::default() }];
    let watching = watch::run(&mut console, &client, &args, selectors);
    let changing = async {
        printed.contains("pod/web\n").await;
        cable.set_link(Link::Silent);
        served.apply(&WEB.replace("name: web,", "name: other,")).await;
        printed.contains("pod/web\npod/other\n").await;
    };
    tokio::select! {
        ended = watching => panic!("the watch ended: {ended:?}"),
        () = changing => {}
    }
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn an_initial_state_that_breaks_off_is_printed_as_far_as_it_came_and_the_rest_when_it_comes() {
    let added = |name: &str, resource_version, synced| {
        let object = Object::bare(&ObjectKey::new(Kind::Pod, "default", name), resource_version);
        let event = Event { r#type: event::Type::Added.into(), object: Some(object) };
        Ok(Some(WatchResponse { events: vec![event], revision: if synced { 9 } else { 0 }, synced }))
    };
    let (mut out, mut err, mut nothing) = (Vec::new(), Vec::new(), std::io::empty());
    let Cli { target, command: Command::Get(args) } = Cli::parse_from(["bluebird", "get", "pods", "-w", "-o", "name"]) else {
        panic!("that was get");
    };
    let mut console = Console { io: surroundings(&mut out, &mut err, &mut nothing), target };
    let (mut printer, mut seen) = (watch::Printer::new(&args, false), watch::Seen::default());
    let broken = crate::error::Error::Unavailable("broken off".into());
    let mut first = vec![Err(broken.clone()), added("a", 1, false)];
    assert!(seen.request(&[]).send_initial);
    let end = watch::take(&mut console, async || first.pop().expect("no more"), true, &mut printer, &mut seen).await;
    assert_eq!(end.expect("it is printed"), Some(broken.clone()));
    let known: Vec<_> = seen.request(&[]).known.into_iter().map(|known| known.resource_version).collect();
    assert_eq!(known, [1], "what was printed is not sent again");
    let mut second = vec![Err(broken.clone()), added("b", 2, true)];
    let end = watch::take(&mut console, async || second.pop().expect("no more"), true, &mut printer, &mut seen).await;
    assert_eq!(end.expect("it is printed"), Some(broken));
    drop(console);
    assert_eq!(String::from_utf8_lossy(&out), "pod/a\npod/b\n");
}

#[tokio::test]
async fn logs_of_a_pod_without_a_node_say_so() {
    let served = Served::start().await;
    served.apply(WEB).await;
    check(&served.run("logs web").await, 1, "node");
    check(&served.run("logs nobody").await, 1, "there is no Pod \"nobody\" in namespace default");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn version_tells_of_the_server() {
    let served = Served::start().await;
    let outcome = served.run("version").await;
    assert!(outcome.code == 0 && outcome.out.contains("answers, at revision "), "{}{}", outcome.out, outcome.err);
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_back() {
    let served = Served::start_as(|config| config.limits = Limits { requests: 1, burst: 5, watches: 0 }).await;
    let mut outcome = served.run("get pods").await;
    for _ in 0..20 {
        if outcome.code != 0 {
            break;
        }
        outcome = served.run("get pods").await;
    }
    check(&outcome, 1, "this machine sends more than 1 requests a second; slow down\nTry again in");
    served.apiserver.shutdown().await;
}
