//! Logs as people read them, over everything that may end meanwhile.

use std::path::PathBuf;

use bluebird::api::v1::{LogsRequest, Pod, PodPhase, RestartPolicy};
use bluebird::api::{Kind, ObjectKey, Resource as _};
use bluebird::client::{Client, Log, LogEvent};
use bluebird::testing::free_port;
use tempfile::TempDir;

use super::follower::{Follower, phase};
use super::program::{DEADLINE, Program, eventually, free_range};

/// An apiserver and a kubelet of small logs, each of which may be killed and started again.
struct Site {
    listen: String,
    range: String,
    apiserver: Program,
    kubelet: Program,
    follower: Follower,
    /// The last field: whatever uses it is gone before it.
    folder: TempDir,
}

impl Site {
    async fn start() -> Site {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
        let (apiserver, kubelet) = (start_apiserver(&folder, &listen, &range), start_kubelet(&folder, &listen));
        let follower = Follower::connect(&format!("http://{listen}")).await;
        Site { listen, range, apiserver, kubelet, follower, folder }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    fn restart_kubelet(&mut self) {
        self.kubelet.kill();
        self.kubelet = start_kubelet(&self.folder, &self.listen);
    }

    fn restart_apiserver(&mut self) {
        self.apiserver.kill();
        self.apiserver = start_apiserver(&self.folder, &self.listen, &self.range);
    }

    /// `bluebird` with these words. What it prints is in the file of that name, and what it complains in another.
    fn bluebird(&self, name: &str, words: &str) -> Program {
        let url = self.url();
        let args: Vec<_> = words.split(' ').chain(["--server", url.as_str()]).collect();
        Program::start(self.folder.path(), name, env!("CARGO_BIN_EXE_bluebird"), &args)
    }

    /// What such a command prints that ends by itself.
    async fn print(&self, name: &str, words: &str) -> String {
        let mut program = self.bluebird(name, words);
        let status = program.ended().await;
        assert!(status.success(), "{words}: {}", program.said());
        program.said()
    }

    fn logs_of(&self, uid: &str) -> PathBuf {
        self.folder.path().join("node/pods").join(uid).join("logs/main")
    }

    /// Gives the pod labels, and returns its uid.
    async fn label(&self, name: &str, app: &str) -> String {
        let mut pod = self.follower.client.get::<Pod>("", name).await.expect("it exists");
        pod.meta_mut().labels.insert("app".into(), app.into());
        self.follower.client.update(pod).await.expect("labels may change").meta().uid.clone()
    }

    async fn end(mut self, pods: &[&str]) {
        for name in pods {
            self.follower.client.delete::<Pod>("", name, Default::default()).await.expect("it exists");
            self.follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", name).is_none().then_some(())).await;
        }
        assert!(self.kubelet.interrupt().await.success());
        assert!(self.apiserver.interrupt().await.success());
    }
}

fn start_apiserver(folder: &TempDir, listen: &str, range: &str) -> Program {
    let data = folder.path().join("data");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", listen, "--service-cidr", range];
    Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args)
}

