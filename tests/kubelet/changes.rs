//! Pods that are restarted when what they use of ConfigMaps and Secrets changes.

use std::path::PathBuf;

use bluebird::api::v1::{ClusterEvent, ConfigMap, Pod};
use bluebird::client::DeleteOptions;

use crate::configuration::{MAP, SECRET, pod};
use crate::machine::{Machine, main_status, pid, waits_for};
use crate::processes::{eventually, kill_hard};

/// Runs for ever; writes down what each run is told, and that it was asked to end.
const SCRIPT: &str = "trap 'echo asked >> told; exit 0' TERM; echo $COLOUR $(cat data/* 2>/dev/null) >> told; while :; do sleep 0.02; done";
const ENV: &str = "    envFrom: [{configMapRef: {name: web, optional: true}}]\n";
const VOLUME: &str = "    volumeMounts: [{name: v, mountPath: data}]\n  volumes: [{name: v, secret: {secretName: db}}]\n";

/// The pod `web`, with these further lines, and with what belongs into its spec.
fn watchful(lines: &str, spec: &str) -> String {
    pod("web", SCRIPT, lines).replace("spec:\n", &format!("spec:\n  restartOnConfigChange: true\n{spec}"))
}

fn told(machine: &Machine, pod: &Pod) -> PathBuf {
    machine.folder_of(pod).join("work/told")
}

/// Waits until what the runs were told is this.
async fn until_told(machine: &Machine, pod: &Pod, expected: &str) {
    let path = told(machine, pod);
    let is_so = || std::fs::read_to_string(&path).ok().filter(|text| text == expected);
    eventually(&format!("{expected:?} in {}", path.display()), is_so).await;
}

async fn until_restarted(machine: &Machine, times: u32) -> Pod {
    machine.until("web", "started again", |pod| pid(pod).is_some() && main_status(pod).unwrap().restart_count == times).await
}

