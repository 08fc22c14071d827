//! What tests do with a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use bluebird::api::Resource;
use bluebird::api::v1::{EndpointSlice, LogsRequest, Pod, PodPhase, Service};
use bluebird::client::{Backoff, Client};
use bluebird::error::Error;
use bluebird::testing::{Builder, TestCluster};
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::objects::{phase, pid};

/// How long an answer over the network may take.
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) fn builder(kubelets: usize) -> Builder {
    TestCluster::builder().kubelets(kubelets).shim(env!("CARGO_BIN_EXE_kubelet"))
}

pub(crate) async fn cluster(kubelets: usize) -> TestCluster {
    builder(kubelets).start().await
}

/// Waits for a pod of the namespace `default` that fits.
pub(crate) async fn wait_for_pod(cluster: &TestCluster, name: &str, what: &str, fits: impl Fn(&Pod) -> bool) -> Pod {
    let what = format!("pod {name} {what}");
    cluster.wait_for(&what, |state| state.get::<Pod>("default", name).map(|pod| (*pod).clone()).filter(&fits)).await
}

/// Creates a pod and waits until its process runs; returns the pod and the process.
pub(crate) async fn run(cluster: &TestCluster, pod: Pod) -> (Pod, i32) {
    let name = pod.meta().name.clone();
    create(cluster, pod).await;
    let pod = wait_for_pod(cluster, &name, "to run", |pod| phase(pod) == PodPhase::Running && pid(pod).is_some()).await;
    let pid = pid(&pod).expect("waited for");
    (pod, pid)
}

/// Creates a pod, also while connections break: a try whose answer was lost may have succeeded.
async fn create(cluster: &TestCluster, pod: Pod) {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(100));
    let created = async {
        loop {
            match cluster.client().create(pod.clone()).await {
                Ok(_) | Err(Error::AlreadyExists(_)) => return,
                Err(error) if error.is_retryable() => tokio::time::sleep(backoff.next_delay()).await,
                Err(error) => panic!("{}: {error}", pod.meta().name),
            }
        }
    };
    tokio::time::timeout(ANSWER, created).await.expect("the apiserver answers in time");
}

pub(crate) async fn wait_until_pod_is_gone(cluster: &TestCluster, name: &str) {
    cluster.wait_for(&format!("pod {name} to be gone"), |state| state.get::<Pod>("default", name).is_none().then_some(())).await;
}

/// Waits until as many endpoints as said stand behind a service; returns its address.
pub(crate) async fn wait_for_endpoints(cluster: &TestCluster, service: &str, count: usize) -> SocketAddr {
    let what = format!("{count} endpoints behind {service}");
    cluster
        .wait_for(&what, |state| {
            let slice = state.get::<EndpointSlice>("default", service)?;
            if slice.spec.as_ref()?.endpoints.len() != count {
                return None;
            }
            let service = state.get::<Service>("default", service)?;
            let spec = service.spec.as_ref()?;
            format!("{}:{}", spec.cluster_ip, spec.ports[0].port).parse().ok()
        })
        .await
}

pub(crate) async fn logs(client: &Client, request: LogsRequest) -> String {
    let read = async {
        let mut incoming = client.logs(request).await?;
        let mut bytes = Vec::new();
        while let Some(message) = incoming.next().await? {
            bytes.extend(message.data);
        }
        Ok::<_, Error>(bytes)
    };
    let bytes = tokio::time::timeout(ANSWER, read).await.expect("a log ends").expect("there is a log");
    String::from_utf8(bytes).expect("text")
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    let exists = signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH);
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let zombie = state.is_some_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])));
    exists && !zombie
}

pub(crate) fn signal_process(pid: i32, signal: signal::Signal) {
    signal::kill(Pid::from_raw(pid), signal).expect("a process of this test");
}

/// One HTTP request on a connection of its own; returns the answer's body.
pub(crate) async fn get(address: SocketAddr) -> std::io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(std::io::Error::other(format!("no complete answer: {answer:?}"))),
        }
    };
    tokio::time::timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
