//! A shim without a kubelet: files in, files out.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::logs;
use crate::machine::FOREVER;
use crate::processes::{Cleanup, daemon, eventually, is_alive, kill_hard, pid_in};

pub(crate) struct Fixture {
    folder: TempDir,
    pub(crate) shim: Option<Child>,
    pub(crate) cleanup: Cleanup,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cleanup = Cleanup::of(folder.path());
        Self { folder, shim: None, cleanup }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn run(&self, container: &str, attempt: u32, command: &[&str]) -> Value {
        let root = self.folder.path().canonicalize().unwrap();
        let env = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("BLUEBIRD_ROOT", root.display().to_string()),
            ("BLUEBIRD_CONTAINER", container.into()),
        ];
        json!({
            "container": container, "attempt": attempt, "streak": 0, "command": command, "env": env,
            "working_dir": self.folder.path(), "log": self.path(&format!("logs/{container}/{attempt}.log")),
        })
    }

    pub(crate) fn script(&self, container: &str, attempt: u32, script: &str) -> Value {
        self.run(container, attempt, &["sh", "-c", script])
    }

    /// Says what is wanted, as a kubelet does, and rings.
    pub(crate) fn want(&self, runs: &[Value], grace_ms: Option<u64>) {
        let desired =
            json!({ "runs": runs, "stop": grace_ms.map(|grace_ms| json!({ "grace_ms": grace_ms })), "bell": self.path("no-kubelet") });
        std::fs::write(self.path("desired.new"), desired.to_string()).unwrap();
        std::fs::rename(self.path("desired.new"), self.path("desired.json")).unwrap();
        if self.shim.is_some() {
            std::fs::write(self.path("bell"), "\n").unwrap();
        }
    }

    pub(crate) fn start(&mut self) {
        let shim = Command::new(env!("CARGO_BIN_EXE_kubelet")).arg("shim").arg(self.folder.path()).stdin(Stdio::null()).spawn().unwrap();
        self.shim = Some(shim);
    }

    pub(crate) fn state(&self, container: &str) -> Option<Value> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.path("state.json")).ok()?).unwrap();
        state["containers"].as_array()?.iter().find(|known| known["name"] == container).cloned()
    }

    pub(crate) async fn running(&self, container: &str, attempt: u32) -> i32 {
        let look = || {
            let state = self.state(container).filter(|state| state["attempt"] == attempt)?;
            state["stage"]["Running"]["pid"].as_i64().filter(|pid| *pid != 0).map(|pid| pid as i32)
        };
        eventually(&format!("run {attempt} of {container}"), look).await
    }

    /// How a run ended.
    pub(crate) async fn ended(&self, container: &str, attempt: u32) -> Value {
        let look = || {
            let state = self.state(container).filter(|state| state["attempt"] == attempt)?;
            state["stage"].get("Ended").map(|ended| ended["cause"].clone())
        };
        eventually(&format!("the end of run {attempt} of {container}"), look).await
    }

    /// The shim ends by itself.
    pub(crate) async fn shim_ends(&mut self) {
        let mut shim = self.shim.take().unwrap();
        let status = eventually("the end of the shim", || shim.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
    }

    /// What a run has written, as it wrote it.
    pub(crate) fn log(&self, container: &str, attempt: u32) -> String {
        let records = logs::records(&self.path(&format!("logs/{container}")), attempt);
        String::from_utf8(logs::text(&records, None)).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(shim) = &mut self.shim {
            let _gone = shim.kill();
            let _reaped = shim.wait();
        }
    }
}

#[tokio::test]
async fn an_exit_code_and_a_log_are_recorded_while_no_kubelet_lives() {
    let mut pod = Fixture::new();
    pod.want(&[pod.script("main", 0, "echo out; echo err >&2; exit 7")], None);
    pod.start();
    assert_eq!(pod.ended("main", 0).await, json!({ "Exited": 7 }));
    assert_eq!(pod.log("main", 0), "out\nerr\n");
    pod.shim_ends().await;
}

#[tokio::test]
async fn a_daemon_that_ignores_the_request_to_end_is_gone_after_the_grace_period() {
    let mut pod = Fixture::new();
    let file = pod.path("daemon.pid");
    let run = pod.script("main", 0, &format!("trap '' TERM; {}; while :; do sleep 100; done", daemon(&file)));
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    let (main, daemon) = (pod.running("main", 0).await, pid_in(&file).await);
    assert!(is_alive(main) && is_alive(daemon));

    let asked = std::time::Instant::now();
    pod.want(&[run], Some(300));
    assert_eq!(pod.ended("main", 0).await, json!({ "Signaled": 9 }));
    assert!(asked.elapsed() >= std::time::Duration::from_millis(300), "killed after {:?}", asked.elapsed());
    pod.shim_ends().await;
    assert!(!is_alive(main) && !is_alive(daemon));
    assert_eq!(pod.cleanup.marked(), Vec::<i32>::new());
}

