//! What nodes and pods use: figures that come with heartbeats and are in the sessions' memory only.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::api::v1::{Pod, PodPhase, PodUsage, TopMissing, TopNode, TopPod, TopRequest, TopResponse, TopTime};
use crate::api::{Kind, Matcher, ObjectKey, Resource as _};
use crate::apiserver::node::{HEARTBEATS_PER_GRACE_PERIOD, Nodes};
use crate::apiserver::sessions::Figures;
use crate::apiserver::stopping_error;
use crate::error::{Error, Result};
use crate::store::{Snapshot, Stored, View};

/// How long nodes may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For so many heartbeats figures are as good as new ones.
const FRESH_HEARTBEATS: u32 = 2;
/// Nodes measure at most once in a second, however often they send heartbeats.
const FRESH: Duration = Duration::from_secs(3);
/// The most bytes of an answer: below what clients of gRPC take by default.
const MAX_BYTES: usize = 3 * 1024 * 1024;
/// How many objects are looked at before other requests get their turn.
const OBJECTS_AT_ONCE: usize = 2_000;

/// What is known of a node: its figures, or why there are none.
type Known = Result<Figures, TopMissing>;

pub(super) async fn top(nodes: &Nodes, request: TopRequest) -> Result<TopResponse> {
    let selector = request.selector.ok_or_else(|| Error::invalid("selector", "must be set"))?;
    let matcher = Matcher::new(&selector, "selector")?;
    let snapshot = nodes.writer.store.current().await?;
    let response = match matcher.kind() {
        Some(Kind::Node) => top_nodes(nodes, &snapshot, &matcher).await?,
        Some(Kind::Pod) => top_pods(nodes, &snapshot, &matcher).await?,
        _ => return Err(Error::invalid("selector.kind", "must be Node or Pod")),
    };
    match response.encoded_len() <= MAX_BYTES {
        true => Ok(response),
        false => Err(too_many()),
    }
}

fn too_many() -> Error {
    let message = "so many match that an answer can't hold them: narrow the selector by a namespace, a node or labels".to_owned();
    Error::Exhausted { message, retry_after: None }
}

async fn top_nodes(nodes: &Nodes, snapshot: &Snapshot, matcher: &Matcher) -> Result<TopResponse> {
    let names: Vec<String> = select(snapshot, matcher).await?.iter().map(|stored| stored.key.name().to_owned()).collect();
    let known = figures(nodes, names.iter().map(String::as_str)).await?;
    let now = Instant::now();
    let node = |name: String| match &known[&name] {
        Ok(figures) => TopNode { usage: figures.usage.node, time: Some(time(figures, now)), name, missing: None },
        Err(missing) => TopNode { name, missing: Some(missing.clone()), ..TopNode::default() },
    };
    Ok(TopResponse { nodes: names.into_iter().map(node).collect(), pods: Vec::new() })
}

async fn top_pods(nodes: &Nodes, snapshot: &Snapshot, matcher: &Matcher) -> Result<TopResponse> {
    let is_named = !matcher.name().is_empty();
    let mut pods: Vec<(String, TopPod)> = Vec::new();
    let mut bytes = 0;
    for stored in select(snapshot, matcher).await? {
        let Some(pod) = Pod::from_object(stored.decode()) else { continue };
        let has_ended = pod.status.as_ref().is_some_and(|status| matches!(status.phase(), PodPhase::Succeeded | PodPhase::Failed));
        if has_ended && !is_named {
            continue;
        }
        let node_name = pod.spec.as_ref().map(|spec| spec.node_name.clone()).unwrap_or_default();
        let missing = match (has_ended, node_name.is_empty()) {
            (true, _) => Some(missing("it has ended")),
            (false, true) => Some(missing("it has no node yet; its events say why")),
            (false, false) => None,
        };
        let (namespace, name) = (stored.key.namespace().to_owned(), stored.key.name().to_owned());
        let row = TopPod { namespace, name, node_name, missing, ..TopPod::default() };
        bytes += row.encoded_len();
        if bytes > MAX_BYTES {
            return Err(too_many());
        }
        pods.push((pod.meta().uid.clone(), row));
    }
    let on_nodes = pods.iter().filter(|(_, pod)| pod.missing.is_none()).map(|(_, pod)| pod.node_name.as_str());
    let known = figures(nodes, on_nodes).await?;
    let by_uid = |figures: &Figures| figures.usage.pods.iter().map(|pod| (pod.uid.clone(), pod.clone())).collect();
    let used: HashMap<&str, HashMap<String, PodUsage>> =
        known.iter().filter_map(|(node, known)| Some((node.as_str(), by_uid(known.as_ref().ok()?)))).collect();
    let now = Instant::now();
    let row = |(uid, mut pod): (String, TopPod)| {
        match known.get(&pod.node_name).filter(|_| pod.missing.is_none()) {
            Some(Ok(figures)) => {
                pod.usage = used[pod.node_name.as_str()].get(&uid).cloned();
                pod.time = Some(time(figures, now));
                pod.missing = pod.usage.is_none().then(|| missing("none of its containers runs, or they have only just begun to"));
            }
            Some(Err(missing)) => pod.missing = Some(missing.clone()),
            None => {}
        }
        pod
    };
    Ok(TopResponse { nodes: Vec::new(), pods: pods.into_iter().map(row).collect() })
}

