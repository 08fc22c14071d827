//! Static pods: wanted by files, shown to the apiserver if there is one.

use std::path::{Path, PathBuf};

use bluebird::api::v1::container_state::State;
use bluebird::api::v1::exec_response::Message as Told;
use bluebird::api::v1::{ClusterEvent, ExecStart, Pod, PodPhase, RemoveMirrorRequest};
use bluebird::api::{Resource, STATIC_POD_FILE_ANNOTATION};
use bluebird::client::DeleteOptions;
use bluebird::error::Error;

use crate::machine::{FOREVER, Machine, main_status, phase, pid, state};
use crate::pods::list_in_slice;
use crate::processes::{DEADLINE, eventually, is_alive, pid_in};

/// A machine whose kubelets watch a folder, and that folder.
async fn watching() -> (Machine, PathBuf) {
    let mut machine = Machine::new().await;
    machine.kill_kubelet().await;
    let files = machine.folder.path().join("static");
    std::fs::create_dir(&files).unwrap();
    machine.static_pods = Some(files.clone());
    (machine, files)
}

fn manifest(name: &str, script: &str) -> String {
    with_policy(name, script, "Always")
}

fn with_policy(name: &str, script: &str, policy: &str) -> String {
    let script = serde_json::to_string(&script.replace("$$", "$$$$")).unwrap();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 5\n  restartPolicy: {policy}\n  containers:\n  - {{name: main, command: [sh, -c, {script}]}}\n"
    )
}

