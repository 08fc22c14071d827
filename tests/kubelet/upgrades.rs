//! The files of pods, written by a kubelet that knows more or less than this one.

use std::path::Path;

use bluebird::api::v1::{Pod, PodPhase, RestartPolicy};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

use crate::machine::{FOREVER, Machine, main_status, phase, pid, script, terminated, waits_for};
use crate::processes::{eventually, is_alive, shims};

fn edit_json(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(value.as_object_mut().unwrap());
    std::fs::write(path, value.to_string()).unwrap();
}

fn objects<'a>(of: &'a mut Map<String, Value>, list: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    of[list].as_array_mut().unwrap().iter_mut().map(|value| value.as_object_mut().unwrap())
}

/// Fields, files and folders that this one has never heard of.
fn as_of_a_newer_one(root: &Path, pod: &Path) {
    let more = || ("of_a_newer_kubelet".to_owned(), json!({"a": [1, "b", null]}));
    edit_json(&pod.join("desired.json"), |desired| {
        objects(desired, "runs").for_each(|run| run.extend([more()]));
        desired.extend([more()]);
    });
    edit_json(&pod.join("state.json"), |state| {
        for container in objects(state, "containers") {
            if let Some(running) = container["stage"].get_mut("Running") {
                running.as_object_mut().unwrap().extend([more()]);
            }
            container.extend([more()]);
        }
        state.extend([more()]);
    });
    // A field 1000 of two bytes.
    let kept = std::fs::read(pod.join("pod.binpb")).unwrap();
    std::fs::write(pod.join("pod.binpb"), [&[0xc2, 0x3e, 2, b'h', b'i'], kept.as_slice()].concat()).unwrap();
    for folder in [root, pod, &root.join("pods")] {
        std::fs::write(folder.join("of-a-newer-kubelet"), "x").unwrap();
    }
    std::fs::create_dir_all(root.join("newer/folder")).unwrap();
}

/// Words, where this one knows some, that it has never heard of.
fn in_words_of_a_newer_one(_root: &Path, pod: &Path) {
    let vanished = || json!({"Vanished": {"into": "thin air"}});
    edit_json(&pod.join("desired.json"), |desired| {
        for run in objects(desired, "runs") {
            run.extend([("pre_stop".to_owned(), json!({"wasm": 1})), ("stop".to_owned(), json!({"Ask": "politely"}))]);
        }
    });
    edit_json(&pod.join("state.json"), |state| {
        for container in objects(state, "containers") {
            if let Some(ended) = container["stage"].get_mut("Ended") {
                ended["cause"] = vanished();
            }
            if let Some(previous) = container["previous"].as_object_mut() {
                previous["cause"] = vanished();
            }
        }
        let failure = json!({"container": "main", "attempt": 0, "step": "Dance", "why": "it fell"});
        state.insert("failures".into(), json!([failure]));
    });
}

/// As the first kubelets wrote them: no field that came later, no seal, no file that came later.
fn as_of_an_older_one(_root: &Path, pod: &Path) {
    let first = ["container", "attempt", "streak", "command", "env", "working_dir", "log"];
    edit_json(&pod.join("desired.json"), |desired| {
        objects(desired, "runs").for_each(|run| run.retain(|field, _| first.contains(&field.as_str())));
        desired.retain(|field, _| ["runs", "stop", "bell"].contains(&field.as_str()));
    });
    edit_json(&pod.join("state.json"), |state| {
        state.retain(|field, _| field == "containers");
        state.insert("finished".into(), false.into());
    });
    let kept = std::fs::read(pod.join("pod.binpb")).unwrap();
    std::fs::write(pod.join("pod.binpb"), &kept[..kept.len() - 6]).unwrap();
    for later in ["ports.binpb", "health.json", "configuration.binpb"] {
        match std::fs::remove_file(pod.join(later)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{later}: {error}"),
            _ => {}
        }
    }
}

async fn check(edit: fn(&Path, &Path)) {
    let mut machine = Machine::new().await;
    let go = machine.folder.path().join("go");
    machine.create("steady", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let waits = format!("while ! [ -e {} ]; do sleep 0.02; done; exit 7", go.display());
    machine.create("ends", RestartPolicy::Never, vec![script("main", &waits)]).await;
    machine.create("crashes", RestartPolicy::Always, vec![script("main", "exit 5")]).await;
    let ((steady, steady_pid), (ends, ends_pid)) = (machine.running("steady").await, machine.running("ends").await);
    let crashes = machine.until("crashes", "backing off", |pod| waits_for(pod, "CrashLoopBackOff")).await;
    let restarts = main_status(&crashes).unwrap().restart_count;

    machine.kill_kubelet().await;
    for pod in [&steady, &ends, &crashes] {
        edit(&machine.root(), &machine.folder_of(pod));
    }
    machine.start_kubelet().await;
    machine.until("crashes", "started again", |pod| main_status(pod).is_some_and(|main| main.restart_count > restarts)).await;
    for (name, process) in [("steady", steady_pid), ("ends", ends_pid)] {
        let pod = machine.get(name).await.unwrap();
        assert_eq!((pid(&pod), is_alive(process), main_status(&pod).unwrap().restart_count), (Some(process), true, 0), "{name}");
    }
    std::fs::write(&go, "").unwrap();
    let ended = machine.until("ends", "done", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!(terminated(&ended).unwrap().exit_code, 7);
    for pod in [&steady, &ends, &crashes] {
        let name = &pod.metadata.as_ref().unwrap().name;
        machine.delete(name, None).await;
        machine.until_gone(name).await;
        eventually(&format!("the end of the folder of {name}"), || (!machine.folder_of(pod).exists()).then_some(())).await;
    }
    assert!(!is_alive(steady_pid));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_kubelet_has_written_of_its_pods_harms_none_of_them() {
    check(as_of_a_newer_one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_kubelet_has_written_in_words_that_nobody_knows_harms_none_of_its_pods() {
    check(in_words_of_a_newer_one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_run_a_newer_shim_tells_in_words_that_nobody_knows_stays_ready() {
    let mut machine = Machine::new().await;
    let created = machine.create("steady", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let is_ready = |pod: &Pod| main_status(pod).is_some_and(|main| main.ready);
    let process = pid(&machine.until("steady", "ready", is_ready).await).unwrap();

    machine.kill_kubelet().await;
    // This shim would write again what it knows.
    let root = machine.root();
    let signal = |signal| shims(&root).into_iter().for_each(|shim| kill(Pid::from_raw(shim), signal).unwrap());
    signal(Signal::SIGSTOP);
    edit_json(&machine.folder_of(&created).join("state.json"), |state| {
        objects(state, "containers").for_each(|container| container["stage"] = json!({"Paused": {}}));
    });
    machine.start_kubelet().await;
    let told = machine.until("steady", "told without a pid", |pod| {
        assert!(is_ready(pod), "{pod:#?}");
        pid(pod) == Some(0)
    });
    assert_eq!((main_status(&told.await).unwrap().restart_count, is_alive(process)), (0, true));
    signal(Signal::SIGCONT);
    machine.delete("steady", None).await;
    machine.until_gone("steady").await;
    assert!(!is_alive(process));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_kubelets_wrote_of_their_pods_is_still_understood() {
    check(as_of_an_older_one).await;
}
