//! A process that its shim may not kill. Only root can make one: it belongs to root, and the shim to somebody else.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::processes::{eventually, kill_hard};
use crate::shim::Fixture;

/// Nobody special: the ids are those of `nobody` on most systems, and need no entry anywhere.
const ORDINARY: u32 = 65_534;

/// A copy that everybody can reach.
fn copied(program: &Path, folder: &Path, mode: u32) -> PathBuf {
    let copy = folder.join(program.file_name().unwrap());
    std::fs::copy(program, &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(mode)).unwrap();
    copy
}

#[tokio::test]
async fn what_may_not_be_killed_is_told_and_fills_no_disk() {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !nix::unistd::Uid::effective().is_root() || !setpriv.exists() {
        println!("SKIPPED: only root, with setpriv, can make a process that another user's shim can't kill");
        return;
    }
    let mut pod = Fixture::new();
    let programs = tempfile::tempdir().unwrap();
    std::fs::set_permissions(programs.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let become_root = copied(setpriv, programs.path(), 0o4755);
    let kubelet = copied(Path::new(env!("CARGO_BIN_EXE_kubelet")), programs.path(), 0o755);

    let main = pod.script("main", 0, &format!("exec {} --reuid 0 --clear-groups sleep 1000", become_root.display()));
    pod.want(std::slice::from_ref(&main), None);
    // As an earlier shim has left it.
    let log = pod.path("shim.log");
    std::fs::write(&log, "the state can't be written\n".repeat(100_000)).unwrap();
    for path in [pod.path("."), pod.path("desired.json"), log.clone()] {
        chown(path, Some(ORDINARY), Some(ORDINARY)).unwrap();
    }
    let complaints = std::fs::File::options().append(true).open(&log).unwrap();
    let mut command = Command::new(kubelet);
    command.arg("shim").arg(pod.path(".").canonicalize().unwrap()).uid(ORDINARY).gid(ORDINARY);
    pod.shim = Some(command.stdin(Stdio::null()).stderr(complaints).spawn().unwrap());

    let sleep = pod.running("main", 0).await;
    let is_root = || std::fs::read_to_string(format!("/proc/{sleep}/status")).ok().filter(|text| text.contains("Uid:\t0\t0\t0\t0"));
    eventually("root's own process", is_root).await;
    pod.want(&[main], Some(0));
    let state = pod.path("state.json");
    let unkillable = || -> Option<String> {
        let state: Value = serde_json::from_slice(&std::fs::read(&state).ok()?).ok()?;
        state["unkillable"].as_str().filter(|why| !why.is_empty()).map(str::to_owned)
    };
    let why = eventually("that it can't be killed", unkillable).await;
    assert!(why.starts_with(&format!("process {sleep} can't be killed: ")), "{why}");
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.lines().filter(|line| **line == why).count(), 1, "{} bytes", said.len());
    assert!(said.len() < 1000, "{} bytes", said.len());

    kill_hard(sleep);
    pod.ended("main", 0).await;
    pod.shim_ends().await;
    assert_eq!(unkillable(), None);
}