fn start_kubelet(folder: &TempDir, listen: &str) -> Program {
    let (url, root) = (format!("http://{listen}"), folder.path().join("node"));
    let root = root.to_str().expect("text");
    let small = ["--log-max-size", "64Ki", "--log-max-files", "4"];
    let args = [&["--server", &url, "--node-name", "n1", "--root-dir", root], &small[..]].concat();
    Program::start(folder.path(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args)
}

/// The numbers of the lines that a program has printed so far; what it says of broken connections is passed over.
fn numbers(said: &str) -> Vec<u64> {
    let whole = said.rfind('\n').map_or("", |end| &said[..=end]);
    whole.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_log_sees_every_line_once_over_rotations_and_kills_of_kubelet_and_apiserver() {
    let mut site = Site::start().await;
    let go = |step: u32| site.folder.path().join(format!("go-{step}"));
    // Each step writes more than one file takes, and waits for the next one; the last begins another run.
    let wait = |step| format!("while ! [ -e {} ]; do sleep 0.02; done", go(step).display());
    let lines = |from: u32, to: u32| format!("seq -f 'line %.0f' {from} {to}");
    let begun = site.folder.path().join("begun");
    let first = [lines(1, 2000), wait(1), lines(2001, 4000), wait(2), lines(4001, 6000), wait(3)].join("; ");
    let script = format!(
        "if [ -e {begun} ]; then {second}; exec sleep 1000; else touch {begun}; {first}; exit 1; fi",
        begun = begun.display(),
        second = lines(6001, 7000)
    );
    let go = [go(1), go(2), go(3)];
    site.follower.run("writer", &script, RestartPolicy::Always).await;
    let follow = site.bluebird("follow", "logs -f writer");
    let seen_until = async |last: u64| {
        eventually(
            || format!("line {last}; there is {:?}", numbers(&follow.said()).last()),
            || (numbers(&follow.said()).last() == Some(&last)).then_some(()),
        )
        .await;
    };
    seen_until(2000).await;
    site.kubelet.kill();
    std::fs::write(&go[0], "").expect("the test's own folder");
    site.restart_kubelet();
    seen_until(4000).await;
    site.restart_apiserver();
    std::fs::write(&go[1], "").expect("the test's own folder");
    seen_until(6000).await;
    site.restart_kubelet();
    std::fs::write(&go[2], "").expect("the test's own folder");
    site.restart_apiserver();
    seen_until(7000).await;
    let said = follow.said();
    assert!(numbers(&said).into_iter().eq(1..=7000), "a line is missing, or comes twice");
    assert!(!said.contains("missing"), "{}", said.lines().filter(|line| !line.starts_with("line ")).collect::<String>());
    site.end(&["writer"]).await;
    drop(follow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_writes_without_end_fills_no_disk_and_a_reader_that_does_not_read_no_memory() {
    let site = Site::start().await;
    let go = site.folder.path().join("go");
    let script = format!("while ! [ -e {} ]; do sleep 0.02; done; seq -f 'line %.0f' 1 3000000", go.display());
    site.follower.run("flood", &script, RestartPolicy::Never).await;
    let uid = site.follower.client.get::<Pod>("", "flood").await.expect("it exists").meta().uid.clone();
    let request = LogsRequest { pod: "flood".into(), pod_uid: uid.clone(), container: "main".into(), follow: true, ..Default::default() };
    let client = Client::new(&site.url()).expect("a URL");
    let mut log = Log::open(client, request).await.expect("a log");
    let before = [memory_of(site.kubelet.pid()), memory_of(site.apiserver.pid())];
    std::fs::write(&go, "").expect("the test's own folder");
    let key = ObjectKey::new(Kind::Pod, "default", "flood");
    let is_over = || site.follower.cache.get::<Pod>(key.namespace(), key.name()).filter(|pod| phase(pod) == PodPhase::Succeeded);
    let mut largest = 0;
    eventually(
        || "all to be written though nobody reads".into(),
        || {
            largest = largest.max(size_of(&site.logs_of(&uid)));
            is_over()
        },
    )
    .await;
    // A file that is renamed between two looks may be counted twice.
    assert!(largest <= 5 * 64 * 1024, "{largest} bytes");
    let after = [memory_of(site.kubelet.pid()), memory_of(site.apiserver.pid())];
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + 16 * 1024, "{before} KiB grew to {after} KiB");
    }
    let (mut words, mut gaps) = (Vec::new(), 0);
    while let Some(event) = tokio::time::timeout(DEADLINE, log.next()).await.expect("the log ends").expect("it can be read") {
        let LogEvent::Piece(piece) = event else { panic!("{event:?}") };
        gaps += u32::from(piece.gap.is_some());
        words.extend(piece.data);
    }
    let numbers = numbers(&String::from_utf8(words).expect("text"));
    assert!(numbers.is_sorted_by(|one, next| one < next), "a line came twice");
    assert_eq!((numbers.first(), numbers.last()), (Some(&1), Some(&3_000_000)), "{gaps} gaps");
    assert!(gaps > 0, "what was removed unread is told");
    site.end(&["flood"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_many_pods_are_one_in_the_order_of_their_times_and_new_pods_join() {
    let site = Site::start().await;
    let go = |step: u32| site.folder.path().join(format!("go-{step}"));
    let wait = |step| format!("while ! [ -e {} ]; do sleep 0.01; done", go(step).display());
    let done = |step: u32| format!("touch {}", go(step).display());
    // They write in turn.
    let one = format!("echo a1; {}; {}; echo a3; {}; exec sleep 1000", done(1), wait(2), done(3));
    let two = format!("{}; echo b2; {}; {}; echo b4; {}; exec sleep 1000", wait(1), done(2), wait(3), done(4));
    site.follower.run("one", &one, RestartPolicy::Never).await;
    site.follower.run("two", &two, RestartPolicy::Never).await;
    site.label("one", "x").await;
    site.label("two", "x").await;
    eventually(|| "both to have written".into(), || go(4).exists().then_some(())).await;
    assert_eq!(site.print("plain", "logs -l app=x").await, "a1\nb2\na3\nb4\n");
    let prefixed = "[pod/one/main] a1\n[pod/two/main] b2\n[pod/one/main] a3\n[pod/two/main] b4\n";
    assert_eq!(site.print("prefixed", "logs -l app=x --prefix --all-containers").await, prefixed);
    assert_eq!(site.print("tail", "logs -l app=x --tail 1").await, "a3\nb4\n");
    let with_times = site.print("times", "logs -l app=x --timestamps").await;
    assert!(with_times.lines().map(|line| &line[..30]).is_sorted(), "{with_times}");
    let second = with_times.lines().nth(1).expect("four lines").split_once(' ').expect("a time").0;
    assert_eq!(site.print("since-time", &format!("logs -l app=x --since-time {second}")).await, "b2\na3\nb4\n");
    assert_eq!(site.print("since", "logs one --since 1h").await, "a1\na3\n");
    let mut too_many = site.bluebird("too-many", "logs -l app=x --max-log-requests 1");
    assert!(!too_many.ended().await.success() && too_many.said().contains("these are 2 logs"), "{}", too_many.said());

    let mut follow = site.bluebird("follow", "logs -f -l app=x --prefix");
    eventually(|| follow.said(), || (follow.said() == prefixed).then_some(())).await;
    site.follower.run("three", "echo c5; exec sleep 1000", RestartPolicy::Never).await;
    site.label("three", "x").await;
    let with_third = format!("{prefixed}[pod/three/main] c5\n");
    eventually(|| follow.said(), || (follow.said() == with_third).then_some(())).await;
    site.follower.client.delete::<Pod>("", "three", Default::default()).await.expect("it exists");
    site.follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", "three").is_none().then_some(())).await;
    site.follower.run("four", "echo d6; exec sleep 1000", RestartPolicy::Never).await;
    site.label("four", "x").await;
    let with_fourth = format!("{with_third}[pod/four/main] d6\n");
    eventually(|| follow.said(), || (follow.said() == with_fourth).then_some(())).await;
    follow.kill();
    site.end(&["one", "two", "four"]).await;
}

/// In KiB, without what it shares with others.
fn memory_of(process: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn size_of(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}
