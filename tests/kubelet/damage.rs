//! Folders and files of pods that somebody removes, damages or makes unusable behind the kubelet's back.

use std::path::{Path, PathBuf};
use std::process::Command;

use bluebird::api::Resource;
use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{
    ClusterEvent, Container, EmptyDirVolumeSource, Pod, PodPhase, PodSpec, RestartPolicy, Volume, VolumeMount, volume,
};

use crate::limits::limited;
use crate::machine::{FOREVER, Machine, main_status, phase, pid, script, terminated};
use crate::processes::{daemon, eventually, is_alive, kill_hard, pid_in, shims};

/// A program that hides its environment, two forks away from its parent, in a session of its own, and deaf to requests to end.
fn hidden(pid_file: &Path) -> String {
    let text = format!("trap '' TERM; echo $$ > {file}.new; mv {file}.new {file}; {FOREVER}", file = pid_file.display());
    format!("(setsid env -i PATH=$PATH sh -c \"{}\" &)", text.replace('$', "\\$"))
}

/// Something about the pod changes, so that its kubelet looks at it. It would do so by itself, but later.
pub(crate) async fn nudge(machine: &Machine, name: &str) {
    loop {
        let mut pod = machine.get(name).await.unwrap();
        pod.meta_mut().annotations.insert("test".into(), format!("{:?}", std::time::Instant::now()));
        match machine.client.update(pod).await {
            Ok(_) => return,
            Err(bluebird::error::Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn has_event(machine: &Machine, pod: &Pod, reason: &str, note: &str) {
    let waited = tokio::time::timeout(crate::processes::DEADLINE, async {
        loop {
            let events = machine.client.list::<ClusterEvent>("").await.unwrap().into_iter().filter_map(|event| event.spec);
            let mut own = events.filter(|spec| spec.regarding.as_ref().is_some_and(|regarding| regarding.uid == pod.meta().uid));
            if own.any(|spec| spec.reason == reason && spec.note.contains(note)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("no event {reason} with {note:?}"));
}

fn gone(pid: i32) -> Option<()> {
    (!is_alive(pid)).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_folder_is_removed_is_lost_and_started_again_and_never_runs_twice() {
    let mut machine = Machine::new().await;
    let (marked, unmarked) = (machine.folder.path().join("marked"), machine.folder.path().join("unmarked"));
    // What hides its environment is found by its control group alone.
    let finds = machine.capabilities().await.iter().any(|capability| capability == "pids-limits");
    // Its daemon has the lock for as long as it lives, also under another name.
    let (lock, both) = (machine.folder.path().join("alone"), machine.folder.path().join("both"));
    std::fs::write(&lock, "").unwrap();
    let alone = format!("flock --nonblock {0} true || touch {1}; (flock {0} sleep 1000 &)", lock.display(), both.display());
    let main = match finds {
        true => limited(script("main", &format!("{alone}; {}; {}; {FOREVER}", daemon(&marked), hidden(&unmarked))), &[("pids", "1000")]),
        false => script("main", &format!("{alone}; {}; {FOREVER}", daemon(&marked))),
    };
    let victim = machine.create("victim", RestartPolicy::Always, vec![main]).await;
    let once = machine.create("once", RestartPolicy::Never, vec![script("main", FOREVER)]).await;
    machine.create("other", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, other) = machine.running("other").await;
    for (count, is_kubelet_alive) in [(1, true), (2, false)] {
        let (_, before) = machine.until_running_again("victim", count - 1).await;
        let mut remains = vec![before, pid_in(&marked).await];
        if finds {
            remains.push(pid_in(&unmarked).await);
        }
        for file in [&marked, &unmarked].into_iter().filter(|file| file.exists()) {
            std::fs::remove_file(file).unwrap();
        }
        if is_kubelet_alive {
            std::fs::remove_dir_all(machine.folder_of(&victim)).unwrap();
            nudge(&machine, "victim").await;
            has_event(&machine, &victim, "PodFolderLost", "was removed").await;
        } else {
            machine.kill_kubelet().await;
            std::fs::remove_dir_all(machine.folder_of(&victim)).unwrap();
            std::fs::remove_dir_all(machine.folder_of(&once)).unwrap();
            machine.start_kubelet().await;
        }
        let (pod, after) = machine.until_running_again("victim", count).await;
        assert_eq!(main_status(&pod).unwrap().last_termination.as_ref().unwrap().reason, "Lost");
        assert!(after != before && remains.iter().all(|pid| !is_alive(*pid)), "{remains:?}");
        assert!(machine.folder_of(&victim).join("pod.binpb").exists(), "the next kubelet must know it");
        assert!(!both.exists(), "two runs at the same time");
    }
    let lost = machine.until("once", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!((terminated(&lost).unwrap().reason.as_str(), main_status(&lost).unwrap().restart_count), ("Lost", 0));
    assert_eq!((pid(&machine.get("other").await.unwrap()), is_alive(other)), (Some(other), true), "what nobody has touched runs on");
    machine.delete("victim", None).await;
    machine.until_gone("victim").await;
    machine.finish().await;
}

/// What init containers have made is gone with the folder: they make it again before the main container comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_its_folder_runs_its_init_containers_again_before_its_main_ones() {
    let mut machine = Machine::new().await;
    let inits = machine.folder.path().join("inits");
    let mounting = |container: Container| Container {
        volume_mounts: vec![VolumeMount { name: "data".into(), mount_path: "data".into() }],
        ..container
    };
    let init = mounting(script("init", &format!("echo seed > data/seed; echo run >> {}", inits.display())));
    let sidecar = Container { restart_policy: RestartPolicy::Always.into(), ..mounting(script("sidecar", FOREVER)) };
    let volume = Volume { name: "data".into(), source: Some(volume::Source::EmptyDir(EmptyDirVolumeSource {})) };
    let spec = PodSpec {
        init_containers: vec![init, sidecar],
        containers: vec![mounting(script("main", &format!("[ -e data/seed ] || exit 9; {FOREVER}")))],
        volumes: vec![volume],
        ..PodSpec::default()
    };
    let pod = machine.create_spec("web", spec).await;
    machine.running("web").await;
    for (count, when) in [(1, "alive"), (2, "dead"), (3, "killed before it had recorded the loss")] {
        if when == "alive" {
            std::fs::remove_dir_all(machine.folder_of(&pod)).unwrap();
            nudge(&machine, "web").await;
        } else {
            machine.kill_kubelet().await;
            let kept = std::fs::read(machine.folder_of(&pod).join("pod.binpb")).unwrap();
            std::fs::remove_dir_all(machine.folder_of(&pod)).unwrap();
            if when != "dead" {
                std::fs::create_dir(machine.folder_of(&pod)).unwrap();
                std::fs::write(machine.folder_of(&pod).join("pod.binpb"), kept).unwrap();
            }
            machine.start_kubelet().await;
        }
        let (pod, _) = machine.until_running_again("web", count).await;
        let status = pod.status.as_ref().unwrap();
        let ended = status.container_statuses[0].last_termination.as_ref().unwrap();
        assert_eq!((ended.reason.as_str(), ended.exit_code), ("Lost", 137), "it never ran without what it needs: {when}");
        let [init, sidecar] = status.init_container_statuses.as_slice() else { panic!("{status:?}") };
        assert_eq!((init.restart_count, sidecar.restart_count), (count, count), "{when}");
        assert_eq!(init.last_termination.as_ref().unwrap().reason, "Undone", "{when}");
        assert_eq!(std::fs::read_to_string(&inits).unwrap().lines().count(), 1 + count as usize, "{when}");
    }
    machine.finish().await;
}

/// The shim of the pod has looked around since the text was there to be said.
async fn shim_says(folder: &Path, text: &str) {
    eventually(text, || std::fs::read_to_string(folder.join("shim.log")).ok().filter(|said| said.contains(text))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_on_while_their_root_folder_is_moved_or_under_another_disk_and_none_is_started() {
    let machine = Machine::new().await;
    let (root, elsewhere) = (machine.root(), machine.folder.path().join("elsewhere"));
    // Its orphans wake its shim again and again.
    let busy = "while :; do (setsid true &); sleep 0.05; done";
    let pod = machine.create("busy", RestartPolicy::Always, vec![script("main", busy)]).await;
    machine.create("calm", RestartPolicy::Never, vec![script("main", FOREVER)]).await;
    let pids = [machine.running("busy").await.1, machine.running("calm").await.1];
    for (number, is_moved) in [true, false].into_iter().enumerate() {
        let before = std::fs::read_dir(&root).unwrap().count();
        let disk = match is_moved {
            true => {
                std::fs::rename(&root, &elsewhere).unwrap();
                None
            }
            false => match SmallDisk::mount(&root) {
                Some(disk) => Some(disk),
                None => break,
            },
        };
        let late = format!("late{number}");
        machine.create(&late, RestartPolicy::Always, vec![script("main", FOREVER)]).await;
        for name in ["busy", "calm", &late] {
            nudge(&machine, name).await;
            let says = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.message.contains("was moved, unmounted or removed"));
            machine.until(name, "told of", says).await;
        }
        if is_moved {
            shim_says(&elsewhere.join("pods").join(&pod.meta().uid), "the pod's folder is not where it was").await;
        }
        assert!(!root.join("pods").exists(), "a second root folder was made");
        assert_eq!(pids.map(is_alive), [true, true]);
        match disk {
            Some(disk) => {
                assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "something was made on the other disk");
                drop(disk);
            }
            None => std::fs::rename(&elsewhere, &root).unwrap(),
        }
        assert!(std::fs::read_dir(&root).unwrap().count() >= before);
        machine.running(&late).await;
        for (name, pid) in ["busy", "calm"].into_iter().zip(pids) {
            let pod = machine.until(name, "well again", |pod| pod.status.as_ref().is_some_and(|status| status.message.is_empty())).await;
            assert_eq!((crate::machine::pid(&pod), is_alive(pid)), (Some(pid), true));
            assert_eq!(main_status(&pod).unwrap().restart_count, 0);
        }
    }
    machine.delete("busy", None).await;
    machine.until_gone("busy").await;
    assert!(!is_alive(pids[0]), "it can be asked again");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_folder_was_removed_is_not_gone_before_its_processes() {
    let mut machine = Machine::new().await;
    for is_kubelet_alive in [true, false] {
        let file = machine.folder.path().join("daemon");
        let pod = machine.create("doomed", RestartPolicy::Always, vec![script("main", &format!("{}; {FOREVER}", daemon(&file)))]).await;
        let (_, main) = machine.running("doomed").await;
        let daemon = pid_in(&file).await;
        std::fs::remove_file(&file).unwrap();
        if !is_kubelet_alive {
            machine.kill_kubelet().await;
        }
        std::fs::remove_dir_all(machine.folder_of(&pod)).unwrap();
        machine.delete("doomed", None).await;
        if !is_kubelet_alive {
            machine.start_kubelet().await;
        }
        machine.until_gone("doomed").await;
        assert!(!is_alive(main) && !is_alive(daemon), "the object is gone before its processes");
        eventually("the end of the shim", || shims(&machine.root()).is_empty().then_some(())).await;
        eventually("the end of the folder", || (!machine.folder_of(&pod).exists()).then_some(())).await;
    }
    machine.finish().await;
}

/// The bell and the lock: without them a shim can't be told anything, or isn't taken for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_nobody_can_reach_any_more_is_replaced_with_all_that_it_guards() {
    let mut machine = Machine::new().await;
    for file in ["bell", "lock"] {
        let pod = machine.create(file, RestartPolicy::Always, vec![script("main", FOREVER)]).await;
        let (_, first) = machine.running(file).await;
        std::fs::remove_file(machine.folder_of(&pod).join(file)).unwrap();
        match file {
            "bell" => nudge(&machine, file).await,
            // Whoever has started a shim knows it also without its lock.
            _ => {
                machine.kill_kubelet().await;
                machine.start_kubelet().await;
            }
        }
        let (_, second) = machine.until_running_again(file, 1).await;
        assert!(!is_alive(first) && is_alive(second), "{file}");
        machine.delete(file, None).await;
        machine.until_gone(file).await;
        assert!(!is_alive(second), "{file}");
    }
    machine.finish().await;
}

/// Each way to damage a file, while its kubelet lives and while there is none.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_live_shim_and_its_kubelet_tell_each_other_may_be_damaged_and_everything_goes_on() {
    let mut machine = Machine::new().await;
    let damages: [(&str, Option<&[u8]>); 5] = [
        ("desired.json", Some(b"")),
        ("desired.json", Some(b"{\"runs\": [")),
        ("desired.json", None),
        ("state.json", Some(b"{\"cont")),
        ("state.json", None),
    ];
    for is_kubelet_alive in [true, false] {
        for (number, (file, damage)) in damages.iter().enumerate() {
            let name = format!("p{number}-{is_kubelet_alive}");
            let (go, asked) = (machine.folder.path().join(format!("{name}-go")), machine.folder.path().join(format!("{name}-asked")));
            // It fails once it is told to, and then stays until it is asked to end in its own way.
            let text = format!("if [ -e {0} ]; then {FOREVER}; fi; while [ ! -e {0} ]; do sleep 0.01; done; exit 3", go.display());
            let mut main = script("main", &text);
            let command = bluebird::api::v1::ExecAction { command: vec!["touch".into(), asked.display().to_string()] };
            main.lifecycle = Some(bluebird::api::v1::Lifecycle {
                pre_stop: Some(bluebird::api::v1::LifecycleHandler {
                    handler: Some(bluebird::api::v1::lifecycle_handler::Handler::Exec(command)),
                }),
                ..Default::default()
            });
            let pod = machine.create(&name, RestartPolicy::Always, vec![main]).await;
            let (_, first) = machine.running(&name).await;
            let file = machine.folder_of(&pod).join(file);
            let harm = || match damage {
                Some(content) => std::fs::write(&file, content).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            };
            let is_whole = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&file).ok()?).ok().map(drop);
            if is_kubelet_alive {
                harm();
                nudge(&machine, &name).await;
            } else {
                machine.kill_kubelet().await;
                harm();
                machine.start_kubelet().await;
            }
            eventually("the file as new", is_whole).await;
            assert_eq!((pid(&machine.get(&name).await.unwrap()), is_alive(first)), (Some(first), true), "{name}");
            std::fs::write(&go, "").unwrap();
            let (pod, second) = machine.until_running_again(&name, 1).await;
            assert_eq!(main_status(&pod).unwrap().last_termination.as_ref().unwrap().exit_code, 3, "{name}");
            // Damaged once more, so that nothing but its end can mend it.
            harm();
            machine.delete(&name, None).await;
            machine.until_gone(&name).await;
            assert!(!is_alive(second) && asked.exists(), "{name}");
        }
    }
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_damaged_notes_of_a_dead_shim_are_made_up_for_by_what_was_told() {
    let mut machine = Machine::new().await;
    let mut pods = Vec::new();
    for (number, files) in [vec!["state.json"], vec!["desired.json"], vec!["state.json", "desired.json"]].into_iter().enumerate() {
        for is_removed in [false, true] {
            let name = format!("p{number}-{is_removed}");
            let pod = machine.create(&name, RestartPolicy::Always, vec![script("main", FOREVER)]).await;
            let (_, pid) = machine.running(&name).await;
            let files: Vec<PathBuf> = files.iter().map(|file| machine.folder_of(&pod).join(file)).collect();
            pods.push((name, pid, files, is_removed));
        }
    }
    let never = machine.create("never", RestartPolicy::Never, vec![script("main", FOREVER)]).await;
    let (_, once) = machine.running("never").await;
    machine.kill_kubelet().await;
    shims(&machine.root()).into_iter().for_each(kill_hard);
    for (_, pid, files, is_removed) in &pods {
        eventually("the end of the process", || gone(*pid)).await;
        for file in files {
            if *is_removed { std::fs::remove_file(file).unwrap() } else { std::fs::write(file, "{\"").unwrap() }
        }
    }
    eventually("the end of the process", || gone(once)).await;
    std::fs::write(machine.folder_of(&never).join("state.json"), "").unwrap();
    machine.start_kubelet().await;
    for (name, first, ..) in &pods {
        let (pod, second) = machine.until_running_again(name, 1).await;
        assert_eq!(main_status(&pod).unwrap().last_termination.as_ref().unwrap().reason, "Lost", "{name}");
        assert!(second != *first && is_alive(second));
    }
    let lost = machine.until("never", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!(terminated(&lost).unwrap().reason, "Lost");
    machine.finish().await;
}

/// Whose shim can't be told to end its pod, its processes are asked by their pids: those that are still the same processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_has_the_pid_of_a_process_that_is_gone_is_left_alone() {
    let machine = Machine::new().await;
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let pod = machine.create("main", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, main) = machine.running("main").await;
    let state = machine.folder_of(&pod).join("state.json");
    let read = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&state).unwrap()).unwrap();
    let mut told = read();
    let running = &mut told["containers"][0]["stage"]["Running"];
    assert!(running["start_time"].as_u64() > Some(0), "{running}");
    running["pid"] = stranger.id().into();
    std::fs::write(&state, told.to_string()).unwrap();
    let Some(read_only) = ReadOnly::make(vec![machine.folder_of(&pod)]) else {
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        return machine.finish().await;
    };
    assert_eq!(read(), told, "its shim had no reason to look at it");
    machine.delete("main", None).await;
    has_event(&machine, &pod, "Killing", "by a signal alone").await;
    machine.until_gone("main").await;
    assert!(is_alive(stranger.id() as i32) && !is_alive(main));
    drop(read_only);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    machine.finish().await;
}

/// What a test needs of the machine isn't there. Where everything is to be tested that is a fault.
pub(crate) fn skip<T>(why: &str) -> Option<T> {
    println!("SKIPPED: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "with CI=true nothing may be skipped: {why}");
    None
}

/// A small disk below a kubelet's root folder, which is gone again when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and says so, where nobody may mount anything.
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "bluebird-test"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            refused => skip(&format!("no disk can be mounted here: {refused:?}")),
        }
    }

    fn fill(&self) {
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[7; 4096]).is_ok() {}
        assert!(std::fs::write(self.0.join("more"), [7; 4096]).is_err(), "the disk is full");
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_an_end_is_not_lost_and_pods_can_be_deleted() {
    let mut machine = Machine::new().await;
    machine.kill_kubelet().await;
    let Some(disk) = SmallDisk::mount(&machine.root()) else { return machine.finish().await };
    machine.start_kubelet().await;
    let go = machine.folder.path().join("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    // What one container has said last has no room, and the other one goes on.
    let job = vec![script("main", &format!("{wait}; echo last words; exit 0")), script("other", &format!("{wait}; exec sleep 1000"))];
    machine.create("job", RestartPolicy::Never, job).await;
    machine
        .create("doomed", RestartPolicy::Always, vec![script("main", &format!("trap 'exit 0' TERM; {}", "while :; do sleep 0.01; done"))])
        .await;
    machine.running("job").await;
    let (_, doomed) = machine.running("doomed").await;
    disk.fill();
    std::fs::write(&go, "").unwrap();
    let ended = machine.until("job", "ended", |pod| terminated(pod).is_some()).await;
    assert_eq!((terminated(&ended).unwrap().exit_code, phase(&ended)), (0, PodPhase::Running));
    let Some(State::Running(other)) = ended.status.unwrap().container_statuses[1].state.clone().unwrap_or_default().state else {
        panic!("what one container had to say ended another")
    };
    assert!(is_alive(i32::try_from(other.pid).unwrap()));
    // What can't be started says why, and is started when there is room.
    let late = machine.create("late", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let waits = machine.until("late", "refused", |pod| pod.status.as_ref().is_some_and(|status| status.reason == "KubeletFailed")).await;
    assert!(waits.status.unwrap().message.contains("No space left on device"));
    has_event(&machine, &late, "KubeletFailed", "No space left on device").await;
    machine.delete("doomed", None).await;
    machine.until_gone("doomed").await;
    assert!(!is_alive(doomed));
    disk.empty();
    let late = machine.running("late").await.0;
    assert_eq!(late.status.unwrap().reason, "");
    machine.finish().await;
}

/// Folders that nobody can write to, with all that is in them, also not root; until this is dropped.
struct ReadOnly(Vec<PathBuf>);

impl ReadOnly {
    /// `None`, and says so, where there is no such thing.
    fn make(folders: Vec<PathBuf>) -> Option<Self> {
        let made = Self(folders);
        let of_pods = made.0.iter().all(|folder| {
            made.change("+i");
            std::fs::File::options().write(true).open(folder.join("desired.json")).is_err()
        });
        if of_pods { Some(made) } else { skip("no file can be made immutable here") }
    }

    fn change(&self, attribute: &str) {
        // Pipes have no attributes, about which it complains.
        let _status = Command::new("chattr").args(["-R", "-f", attribute]).args(&self.0).status();
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        self.change("-i");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_made_read_only_holds_up_no_deletion() {
    let machine = Machine::new().await;
    let deaf = machine.create("deaf", RestartPolicy::Always, vec![script("main", &format!("trap '' TERM; {FOREVER}"))]).await;
    let polite = machine.create("polite", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let pids = [machine.running("deaf").await.1, machine.running("polite").await.1];
    let folders: Vec<PathBuf> = [&deaf, &polite].map(|pod| machine.folder_of(pod)).into();
    let Some(read_only) = ReadOnly::make(folders.clone()) else { return machine.finish().await };
    for (name, pid) in ["deaf", "polite"].into_iter().zip(pids) {
        machine.delete(name, None).await;
        machine.until_gone(name).await;
        assert!(!is_alive(pid), "{name}");
    }
    has_event(&machine, &deaf, "Killing", "by a signal alone").await;
    assert!(folders.iter().all(|folder| folder.exists()));
    drop(read_only);
    eventually("the end of the folders", || folders.iter().all(|folder| !folder.exists()).then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_folder_was_made_read_only_says_why_it_is_not_started_again_and_is_when_it_can_be() {
    let machine = Machine::new().await;
    let go = machine.folder.path().join("go");
    let text = format!("if [ -e {0} ]; then {FOREVER}; fi; while [ ! -e {0} ]; do sleep 0.01; done; exit 3", go.display());
    let pod = machine.create("main", RestartPolicy::Always, vec![script("main", &text)]).await;
    machine.create("other", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    machine.running("main").await;
    let (_, other) = machine.running("other").await;
    let Some(read_only) = ReadOnly::make(vec![machine.folder_of(&pod)]) else { return machine.finish().await };
    shims(&machine.root()).into_iter().for_each(|shim| {
        let command = std::fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap_or_default();
        if command.contains(&pod.meta().uid) {
            kill_hard(shim);
        }
    });
    let stuck = machine.until("main", "stuck", |pod| pod.status.as_ref().is_some_and(|status| status.reason == "KubeletFailed")).await;
    assert!(stuck.status.as_ref().unwrap().message.contains("state.json can't be written"), "{:?}", stuck.status);
    has_event(&machine, &pod, "KubeletFailed", "state.json can't be written").await;
    assert_eq!((pid(&machine.get("other").await.unwrap()), is_alive(other)), (Some(other), true));
    std::fs::write(&go, "").unwrap();
    drop(read_only);
    let (back, _) = machine.until_running_again("main", 1).await;
    assert_eq!(back.status.unwrap().reason, "");
    machine.finish().await;
}
