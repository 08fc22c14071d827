//! One kubelet on a bare node brings up the whole cluster: examples/self-hosted.

use bluebird::api::v1::{EndpointSlice, Pod, PodPhase, Service, ServicePort, ServiceSpec, container_state::State};
use bluebird::api::{Resource as _, condition};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::follower::{Follower, phase, pid, state};
use super::program::{Program, eventually, free_range};
use bluebird::testing::free_port;

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_alone_brings_up_the_apiserver_and_keeps_it_whatever_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [files, root, data] = ["static", "node", "data"].map(|name| folder.path().join(name));
    let (port, range) = (free_port(), free_range());
    let example = include_str!("../../examples/self-hosted/apiserver.yaml");
    let own_place = format!("\"127.0.0.1:{port}\", --data-dir, {}, --service-cidr, {range}", data.display());
    let manifest = example.replace("\"127.0.0.1:7443\"", &own_place).replace("7443", &port.to_string());
    std::fs::create_dir(&files).expect("the test's own folder");
    std::fs::write(files.join("apiserver.yaml"), manifest).expect("the test's own folder");

    let url = format!("http://127.0.0.1:{port}");
    let [files_text, root_text] = [&files, &root].map(|path| path.to_str().expect("text"));
    let args = ["--server", &url, "--node-name", "n1", "--root-dir", root_text, "--static-pods", files_text];
    let start = || Program::start(folder.path(), "kubelet", env!("CARGO_BIN_EXE_kubelet"), &args);
    let mut kubelet = start();
    let follower = Follower::connect(&url).await;
    let mirror = |of: &'static str, is_so: fn(&Pod) -> bool| {
        let shown =
            move |cache: &bluebird::client::Cache| cache.get::<Pod>("", "apiserver-n1").filter(|pod| is_so(pod)).map(|pod| (*pod).clone());
        follower.wait_for(of, shown)
    };
    let first = pid(&mirror("the apiserver to show itself", |pod| phase(pod) == PodPhase::Running).await).expect("it runs");

    let mut apply = Program::start(folder.path(), "apply", env!("CARGO_BIN_EXE_bluebird"), &["apply", "-f", HELLO, "--server", &url]);
    assert!(apply.ended().await.success());
    let are_ready = |cache: &bluebird::client::Cache| {
        let is_ready = |name: &str| {
            let pod = cache.get::<Pod>("", name)?;
            condition::is_true(&pod.status.as_ref()?.conditions, condition::READY).then(|| pid(&pod)).flatten()
        };
        ["hello-1", "hello-2", "hello-3"].into_iter().map(is_ready).collect::<Option<Vec<i32>>>()
    };
    let hello = follower.wait_for("the example to run", are_ready).await;

    // It is a pod like any other to services.
    let ports = vec![ServicePort { port: 80, target_port: "grpc".into(), ..Default::default() }];
    let selector = [("app".to_owned(), "apiserver".to_owned())].into();
    let mut service = Service { spec: Some(ServiceSpec { ports, selector, ..Default::default() }), ..Default::default() };
    service.meta_mut().name = "control-plane".into();
    follower.client.create(service).await.expect("a valid service");
    let listed = |cache: &bluebird::client::Cache| {
        let slice = cache.get::<EndpointSlice>("", "control-plane")?;
        let endpoint = slice.spec.as_ref()?.endpoints.first()?;
        Some((endpoint.pod_name.clone(), endpoint.ports.first()?.port))
    };
    let endpoint = follower.wait_for("the service to lead to it", listed).await;
    assert_eq!(endpoint, ("apiserver-n1".to_owned(), u32::from(port)));

    kill(Pid::from_raw(first), Signal::SIGKILL).expect("the apiserver");
    let again = mirror("the apiserver to show that it is back", |pod| {
        let status = pod.status.as_ref().and_then(|status| status.container_statuses.first());
        status.is_some_and(|main| main.restart_count == 1 && matches!(state(pod), Some(State::Running(_))))
    });
    let again = again.await;
    let second = pid(&again).expect("it runs");
    let ended = again.status.as_ref().and_then(|status| status.container_statuses[0].last_termination.as_ref()).expect("it ended");
    assert_eq!((ended.signal, second != first), (9, true));

    kubelet.kill();
    let mut kubelet = start();
    follower.run("later", "exec sleep 1000", bluebird::api::v1::RestartPolicy::Always).await;
    assert_eq!(pid(&mirror("the apiserver to go on", |_| true).await), Some(second));
    assert_eq!(follower.wait_for("the example to go on", are_ready).await, hello);

    let names = ["delete", "pod", "apiserver-n1", "--server", &url];
    let mut refused = Program::start(folder.path(), "refused", env!("CARGO_BIN_EXE_bluebird"), &names);
    assert!(!refused.ended().await.success());
    assert!(refused.said().contains("apiserver.yaml"), "{}", refused.said());
    for name in ["hello-1", "hello-2", "hello-3", "later"] {
        follower.client.delete::<Pod>("", name, Default::default()).await.expect("it exists");
        follower.wait_for("the pod to be gone", |cache| cache.get::<Pod>("", name).is_none().then_some(())).await;
    }
    std::fs::remove_file(files.join("apiserver.yaml")).expect("the test's own folder");
    let pods = root.join("pods");
    let is_empty = || std::fs::read_dir(&pods).expect("the kubelet's folder").next().is_none().then_some(());
    eventually(|| "the end of the apiserver's pod".into(), is_empty).await;
    assert!(kubelet.interrupt().await.success());
    #[cfg(target_os = "linux")]
    assert_eq!(super::program::processes_of(folder.path()), []);
}
