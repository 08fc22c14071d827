//! The machine's clock is set back an hour and then forward two: nothing that runs notices, and whatever is waited for keeps its length.
//!
//! The clock is that of this cluster's own programs alone: Debian's package `faketime` has the library that shows it to them.

use std::path::{Path, PathBuf};
use std::process::Command;

use bluebird::api::v1::{
    ClusterEvent, ConditionStatus, Container, ContainerStateRunning, EventType, ExecAction, Node, Pod, PodSpec, Probe, RestartBackoff,
    probe,
};
use bluebird::api::{Resource as _, condition, v1::container_state::State};
use bluebird::testing::free_port;
use prost_types::Timestamp;

use super::follower::{Follower, pid, state};
use super::program::{Program, eventually, free_range, processes_of};

const HOUR: i64 = 3_600;
/// How long a container waits that has crashed, in seconds, and a process takes that is asked to end.
const BACK_OFF: i64 = 4;
const GRACE: i64 = 4;
/// After so many seconds without a heartbeat a node is lost. As short as a busy machine lets it be.
const NODE_GRACE: usize = 5;

/// A clock that can be set, of the programs that are run by it.
struct SetClock {
    library: PathBuf,
    folder: PathBuf,
}

impl SetClock {
    /// `None` where there is no such library; where CI runs there has to be one.
    fn new(folder: &Path) -> Option<SetClock> {
        let triples = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        let library = triples.map(|triple| triple.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let Some(library) = library else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have Debian's package faketime");
            eprintln!("SKIPPED: without Debian's package faketime no program can be shown another clock");
            return None;
        };
        let clock = SetClock { library, folder: folder.to_owned() };
        clock.set(0);
        Some(clock)
    }

    /// So many seconds ahead of the machine's.
    fn set(&self, ahead: i64) {
        let (new, file) = (self.folder.join("clock.new"), self.file());
        std::fs::write(&new, format!("{ahead:+}\n")).expect("the test's own folder");
        std::fs::rename(new, file).expect("the test's own folder");
    }

    fn file(&self) -> PathBuf {
        self.folder.join("clock")
    }

    /// What a program is told to be shown this clock. The one that nobody sets is left as it is.
    fn environment(&self) -> Vec<String> {
        let (library, file) = (self.library.display(), self.file());
        let settings =
            ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_DISABLE_SHM=1", "NO_FAKE_STAT=1"];
        let own = [format!("LD_PRELOAD={library}"), format!("FAKETIME_TIMESTAMP_FILE={}", file.display())];
        own.into_iter().chain(settings.map(str::to_owned)).collect()
    }

    fn start(&self, name: &str, program: &str, args: &[&str]) -> Program {
        let environment = self.environment();
        let all: Vec<&str> = environment.iter().map(String::as_str).chain([program]).chain(args.iter().copied()).collect();
        Program::start(&self.folder, name, "/usr/bin/env", &all)
    }

    /// An executable that is the kubelet's, run by this clock: shims begin without the environment of their kubelet.
    fn shim(&self) -> PathBuf {
        let path = self.folder.join("shim");
        let script = format!("#!/bin/sh\nexec env {} {} \"$@\"\n", self.environment().join(" "), env!("CARGO_BIN_EXE_kubelet"));
        std::fs::write(&path, script).expect("the test's own folder");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("the test's own folder");
        path
    }

