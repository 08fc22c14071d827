//! Logs as `bluebird logs` prints them, whatever is done to their files and whatever is in them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bluebird::api::v1::{PodPhase, RestartPolicy};
use bluebird::kubelet;
use bluebird::time::Clock;

use crate::machine::{Machine, phase, script};
use crate::processes::eventually;

/// `bluebird logs` with these words.
fn bluebird_logs(machine: &Machine, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bluebird"));
    command.arg("logs").args(words).args(["--server", &machine.apiserver.url()]).stdin(Stdio::null());
    command
}

/// One that follows a pod, and ends with the test.
struct Follower {
    process: Child,
    folder: PathBuf,
}

impl Follower {
    fn start(machine: &Machine, pod: &str) -> Self {
        let folder = machine.folder.path().to_owned();
        let file = |name: &str| File::create(folder.join(name)).unwrap();
        let process = bluebird_logs(machine, &["-f", pod]).stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Self { process, folder }
    }

    /// Waits until it has printed this, or complained so.
    async fn says(&self, file: &str, text: &str) -> String {
        let path = self.folder.join(file);
        let read = || std::fs::read_to_string(&path).ok().filter(|said| said.contains(text));
        eventually(&format!("{text:?} in {}", path.display()), read).await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

const LONG: &str = "a-line-that-is-longer-than-those-that-come-after-it";

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_cuts_short_or_removes_goes_on_and_who_follows_it_is_told() {
    let mut machine = Machine::new().await;
    machine.kill_kubelet().await;
    let small = kubelet::Config { log_max_size: kubelet::MIN_LOG_SIZE, ..machine.config() };
    machine.kubelet = Some(kubelet::start(small, machine.client.clone(), Clock::system()).await.unwrap());
    let go = machine.folder.path().join("go");
    std::fs::create_dir(&go).unwrap();
    let say = |number: u32| std::fs::write(go.join(number.to_string()), "").unwrap();
    let wait = format!("while [ ! -e {}/$n ]; do sleep 0.01; done", go.display());
    // What was cut short is shorter than before also when something has been written since.
    let text = format!("n=0; echo {LONG}; while :; do {wait}; echo line $n; [ $n = 4 ] && seq 1 5000; n=$((n+1)); done");
    let pod = machine.create("web", RestartPolicy::Always, vec![script("main", &text)]).await;
    machine.running("web").await;
    let follower = Follower::start(&machine, "web");
    let folder = machine.folder_of(&pod).join("logs/main");
    let present = folder.join("0.log");

    say(0);
    follower.says("out", "line 0\n").await;
    File::options().write(true).open(&present).unwrap().set_len(0).unwrap();
    say(1);
    follower.says("out", "line 1\n").await;
    follower.says("err", "cut short").await;

    std::fs::remove_file(&present).unwrap();
    say(2);
    follower.says("out", "line 2\n").await;
    follower.says("err", "removed").await;
    assert_eq!(machine.log("web", false, false).await.unwrap(), "line 2\n");
    std::fs::remove_dir_all(&folder).unwrap();
    say(3);
    follower.says("out", "line 3\n").await;

    say(4);
    let said = follower.says("out", "\n5000\n").await;
    let all = std::iter::once(LONG.to_owned()).chain((0..5).map(|number| format!("line {number}")));
    let all: Vec<String> = all.chain((1..=5000).map(|number| number.to_string())).collect();
    let differs = said.lines().zip(&all).find(|(one, other)| one != other);
    assert!(said.lines().count() == all.len() && differs.is_none(), "{} lines, {differs:?}", said.lines().count());
    assert!(files(&folder) > 2, "it is not kept in several files");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_ten_megabytes_and_bytes_that_are_no_text_are_printed_as_they_were_written() {
    let machine = Machine::new().await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 16) as u8).collect();
    let file = machine.folder.path().join("binary");
    std::fs::write(&file, &bytes).unwrap();
    let text = format!("head -c 10000000 /dev/zero | tr '\\0' x; echo; cat {}; echo; echo after", file.display());
    machine.create("large", RestartPolicy::Never, vec![script("main", &text)]).await;
    machine.until("large", "over", |pod| phase(pod) == PodPhase::Succeeded).await;
    let mut command = bluebird_logs(&machine, &["large"]);
    let printed = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let expected = [vec![b'x'; 10_000_000], b"\n".to_vec(), bytes, b"\nafter\n".to_vec()].concat();
    assert_eq!(printed.stdout.len(), expected.len());
    assert!(
        printed.stdout == expected,
        "it differs at byte {:?}",
        printed.stdout.iter().zip(&expected).position(|(one, other)| one != other)
    );
    machine.finish().await;
}
