//! From the create of a pod to the moment at which a watch sees it running, with the real kubelet and a real process.

mod common;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bluebird::api::v1::{Container, Node, ObjectMeta, Pod, PodPhase, PodSpec, Selector, WatchRequest, WatchResponse, event};
use bluebird::api::{Kind, Resource};
use bluebird::client::{Client, DeleteOptions, Incoming};
use common::peer::Peer;
use common::report::{Report, Row, latencies, memory_of, mib};
use common::server::{Kubelet, Server, cpu_between};
use common::{is_wanted, run, sized};

/// How long a pod or the node may take before the bench gives up.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    run("pod_start", bench);
}

async fn bench(mut report: Report) -> anyhow::Result<()> {
    let (one_by_one, burst) = (sized(200, 5), sized(100, 5));
    report.settings(&format!(
        "one kubelet; pods of one process (`bluebird echo`); {one_by_one} one after the other, each deleted before the next; then bursts of {burst}"
    ));
    let apiserver = Server::start(Peer::Bluebird).await?;
    let kubelet = Kubelet::start(&apiserver.url, "bench")?;
    let client = Client::new(&apiserver.url)?;
    node_ready(&client).await.context("the node did not become ready")?;
    let mut pods = Pods {
        changes: watch(&client, Kind::Pod).await?,
        client,
        there: HashSet::new(),
        waiting: HashMap::new(),
        started: VecDeque::new(),
    };

    for (case, at_once, rounds) in [("one at a time", 1, one_by_one), ("burst", burst, 1)] {
        if !is_wanted(case) {
            continue;
        }
        let (cpu, kubelet_cpu, mut time, mut latency) = (apiserver.process.cpu(), kubelet.process.cpu(), Duration::ZERO, latencies());
        for round in 0..rounds {
            let start = Instant::now();
            for number in 0..at_once {
                pods.create(format!("{}-{round}-{number}", case.replace(' ', "-"))).await?;
            }
            for _ in 0..at_once {
                latency.saturating_record(pods.next_running().await?.as_micros() as u64);
            }
            time += start.elapsed();
            pods.delete_all().await?;
        }
        let operations = rounds as u64 * at_once as u64;
        report.row(&Row {
            case: if at_once == 1 { case.to_owned() } else { format!("{case} of {at_once}") },
            who: apiserver.peer.name(),
            operations,
            time,
            latency,
            server_cpu: cpu_between(cpu, apiserver.process.cpu()),
            memory: memory_of(&apiserver.process),
        })?;
        if let Some(used) = cpu_between(kubelet_cpu, kubelet.process.cpu()) {
            let (each, memory) = (used.as_secs_f64() * 1000.0 / operations as f64, mib(kubelet.process.rss()));
            report.note(&format!("kubelet: {each:.1} ms of CPU for each pod's start and end, {memory} MiB"));
        }
    }
    Ok(())
}

async fn watch(client: &Client, kind: Kind) -> anyhow::Result<Incoming<WatchResponse>> {
    let selector = Selector { kind: kind.to_string(), ..Default::default() };
    Ok(client.watch(WatchRequest { selectors: vec![selector], send_initial: true, ..Default::default() }).await?)
}

async fn node_ready(client: &Client) -> anyhow::Result<()> {
    let mut changes = watch(client, Kind::Node).await?;
    let ready = async {
        while let Some(response) = changes.next().await? {
            let nodes = response.events.iter().filter_map(|event| Node::from_object_ref(event.object.as_ref()?));
            let mut conditions = nodes.filter_map(|node| node.status.as_ref()).flat_map(|status| &status.conditions);
            if conditions.any(|condition| condition.r#type == "Ready" && condition.status() == bluebird::api::v1::ConditionStatus::True) {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended");
    };
    tokio::time::timeout(DEADLINE, ready).await?
}

/// The pods that this bench has made and what a watch tells of them.
struct Pods {
    client: Client,
    changes: Incoming<WatchResponse>,
    /// Those that exist.
    there: HashSet<String>,
    /// When those that have not been seen running were created.
    waiting: HashMap<String, Instant>,
    /// How long each start took, until somebody asks.
    started: VecDeque<Duration>,
}

impl Pods {
    async fn create(&mut self, name: String) -> anyhow::Result<()> {
        let container = Container {
            name: "echo".to_owned(),
            command: vec!["bluebird".to_owned(), "echo".to_owned()],
            ports: vec![Default::default()],
            ..Default::default()
        };
        let spec = PodSpec { containers: vec![container], termination_grace_period_seconds: Some(0), ..Default::default() };
        let metadata = ObjectMeta { name: name.clone(), ..Default::default() };
        self.there.insert(name.clone());
        self.waiting.insert(name, Instant::now());
        self.client.create(Pod { metadata: Some(metadata), spec: Some(spec), status: None }).await?;
        Ok(())
    }

    /// Waits for the next pod to run, and tells how long it took.
    async fn next_running(&mut self) -> anyhow::Result<Duration> {
        loop {
            if let Some(time) = self.started.pop_front() {
                return Ok(time);
            }
            self.take_changes().await?;
        }
    }

    async fn delete_all(&mut self) -> anyhow::Result<()> {
        for name in &self.there {
            self.client.delete::<Pod>("default", name, DeleteOptions::default()).await?;
        }
        while !self.there.is_empty() {
            self.take_changes().await?;
        }
        Ok(())
    }

    async fn take_changes(&mut self) -> anyhow::Result<()> {
        let response = tokio::time::timeout(DEADLINE, self.changes.next()).await.context("nothing happens")??;
        for change in response.context("the watch ended")?.events {
            let change_type = change.r#type();
            let Some(pod) = change.object.and_then(Pod::from_object) else { continue };
            let phase = pod.status.as_ref().map_or(PodPhase::Unspecified, |status| status.phase());
            let name = &pod.meta().name;
            // One that is being deleted may well have been killed.
            ensure!(phase != PodPhase::Failed || !self.waiting.contains_key(name), "{name} failed");
            if change_type == event::Type::Deleted {
                self.there.remove(name);
            } else if phase == PodPhase::Running {
                self.started.extend(self.waiting.remove(name).map(|created| created.elapsed()));
            }
        }
        Ok(())
    }
}
