//! How containers are asked to end.

use bluebird::api::v1::{
    Container, ExecAction, Lifecycle, LifecycleHandler, PodSpec, RestartPolicy, StopMethod, lifecycle_handler, stop_method,
};

use crate::machine::{Machine, script};
use crate::processes::eventually;

fn exec(script: String) -> ExecAction {
    ExecAction { command: vec!["sh".into(), "-c".into(), script] }
}

/// A container that ends by its own will only when it gets this signal, and writes down what happens to it.
fn listener(name: &str, signal: &str, file: &std::path::Path) -> Container {
    let file = file.display();
    script(name, &format!("trap 'echo {name} >> {file}; exit 0' {signal}; echo {name} is up >> {file}; while :; do sleep 0.01; done"))
}

fn with(container: Container, pre_stop: Option<String>, stop: Option<stop_method::Method>) -> Container {
    let pre_stop = pre_stop.map(|script| LifecycleHandler { handler: Some(lifecycle_handler::Handler::Exec(exec(script))) });
    let lifecycle = Lifecycle { pre_stop, stop: stop.map(|method| StopMethod { method: Some(method) }) };
    Container { lifecycle: Some(lifecycle), ..container }
}

async fn lines(file: &std::path::Path, count: usize) -> Vec<String> {
    let read = || {
        let text = std::fs::read_to_string(file).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    };
    eventually(&format!("{count} lines in {}", file.display()), read).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_asked_to_end_by_the_signal_that_it_names_after_its_pre_stop_command() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("told");
    // The command waits until it sees that nobody has told the container yet.
    let before = format!("[ $(wc -l < {0}) = 1 ] && echo before in $BLUEBIRD_CONTAINER >> {0}", file.display());
    let main = with(listener("main", "USR1", &file), Some(before), Some(stop_method::Method::Signal("SIGUSR1".into())));
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    lines(&file, 1).await;
    machine.delete("web", Some(600)).await;
    machine.until_gone("web").await;
    assert_eq!(lines(&file, 3).await, ["main is up", "before in main", "main"]);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_asked_to_end_by_its_command_and_as_ever_when_that_fails() {
    let machine = Machine::new().await;
    let (file, go) = (machine.folder.path().join("told"), machine.folder.path().join("go"));
    let waits = script("main", &format!("trap '' TERM; while [ ! -e {} ]; do sleep 0.01; done", go.display()));
    let by_command = with(waits, None, Some(stop_method::Method::Command(exec(format!("touch {}", go.display())))));
    machine.create("command", RestartPolicy::Always, vec![by_command]).await;
    machine.running("command").await;
    machine.delete("command", Some(600)).await;
    machine.until_gone("command").await;

    let failing = with(listener("main", "TERM", &file), None, Some(stop_method::Method::Command(exec("exit 1".into()))));
    machine.create("fails", RestartPolicy::Always, vec![failing]).await;
    lines(&file, 1).await;
    machine.delete("fails", Some(600)).await;
    machine.until_gone("fails").await;
    assert_eq!(lines(&file, 2).await, ["main is up", "main"]);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_hangs_outlives_no_grace_period() {
    let machine = Machine::new().await;
    let hangs = "trap '' TERM; setsid sleep 1000 & while :; do sleep 100; done".to_owned();
    let main = with(script("main", "while :; do sleep 100; done"), Some(hangs), None);
    machine.create("hangs", RestartPolicy::Always, vec![main]).await;
    machine.running("hangs").await;
    machine.delete("hangs", Some(1)).await;
    machine.until_gone("hangs").await;
    assert_eq!(machine.cleanup.marked(), Vec::<i32>::new());
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_end_after_the_main_containers_in_reverse_order() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("told");
    let sidecar = |name: &str| Container { restart_policy: RestartPolicy::Always.into(), ..listener(name, "TERM", &file) };
    let spec = PodSpec {
        init_containers: vec![sidecar("first"), sidecar("second")],
        containers: vec![listener("main", "TERM", &file)],
        ..PodSpec::default()
    };
    machine.create_spec("web", spec).await;
    lines(&file, 3).await;
    machine.delete("web", Some(600)).await;
    machine.until_gone("web").await;
    assert_eq!(lines(&file, 6).await[3..], ["main", "second", "first"]);
    machine.finish().await;
}
