//! Pods that mount volumes.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{ConfigMap, Pod};
use bluebird::client::DeleteOptions;

use crate::configuration::{MAP, SECRET, pod};
use crate::machine::{Machine, main_status, pid, state};
use crate::processes::{eventually, kill_hard};

/// Lines of a container that mounts the volume `v` at `data`, and of a pod whose volume `v` is this.
fn mounting(source: &str) -> String {
    format!("    volumeMounts: [{{name: v, mountPath: data}}]\n  volumes:\n  - name: v\n    {source}\n")
}

/// Where the pods of a test see the volume.
fn data(machine: &Machine, pod: &Pod) -> PathBuf {
    machine.folder_of(pod).join("work/data")
}

/// Waits until a container waits since a volume can't be mounted; gives the message.
async fn failed_mount(machine: &Machine, name: &str, text: &str) -> String {
    let message = |pod: &Pod| match state(pod) {
        Some(State::Waiting(waiting)) if waiting.reason == "FailedMount" && waiting.message.contains(text) => Some(waiting.message.clone()),
        _ => None,
    };
    let pod = machine.until(name, text, |pod| message(pod).is_some()).await;
    message(&pod).expect("waited for")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_is_kept_over_restarts_and_goes_with_its_pod() {
    let machine = Machine::new().await;
    let script = "echo $$ >> data/pids; cp data/pids $(VOLUME_V)/copy; exec sleep 1000".replace("$(VOLUME_V)", "$VOLUME_V");
    machine.apply(&pod("web", &script, &mounting("emptyDir: {}"))).await;
    let (web, first) = machine.running("web").await;
    let pids = data(&machine, &web).join("copy");
    let lines = |count: usize| std::fs::read_to_string(&pids).ok().filter(|text| text.lines().count() == count);
    eventually("the first line", || lines(1)).await;
    kill_hard(first);
    let told = eventually("the second line", || lines(2)).await;
    assert_eq!(told.lines().next(), Some(first.to_string().as_str()));
    machine.until("web", "running again", |pod| pid(pod).is_some()).await;
    machine.delete("web", None).await;
    machine.until_gone("web").await;
    eventually("the end of the folder", || (!machine.folder_of(&web).exists()).then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_the_node_must_be_there_and_stays_when_its_pod_goes() {
    let machine = Machine::new().await;
    let host = machine.folder.path().join("host");
    let source = format!("hostPath: {{path: {}, type: Directory}}", host.display());
    machine.apply(&pod("web", "echo hello > data/written; exec sleep 1000", &mounting(&source))).await;
    let message = failed_mount(&machine, "web", "there is nothing at").await;
    assert_eq!(message, format!("volume v: there is nothing at {} on this node", host.display()));
    std::fs::create_dir(&host).unwrap();
    let (web, _) = machine.running("web").await;
    eventually("what it writes", || std::fs::read_to_string(host.join("written")).ok().filter(|text| text == "hello\n")).await;
    machine.delete("web", None).await;
    machine.until_gone("web").await;
    eventually("the end of the folder", || (!machine.folder_of(&web).exists()).then_some(())).await;
    assert_eq!(std::fs::read_to_string(host.join("written")).unwrap(), "hello\n");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_secret_are_its_owners_only_and_change_with_it_while_the_process_goes_on() {
    let machine = Machine::new().await;
    machine.apply(&pod("web", "cat data/password; exec sleep 1000", &mounting("secret: {secretName: db}"))).await;
    failed_mount(&machine, "web", "volume v: there is no Secret \"db\" in the namespace \"default\"").await;
    machine.apply(SECRET).await;
    let (web, first) = machine.running("web").await;
    let file = data(&machine, &web).join("password");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hunter2");
    let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&file), mode(&data(&machine, &web))), (0o600, 0o700));
    machine.apply(&SECRET.replace("hunter2", "correct horse")).await;
    eventually("the new password", || std::fs::read_to_string(&file).ok().filter(|text| text == "correct horse")).await;
    let (web, now) = machine.running("web").await;
    assert_eq!((now, main_status(&web).unwrap().restart_count), (first, 0));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_no_kubelet_saw_reaches_the_files_when_one_is_there_again() {
    let mut machine = Machine::new().await;
    machine.apply(&format!("{MAP}{}", pod("web", "exec sleep 1000", &mounting("configMap: {name: web}")))).await;
    let (web, first) = machine.running("web").await;
    let file = data(&machine, &web).join("COLOUR");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "blue");
    machine.kill_kubelet().await;
    machine.apply(&MAP.replace("blue", "red")).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "blue");
    machine.start_kubelet().await;
    eventually("the new colour", || std::fs::read_to_string(&file).ok().filter(|text| text == "red")).await;
    machine.client.delete::<ConfigMap>("", "web", DeleteOptions::default()).await.unwrap();
    kill_hard(first);
    machine.until("web", "started again", |pod| pid(pod).is_some_and(|pid| pid != first)).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "red", "what a pod has it keeps");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_a_volume_and_one_that_lacks_its_volume_holds_up_no_other() {
    let machine = Machine::new().await;
    let volumes = "    volumeMounts: [{name: v, mountPath: data}]
  - name: other
    command: [sh, -c, 'echo shared > data/file; exec sleep 1000']
    volumeMounts: [{name: v, mountPath: data}]
  - name: lacking
    command: [sleep, '1000']
    volumeMounts: [{name: gone, mountPath: gone}]
  volumes:
  - {name: v, emptyDir: {}}
  - {name: gone, configMap: {name: gone}}
";
    machine.apply(&pod("web", "until [ -e data/file ]; do sleep 0.01; done; cp data/file data/seen; exec sleep 1000", volumes)).await;
    let waits = |pod: &Pod| {
        let last = pod.status.as_ref().and_then(|status| status.container_statuses.last()?.state.as_ref()?.state.as_ref());
        matches!(last, Some(State::Waiting(waiting)) if waiting.reason == "FailedMount")
    };
    let web = machine.until("web", "lacking a volume", waits).await;
    let seen = data(&machine, &web).join("seen");
    eventually("what the other wrote", || std::fs::read_to_string(&seen).ok().filter(|text| text == "shared\n")).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_does_to_its_volume_harms_only_itself() {
    let machine = Machine::new().await;
    let precious = machine.folder.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "1").unwrap();
    symlink("..1", precious.join("..data")).unwrap();
    machine.apply(&format!("{MAP}{}", pod("web", "exec sleep 1000", &mounting("configMap: {name: web}")))).await;
    let (web, first) = machine.running("web").await;
    let volume = machine.folder_of(&web).join("volumes/v");
    // Made read-only, and then replaced by a link to somewhere else.
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o500)).unwrap();
    machine.apply(&MAP.replace("blue", "red")).await;
    eventually("the new colour", || std::fs::read_to_string(volume.join("COLOUR")).ok().filter(|text| text == "red")).await;
    std::fs::rename(&volume, machine.folder_of(&web).join("moved")).unwrap();
    symlink(&precious, &volume).unwrap();
    machine.apply(&MAP.replace("blue", "green")).await;
    kill_hard(first);
    failed_mount(&machine, "web", "is not the folder any more").await;
    assert_eq!(std::fs::read_dir(&precious).unwrap().count(), 2);
    machine.delete("web", None).await;
    machine.until_gone("web").await;
    eventually("the end of the folder", || (!machine.folder_of(&web).exists()).then_some(())).await;
    assert_eq!(std::fs::read_to_string(precious.join("file")).unwrap(), "1");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_brought_up_to_date_holds_up_no_restart_and_is_tried_again() {
    let machine = Machine::new().await;
    let lines = mounting("configMap: {name: web}").replace("  volumes:", "  - {name: other, command: [sleep, '1000']}\n  volumes:");
    machine.apply(&format!("{MAP}{}", pod("web", "exec sleep 1000", &lines))).await;
    let (web, main) = machine.running("web").await;
    let other = |pod: &Pod| {
        let status = pod.status.as_ref()?.container_statuses.get(1)?.clone();
        match status.state?.state? {
            State::Running(running) => Some((running.pid as i32, status.restart_count)),
            _ => None,
        }
    };
    let (first, _) = other(&machine.until("web", "running as a whole", |pod| other(pod).is_some()).await).unwrap();
    // What a container may do to its folder: something else is where a link has to be.
    let link = machine.folder_of(&web).join("volumes/v/COLOUR");
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    machine.apply(&MAP.replace("blue", "red")).await;
    machine.until_event("FailedMount", "volume v: ").await;
    kill_hard(first);
    machine.until("web", "started again", |pod| other(pod).is_some_and(|(pid, restarts)| pid != first && restarts == 1)).await;
    std::fs::remove_dir(&link).unwrap();
    eventually("the new colour", || std::fs::read_to_string(&link).ok().filter(|text| text == "red")).await;
    assert_eq!(machine.running("web").await.1, main);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_at_an_absolute_path_is_told_as_what_the_node_lacks() {
    let machine = Machine::new().await;
    machine.apply(&pod("web", "exec sleep 1000", &mounting("emptyDir: {}").replace("mountPath: data", "mountPath: /data"))).await;
    let lacks = |pod: &Pod| matches!(state(pod), Some(State::Waiting(waiting)) if waiting.message.contains("mounts.absolute"));
    machine.until("web", "lacking a capability", lacks).await;
    machine.finish().await;
}

/// A file system of 64 KiB, unmounted when it is dropped.
struct Tiny(PathBuf);

impl Tiny {
    /// `None` where this process may not mount: only root may.
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path).output().ok()?;
        mounted.status.success().then_some(Self(path))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_up_the_container_that_mounts_and_the_files_stay_as_they_were() {
    let machine = Machine::new().await;
    let large = |byte: &str| MAP.replace("COLOUR: blue", &format!("COLOUR: {}", byte.repeat(40_000)));
    machine.apply(&format!("{}{}", large("a"), pod("web", "exec sleep 1000", &mounting("configMap: {name: missing}")))).await;
    failed_mount(&machine, "web", "there is no ConfigMap").await;
    let web = machine.get("web").await.unwrap();
    let Some(tiny) = Tiny::mount(machine.folder_of(&web).join("volumes")) else {
        eprintln!("skipped: only root can mount a small file system");
        return machine.finish().await;
    };
    machine.apply(&large("b").replace("name: web", "name: missing").replace(&"b".repeat(40_000), &"b".repeat(90_000))).await;
    let message = failed_mount(&machine, "web", "volume v: ").await;
    let message = if message.contains("No space") { message } else { failed_mount(&machine, "web", "No space left on device").await };
    assert!(message.starts_with("volume v: "), "{message}");
    machine.apply(&MAP.replace("name: web", "name: missing")).await;
    let (web, first) = machine.running("web").await;
    let file = data(&machine, &web).join("COLOUR");
    machine.apply(&large("c").replace("name: web", "name: missing").replace(&"c".repeat(40_000), &"c".repeat(90_000))).await;
    machine.until_event("FailedMount", "No space left on device").await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "blue");
    machine.apply(&MAP.replace("name: web", "name: missing").replace("blue", "red")).await;
    eventually("the new colour", || std::fs::read_to_string(&file).ok().filter(|text| text == "red")).await;
    assert_eq!(machine.running("web").await.1, first);
    machine.delete("web", None).await;
    eventually("the end of the process", || (!crate::processes::is_alive(first)).then_some(())).await;
    drop(tiny);
    machine.until_gone("web").await;
    machine.finish().await;
}