#[tokio::test]
async fn what_ends_when_asked_is_not_kept_waiting() {
    let mut pod = Fixture::new();
    let run = pod.script("main", 0, "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    eventually("the trap", || (pod.log("main", 0) == "ready\n").then_some(())).await;
    pod.want(&[run], Some(600_000));
    assert_eq!(pod.ended("main", 0).await, json!({ "Exited": 3 }));
    // The shell may say that its `sleep` was asked to end as well.
    assert!(pod.log("main", 0).contains("bye\n"), "{}", pod.log("main", 0));
    pod.shim_ends().await;
}

#[tokio::test]
async fn a_process_that_is_stopped_by_a_signal_can_be_ended() {
    let mut pod = Fixture::new();
    let run = pod.script("main", 0, "kill -STOP $$; exit 5");
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    pod.running("main", 0).await;
    pod.want(&[run], Some(600_000));
    let ended = pod.ended("main", 0).await;
    assert!(ended == json!({ "Signaled": 15 }) || ended == json!({ "Exited": 5 }), "{ended}");
    pod.shim_ends().await;
}

#[tokio::test]
async fn nothing_survives_the_main_process_and_the_neighbour_keeps_its_own() {
    let mut pod = Fixture::new();
    let (own, others) = (pod.path("own.pid"), pod.path("others.pid"));
    let main =
        pod.script("main", 0, &format!("{}; while [ ! -e {} ]; do sleep 0.01; done; exit 4", daemon(&own), pod.path("go").display()));
    let side = pod.script("side", 0, &format!("{}; while :; do sleep 100; done", daemon(&others)));
    pod.want(&[main.clone(), side.clone()], None);
    pod.start();
    let (own, others, side_main) = (pid_in(&own).await, pid_in(&others).await, pod.running("side", 0).await);
    std::fs::write(pod.path("go"), "").unwrap();
    assert_eq!(pod.ended("main", 0).await, json!({ "Exited": 4 }));
    assert!(!is_alive(own) && is_alive(others) && is_alive(side_main));
    pod.want(&[main, side], Some(0));
    pod.shim_ends().await;
    assert!(!is_alive(others) && !is_alive(side_main));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut pod = Fixture::new();
    std::fs::write(pod.path("data"), "no program").unwrap();
    let data = pod.path("data").display().to_string();
    let mut homeless = pod.script("homeless", 0, "exit 0");
    homeless["working_dir"] = json!("/no/such/folder");
    let runs =
        [pod.run("absent", 0, &["no-such-program"]), pod.run("gone", 0, &["/no/such/program"]), pod.run("data", 0, &[&data]), homeless];
    let script = |name: &str, text: &str| {
        std::fs::write(pod.path(name), text).unwrap();
        std::fs::set_permissions(pod.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        pod.run(name, 0, &[&pod.path(name).display().to_string()])
    };
    let scripts =
        [script("orphaned", "#!/no/such/interpreter -x\nexit 0\n"), script("plain", "exit 0\n"), script("nameless", "#! \nexit 0\n")];
    let runs: Vec<Value> = runs.into_iter().chain(scripts).collect();
    pod.want(&runs, None);
    pod.start();
    for (container, code, message) in [
        ("orphaned", 126, "the interpreter \"/no/such/interpreter\" of the script"),
        ("plain", 126, "is neither a program of this system nor a script whose first line names an interpreter"),
        ("nameless", 126, "names no interpreter behind #!"),
        ("absent", 127, "the program \"no-such-program\" is in none of the folders of PATH"),
        ("gone", 127, "the program \"/no/such/program\" does not exist"),
        ("data", 126, "may not be executed"),
        ("homeless", 126, "the working folder /no/such/folder does not exist"),
    ] {
        let failed = pod.ended(container, 0).await["StartFailed"].clone();
        assert_eq!(failed["code"], code, "{failed}");
        assert!(failed["message"].as_str().unwrap().contains(message), "{failed}");
    }
    pod.shim_ends().await;
}

#[tokio::test]
async fn a_run_is_started_once_and_the_next_one_remembers_it() {
    let mut pod = Fixture::new();
    let keep = pod.script("side", 0, "while :; do sleep 100; done");
    let first = pod.script("main", 0, "echo first; exit 1");
    pod.want(&[keep.clone(), first.clone()], None);
    pod.start();
    pod.ended("main", 0).await;
    pod.want(&[keep.clone(), first], None);
    let second = pod.script("main", 1, "echo second; exit 2");
    pod.want(&[keep.clone(), second.clone()], None);
    assert_eq!(pod.ended("main", 1).await, json!({ "Exited": 2 }));
    assert_eq!(pod.state("main").unwrap()["previous"]["cause"], json!({ "Exited": 1 }));
    assert_eq!((pod.log("main", 0), pod.log("main", 1)), ("first\n".to_owned(), "second\n".to_owned()));
    pod.want(&[keep, second], Some(0));
    pod.shim_ends().await;
}

#[tokio::test]
async fn the_main_process_dies_with_a_killed_shim_and_the_next_shim_starts_nothing_beside_what_may_be_left() {
    let mut pod = Fixture::new();
    let run = pod.script("main", 0, "while :; do sleep 100; done");
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    let main = pod.running("main", 0).await;
    let mut shim = pod.shim.take().unwrap();
    kill_hard(shim.id() as i32);
    shim.wait().unwrap();
    eventually("the end of the main process", || (!is_alive(main)).then_some(())).await;
    let state = std::fs::read(pod.path("state.json")).unwrap();
    pod.want(&[run, pod.script("main", 1, "exit 0")], None);
    pod.start();
    pod.shim_ends().await;
    assert_eq!(
        std::fs::read(pod.path("state.json")).unwrap(),
        state,
        "what is lost is the kubelet's to tell, when it has killed what is left"
    );
}

#[tokio::test]
async fn a_second_shim_starts_nothing_twice() {
    let mut pod = Fixture::new();
    pod.want(&[pod.script("main", 0, "echo started; while [ ! -e go ]; do sleep 0.01; done")], None);
    pod.start();
    let main = pod.running("main", 0).await;
    let mut first = pod.shim.take().unwrap();
    pod.start();
    std::fs::write(pod.path("go"), "").unwrap();
    pod.ended("main", 0).await;
    eventually("the end of the first shim", || first.try_wait().unwrap()).await;
    pod.shim_ends().await;
    assert!(!is_alive(main));
    assert_eq!(pod.log("main", 0), "started\n");
}

#[tokio::test]
async fn a_state_of_an_earlier_boot_is_lost_and_its_pids_are_strangers() {
    let mut pod = Fixture::new();
    // What has the pid now has nothing to do with the pod.
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let running = json!({ "Running": { "pid": stranger.id(), "started_at": 1 } });
    let container = json!({ "name": "main", "attempt": 0, "streak": 0, "stage": running, "previous": null });
    let state = json!({ "containers": [container], "boot_id": "another" });
    std::fs::write(pod.path("state.json"), state.to_string()).unwrap();
    pod.want(&[pod.script("main", 0, "exit 0"), pod.script("main", 1, "exit 5")], None);
    pod.start();
    assert_eq!(pod.ended("main", 1).await, json!({ "Exited": 5 }));
    assert_eq!(pod.state("main").unwrap()["previous"]["cause"], json!("Lost"));
    pod.shim_ends().await;
    let state: Value = serde_json::from_slice(&std::fs::read(pod.path("state.json")).unwrap()).unwrap();
    assert_eq!(state["boot_id"].as_str().unwrap(), std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    assert!(is_alive(stranger.id() as i32));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn that_runs_start_is_written_down_before_any_of_them_does() {
    let mut pod = Fixture::new();
    // So many that some look before the last one has begun.
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let look = format!("cat {}", pod.path("state.json").display());
    pod.want(&names.iter().map(|name| pod.script(name, 3, &look)).collect::<Vec<_>>(), None);
    pod.start();
    for name in &names {
        assert_eq!(pod.ended(name, 3).await, json!({ "Exited": 0 }));
    }
    let saw = |name: &String| {
        let seen: Value = serde_json::from_str(&pod.log(name, 3)).unwrap();
        let last = seen["containers"].as_array().unwrap().iter().find(|known| known["name"] == "c39").expect("it was written down");
        (&last["attempt"], &last["stage"]["Running"]["pid"]) == (&json!(3), &json!(0))
    };
    assert!(names.iter().any(saw));
    pod.shim_ends().await;
}

#[tokio::test]
async fn a_run_that_was_about_to_start_when_the_power_went_is_lost_and_its_number_is_not_used_again() {
    let mut pod = Fixture::new();
    let starting = json!({ "Running": { "pid": 0, "started_at": 1 } });
    let container = json!({ "name": "main", "attempt": 0, "streak": 0, "stage": starting, "previous": null });
    std::fs::write(pod.path("state.json"), json!({ "containers": [container], "boot_id": "another" }).to_string()).unwrap();
    let started = pod.path("started");
    pod.want(&[pod.script("main", 0, &format!("touch {}", started.display()))], None);
    pod.start();
    assert_eq!(pod.ended("main", 0).await, json!("Lost"));
    pod.shim_ends().await;
    assert!(!started.exists());
}

#[tokio::test]
async fn a_second_shim_ends_soon_when_the_first_one_lives_on() {
    let mut pod = Fixture::new();
    let run = pod.script("main", 0, FOREVER);
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    let main = pod.running("main", 0).await;
    let first = pod.shim.take();
    // What it was started for is not known to the first one.
    pod.want(&[run.clone(), pod.script("side", 0, "exit 3")], None);
    pod.start();
    pod.shim_ends().await;
    pod.shim = first;
    assert_eq!(pod.ended("side", 0).await, json!({ "Exited": 3 }));
    assert!(is_alive(main));
    pod.want(&[run], Some(0));
    pod.shim_ends().await;
}

#[tokio::test]
async fn a_shim_whose_folder_is_gone_ends_with_all_that_it_guards() {
    let mut pod = Fixture::new();
    let (go, file) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap().into_temp_path());
    let side = format!("while [ ! -e {} ]; do sleep 0.01; done", go.path().join("go").display());
    let mut runs = [pod.script("main", 0, &format!("{}; {FOREVER}", daemon(&file))), pod.script("side", 0, &side)];
    runs.iter_mut().for_each(|run| run["working_dir"] = json!("/"));
    pod.want(&runs, None);
    pod.start();
    let (main, daemon) = (pod.running("main", 0).await, pid_in(&file).await);
    pod.running("side", 0).await;
    std::fs::remove_dir_all(pod.path("")).unwrap();
    // Nothing else could wake it.
    std::fs::write(go.path().join("go"), "").unwrap();
    pod.shim_ends().await;
    assert!(!is_alive(main) && !is_alive(daemon));
    assert!(!pod.path("").exists(), "it has made nothing new there");
}

#[tokio::test]
async fn what_is_damaged_of_a_state_is_written_again_when_the_shim_is_rung() {
    let mut pod = Fixture::new();
    let run = pod.script("main", 0, FOREVER);
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    pod.running("main", 0).await;
    let whole = std::fs::read(pod.path("state.json")).unwrap();
    for damaged in [&b""[..], b"{\"containers\": [", &vec![b' '; whole.len()]] {
        std::fs::write(pod.path("state.json"), damaged).unwrap();
        std::fs::write(pod.path("bell"), "\n").unwrap();
        eventually("the whole state", || (std::fs::read(pod.path("state.json")).unwrap() == whole).then_some(())).await;
    }
    pod.want(&[run], Some(0));
    pod.shim_ends().await;
}

#[tokio::test]
async fn damaged_files_stop_nothing_that_runs() {
    let mut pod = Fixture::new();
    let run = pod.script("main", 0, "while [ ! -e go ]; do sleep 0.01; done; exit 3");
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    let main = pod.running("main", 0).await;
    let side = pod.script("side", 0, "exit 4");
    std::fs::write(pod.path("state.json"), "{\"containers\": [").unwrap();
    std::fs::write(pod.path("desired.json"), "{\"runs\": [").unwrap();
    std::fs::write(pod.path("bell"), "\n").unwrap();
    // It still hears, and what it writes next is whole again.
    pod.want(&[run.clone(), side.clone()], None);
    let whole = || serde_json::from_slice::<Value>(&std::fs::read(pod.path("state.json")).unwrap()).is_ok();
    eventually("a whole state", || whole().then_some(())).await;
    assert_eq!(pod.ended("side", 0).await, json!({ "Exited": 4 }));
    assert!(is_alive(main));
    std::fs::remove_file(pod.path("desired.json")).unwrap();
    std::fs::write(pod.path("go"), "").unwrap();
    assert_eq!(pod.ended("main", 0).await, json!({ "Exited": 3 }));
    pod.shim_ends().await;
}
