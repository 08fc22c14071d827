//! What `bluebird up` says, answers and returns, as people and scripts see it.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long anything may take that should be done at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for a cluster, and a range of addresses that no other test has.
struct Home {
    folder: TempDir,
    service_cidr: String,
}

impl Home {
    fn new() -> Self {
        let service_cidr = format!("127.{}.{}.0/24", fastrand::u8(97..111), fastrand::u8(..));
        Self { folder: tempfile::tempdir().expect("a folder"), service_cidr }
    }

    /// `bluebird up` in this home, on any free port.
    fn up(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bluebird"));
        command.arg("up").args(args).args(["--listen", "127.0.0.1:0", "--service-cidr", &self.service_cidr, "--data-dir"]);
        command.arg(self.folder.path()).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

/// The exit code, and what was written.
async fn end(command: &mut Command) -> (Option<i32>, String, String) {
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// An `up` that stays, and its lines.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let out = child.stdout.take().expect("a pipe");
        Self { child, lines: BufReader::new(out).lines() }
    }

    /// The first line from here on that contains the text.
    async fn line(&mut self, text: &str) -> String {
        let found = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("{text:?} never came");
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{text:?} does not come"))
    }

    /// Asks it to end as Ctrl-C does, and waits until it has.
    async fn interrupt(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id().expect("it runs")).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("it ran").code()
    }
}

/// What a web server answers, each time on a new connection.
async fn get(url: &str) -> std::io::Result<String> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET /x HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Whether a process runs that has this text in its command line.
#[cfg(target_os = "linux")]
fn runs(text: &std::path::Path) -> bool {
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let mut commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    commands.any(|command| String::from_utf8_lossy(&command).contains(&*text.to_string_lossy()))
}

#[tokio::test]
async fn the_example_comes_up_is_ready_and_goes_down() {
    let home = Home::new();
    let (code, out, err) = end(&mut home.up(&["examples/hello.yaml", "--wait", "--exit"])).await;
    assert_eq!(code, Some(0), "{out}{err}");
    for line in ["pod/hello-1 created", "service/hello created", "pod/hello-3 Running 1/1", "All 3 pods are ready after"] {
        assert!(out.contains(line), "{line:?} is missing in {out}");
    }
    #[cfg(target_os = "linux")]
    assert!(!runs(home.folder.path()), "a process is left behind");
}

#[tokio::test]
async fn three_pods_answer_in_turn_until_ctrl_c_and_again_after_it() {
    let home = Home::new();
    for outcome in ["created", "unchanged"] {
        let mut up = Running::start(&mut home.up(&["examples/hello.yaml"]));
        up.line(&format!("pod/hello-1 {outcome}")).await;
        let line = up.line("service/hello is at ").await;
        let url = line.strip_prefix("service/hello is at ").expect("the URL").to_owned();
        up.line("Events follow").await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..30 {
            let answer = get(&url).await.expect("an answer");
            let name = ["hello-1", "hello-2", "hello-3"].into_iter().find(|name| answer.contains(&format!("Hello from {name} ")));
            seen.insert(name.unwrap_or_else(|| panic!("{answer}")));
        }
        assert_eq!(seen.len(), 3, "what `up` says is ready is led to: {seen:?}");
        assert_eq!(up.interrupt().await, Some(0));
        assert!(get(&url).await.is_err(), "nobody answers any more");
        #[cfg(target_os = "linux")]
        assert!(!runs(home.folder.path()), "a process is left behind");
    }
}

#[tokio::test]
async fn pods_that_cannot_run_are_named_with_their_reasons() {
    let home = Home::new();
    let (code, out, err) = end(&mut home.up(&["examples/crash.yaml", "--wait", "--exit", "--timeout", "3s"])).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("not ready in time:") && err.contains("pod/crash: ") && err.contains("pod/missing: "), "{err}");
    assert!(err.contains("no-such-program"), "{err}");
}

#[tokio::test]
async fn a_pod_that_ended_in_failure_is_not_waited_for() {
    let home = Home::new();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: once}\nspec: {restartPolicy: Never, containers: [{name: main, command: [no-such-program]}]}\n";
    let manifest = home.write("once.yaml", text);
    let (code, out, err) = end(&mut home.up(&[&manifest, "--wait", "--exit", "--timeout", "10m"])).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("can't become ready:\npod/once: StartError"), "{err}");
}

#[tokio::test]
async fn a_wrong_manifest_starts_nothing() {
    let home = Home::new();
    let manifest = home.write("wrong.yaml", "apiVersion: v1\nkind: Pods\n");
    let (code, out, err) = end(&mut home.up(&[&manifest])).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("did you mean \"Pod\"?"), "{err}");
}

#[tokio::test]
async fn a_taken_port_or_folder_is_said_in_a_sentence() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bluebird"));
    command.args(["up", "--listen", &address, "--data-dir"]).arg(home.folder.path());
    let (code, _, err) = end(&mut command).await;
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("{address} is taken by another program")), "{err}");

    let mut first = Running::start(&mut home.up(&[]));
    first.line("Events follow").await;
    let (code, out, err) = end(&mut home.up(&[])).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("another apiserver"), "{err}");
    first.child.kill().await.expect("it runs");
}
