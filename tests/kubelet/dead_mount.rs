//! A file system that is dead: whoever asks it for a file waits until it is unmounted, and not even a kill ends that.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{HostPathType, HostPathVolumeSource, Pod, PodSpec, RestartPolicy, Volume, VolumeMount, volume};
use nix::poll::{PollFd, PollFlags, poll};

use crate::damage::{nudge, skip};
use crate::machine::{FOREVER, Machine, pid, script, state};
use crate::processes::{daemon, eventually, is_alive, kill_hard, pid_in, shims};

/// A file system whose server takes every question for a file and never answers; it is gone when this is dropped.
struct DeadMount {
    at: PathBuf,
    lives: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    server: Option<JoinHandle<()>>,
}

/// Of the kernel's requests to a server of files: see linux/fuse.h.
const LOOKUP: u32 = 1;
const INIT: u32 = 26;
const PARALLEL: u32 = 1 << 18;

impl DeadMount {
    /// `None`, and says so, where nobody may mount anything.
    fn mount(at: &Path) -> Option<Self> {
        let Ok(mut kernel) = File::options().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/fuse") else {
            return skip("there is no /dev/fuse for us here");
        };
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "bluebird-test"]).arg(at);
        let mounted = mount.stdin(kernel.try_clone().unwrap()).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return skip(&format!("no file system of our own can be mounted here: {mounted:?}"));
        }
        let lives = Arc::new(AtomicBool::new(true));
        let asked = Arc::new(AtomicUsize::new(0));
        let (goes_on, asks) = (lives.clone(), asked.clone());
        let server = std::thread::spawn(move || {
            let mut request = vec![0; 1 << 17];
            while goes_on.load(Ordering::Acquire) {
                match kernel.read(&mut request) {
                    Ok(_) => answer(&mut kernel, &request, &asks),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let mut question = [PollFd::new(kernel.as_fd(), PollFlags::POLLIN)];
                        let _interrupted = poll(&mut question, 20_u8);
                    }
                    // It was interrupted, or taken back.
                    Err(_) => {}
                }
            }
        });
        Some(Self { at: at.to_owned(), lives, asked, server: Some(server) })
    }

    /// For how many files somebody has asked.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

