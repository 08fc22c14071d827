//! Pods that use ConfigMaps and Secrets.

use std::time::Duration;

use bluebird::api::Resource as _;
use bluebird::api::manifest;
use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{ClusterEvent, ConfigMap, Pod, PodPhase};
use bluebird::client::{Client, DeleteOptions};
use bluebird::kubelet;
use bluebird::time::Clock;

use crate::init;
use crate::machine::{Machine, main_status, phase, pid, state};
use crate::processes::{DEADLINE, eventually, is_alive, kill_hard, shims};

/// A pod of the test's node, as YAML, whose container main runs a script and has these further lines.
pub(crate) fn pod(name: &str, script: &str, lines: &str) -> String {
    let script = script.replace("$$", "$$$$");
    let head =
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: n1\n  terminationGracePeriodSeconds: 1\n");
    format!("{head}  containers:\n  - name: main\n    command: [sh, -c, \"{script}\"]\n{lines}---\n")
}

pub(crate) const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {COLOUR: blue}\n---\n";
pub(crate) const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {password: hunter2}\n---\n";
const ENV: &str = "    envFrom: [{configMapRef: {name: web}, prefix: WEB_}]
    env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
    - {name: ABSENT, valueFrom: {configMapKeyRef: {name: none, key: none, optional: true}}}
    - {name: BOTH, value: $(PASSWORD)-$(WEB_COLOUR)-$(ABSENT)}
";

impl Machine {
    pub(crate) async fn apply(&self, text: &str) {
        let objects = manifest::parse(text, "test").expect("a right manifest");
        self.client.apply(objects, "test", false).await.expect("it can be applied");
    }

    /// Waits for an event with this reason whose note contains a text.
    pub(crate) async fn until_event(&self, reason: &str, text: &str) {
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                let events = self.client.list::<ClusterEvent>("").await.unwrap();
                let specs = events.iter().filter_map(|event| event.spec.as_ref());
                if specs.into_iter().any(|spec| spec.reason == reason && spec.note.contains(text)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("there never was an event {reason} with {text:?}"));
    }