/// A script that says its pid in a file, which it takes away when it is asked to end; and in another one that it found the place taken.
fn alone_in(folder: &Path, word: &str) -> String {
    let (lock, both, pid) = (folder.join("lock"), folder.join("both"), folder.join(word));
    format!(
        "mkdir {lock} || touch {both}; echo $$ > {pid}.new; mv {pid}.new {pid}; trap 'rm {pid}; rmdir {lock}; exit 0' TERM; while :; do sleep 0.05; done",
        lock = lock.display(),
        both = both.display(),
        pid = pid.display()
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

async fn gone(path: &Path) {
    eventually(&format!("the end of {}", path.display()), || (!path.exists()).then_some(())).await;
}

impl Machine {
    async fn mirror(&self, name: &str, what: &str, is_so: impl Fn(&Pod) -> bool) -> Pod {
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                if let Ok(pod) = self.get(name).await
                    && is_so(&pod)
                {
                    return pod;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        match waited.await {
            Ok(pod) => pod,
            Err(_) => panic!("the mirror {name} never was {what}: {:#?}", self.get(name).await),
        }
    }

    async fn event(&self, reason: &str, part: &str) -> String {
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                let events = self.client.list::<ClusterEvent>("").await.unwrap();
                let mut notes =
                    events.into_iter().filter_map(|event| event.spec).filter(|spec| spec.reason == reason).map(|spec| spec.note);
                if let Some(note) = notes.find(|note| note.contains(part)) {
                    return note;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        match waited.await {
            Ok(note) => note,
            Err(_) => panic!("nobody told {reason} with {part:?}: {:#?}", self.client.list::<ClusterEvent>("").await),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_run_pods_without_any_apiserver_and_never_two_of_one_name() {
    let (mut machine, files) = watching().await;
    let at = machine.folder.path().to_owned();
    write(&files.join("web.yaml"), &manifest("web", &alone_in(&at, "first")));
    for ignored in [".web.yaml.swp", ".other.yaml", "web.yaml~", "#web.yaml#", "web.yaml.tmp", "README.md"] {
        write(&files.join(ignored), &manifest("stray", &alone_in(&at, "stray")));
    }
    machine.start_kubelet_alone().await;
    let first = pid_in(&at.join("first")).await;

    // The same in other words, and in another file, is the same pod.
    let same = manifest("web", &alone_in(&at, "first")).replace("labels: {app: web}", "labels:\n    app: web # the same\n");
    write(&files.join("web.yaml"), &same);
    std::fs::rename(files.join("web.yaml"), files.join("shop.yml")).unwrap();
    write(&files.join("shop.yml"), &manifest("web", &alone_in(&at, "second")));
    let second = pid_in(&at.join("second")).await;
    assert!(!is_alive(first) && !at.join("first").exists() && second != first);
    // There and back again faster than anything ends.
    write(&files.join("shop.yml"), &manifest("web", &alone_in(&at, "third")));
    write(&files.join("shop.yml"), &manifest("web", &alone_in(&at, "fourth")));
    write(&files.join("shop.yml"), &manifest("web", &alone_in(&at, "second")));
    write(&files.join("other.json"), &serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"},
        "spec": {"containers": [{"name": "main", "command": ["sh", "-c", format!("touch {}; exec sleep 1000", at.join("other").display())]}]}
    }).to_string());
    eventually("the second file's pod", || at.join("other").exists().then_some(())).await;
    // A pod of its own: it begins after all of those have ended.
    write(&files.join("shop.yml"), &manifest("web", &alone_in(&at, "fifth")));
    let fifth = pid_in(&at.join("fifth")).await;

    // As editors save: the old file is moved away, and the new one put there.
    let text = manifest("web", &alone_in(&at, "fifth"));
    for round in 0..20 {
        std::fs::rename(files.join("shop.yml"), files.join("shop.yml~")).unwrap();
        write(&files.join("4913"), &text);
        write(&files.join("shop.yml"), &format!("{text}# saved {round} times\n"));
    }
    write(&files.join("after.yaml"), &manifest("after", &format!("touch {}; exec sleep 1000", at.join("after").display())));
    eventually("a look after that", || at.join("after").exists().then_some(())).await;
    assert!(is_alive(fifth) && pid_in(&at.join("fifth")).await == fifth, "saving is no change");

    // A broken file, an empty one while it is written, and a vanished folder change nothing.
    write(&files.join("shop.yml"), "kind: [");
    write(&files.join("shop.yml"), "");
    write(&files.join("last.yaml"), &manifest("last", &format!("touch {}; exec sleep 1000", at.join("last").display())));
    eventually("a look after that", || at.join("last").exists().then_some(())).await;
    assert!(is_alive(fifth));
    std::fs::remove_file(files.join("shop.yml")).unwrap();
    gone(&at.join("fifth")).await;
    eventually("the end of its process", || (!is_alive(fifth)).then_some(())).await;
    assert!(!at.join("both").exists(), "two pods of one name ran at once");
    assert!(!at.join("stray").exists(), "a file was run that is no manifest");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_whose_folder_is_removed_while_there_is_no_kubelet_never_runs_twice() {
    let (mut machine, files) = watching().await;
    let at = machine.folder.path().to_owned();
    let (pid, both) = (at.join("pid"), at.join("both"));
    let script = format!(
        "if [ -e {pid} ] && grep -qs '^State:.[RSD]' /proc/`cat {pid}`/status; then touch {both}; fi; echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 1000",
        pid = pid.display(),
        both = both.display()
    );
    write(&files.join("web.yaml"), &manifest("web", &script));
    machine.start_kubelet_alone().await;
    let first = pid_in(&pid).await;
    machine.kill_kubelet().await;
    for pod in std::fs::read_dir(machine.root().join("pods")).unwrap() {
        std::fs::remove_dir_all(pod.unwrap().path()).unwrap();
    }
    machine.start_kubelet_alone().await;
    let again = || std::fs::read_to_string(&pid).ok()?.trim().parse::<i32>().ok().filter(|now| *now != first);
    let second = eventually("another run", again).await;
    assert!(!is_alive(first) && is_alive(second) && !both.exists());
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_is_shown_read_only_with_its_status_and_logs() {
    let (mut machine, files) = watching().await;
    write(&files.join("web.yaml"), &manifest("web", &format!("echo hello; {FOREVER}")));
    machine.start_kubelet().await;
    let mirror = machine.mirror("web-n1", "running", |pod| pid(pod).is_some()).await;
    let (meta, first) = (mirror.meta(), pid(&mirror).unwrap());
    assert_eq!((meta.annotations[STATIC_POD_FILE_ANNOTATION].as_str(), meta.labels["app"].as_str()), ("web.yaml", "web"));
    assert_eq!((phase(&mirror), is_alive(first)), (PodPhase::Running, true));
    assert!(bluebird::api::condition::is_true(&mirror.status.as_ref().unwrap().conditions, bluebird::api::condition::READY));
    let mut log = String::new();
    while !log.contains("hello") {
        log = machine.log("web-n1", false, false).await.unwrap();
    }
    let refused = machine.client.delete::<Pod>("", "web-n1", DeleteOptions::default()).await;
    assert!(matches!(&refused, Err(Error::Precondition(why)) if why.contains("web.yaml")), "{refused:?}");

    // Somebody who can took it away all the same.
    let instance_id = std::fs::read_to_string(machine.root().join("instance-id")).unwrap();
    let request = RemoveMirrorRequest {
        node_name: "n1".into(),
        instance_id,
        namespace: "default".into(),
        name: "web-n1".into(),
        uid: meta.uid.clone(),
    };
    machine.client.remove_mirror(request).await.unwrap();
    let again = machine.mirror("web-n1", "back", |pod| pid(pod).is_some()).await;
    assert_eq!((pid(&again), &again.meta().uid), (Some(first), &meta.uid));
    assert!(again.meta().creation_time.is_some() && again.meta().resource_version > meta.resource_version);

    // Over a restart of the kubelet, and a pod that changed while there was none.
    machine.kill_kubelet().await;
    machine.start_kubelet().await;
    machine.create("other", bluebird::api::v1::RestartPolicy::Never, vec![crate::machine::script("main", "exit 0")]).await;
    machine.until("other", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    assert_eq!(pid(&machine.get("web-n1").await.unwrap()), Some(first));
    assert!(is_alive(first));
    machine.kill_kubelet().await;
    write(&files.join("web.yaml"), &manifest("web", "exec sleep 1000"));
    machine.start_kubelet().await;
    let changed = machine.mirror("web-n1", "another pod", |pod| pod.meta().uid != meta.uid && pid(pod).is_some()).await;
    assert!(!is_alive(first) && main_status(&changed).unwrap().restart_count == 0);

    machine.kill_kubelet().await;
    std::fs::remove_file(files.join("web.yaml")).unwrap();
    machine.start_kubelet().await;
    machine.until_gone("web-n1").await;
    eventually("the end of its process", || (!is_alive(pid(&changed).unwrap())).then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_file_is_an_event_and_the_pod_stays_as_it_was_also_over_a_restart() {
    let (mut machine, files) = watching().await;
    write(&files.join("b.yaml"), &manifest("web", FOREVER));
    machine.start_kubelet().await;
    let mirror = machine.mirror("web-n1", "running", |pod| pid(pod).is_some()).await;
    let first = pid(&mirror).unwrap();
    write(&files.join("b.yaml"), &manifest("web", FOREVER).replace("containers", "container"));
    let note = machine.event("FailedManifest", "b.yaml:8").await;
    assert!(note.contains("did you mean \"containers\"?"), "{note}");
    write(&files.join("a.yaml"), &manifest("web", "exit 1"));
    machine.event("FailedManifest", "a.yaml: Pod/default/web-n1 is in b.yaml already").await;
    machine.kill_kubelet().await;
    machine.start_kubelet().await;
    machine.create("other", bluebird::api::v1::RestartPolicy::Never, vec![crate::machine::script("main", "exit 0")]).await;
    machine.until("other", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    assert_eq!((pid(&machine.get("web-n1").await.unwrap()), is_alive(first)), (Some(first), true));

    // A pod that is none of ours has the name; the static pod runs all the same.
    machine.create("taken-n1", bluebird::api::v1::RestartPolicy::Always, vec![crate::machine::script("main", FOREVER)]).await;
    let file = machine.folder.path().join("taken");
    write(&files.join("taken.yaml"), &manifest("taken", &format!("echo $$ > {}; {FOREVER}", file.display())));
    machine.event("FailedMirror", "taken-n1").await;
    let taken = pid_in(&file).await;

    // A kubelet without the folder has no static pods.
    machine.kill_kubelet().await;
    machine.static_pods = None;
    machine.start_kubelet().await;
    machine.until_gone("web-n1").await;
    eventually("the end of both", || (!is_alive(first) && !is_alive(taken)).then_some(())).await;
    machine.running("taken-n1").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_that_has_ended_runs_again_only_when_its_file_is_new() {
    let (mut machine, files) = watching().await;
    let out = machine.folder.path().join("out");
    let runs = || std::fs::read_to_string(&out).map_or(0, |words| words.lines().count());
    let text = with_policy("job", &format!("echo ran >> {}", out.display()), "Never");
    write(&files.join("job.yaml"), &text);
    machine.start_kubelet().await;
    let mirror = machine.mirror("job-n1", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    let folder = machine.folder_of(&mirror);
    machine.kill_kubelet().await;
    std::fs::write(folder.join("state.json"), "").unwrap();
    machine.lose_all_processes().await;
    machine.start_kubelet().await;
    machine.create("other", bluebird::api::v1::RestartPolicy::Never, vec![crate::machine::script("main", "exit 0")]).await;
    machine.until("other", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    assert_eq!(runs(), 1);

    std::fs::remove_file(files.join("job.yaml")).unwrap();
    machine.until_gone("job-n1").await;
    gone(&folder).await;
    write(&files.join("job.yaml"), &text);
    eventually("another run of the same pod", || (runs() == 2).then_some(())).await;
    let again = machine.mirror("job-n1", "done again", |pod| phase(pod) == PodPhase::Succeeded).await;
    assert_eq!(again.meta().uid, mirror.meta().uid);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_static_pods_start_at_once_and_the_truth_is_told_when_it_can_be() {
    let (mut machine, files) = watching().await;
    let pid_file = machine.folder.path().join("pid");
    write(&files.join("web.yaml"), &manifest("web", &format!("echo $$ > {}; {FOREVER}", pid_file.display())));
    machine.start_kubelet().await;
    let first = pid(&machine.mirror("web-n1", "running", |pod| pid(pod).is_some()).await).unwrap();
    machine.kill_kubelet().await;
    machine.lose_all_processes().await;
    std::fs::remove_file(&pid_file).unwrap();
    machine.start_kubelet_alone().await;
    let second = pid_in(&pid_file).await;
    assert!(second != first && is_alive(second));
    machine.kill_kubelet().await;
    machine.start_kubelet().await;
    let told = machine.mirror("web-n1", "told", |pod| pid(pod) == Some(second)).await;
    let main = main_status(&told).unwrap();
    assert_eq!((main.restart_count, main.last_termination.as_ref().unwrap().reason.as_str()), (1, "Lost"));
    assert!(matches!(state(&told), Some(State::Running(_))));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_that_changed_while_no_kubelet_lived_is_not_ended_while_a_slice_names_it() {
    let (mut machine, files) = watching().await;
    write(&files.join("web.yaml"), &manifest("web", FOREVER));
    machine.start_kubelet().await;
    let old = machine.mirror("web-n1", "running", |pod| pid(pod).is_some()).await;
    let first = pid(&old).unwrap();
    let mut slice = list_in_slice(&machine.client, &old).await;
    machine.kill_kubelet().await;
    write(&files.join("web.yaml"), &manifest("web", "exec sleep 1000"));
    machine.start_kubelet().await;
    machine.mirror("web-n1", "another pod", |pod| pod.meta().uid != old.meta().uid).await;
    assert!(is_alive(first), "ended while connections may be led to it");
    slice.spec.as_mut().unwrap().endpoints.clear();
    machine.client.update(slice).await.unwrap();
    machine.mirror("web-n1", "running", |pod| pod.meta().uid != old.meta().uid && pid(pod).is_some()).await;
    assert!(!is_alive(first));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_a_static_pod_by_the_name_of_its_mirror() {
    let (mut machine, files) = watching().await;
    write(&files.join("web.yaml"), &manifest("web", "exec sleep 1000"));
    machine.start_kubelet().await;
    let mirror = machine.mirror("web-n1", "running", |pod| pid(pod).is_some()).await;
    let command = ["sh", "-c", "echo $BLUEBIRD_POD_UID; exit 5"].map(str::to_owned).to_vec();
    let start = ExecStart { pod: "web-n1".into(), command, ..Default::default() };
    let (_inputs, mut outputs) = machine.client.exec(start).await.unwrap();
    let (mut text, mut code) = (Vec::new(), None);
    while let Some(output) = outputs.next().await.unwrap() {
        match output.message {
            Some(Told::Stdout(data)) => text.extend(data),
            Some(Told::End(end)) => code = Some(end.exit_code),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((String::from_utf8(text).unwrap(), code), (format!("{}\n", mirror.meta().uid), Some(5)));
    std::fs::remove_file(files.join("web.yaml")).unwrap();
    machine.until_gone("web-n1").await;
    machine.finish().await;
}