/// So that nobody but who looks for a file waits for ever.
fn answer(kernel: &mut File, request: &[u8], asks: &AtomicUsize) {
    let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let (error, body): (i32, Vec<u8>) = match number(4) {
        LOOKUP => {
            asks.fetch_add(1, Ordering::AcqRel);
            return;
        }
        INIT => {
            let mut body = vec![0; 64];
            // The version, that files of one folder are looked for at the same time, and the most that is written at once.
            for (at, value) in [(0, 7_u32), (4, 31), (12, PARALLEL), (20, 4096)] {
                body[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            (0, body)
        }
        _ => (-nix::libc::EIO, Vec::new()),
    };
    let mut reply = Vec::new();
    reply.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
    reply.extend(error.to_ne_bytes());
    reply.extend(&request[8..16]);
    reply.extend(body);
    // The kernel refuses answers to what needs none.
    let _unasked = kernel.write(&reply);
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        self.lives.store(false, Ordering::Release);
        // With the server its end of the connection is closed, and all who wait are told so.
        self.server.take().unwrap().join().unwrap();
        let _busy = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn mounting(path: &Path) -> PodSpec {
    let host = HostPathVolumeSource { path: path.display().to_string(), r#type: HostPathType::Directory.into() };
    let main = bluebird::api::v1::Container {
        volume_mounts: vec![VolumeMount { name: "data".into(), mount_path: "data".into() }],
        ..script("main", FOREVER)
    };
    let volumes = vec![Volume { name: "data".into(), source: Some(volume::Source::HostPath(host)) }];
    PodSpec { containers: vec![main], volumes, ..PodSpec::default() }
}

/// A pod comes, runs and goes.
async fn others_go_on(machine: &Machine, name: &str) {
    machine.create(name, RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, main) = machine.running(name).await;
    machine.delete(name, None).await;
    machine.until_gone(name).await;
    assert!(!is_alive(main));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_path_on_a_dead_file_system_holds_up_only_the_pods_that_mount_it() {
    let machine = Machine::new().await;
    let at = machine.folder.path().join("nfs");
    std::fs::create_dir_all(at.join("x")).unwrap();
    let Some(dead) = DeadMount::mount(&at) else { return machine.finish().await };
    let says = |text: &'static str| move |pod: &Pod| matches!(state(pod), Some(State::Waiting(waiting)) if waiting.reason == "FailedMount" && waiting.message.ends_with(text));
    for name in ["stuck", "too"] {
        machine.create_spec(name, mounting(&at.join("x"))).await;
        let (yet, at_all) = (says("/nfs/x has not answered yet"), says("/nfs/x did not answer within 5 s"));
        machine.until(name, "held up", |pod| yet(pod) || at_all(pod)).await;
        others_go_on(&machine, &format!("beside-{name}")).await;
    }
    machine.until("stuck", "given up", says("/nfs/x did not answer within 5 s")).await;
    others_go_on(&machine, "later").await;
    for name in ["stuck", "too"] {
        machine.delete(name, None).await;
        machine.until_gone(name).await;
    }
    drop(dead);
    machine.create_spec("back", mounting(&at.join("x"))).await;
    machine.running("back").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_end_when_it_is_killed_is_told_with_its_pid_and_holds_up_no_other_pod() {
    let machine = Machine::new().await;
    let at = machine.folder.path().join("nfs");
    std::fs::create_dir(&at).unwrap();
    let Some(dead) = DeadMount::mount(&at) else { return machine.finish().await };
    // Its name, its state, and whose child it is.
    let cat_of = |pid: i32| {
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let is_its = |stat: &str| stat.split_once("(cat) ").is_some_and(|(_, rest)| rest[1..].starts_with(&format!(" {pid} ")));
        all.into_iter().find(|cat| std::fs::read_to_string(format!("/proc/{cat}/stat")).is_ok_and(|stat| is_its(&stat)))
    };
    let mut stuck = Vec::new();
    for name in ["lost", "doomed"] {
        let text = format!("cat {}; {FOREVER}", at.join(name).display());
        machine.create(name, RestartPolicy::Always, vec![script("main", &text)]).await;
        let (_, main) = machine.running(name).await;
        // From then on it can't be killed.
        eventually("the question for its file", || (dead.asked() > stuck.len()).then_some(())).await;
        stuck.push((name, eventually("who asked", || cat_of(main)).await));
        if name == "lost" {
            shims(&machine.root()).into_iter().for_each(kill_hard);
        } else {
            machine.delete(name, None).await;
        }
    }
    for (name, pid) in &stuck {
        // By its shim, while it has one.
        let why = format!("process {pid} was killed and ");
        let is_told =
            |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.reason == "FailedKill" && status.message.starts_with(&why));
        machine.until(name, "told of", is_told).await;
        others_go_on(&machine, &format!("beside-{name}")).await;
    }
    drop(dead);
    machine.until_gone("doomed").await;
    let (lost, main) = machine.until_running_again("lost", 1).await;
    assert_eq!((pid(&lost), lost.status.unwrap().reason.as_str()), (Some(main), ""));
    assert!(stuck.iter().all(|(_, pid)| !is_alive(*pid)));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_a_lost_pod_reach_its_containers_also_while_its_shim_stays() {
    let machine = Machine::new().await;
    let (at, file) = (machine.folder.path().join("nfs"), machine.folder.path().join("pid"));
    std::fs::create_dir(&at).unwrap();
    let Some(dead) = DeadMount::mount(&at) else { return machine.finish().await };
    let side = bluebird::api::v1::Container { working_dir: at.join("x").display().to_string(), ..script("side", "exit 0") };
    let main = script("main", &format!("{}; {FOREVER}", daemon(&file)));
    let pod = machine.create("hung", RestartPolicy::Always, vec![main, side]).await;
    let served = pid_in(&file).await;
    // The shim looks for the working folder, and can't be killed from then on.
    eventually("the question for the folder", || (dead.asked() > 0).then_some(())).await;
    std::fs::remove_dir_all(machine.folder_of(&pod)).unwrap();
    nudge(&machine, "hung").await;
    eventually("the end of what its container has started", || (!is_alive(served)).then_some(())).await;
    assert_eq!(shims(&machine.root()).len(), 1);
    drop(dead);
    machine.delete("hung", None).await;
    machine.until_gone("hung").await;
    machine.finish().await;
}