/// The objects that match, in the order of their keys.
///
/// # Errors
/// Not found when one is named that isn't there.
async fn select(snapshot: &Snapshot, matcher: &Matcher) -> Result<Vec<Stored>> {
    let kind = matcher.kind().unwrap_or(Kind::Pod);
    let namespace = if kind.is_namespaced() { matcher.namespace() } else { "" };
    let mut found = Vec::new();
    let mut from = ObjectKey::lower_bound(kind, namespace);
    loop {
        let begin = from.clone();
        let is_within = |stored: &&Stored| stored.key.kind() == kind && (namespace.is_empty() || stored.key.namespace() == namespace);
        let mut objects = snapshot.range(&begin).take_while(is_within);
        for stored in objects.by_ref().take(OBJECTS_AT_ONCE) {
            if matcher.matches_key(&stored.key) && (matcher.is_key_only() || matcher.matches_view(&View::of(&stored.bytes))) {
                found.push(stored.clone());
            }
        }
        match objects.next().map(|stored| stored.key.clone()) {
            Some(next) => from = next,
            None => break,
        }
        tokio::task::yield_now().await;
    }
    match matcher.name() {
        name if !name.is_empty() && found.is_empty() => Err(Error::not_found(&ObjectKey::new(kind, namespace, name))),
        _ => Ok(found),
    }
}

/// The figures of these nodes, as soon as all have some that are new enough, or the time is over.
async fn figures(nodes: &Nodes, names: impl Iterator<Item = &str>) -> Result<HashMap<String, Known>> {
    let now = Instant::now();
    let asked: HashMap<&str, Option<watch::Receiver<Option<Figures>>>> =
        names.map(|name| (name, nodes.sessions.want_usage(name, now))).collect();
    let mut known = HashMap::new();
    for (name, asked) in asked {
        let answer = match asked {
            Some(figures) => {
                let newest = newest(nodes, figures, now + PATIENCE);
                nodes.stopping.run_until_cancelled(newest).await.ok_or_else(stopping_error)?
            }
            None => None,
        };
        known.insert(name.to_owned(), answer.ok_or_else(|| why_none(nodes, name)));
    }
    Ok(known)
}

/// What a node says of itself: new figures, or those that there are when the time is over. `None` when there are none, or the session has ended.
async fn newest(nodes: &Nodes, mut figures: watch::Receiver<Option<Figures>>, deadline: Instant) -> Option<Figures> {
    let fresh = FRESH.max(nodes.grace_period / HEARTBEATS_PER_GRACE_PERIOD * FRESH_HEARTBEATS);
    let is_younger = |known: &Option<Figures>, age: Duration| known.as_ref().is_some_and(|known| known.heard.elapsed() < age);
    let waited = timeout_at(deadline, figures.wait_for(|known| is_younger(known, fresh))).await.map(|known| known.is_ok());
    match waited {
        // The session has ended.
        Ok(false) => None,
        Ok(true) | Err(_) => figures.borrow().clone().filter(|known| known.heard.elapsed() < nodes.grace_period.max(fresh)),
    }
}

fn why_none(nodes: &Nodes, node: &str) -> TopMissing {
    if let Some(apiserver) = nodes.elsewhere(node) {
        let message = format!("node {node:?} has its session with another apiserver: {apiserver}");
        return TopMissing { message, apiserver };
    }
    match nodes.sessions.instance(node) {
        Some(_) => missing(&format!("node {node:?} did not answer within {} s", PATIENCE.as_secs())),
        None => missing(&format!("node {node:?} is not connected at the moment")),
    }
}

fn missing(message: &str) -> TopMissing {
    TopMissing { message: message.to_owned(), apiserver: String::new() }
}

fn time(figures: &Figures, now: Instant) -> TopTime {
    let age = prost_types::Duration::try_from(now.saturating_duration_since(figures.heard)).ok();
    TopTime { age, window: figures.usage.window }
}
