//! `bluebird top -w`: frame after frame, whatever happens to what it shows and to whom it asks.

use bluebird::api::v1::{Pod, RestartPolicy};
use bluebird::testing::free_port;

use super::follower::Follower;
use super::program::{DEADLINE, Program, free_range};

/// What was shown last, whole: what stands after the last heading but one. Each frame begins with a heading, or is a line that says why there is none.
fn frames(said: &str) -> Vec<String> {
    let mut frames = Vec::new();
    for line in said.lines() {
        match frames.last_mut() {
            Some(frame) if !line.starts_with("NAME") => *frame = format!("{frame}\n{line}"),
            _ => frames.push(line.to_owned()),
        }
    }
    frames
}

/// Waits for a frame, after those that were seen before, that is as it should be; gives how many there are now.
async fn frame(top: &Program, after: usize, what: &str, is_so: impl Fn(&str) -> bool) -> usize {
    let seen = async {
        loop {
            let frames = frames(&top.said());
            if frames.iter().skip(after).any(|frame| is_so(frame)) {
                return frames.len();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    // A frame comes every five seconds.
    tokio::time::timeout(DEADLINE * 2, seen).await.unwrap_or_else(|_| panic!("no frame {what}:\n{}", top.said()))
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_frame_after_frame_also_over_a_restart_of_the_apiserver_and_ends_when_it_is_asked_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [data, root] = ["data", "node"].map(|name| folder.path().join(name));
    let (listen, range) = (format!("127.0.0.1:{}", free_port()), free_range());
    let url = format!("http://{listen}");
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let start_apiserver = || Program::start(folder.path(), "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    let mut apiserver = start_apiserver();
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root.to_str().expect("text"), "--no-routes"];
    let mut kubelet = Program::start(folder.path(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args);
    let follower = Follower::connect(&url).await;
    follower.run("first", "exec sleep 1000", RestartPolicy::Always).await;

    let mut top = Program::start(folder.path(), "top", env!("CARGO_BIN_EXE_bluebird"), &["top", "pods", "-w", "--server", &url]);
    let has_figures =
        |frame: &str, name: &str| frame.lines().any(|line| line.starts_with(name) && (line.contains("Mi") || line.contains("Ki")));
    let shown = frame(&top, 0, "with the first pod's figures", |frame| has_figures(frame, "first ")).await;
    follower.run("second", "exec sleep 1000", RestartPolicy::Always).await;
    let shown = frame(&top, shown, "with both", |frame| has_figures(frame, "first ") && has_figures(frame, "second ")).await;
    follower.client.delete::<Pod>("", "first", Default::default()).await.expect("it exists");
    follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", "first").is_none().then_some(())).await;
    let shown = frame(&top, shown, "without the first", |frame| has_figures(frame, "second ") && !frame.contains("first ")).await;

    apiserver.kill();
    let before = top.said().len();
    let why = || top.said().get(before..).is_some_and(|said| said.contains(&listen)).then_some(());
    super::program::eventually(|| format!("why there are no figures; it said:\n{}", top.said()), why).await;
    let mut apiserver = start_apiserver();
    frame(&top, shown, "after the apiserver is back", |frame| has_figures(frame, "second ") && !frame.contains(&listen)).await;
    assert!(top.interrupt().await.success());

    follower.client.delete::<Pod>("", "second", Default::default()).await.expect("it exists");
    follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", "second").is_none().then_some(())).await;
    assert!(kubelet.interrupt().await.success());
    assert!(apiserver.interrupt().await.success());
}