async fn has_event(machine: &Machine, reason: &str) -> bool {
    let events = machine.client.list::<ClusterEvent>("").await.unwrap();
    events.iter().filter_map(|event| event.spec.as_ref()).any(|spec| spec.reason == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_variable_or_file_restarts_the_container_gracefully_without_being_a_failure() {
    let machine = Machine::new().await;
    machine.apply(&format!("{MAP}{SECRET}{}", watchful(&format!("{ENV}{VOLUME}"), "  restartPolicy: Never\n"))).await;
    let (web, _) = machine.running("web").await;
    until_told(&machine, &web, "blue hunter2\n").await;
    machine.apply(&MAP.replace("blue", "red")).await;
    until_told(&machine, &web, "blue hunter2\nasked\nred hunter2\n").await;
    let web = until_restarted(&machine, 1).await;
    let last = main_status(&web).unwrap().last_termination.clone().unwrap();
    assert_eq!((last.reason.as_str(), last.exit_code), ("ConfigChanged", 0));
    assert_eq!(last.message, "what it uses has changed: ConfigMap \"web\"");
    machine.until_event("ConfigChanged", "and started again within 1 s: what it uses has changed: ConfigMap \"web\"").await;
    machine.apply(&SECRET.replace("hunter2", "correct horse")).await;
    until_told(&machine, &web, "blue hunter2\nasked\nred hunter2\nasked\nred correct horse\n").await;
    until_restarted(&machine, 2).await;
    machine.until_event("ConfigChanged", "Secret \"db\" in the volume v").await;
    assert!(!has_event(&machine, "Failed").await && !has_event(&machine, "BackOff").await);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_containers_that_use_what_has_changed_are_restarted_and_init_containers_run_once() {
    let machine = Machine::new().await;
    let init = "  initContainers:\n  - name: first\n    command: [sh, -c, 'echo init-$COLOUR >> told']\n    envFrom: [{configMapRef: {name: web}}]\n";
    let other =
        "  - name: other\n    command: [sleep, '1000']\n    env: [{name: SIZE, valueFrom: {configMapKeyRef: {name: web, key: SIZE}}}]\n";
    machine.apply(&format!("{}{}", MAP.replace("blue", "blue, SIZE: large"), watchful(&format!("{ENV}{other}"), init))).await;
    let (web, _) = machine.running("web").await;
    until_told(&machine, &web, "init-blue\nblue\n").await;
    machine.apply(&MAP.replace("blue", "red, SIZE: large")).await;
    until_told(&machine, &web, "init-blue\nblue\nasked\nred\n").await;
    let web = until_restarted(&machine, 1).await;
    let restarts = |pod: &Pod, name: &str| {
        let status = pod.status.as_ref().unwrap();
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        all.filter(|container| container.name == name).map(|container| container.restart_count).sum::<u32>()
    };
    assert_eq!((restarts(&web, "other"), restarts(&web, "first")), (0, 0));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_no_kubelet_saw_restarts_the_container_when_one_is_there_again_and_none_does_not() {
    let mut machine = Machine::new().await;
    machine.apply(&format!("{MAP}{SECRET}{}", watchful(&format!("{ENV}{VOLUME}"), ""))).await;
    let (web, first) = machine.running("web").await;
    until_told(&machine, &web, "blue hunter2\n").await;
    machine.kill_kubelet().await;
    machine.start_kubelet().await;
    // Another kubelet has planned for it, and let it run.
    machine.apply(&pod("after", "exec sleep 1000", "")).await;
    machine.running("after").await;
    assert_eq!(machine.running("web").await.1, first);
    machine.kill_kubelet().await;
    machine.apply(&MAP.replace("blue", "red")).await;
    machine.start_kubelet().await;
    until_told(&machine, &web, "blue hunter2\nasked\nred hunter2\n").await;
    until_restarted(&machine, 1).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_which_a_container_could_not_start_leaves_it_running_and_says_so() {
    let machine = Machine::new().await;
    let env = "    env: [{name: COLOUR, valueFrom: {configMapKeyRef: {name: web, key: COLOUR}}}]\n";
    machine.apply(&format!("{MAP}{}", watchful(env, ""))).await;
    let (web, first) = machine.running("web").await;
    until_told(&machine, &web, "blue\n").await;
    machine.apply(&MAP.replace("COLOUR", "OTHER")).await;
    let note =
        "container main goes on with what it was told, since it could not be started now: the ConfigMap \"web\" has no key \"COLOUR\"";
    machine.until_event("ConfigChangeUnusable", note).await;
    machine.client.delete::<ConfigMap>("", "web", DeleteOptions::default()).await.unwrap();
    machine.until_event("ConfigChangeUnusable", "there is no ConfigMap \"web\"").await;
    assert_eq!((machine.running("web").await.1, std::fs::read_to_string(told(&machine, &web)).unwrap().as_str()), (first, "blue\n"));
    // As it was is no change; and then one that can be used.
    machine.apply(MAP).await;
    machine.apply(&MAP.replace("blue", "red")).await;
    until_told(&machine, &web, "blue\nasked\nred\n").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_in_a_row_are_taken_together_and_the_last_one_is_told() {
    let machine = Machine::new().await;
    machine.apply(&format!("{MAP}{}", watchful(ENV, ""))).await;
    let (web, _) = machine.running("web").await;
    until_told(&machine, &web, "blue\n").await;
    for number in 0..20 {
        machine.apply(&MAP.replace("blue", &format!("c{number}"))).await;
    }
    let last = || std::fs::read_to_string(told(&machine, &web)).ok().filter(|text| text.ends_with("c19\n"));
    let text = eventually("the last colour", last).await;
    let runs = text.lines().filter(|line| *line != "asked").count();
    assert!(runs <= 3, "{text}");
    let web = until_restarted(&machine, runs as u32 - 1).await;
    assert!(main_status(&web).unwrap().next_retry_time.is_none());
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_could_not_be_started_again_goes_on_until_it_could() {
    let machine = Machine::new().await;
    let volume = "    volumeMounts: [{name: v, mountPath: data}]\n  volumes: [{name: v, emptyDir: {}}]\n";
    machine.apply(&format!("{MAP}{}", watchful(&format!("{ENV}{volume}"), ""))).await;
    let (web, first) = machine.running("web").await;
    until_told(&machine, &web, "blue\n").await;
    if cfg!(target_os = "linux") {
        machine.apply(&MAP.replace("blue", &"x".repeat(200_000))).await;
        machine.until_event("ConfigChangeUnusable", "the variable COLOUR has 200007 bytes").await;
    }
    // What the container may do to its own folder.
    let mount = machine.folder_of(&web).join("work/data");
    std::fs::remove_file(&mount).unwrap();
    std::fs::create_dir(&mount).unwrap();
    machine.apply(&MAP.replace("blue", "red")).await;
    machine.until_event("ConfigChangeUnusable", "volume v: the link data can't be made").await;
    assert_eq!((machine.running("web").await.1, std::fs::read_to_string(told(&machine, &web)).unwrap().as_str()), (first, "blue\n"));
    std::fs::remove_dir(&mount).unwrap();
    until_told(&machine, &web, "blue\nasked\nred\n").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_written_holds_up_only_the_containers_that_mount_it() {
    let machine = Machine::new().await;
    let other = format!("{ENV}  - name: other\n    command: [sh, -c, \"cat data/password >> other; exec sleep 1000\"]\n{VOLUME}");
    machine.apply(&format!("{MAP}{SECRET}{}", watchful(&other, ""))).await;
    let (web, _) = machine.running("web").await;
    until_told(&machine, &web, "blue hunter2\n").await;
    let in_the_way = machine.folder_of(&web).join("volumes/v/..data.new");
    std::fs::create_dir(&in_the_way).unwrap();
    machine.apply(&SECRET.replace("hunter2", "correct horse")).await;
    machine.until_event("FailedMount", "volume v").await;
    machine.until_event("ConfigChangeUnusable", "container other goes on with what it was told").await;
    machine.apply(&MAP.replace("blue", "red")).await;
    until_told(&machine, &web, "blue hunter2\nasked\nred hunter2\n").await;
    std::fs::remove_dir(&in_the_way).unwrap();
    let path = machine.folder_of(&web).join("work/other");
    let again = || std::fs::read_to_string(&path).ok().filter(|text| text == "hunter2correct horse");
    eventually("the second run of the other container", again).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_made_again_as_it_was_is_no_change_also_when_the_container_was_started_in_between() {
    let machine = Machine::new().await;
    let volume = "    volumeMounts: [{name: v, mountPath: data}]\n  volumes: [{name: v, configMap: {name: web}}]\n";
    let env = "    env: [{name: COLOUR, valueFrom: {secretKeyRef: {name: db, key: password}}}]\n";
    machine.apply(&format!("{MAP}{SECRET}{}", watchful(&format!("{env}{volume}"), ""))).await;
    let (web, first) = machine.running("web").await;
    until_told(&machine, &web, "hunter2 blue\n").await;
    machine.client.delete::<ConfigMap>("", "web", DeleteOptions::default()).await.unwrap();
    // The kubelet knows of it.
    machine.apply(&pod("witness", "exec sleep 1000", volume)).await;
    machine.until("witness", "waiting for the ConfigMap", |pod| waits_for(pod, "FailedMount")).await;
    kill_hard(first);
    until_restarted(&machine, 1).await;
    machine.apply(MAP).await;
    machine.running("witness").await;
    machine.apply(&SECRET.replace("hunter2", "horse")).await;
    let web = until_restarted(&machine, 2).await;
    let last = main_status(&web).unwrap().last_termination.clone().unwrap();
    assert_eq!(last.message, "what it uses has changed: Secret \"db\"");
    machine.finish().await;
}
