//! How containers are asked to end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use bluebird::api::v1::{
    Container, ContainerPort, ExecAction, HttpGetAction, Lifecycle, LifecycleHandler, ObjectMeta, Pod, PodSpec, RestartPolicy, StopMethod,
    lifecycle_handler, stop_method,
};
use bluebird::error::Error;

use crate::machine::{FOREVER, Machine, script};
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

fn get(port: &str, path: &str) -> HttpGetAction {
    HttpGetAction { path: path.into(), port: port.into(), host: "127.0.0.1".into(), ..HttpGetAction::default() }
}

/// Asks this before, or to end.
fn with_request(container: Container, pre_stop: Option<HttpGetAction>, stop: Option<HttpGetAction>) -> Container {
    let pre_stop = pre_stop.map(|get| LifecycleHandler { handler: Some(lifecycle_handler::Handler::HttpGet(get)) });
    let stop = stop.map(|get| StopMethod { method: Some(stop_method::Method::Http(get)) });
    Container { lifecycle: Some(Lifecycle { pre_stop, stop }), ..container }
}

/// A port at which `answer` has each connection that has sent a request.
fn server(mut answer: impl FnMut(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            answer(stream);
        }
    });
    port
}

/// A port at which nobody listens.
fn no_server() -> String {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string()
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

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_asked_to_end_by_a_request_to_a_port_by_its_name() {
    let machine = Machine::new().await;
    let words = [env!("CARGO_BIN_EXE_testapp"), "ignore-stop", "serve", "$(PORT_ADMIN)", "print", "ready", "forever"];
    let ports = ["web", "admin"].map(|name| ContainerPort { name: name.into(), ..ContainerPort::default() }).to_vec();
    let main = Container { name: "main".into(), command: words.map(str::to_owned).to_vec(), ports, ..Container::default() };
    let main = with_request(main, None, Some(get("admin", "/exit/0")));
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    machine.running("web").await;
    tokio::time::timeout(crate::processes::DEADLINE, async {
        while machine.log("web", false, false).await.unwrap_or_default() != "ready\n" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("testapp is ready");
    // It hears nothing else.
    machine.delete("web", Some(600)).await;
    machine.until_gone("web").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_before_the_end_is_answered_before_the_container_is_asked_to_end() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("told");
    let notes = file.clone();
    let port = server(move |mut stream| {
        let mut notes = std::fs::File::options().append(true).open(&notes).unwrap();
        writeln!(notes, "asked before").unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    });
    let main = with_request(listener("main", "TERM", &file), Some(get(&port, "/drain")), None);
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    lines(&file, 1).await;
    machine.delete("web", Some(600)).await;
    machine.until_gone("web").await;
    assert_eq!(lines(&file, 3).await, ["main is up", "asked before", "main"]);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_is_told_and_the_container_is_asked_as_ever() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("told");
    let port = no_server();
    let main = with_request(listener("main", "TERM", &file), Some(get(&port, "/before")), Some(get(&port, "/stop")));
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    lines(&file, 1).await;
    machine.delete("web", Some(600)).await;
    machine.until_gone("web").await;
    assert_eq!(lines(&file, 2).await, ["main is up", "main"]);
    machine.until_event("FailedPreStopHook", &format!("container main: the request for /before failed: 127.0.0.1:{port}: ")).await;
    machine.until_event("FailedStop", &format!("container main: the request for /stop failed: 127.0.0.1:{port}: ")).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_status_is_told_and_the_container_is_asked_as_ever() {
    let machine = Machine::new().await;
    let file = machine.folder.path().join("told");
    let port = server(|mut stream| stream.write_all(b"HTTP/1.1 503 Later\r\n\r\n").unwrap());
    let main = with_request(listener("main", "TERM", &file), None, Some(get(&port, "/stop")));
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    lines(&file, 1).await;
    machine.delete("web", Some(600)).await;
    machine.until_gone("web").await;
    machine.until_event("FailedStop", "HTTP status 503").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_holds_no_pod_up_beyond_its_grace_period_and_is_told() {
    let machine = Machine::new().await;
    let mut kept = Vec::new();
    let port = server(move |stream| kept.push(stream));
    for (name, before, stop, reason) in
        [("before", Some(get(&port, "/before")), None, "FailedPreStopHook"), ("stop", None, Some(get(&port, "/stop")), "FailedStop")]
    {
        machine.create(name, RestartPolicy::Always, vec![with_request(script("main", FOREVER), before, stop)]).await;
        machine.running(name).await;
        machine.delete(name, Some(1)).await;
        machine.until_gone(name).await;
        machine.until_event(reason, &format!("the request for /{name} had not ended when the grace period was over")).await;
    }
    assert_eq!(machine.cleanup.marked(), Vec::<i32>::new());
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_fail_are_told_with_how() {
    let machine = Machine::new().await;
    let main = with(script("main", FOREVER), Some("exit 3".into()), Some(stop_method::Method::Command(exec("kill -9 $$".into()))));
    machine.create("fails", RestartPolicy::Always, vec![main]).await;
    machine.running("fails").await;
    machine.delete("fails", Some(600)).await;
    machine.until_gone("fails").await;
    machine.until_event("FailedPreStopHook", "container main: the command \"sh -c exit 3\" failed: exit code 3").await;
    machine.until_event("FailedStop", "failed: signal 9 ended it").await;

    let absent = stop_method::Method::Command(ExecAction { command: vec!["/no/such/program".into()] });
    machine.create("absent", RestartPolicy::Always, vec![with(script("main", FOREVER), None, Some(absent))]).await;
    machine.running("absent").await;
    machine.delete("absent", Some(600)).await;
    machine.until_gone("absent").await;
    machine.until_event("FailedStop", "can't be made: the program \"/no/such/program\" does not exist").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_a_port_that_the_container_does_not_have_is_refused_by_its_field() {
    let machine = Machine::new().await;
    let main = with_request(script("main", FOREVER), None, Some(get("admin", "/stop")));
    let metadata = Some(ObjectMeta { name: "web".into(), ..ObjectMeta::default() });
    let refused =
        machine.client.create(Pod { metadata, spec: Some(PodSpec { containers: vec![main], ..PodSpec::default() }), status: None }).await;
    let Err(refused @ Error::Invalid(_)) = refused else { panic!("{refused:?}") };
    assert!(format!("{refused:?}").contains("lifecycle.stop.http.port"), "{refused:?}");
    machine.finish().await;
}
