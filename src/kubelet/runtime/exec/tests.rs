//! Real commands beside a real container. The pids that scripts print are those of processes that are looked for afterwards.

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::kubelet::runtime::{Processes, kill_marked};
use crate::testing::shim;
use crate::time::Clock;

const PATIENCE: Duration = Duration::from_secs(30);
const MAIN: &str = "main";

/// A pod with one container that runs until it is told to end.
struct Scene {
    folder: TempDir,
    root: Arc<Root>,
    processes: Processes,
    execs: Arc<Execs>,
    uid: PodUid,
    _shim: tokio::process::Child,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::open(&folder.path().join("node")).unwrap());
        let program = shim::find(None).unwrap();
        let processes = Processes::new(root.clone(), program.clone(), Clock::system());
        let execs = Execs::new(root.clone(), program);
        let uid = PodUid::new("u1").unwrap();
        processes.prepare(&uid).unwrap();
        let pod = root.pod(&uid);
        let marks = [("BLUEBIRD_ROOT", root.path().to_str().unwrap()), ("BLUEBIRD_POD_UID", "u1"), ("BLUEBIRD_CONTAINER", MAIN)];
        let env = [("PATH", "/usr/bin:/bin"), ("COLOR", "blue")].into_iter().chain(marks);
        let run = Run {
            container: MAIN.into(),
            attempt: 3,
            command: words("sh -c 'echo up; exec sleep 1000'"),
            program: Some("$(SHELL)".to_owned()),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            working_dir: pod.work(),
            log: pod.log(MAIN, 3),
            ..Run::default()
        };
        let shim = processes.start(&uid, vec![run], false).unwrap().unwrap();
        let scene = Self { folder, root, processes, execs, uid, _shim: shim };
        scene.until("the container runs", || scene.processes.look(&scene.uid).unwrap().is_some_and(|found| found.runs(MAIN, 3))).await;
        scene
    }

    async fn output(&self, command: &[String]) -> Result<Output, ExecError> {
        self.execs.output(&self.uid, MAIN, command, PATIENCE).await
    }

    async fn start(&self, command: &[String], wiring: Wiring) -> Exec {
        self.execs.start(&self.uid, MAIN, command, wiring).await.unwrap()
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("this never happened: {what}"));
    }

    async fn until_dead(&self, pid: i32) {
        self.until("the process is gone", || !is_alive(pid)).await;
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        kill_marked(self.root.path(), |_| true).unwrap();
    }
}

/// Splits as a shell would that knows only single quotes.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    quoted
        .flat_map(|(place, text)| match place % 2 {
            0 => text.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![text.to_owned()],
        })
        .collect()
}

fn is_alive(pid: i32) -> bool {
    Host::processes().unwrap().iter().any(|process| process.pid == pid)
}

/// What a script does that leaves a process behind, two forks away, in a session of its own, deaf to SIGTERM; it prints that process' pid.
const DAEMON: &str = "(setsid sh -c \"trap '' TERM HUP; echo \\$\\$; exec sleep 1000\" &)";

/// Everything that comes out of a command until the line's end.
async fn line(exec: &mut Exec) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        match tokio::time::timeout(PATIENCE, exec.next()).await.expect("a line").unwrap() {
            Heard::Stdout(piece) => text.extend_from_slice(&piece),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).unwrap().trim().to_owned()
}

async fn end(exec: &mut Exec) -> ExecEnd {
    loop {
        if let Heard::Ended(end) = tokio::time::timeout(PATIENCE, exec.next()).await.expect("the end").unwrap() {
            return end;
        }
    }
}

#[tokio::test]
async fn a_command_has_the_environment_and_the_folder_of_its_container_and_reads_nothing() {
    let scene = Scene::new().await;
    let output =
        scene.output(&words("sh -c 'cat; pwd; echo $COLOR $BLUEBIRD_CONTAINER ${#BLUEBIRD_EXEC}; echo oh >&2; exit 7'")).await.unwrap();
    assert_eq!(output.end, ExecEnd { code: 7, message: String::new() });
    let text = String::from_utf8(output.text).unwrap();
    for expected in [&format!("{}\n", scene.root.pod(&scene.uid).work().display()), "blue main 36\n", "oh\n"] {
        assert!(text.contains(expected), "{expected:?} in {text:?}");
    }
}

