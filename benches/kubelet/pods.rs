//! The pods that a bench has made, and what a watch tells of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bluebird::api::v1::{
    Container, Node, Object, ObjectMeta, Pod, PodPhase, PodSpec, Selector, TopRequest, WatchRequest, WatchResponse, event,
};
use bluebird::api::{Kind, Resource};
use bluebird::client::{Client, DeleteOptions, Incoming};

/// How long a pod or the node may take before the bench gives up.
const DEADLINE: Duration = Duration::from_secs(120);
/// The most objects of one Apply.
const AT_ONCE: usize = 100;

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
pub(crate) struct Pods {
    client: Client,
    changes: Incoming<WatchResponse>,
    /// Those that exist.
    there: HashSet<String>,
    /// When those that have not been seen running were created.
    waiting: HashMap<String, Instant>,
    /// How long each start took, until somebody asks.
    started: VecDeque<Duration>,
}

fn pod(name: &str) -> Pod {
    pod_of(name, &super::command(), Duration::ZERO)
}

fn pod_of(name: &str, command: &[&str], grace: Duration) -> Pod {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let container = Container { name: "main".to_owned(), command, ..Default::default() };
    let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    let spec = PodSpec { containers: vec![container], termination_grace_period_seconds: Some(grace), ..Default::default() };
    let metadata = ObjectMeta { name: name.to_owned(), ..Default::default() };
    Pod { metadata: Some(metadata), spec: Some(spec), status: None }
}

impl Pods {
    /// Looks at what all pods use.
    pub(crate) async fn top(&self) -> anyhow::Result<()> {
        let selector = Some(Selector { kind: Kind::Pod.to_string(), ..Default::default() });
        let answer = self.client.top(TopRequest { selector }).await?;
        ensure!(answer.pods.iter().all(|pod| pod.usage.is_some()), "some of {} pods have no figures", answer.pods.len());
        Ok(())
    }

    /// Waits until the node is ready.
    pub(crate) async fn follow(client: Client) -> anyhow::Result<Pods> {
        node_ready(&client).await.context("the node did not become ready")?;
        let changes = watch(&client, Kind::Pod).await?;
        Ok(Pods { client, changes, there: HashSet::new(), waiting: HashMap::new(), started: VecDeque::new() })
    }

    /// Makes as many with one manifest, as `bluebird apply` does: a hundred in one transaction.
    pub(crate) async fn apply(&mut self, names: Vec<String>) -> anyhow::Result<()> {
        let now = Instant::now();
        self.there.extend(names.iter().cloned());
        self.waiting.extend(names.iter().map(|name| (name.clone(), now)));
        for piece in names.chunks(AT_ONCE) {
            let objects: Vec<Object> = piece.iter().map(|name| pod(name).into_object()).collect();
            self.client.apply(objects, "bench", false).await?;
        }
        Ok(())
    }

    pub(crate) async fn create(&mut self, name: String) -> anyhow::Result<()> {
        let object = pod(&name);
        self.there.insert(name.clone());
        self.waiting.insert(name, Instant::now());
        self.client.create(object).await?;
        Ok(())
    }

    /// Makes one that runs something else; gives its uid.
    pub(crate) async fn create_as(&mut self, name: String, command: &[&str], grace: Duration) -> anyhow::Result<String> {
        let created = self.client.create(pod_of(&name, command, grace)).await?;
        self.there.insert(name);
        Ok(created.meta().uid.clone())
    }

    pub(crate) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.client.delete::<Pod>("default", name, DeleteOptions::default()).await.map(drop)?)
    }

    /// Waits for the next pod to run, and tells how long it took.
    pub(crate) async fn next_running(&mut self) -> anyhow::Result<Duration> {
        loop {
            if let Some(time) = self.started.pop_front() {
                return Ok(time);
            }
            self.take_changes().await?;
        }
    }

    pub(crate) async fn delete_all(&mut self) -> anyhow::Result<()> {
        for name in &self.there {
            self.delete(name).await?;
        }
        self.until_gone().await
    }

    /// Waits until all are gone that were deleted.
    pub(crate) async fn until_gone(&mut self) -> anyhow::Result<()> {
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
