//! `bluebird conformance` with real executables: every promise is kept, by a kubelet of whoever runs the tests and by one of an ordinary user.
//!
//! What this needs of the operating system: signals, and users.
#![cfg(unix)]

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bluebird::kubelet::kill_processes_of;
use bluebird::testing::TestCluster;
use nix::unistd::Uid;
use tempfile::TempDir;

/// Whose kubelet it is.
#[derive(Clone, Copy, PartialEq)]
enum User {
    Ours,
    /// Nobody special: the ids are those of `nobody` on most systems, and need no entry anywhere.
    Ordinary,
}

const ORDINARY: u32 = 65_534;

/// A real kubelet, with testapp beside it, that ends with the test.
struct Machine {
    kubelet: Child,
    folder: TempDir,
}

impl Machine {
    fn start(url: &str, name: &str, user: User) -> Machine {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [programs, root, locked] = ["programs", "node", "locked"].map(|name| folder.path().join(name));
        for made in [&programs, &root, &locked] {
            std::fs::create_dir(made).expect("the test's own folder");
        }
        // As root's own folders are in a PATH that was meant for root.
        std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).expect("the test's own folder");
        // It, or whom it runs containers as, finds its programs there.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("the test's own folder");
        // Whoever it is can't look into the folder of the one who built them.
        let kubelet = copied(env!("CARGO_BIN_EXE_kubelet"), &programs);
        copied(env!("CARGO_BIN_EXE_testapp"), &programs);
        let mut command = Command::new(kubelet);
        if user == User::Ordinary {
            command.uid(ORDINARY).gid(ORDINARY);
            chown(&root, Some(ORDINARY), Some(ORDINARY)).expect("root may");
        }
        let said = File::create(folder.path().join("kubelet.log")).expect("the test's own folder");
        command.args(["--server", url, "--node-name", name]).arg("--root-dir").arg(&root).env("NO_COLOR", "1").env("HOME", "/nonexistent");
        command.env("PATH", format!("{}:/usr/bin:/bin", locked.display()));
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("an open file")).stderr(said);
        Machine { kubelet: command.spawn().expect("a program"), folder }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.folder.path().join("kubelet.log"));
            eprintln!("the kubelet said:\n{}", said.unwrap_or_default());
        }
        if let Err(error) = self.kubelet.kill().and_then(|()| self.kubelet.wait().map(drop)) {
            eprintln!("the kubelet can't be ended: {error}");
        }
        if let Err(error) = kill_processes_of(&self.folder.path().join("node")) {
            eprintln!("processes may be left: {error}");
        }
    }
}

fn copied(program: &str, folder: &Path) -> PathBuf {
    let copy = folder.join(Path::new(program).file_name().expect("a file"));
    std::fs::copy(program, &copy).expect("the test's own folder");
    copy
}

/// Plays all cases.
async fn conformance(user: User, column: &str) {
    let cluster = TestCluster::builder().start().await;
    let machine = Machine::start(&cluster.url(), "n1", user);
    let ready = |state: &bluebird::client::Cache| {
        let node = state.get::<bluebird::api::v1::Node>("", "n1")?;
        let status = node.status.as_ref()?;
        bluebird::api::condition::is_true(&status.conditions, bluebird::api::condition::READY).then_some(())
    };
    cluster.wait_for("the node to be ready", ready).await;
    let url = cluster.url();
    // To bring the page in docs/ up to date: BLUEBIRD_CONFORMANCE_PAGE=$PWD/docs/conformance.md cargo test --test conformance -- --test-threads 1
    let page = std::env::var_os("BLUEBIRD_CONFORMANCE_PAGE").map_or_else(|| machine.folder.path().join("conformance.md"), PathBuf::from);
    let told = page.clone();
    // A step waits for less than the time after which a kubelet looks at everything anyway: what nobody told it of is a fault.
    let played = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bluebird"));
        command
            .args(["conformance", "--server", &url, "--parallel", "12", "--timeout", "25s", "--write"])
            .arg(told)
            .output()
            .expect("a program")
    });
    let played = played.await.expect("a command that ends");
    let (out, err) = (String::from_utf8_lossy(&played.stdout), String::from_utf8_lossy(&played.stderr));
    println!("{out}{err}");
    assert!(played.status.success(), "{out}{err}");
    assert!(out.contains(&format!("Node n1 is {column};")), "{out}");
    let page = std::fs::read_to_string(page).expect("the table");
    assert!(page.contains("| start.exit-code | "), "{page}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_of_whoever_runs_the_tests_keeps_every_promise() {
    let user = if Uid::effective().is_root() { "root" } else { "user" };
    conformance(User::Ours, &format!("{} ({user})", std::env::consts::OS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_of_an_ordinary_user_keeps_every_promise() {
    if !Uid::effective().is_root() {
        println!("SKIPPED: only root can become somebody else; the other test has shown it for an ordinary user");
        return;
    }
    conformance(User::Ordinary, &format!("{} (user)", std::env::consts::OS)).await;
}