    /// What a command of a person prints by this clock.
    fn say(&self, url: &str, args: &[&str]) -> String {
        let environment =
            self.environment().into_iter().map(|one| one.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("NAME=VALUE"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_bluebird"));
        let output = command.args(args).args(["--server", url]).env("NO_COLOR", "1").envs(environment).output().expect("a program");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

/// What the pods of the test are.
struct Pods<'a> {
    follower: &'a Follower,
    folder: &'a Path,
}

impl Pods<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn create(&self, name: &str, grace: i64, container: Container) {
        let containers = vec![Container { name: "main".into(), ..container }];
        let spec = PodSpec { containers, termination_grace_period_seconds: Some(grace), ..Default::default() };
        let mut pod = Pod { spec: Some(spec), ..Default::default() };
        pod.meta_mut().name = name.into();
        self.follower.client.create(pod).await.expect("a valid pod");
    }

    /// Counts in its log, and its probe counts in a file.
    async fn run_steady(&self) -> i32 {
        let action = ExecAction { command: shell(&format!("echo >> {}", self.path("probed").display())) };
        let liveness_probe = Some(Probe { period_seconds: 1, handler: Some(probe::Handler::Exec(action)), ..Default::default() });
        let command = shell("i=0; while :; do echo $i; i=$((i + 1)); sleep 0.05; done");
        self.create("steady", 0, Container { command, liveness_probe, ..Default::default() }).await;
        self.follower.wait_for("the pod to run", |cache| pid(&*cache.get::<Pod>("", "steady")?)).await
    }

    /// Says when it starts, by the time that the machine is up, and crashes.
    async fn run_crashing(&self) {
        let wait = Some(prost_types::Duration { seconds: BACK_OFF, nanos: 0 });
        let restart_backoff = Some(RestartBackoff { initial: wait, factor: 1.0, cap: wait, ..Default::default() });
        let command = shell(&format!("read up rest < /proc/uptime; echo $up >> {}; exit 3", self.path("starts").display()));
        self.create("crashing", 0, Container { command, restart_backoff, ..Default::default() }).await;
    }

    /// When the crashing container was started, in seconds.
    fn starts(&self) -> Vec<f64> {
        let all = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        all.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Is deaf to requests, and says when it is asked to end and that it is still there.
    async fn run_deaf(&self, name: &str) {
        let says = |file: &str| format!("read up rest < /proc/uptime; echo $up >> {}", self.path(&format!("{name}.{file}")).display());
        let script = format!("trap '{}' TERM; while :; do {}; sleep 0.05; done", says("asked"), says("there"));
        self.create(name, GRACE, Container { command: shell(&script), ..Default::default() }).await;
        self.follower.wait_for("the deaf pod to run", |cache| pid(&*cache.get::<Pod>("", name)?)).await;
        eventually(|| format!("{name} to be deaf"), || self.last(name, "there")).await;
    }

    /// What a deaf pod said last, in seconds.
    fn last(&self, name: &str, file: &str) -> Option<f64> {
        std::fs::read_to_string(self.path(&format!("{name}.{file}"))).ok()?.lines().last()?.parse().ok()
    }

    fn probes(&self) -> usize {
        std::fs::read_to_string(self.path("probed")).map_or(0, |all| all.lines().count())
    }

    async fn more_probes(&self, more: usize) {
        let before = self.probes();
        eventually(|| format!("{more} probes more than {before}"), || (self.probes() >= before + more).then_some(())).await;
    }
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// Seconds since 1970, by a clock that is so far ahead of this test's.
#[allow(clippy::disallowed_methods, reason = "the machine's own clock, from which that of the test differs")]
fn now(ahead: i64) -> i64 {
    Timestamp::from(std::time::SystemTime::now()).seconds + ahead
}

/// For how many seconds this machine has been up, by the clock that nobody sets.
fn up() -> f64 {
    let all = std::fs::read_to_string("/proc/uptime").expect("Linux");
    all.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).expect("seconds")
}

/// The clock is set while a container waits to be started again and a pod is ending; both take as long as they would have.
async fn set_in_the_middle(clock: &SetClock, pods: &Pods<'_>, ahead: i64) {
    let deaf = if ahead < 0 { "deaf-back" } else { "deaf-forward" };
    pods.run_deaf(deaf).await;
    let before = pods.starts().len();
    eventually(|| "one more crash".into(), || (pods.starts().len() > before).then_some(())).await;
    let crashed = |cache: &bluebird::client::Cache| {
        let pod = cache.get::<Pod>("", "crashing")?;
        let status = pod.status.as_ref()?.container_statuses.first()?;
        (status.restart_count as usize == before).then_some(status.next_retry_time?)
    };
    pods.follower.wait_for("the crash to be told", crashed).await;
    let deleted = up();
    pods.follower.client.delete::<Pod>("", deaf, Default::default()).await.expect("it exists");
    eventually(|| "the deaf pod to be asked".into(), || pods.last(deaf, "asked")).await;

    clock.set(ahead);

    eventually(|| "the next start".into(), || (pods.starts().len() > before + 1).then_some(())).await;
    let starts = pods.starts();
    let waited = starts[before + 1] - starts[before];
    assert!(waited > BACK_OFF as f64 - 0.1, "a wait of {BACK_OFF} s was over after {waited} s");
    let is_gone = |cache: &bluebird::client::Cache| cache.get::<Pod>("", deaf).is_none().then_some(());
    pods.follower.wait_for("the deaf pod to be gone", is_gone).await;
    let lasted = pods.last(deaf, "there").expect("it has said so") - deleted;
    // On a busy machine it may not have been able to say so for a while.
    assert!(lasted > GRACE as f64 - 1.0, "of {GRACE} s to end it had {lasted}");
}

/// What is told of pods and of their node, while the clock is so far ahead.
async fn check_what_is_told(clock: &SetClock, pods: &Pods<'_>, url: &str, steady: i32, ahead: i64) {
    let is_now = |time: &Timestamp| (now(ahead) - 20..=now(ahead) + BACK_OFF + 2).contains(&time.seconds);
    let told = |cache: &bluebird::client::Cache| {
        let pod = cache.get::<Pod>("", "crashing")?;
        let status = pod.status.as_ref()?.container_statuses.first()?;
        let last = status.last_termination.as_ref()?;
        (is_now(status.next_retry_time.as_ref()?) && is_now(last.finished_at.as_ref()?)).then(|| last.clone())
    };
    let last = pods.follower.wait_for("the next start to be told by the clock", told).await;
    assert!(last.started_at.as_ref().map(|time| time.seconds) <= last.finished_at.as_ref().map(|time| time.seconds), "{last:?}");
    let event = |cache: &bluebird::client::Cache| {
        let of_crashes = |event: &ClusterEvent| {
            let spec = event.spec.as_ref()?;
            let is_of = spec.regarding.as_ref()?.name == "crashing" && spec.r#type() == EventType::Warning;
            (is_of && is_now(spec.last_time.as_ref()?) && spec.first_time.as_ref()?.seconds <= spec.last_time.as_ref()?.seconds)
                .then_some(())
        };
        cache.list::<ClusterEvent>().iter().find_map(|event| of_crashes(event))
    };
    pods.follower.wait_for("an event with the time of the clock", event).await;

    for args in [
        ["get", "pods", "-o", "wide"],
        ["get", "events", "-o", "wide"],
        ["describe", "pod", "steady", "-n=default"],
        ["get", "nodes", "-o", "wide"],
    ] {
        let said = clock.say(url, &args);
        let is_odd = |word: &str| word.starts_with('-') && word[1..].starts_with(|c: char| c.is_ascii_digit()) || word.starts_with("1970");
        assert!(!said.split_whitespace().any(is_odd), "{said}");
    }
    let used = || clock.say(url, &["top", "pods"]).lines().find(|line| line.contains("steady")).map(str::to_owned);
    eventually(|| "figures of the pod".into(), || used().filter(|line| line.contains("Mi") || line.contains("Ki"))).await;

    let lines = clock.say(url, &["logs", "steady", "--since", "5m", "--timestamps"]);
    let last = lines.lines().last().unwrap_or_else(|| panic!("nothing was logged in the last minutes by the clock"));
    let logged = last.split_whitespace().next().and_then(|time| time.parse::<Timestamp>().ok());
    assert!(logged.as_ref().is_some_and(is_now), "{last}");
    let pod = pods.follower.client.get::<Pod>("", "steady").await.expect("it exists");
    assert_eq!((pid(&pod), pod.status.expect("it runs").container_statuses[0].restart_count), (Some(steady), 0));
}

fn ready_since(follower: &Follower) -> Option<Timestamp> {
    let node = follower.cache.get::<Node>("", "n1")?;
    let ready = condition::get(&node.status.as_ref()?.conditions, condition::READY).cloned()?;
    (ready.status() == ConditionStatus::True).then_some(ready.last_transition_time?)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_clock_is_set_pods_go_on_and_whatever_is_waited_for_keeps_its_length() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(clock) = SetClock::new(folder.path()) else { return };
    let [data, root] = ["data", "node"].map(|name| folder.path().join(name));
    let (listen, range, grace) = (format!("127.0.0.1:{}", free_port()), free_range(), NODE_GRACE.to_string());
    let url = format!("http://{listen}");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range, "--node-grace-period", &grace];
    let mut apiserver = clock.start("apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let shim = clock.shim();
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root.to_str().expect("text"), "--shim", shim.to_str().expect("text")];
    let mut kubelet = clock.start("kubelet", env!("CARGO_BIN_EXE_kubelet"), &args);
    let follower = Follower::connect(&url).await;
    let pods = Pods { follower: &follower, folder: folder.path() };

    let steady = pods.run_steady().await;
    let state_before = follower.wait_for("the pod to run", |cache| state(&*cache.get::<Pod>("", "steady")?).cloned()).await;
    let State::Running(ContainerStateRunning { started_at: Some(started_at), .. }) = &state_before else { panic!("{state_before:?}") };
    assert!((now(0) - 20..=now(0)).contains(&started_at.seconds), "the clock is the machine's at first");
    pods.run_crashing().await;
    let ready = follower.wait_for("the node to be ready", |_| ready_since(&follower)).await;

    for ahead in [-HOUR, HOUR] {
        set_in_the_middle(&clock, &pods, ahead).await;
        // Longer than a node may be silent.
        pods.more_probes(NODE_GRACE + 2).await;
        check_what_is_told(&clock, &pods, &url, steady, ahead).await;
        assert_eq!(ready_since(&follower), Some(ready), "the node was called silent");
    }

    let all = clock.say(&url, &["logs", "steady"]);
    let counted: Vec<usize> = all.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(counted, (0..counted.len()).collect::<Vec<_>>(), "lines are missing, or in another order");
    for name in ["steady", "crashing"] {
        follower.client.delete::<Pod>("", name, Default::default()).await.expect("it exists");
        follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", name).is_none().then_some(())).await;
    }
    assert!(kubelet.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
    assert_eq!(processes_of(folder.path()), []);
}