#[tokio::test]
async fn what_a_command_has_started_ends_with_it() {
    let scene = Scene::new().await;
    let output = scene.output(&["sh".into(), "-c".into(), format!("{DAEMON}; sleep 0.2")]).await.unwrap();
    let pid: i32 = String::from_utf8(output.text).unwrap().trim().parse().unwrap();
    assert_eq!(output.end.code, 0);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_command_that_takes_too_long_ends_with_its_whole_tree() {
    let scene = Scene::new().await;
    let file = scene.folder.path().join("pid");
    let script = format!("{DAEMON} > {0}.new; while [ ! -s {0}.new ]; do sleep 0.01; done; mv {0}.new {0}; sleep 1000", file.display());
    let command = ["sh".into(), "-c".into(), script];
    let run = scene.execs.output(&scene.uid, MAIN, &command, Duration::from_secs(2));
    assert!(matches!(run.await, Err(ExecError::TimedOut)));
    scene.until_dead(std::fs::read_to_string(file).unwrap().trim().parse().unwrap()).await;
}

#[tokio::test]
async fn a_command_that_is_dropped_ends_with_its_whole_tree_whether_its_output_is_read_or_not() {
    let scene = Scene::new().await;
    let script = format!("{DAEMON}; sleep 0.2; exec yes");
    let mut exec = scene.start(&["sh".into(), "-c".into(), script], Wiring::default()).await;
    let pid = line(&mut exec).await.parse().unwrap();
    assert!(is_alive(pid));
    drop(exec);
    scene.until_dead(pid).await;
    assert!(scene.execs.lock().is_empty());
}

#[tokio::test]
async fn a_command_ends_with_the_run_of_its_container_and_with_no_other() {
    let scene = Scene::new().await;
    let mut exec = scene.start(&words("sh -c 'echo $$; exec sleep 1000'"), Wiring::default()).await;
    let pid = line(&mut exec).await.parse().unwrap();
    scene.execs.end_unless(&scene.uid, |_, attempt| attempt == 3);
    scene.execs.end_unless(&PodUid::new("u2").unwrap(), |_, _| false);
    assert!(futures_util::poll!(Box::pin(exec.next())).is_pending());
    scene.execs.end_unless(&scene.uid, |_, attempt| attempt == 4);
    assert!(matches!(exec.next().await, Err(ExecError::ContainerEnded)));
    drop(exec);
    scene.until_dead(pid).await;
}

#[tokio::test]
async fn a_command_whose_guard_is_killed_ends_and_nothing_of_it_is_left() {
    let scene = Scene::new().await;
    let script = format!("echo $PPID; {DAEMON}; sleep 1000");
    let mut exec = scene.start(&["sh".into(), "-c".into(), script], Wiring::default()).await;
    let guard = line(&mut exec).await.parse().unwrap();
    let daemon = line(&mut exec).await.parse().unwrap();
    Host::kill(guard).unwrap();
    let broken = tokio::time::timeout(PATIENCE, async { while exec.next().await.is_ok() {} });
    broken.await.expect("the command has ended");
    scene.until_dead(daemon).await;
}

#[tokio::test]
async fn what_can_not_be_started_is_told_as_shells_tell_it() {
    let scene = Scene::new().await;
    let missing = scene.output(&words("no-such-program")).await.unwrap().end;
    let message = "the program \"no-such-program\" is in none of the folders of PATH, as the container has it";
    assert_eq!((missing.code, missing.message.as_str()), (127, message));
    let file = scene.folder.path().join("data");
    std::fs::write(&file, "data").unwrap();
    let refused = scene.output(&[file.display().to_string()]).await.unwrap().end;
    assert!(refused.code == 126 && refused.message.contains("may not be executed"), "{refused:?}");
    assert_eq!(scene.output(&[]).await.unwrap().end.code, 127);
    assert_eq!(scene.output(&words("sh -c 'kill -9 $$'")).await.unwrap().end.code, 137);
}

#[tokio::test]
async fn nothing_is_run_in_a_container_that_does_not_run() {
    let scene = Scene::new().await;
    let refused = async |uid: &str, container: &str| match scene
        .execs
        .output(&PodUid::new(uid).unwrap(), container, &words("true"), PATIENCE)
        .await
    {
        Err(ExecError::NotRunning(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("u2", MAIN).await, "the pod is not on this node any more");
    assert_eq!(refused("u1", "side").await, "container side has not been started yet");
    scene.processes.stop(&scene.uid, Duration::ZERO).unwrap();
    scene.until("the container has ended", || !scene.processes.look(&scene.uid).unwrap().unwrap().runs(MAIN, 3)).await;
    assert!(refused("u1", MAIN).await.starts_with("container main was ended by signal "));
}

#[tokio::test]
async fn input_reaches_a_command_as_it_is_and_ends_when_it_is_closed() {
    let scene = Scene::new().await;
    let mut exec = scene.start(&words("sh -c 'cat | od -An -c'"), Wiring { stdin: true, terminal: None }).await;
    let mut stdin = exec.take_stdin().unwrap();
    stdin.write_all(b"a\0\xff\r\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(line(&mut exec).await.split_whitespace().collect::<Vec<_>>(), ["a", "\\0", "377", "\\r", "\\n"]);
    assert_eq!(end(&mut exec).await.code, 0);
}

#[tokio::test]
async fn an_input_that_is_cut_off_does_not_look_complete_to_the_command() {
    let scene = Scene::new().await;
    let file = scene.folder.path().join("complete");
    let script = format!("echo $$; cat > /dev/null; echo complete > {}; sleep 1000", file.display());
    // The asker goes away, or the kubelet does: what it has is closed in whichever order.
    for is_command_first in [true, false] {
        let mut exec = scene.start(&["sh".into(), "-c".into(), script.clone()], Wiring { stdin: true, terminal: None }).await;
        let pid = line(&mut exec).await.parse().unwrap();
        let mut stdin = exec.take_stdin().unwrap();
        stdin.write_all(b"half").await.unwrap();
        if is_command_first {
            drop(exec);
            drop(stdin);
        } else {
            drop(stdin);
            assert!(tokio::time::timeout(Duration::from_millis(200), exec.next()).await.is_err(), "it goes on waiting");
            drop(exec);
        }
        scene.until_dead(pid).await;
        assert!(!file.exists());
    }
    // Closed in good order it is complete, also when that comes at once.
    let mut exec = scene.start(&["sh".into(), "-c".into(), "cat".into()], Wiring { stdin: true, terminal: None }).await;
    exec.take_stdin().unwrap().shutdown().await.unwrap();
    assert_eq!(end(&mut exec).await.code, 0);
}

#[tokio::test]
async fn what_a_command_wrote_last_reaches_a_slow_reader_whole() {
    const BYTES: usize = 50_000;
    let scene = Scene::new().await;
    for _ in 0..3 {
        let command = ["sh".into(), "-c".into(), format!("head -c {BYTES} /dev/zero; head -c {BYTES} /dev/zero >&2")];
        let mut exec = scene.start(&command, Wiring::default()).await;
        let mut heard = 0;
        loop {
            match tokio::time::timeout(PATIENCE, exec.next()).await.expect("the next").unwrap() {
                Heard::Stdout(piece) | Heard::Stderr(piece) => heard += piece.len(),
                Heard::Ended(_) => break,
            }
            // Longer than the streams of an ended command may be silent.
            tokio::time::sleep(LAST_WORDS + Duration::from_millis(100)).await;
        }
        assert_eq!(heard, 2 * BYTES);
    }
}

#[tokio::test]
async fn a_command_has_ended_also_when_a_stranger_writes_to_its_output_for_ever() {
    if !std::path::Path::new("/proc/self/fd").exists() {
        println!("SKIPPED: nobody can open the output of a stranger here");
        return;
    }
    let scene = Scene::new().await;
    let mut exec = scene.start(&words("sh -c 'echo $$; read go; exit 3'"), Wiring { stdin: true, terminal: None }).await;
    let pid: i32 = line(&mut exec).await.parse().unwrap();
    let mut output = std::fs::File::options().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    let writer = std::thread::spawn(move || while std::io::Write::write_all(&mut output, &[b'x'; 4096]).is_ok() {});
    exec.take_stdin().unwrap().shutdown().await.unwrap();
    let code = async {
        loop {
            if let Heard::Ended(end) = exec.next().await.unwrap() {
                return end.code;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, code).await.expect("the end"), 3);
    drop(exec);
    writer.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_end_is_waited_for_only_so_long_in_all_while_somebody_asks() {
    let mut last_words = LastWords::default();
    for _ in 0..100 {
        tokio::time::advance(ALL_LAST_WORDS).await;
    }
    assert!(!last_words.are_over());
    for _ in 0..30 {
        assert!(!last_words.are_over());
        let _waiting = last_words.wait();
        tokio::time::advance(ALL_LAST_WORDS / 30).await;
    }
    assert!(last_words.are_over());
}

#[tokio::test]
async fn a_command_in_a_terminal_knows_its_size_and_reads_lines_until_there_is_no_more() {
    let scene = Scene::new().await;
    let terminal = Some(TerminalSize { columns: 91, rows: 33 });
    let script = "sh -c 'stty -echo; echo $(stty size) $TERM; read go; stty size; trap \"\" INT; cat; exit 3'";
    let mut exec = scene.start(&words(script), Wiring { stdin: true, terminal }).await;
    assert_eq!(line(&mut exec).await, "33 91 xterm");
    exec.resize(TerminalSize { columns: 80, rows: 24 }).unwrap();
    let mut stdin = exec.take_stdin().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    assert_eq!(line(&mut exec).await, "24 80");
    stdin.shutdown().await.unwrap();
    assert_eq!(end(&mut exec).await.code, 3);
}