    /// What a file in a pod's own folder says, as soon as it says something.
    async fn told(&self, pod: &Pod, file: &str) -> String {
        let path = self.folder_of(pod).join("work").join(file);
        eventually(&format!("something in {}", path.display()), || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')))
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_told_what_its_config_map_and_its_secret_hold() {
    let machine = Machine::new().await;
    let script = "echo $BOTH > told; exec sleep 1000";
    machine.apply(&format!("{}{MAP}{SECRET}", pod("web", script, ENV))).await;
    let (pod, _) = machine.running("web").await;
    assert_eq!(machine.told(&pod, "told").await, "hunter2-blue-$(ABSENT)\n");
    assert!(!format!("{pod:?}").contains("hunter2"), "{pod:?}");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_waits_for_what_is_missing_and_starts_as_soon_as_it_is_there() {
    let machine = Machine::new().await;
    machine.apply(&pod("web", "echo $BOTH > told; exec sleep 1000", ENV)).await;
    let waits = |pod: &Pod, text: &str| matches!(state(pod), Some(State::Waiting(waiting)) if waiting.reason == "CreateContainerConfigError" && waiting.message == text);
    let map = "there is no ConfigMap \"web\" in the namespace \"default\"";
    let waiting = machine.until("web", "waiting for its ConfigMap", |pod| waits(pod, map)).await;
    assert_eq!(waiting.status.as_ref().unwrap().phase(), PodPhase::Pending);
    assert!(main_status(&waiting).unwrap().next_retry_time.is_some());
    machine.apply(MAP).await;
    let secret = "there is no Secret \"db\" in the namespace \"default\"";
    machine.until("web", "waiting for its Secret", |pod| waits(pod, secret)).await;
    machine.apply(&SECRET.replace("password", "other")).await;
    machine.until("web", "waiting for a key", |pod| waits(pod, "the Secret \"db\" has no key \"password\"")).await;
    machine.apply(SECRET).await;
    let (pod, _) = machine.running("web").await;
    assert_eq!(machine.told(&pod, "told").await, "hunter2-blue-$(ABSENT)\n");
    assert_eq!(main_status(&pod).unwrap().restart_count, 0);
    let events = machine.client.list::<ClusterEvent>("").await.unwrap();
    assert!(!format!("{events:?}").contains("hunter2"), "{events:?}");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_started_again_is_told_what_holds_then() {
    let machine = Machine::new().await;
    machine.apply(&format!("{MAP}{SECRET}{}", pod("web", "echo $BOTH > told; exec sleep 1000", ENV))).await;
    let (web, first) = machine.running("web").await;
    machine.told(&web, "told").await;
    machine.apply(&MAP.replace("blue", "red")).await;
    machine.client.delete::<ConfigMap>("", "none", DeleteOptions::default()).await.expect_err("it never was there");
    kill_hard(first);
    machine.until("web", "started again", |pod| pid(pod).is_some_and(|pid| pid != first)).await;
    let told = machine.folder_of(&web).join("work/told");
    eventually("the new colour", || std::fs::read_to_string(&told).ok()?.contains("-red-").then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_apiserver_another_kubelet_starts_a_pod_with_the_secrets_that_were_kept() {
    let mut machine = Machine::new().await;
    machine.apply(&format!("{MAP}{SECRET}{}", pod("web", "echo $BOTH >> told; exec sleep 1000", ENV))).await;
    let (pod, first) = machine.running("web").await;
    machine.told(&pod, "told").await;
    machine.kill_kubelet().await;
    shims(&machine.root()).into_iter().for_each(kill_hard);
    eventually("the end of the process", || (!is_alive(first)).then_some(())).await;

    let nobody = Client::new("http://127.0.0.1:9").unwrap();
    machine.kubelet = Some(kubelet::start(machine.config(), nobody, Clock::system()).await.unwrap());
    let told = machine.folder_of(&pod).join("work/told");
    eventually("the second run", || {
        let told = std::fs::read_to_string(&told).ok()?;
        (told == "hunter2-blue-$(ABSENT)\nhunter2-blue-$(ABSENT)\n").then_some(())
    })
    .await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_keeps_of_its_secrets_can_be_read_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new().await;
    machine.apply(&format!("{MAP}{SECRET}{}", pod("web", "exec sleep 1000", ENV))).await;
    let (pod, _) = machine.running("web").await;
    for file in ["configuration.binpb", "desired.json"] {
        let path = machine.folder_of(&pod).join(file);
        assert!(String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains("hunter2"), "{file}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(pod.meta().name, "web");
    tokio::time::timeout(Duration::from_secs(60), machine.finish()).await.expect("an end");
}

/// Programs that can't be started, each for a reason of its own, and how that begins.
const NO_PROGRAMS: [(&str, &str, &str); 7] = [
    ("nowhere", "run $(PASSWORD)", "the program \"run $(PASSWORD)\" is in none of the folders of PATH"),
    ("absent", "no-such-program", "the program \"no-such-program\" is in none of the folders of PATH"),
    ("gone", "/no/such/$(PASSWORD)", "the program \"/no/such/$(PASSWORD)\" does not exist"),
    ("denied", "$(PATH)/denied", "the program \"$(PATH)/denied\" may not be executed"),
    ("text", "text", "\"text\" is neither a program of this system nor a script"),
    ("orphaned", "$(PATH)/orphaned", "the interpreter \"/no/such/interpreter\" of the script \"$(PATH)/orphaned\" does not exist"),
    ("nameless", "nameless", "the script \"nameless\" names no interpreter behind #!"),
];

/// A folder whose name is the secret, with files that are no programs. Containers with these lines have it as their PATH.
fn secret_folder(machine: &Machine) -> String {
    use std::os::unix::fs::PermissionsExt;
    let folder = machine.folder.path().join("hunter2");
    std::fs::create_dir(&folder).unwrap();
    let files =
        [("denied", "", 0o644), ("text", "exit 0\n", 0o755), ("orphaned", "#!/no/such/interpreter\n", 0o755), ("nameless", "#!\n", 0o755)];
    for (name, text, mode) in files {
        std::fs::write(folder.join(name), text).unwrap();
        std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let path = machine.folder.path().join("$(PASSWORD)");
    format!(
        "    env: [{{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: db, key: password}}}}}}, {{name: PATH, value: {}}}]\n",
        path.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_program_is_not_started_is_told_by_the_words_of_the_spec_and_without_what_is_secret() {
    let machine = Machine::new().await;
    let env = secret_folder(&machine);
    let head = |name: &str| {
        let spec = "spec:\n  nodeName: n1\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n";
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n{spec}")
    };
    let containers = NO_PROGRAMS.map(|(name, program, _)| format!("  - name: {name}\n    command: ['{program}']\n{env}")).concat();
    let hook = "    lifecycle: {preStop: {exec: {command: [no-such-program]}}}\n";
    let hooked = format!("{}  - name: main\n    command: [/bin/sleep, '1000']\n{env}{hook}", head("hooked"));
    machine.apply(&format!("{SECRET}{}{containers}---\n{hooked}", head("web"))).await;

    let pod = machine.until("web", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    assert!(!format!("{pod:?}").contains("hunter2"), "{pod:#?}");
    for (name, _, why) in NO_PROGRAMS {
        let state = init::state(&pod, name);
        let Some(State::Terminated(ended)) = state else { panic!("{name}: {state:?}") };
        assert!(ended.reason == "StartError" && ended.message.starts_with(why), "{name}: {ended:?}");
    }
    machine.running("hooked").await;
    machine.delete("hooked", None).await;
    machine.until_gone("hooked").await;
    machine.until_event("FailedPreStopHook", "the program \"no-such-program\" is in none of the folders of PATH").await;
    let events = machine.client.list::<ClusterEvent>("").await.unwrap();
    assert!(!format!("{events:?}").contains("hunter2"), "{events:#?}");
    machine.finish().await;
}
