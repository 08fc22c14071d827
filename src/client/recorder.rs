use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{Backoff, Client};
use crate::api::v1::{ClusterEvent, ClusterEventSpec, EventSubject, EventType, ObjectMeta};
use crate::api::{ObjectKey, Resource};
use crate::error::{Error, Result};
use crate::tasks::Tasks;
use crate::time::{Clock, millis};

/// The most events that wait to be written; beyond it the oldest is dropped and counted.
const QUEUE_LIMIT: usize = 1_000;
/// The most events that are written at once.
const WRITES_AT_ONCE: usize = 16;
/// The longest wait before the first new attempt, while the server can't be reached.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest wait before any new attempt.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How long a name may be.
const MAX_NAME: usize = 253;

/// Tells people what happened to an object, as objects of kind `Event`. The same thing happening again counts up in one object.
///
/// It never blocks and never fails: events are for people, and nothing may depend on them. What waits to be written when its tasks end is lost.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: String,
    clock: Clock,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<ObjectKey>,
    events: BTreeMap<ObjectKey, ClusterEvent>,
    dropped: u64,
}

/// How events name an object.
pub fn subject<R: Resource>(object: &R) -> EventSubject {
    let (key, uid) = (object.key(), object.meta().uid.clone());
    EventSubject { kind: key.kind().to_string(), namespace: key.namespace().to_owned(), name: key.name().to_owned(), uid }
}

impl Recorder {
    /// Records in the name of `source`: `scheduler`, `kubelet/n1`.
    pub fn new(client: Client, source: &str, clock: Clock, tasks: &Tasks) -> Self {
        let shared = Shared { source: source.to_owned(), clock, queue: Mutex::default(), wake: Notify::new() };
        let recorder = Self(Arc::new(shared));
        let (writer, token) = (recorder.clone(), tasks.token());
        tasks.spawn("event recorder", async move {
            token.run_until_cancelled(writer.run(client)).await;
        });
        recorder
    }

    /// Something happened: `reason` as one CamelCase word, `note` as a sentence.
    pub fn event(&self, regarding: EventSubject, event_type: EventType, reason: &str, note: impl Into<String>) {
        let now = self.0.clock.now();
        let spec = ClusterEventSpec {
            regarding: Some(regarding),
            r#type: event_type.into(),
            reason: reason.to_owned(),
            note: note.into(),
            source: self.0.source.clone(),
            count: 1,
            first_time: Some(now),
            last_time: Some(now),
        };
        self.lock().push(named(spec));
        self.0.wake.notify_one();
    }

    /// How many events were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    async fn run(&self, client: Client) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let batch = self.lock().take(WRITES_AT_ONCE);
            if batch.is_empty() {
                self.0.wake.notified().await;
                continue;
            }
            let results = join_all(batch.iter().map(|event| write(&client, event))).await;
            match self.keep_unwritten(batch, results) {
                Some(error) => tokio::time::sleep(backoff.delay_after(&error)).await,
                None => backoff.reset(),
            }
        }
    }

    /// Puts back what may be written later; if there is any, answers why.
    fn keep_unwritten(&self, batch: Vec<ClusterEvent>, results: Vec<Result<()>>) -> Option<Error> {
        let mut kept = None;
        for (event, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => {}
                Err(error) if error.is_retryable() || matches!(error, Error::Conflict { .. }) => {
                    self.lock().put_back(event);
                    kept = Some(error);
                }
                // Its namespace is gone or going, or it is wrong.
                Err(error) => tracing::debug!(%error, event = event.meta().name, "an event was refused"),
            }
        }
        kept
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, event: ClusterEvent) {
        let key = event.key();
        if let Some(waiting) = self.events.get_mut(&key) {
            *waiting = repeated(waiting, &event);
            return;
        }
        self.add(key, event);
    }

    /// What could not be written happened before whatever was pushed meanwhile.
    fn put_back(&mut self, event: ClusterEvent) {
        let key = event.key();
        match self.events.get_mut(&key) {
            Some(newer) => *newer = repeated(&event, newer),
            None => self.add(key, event),
        }
    }

    fn add(&mut self, key: ObjectKey, event: ClusterEvent) {
        self.order.push_back(key.clone());
        self.events.insert(key, event);
        if self.order.len() > QUEUE_LIMIT {
            self.take(1);
            self.dropped += 1;
            metrics::counter!("bluebird_client_events_dropped_total").increment(1);
        }
    }

    fn take(&mut self, most: usize) -> Vec<ClusterEvent> {
        let taken = self.order.drain(..most.min(self.order.len()));
        taken.filter_map(|key| self.events.remove(&key)).collect()
    }
}

/// Most events are new: creating is tried first.
async fn write(client: &Client, event: &ClusterEvent) -> Result<()> {
    match client.create(event.clone()).await {
        Err(Error::AlreadyExists(_)) => {}
        answer => return answer.map(drop),
    }
    let known: ClusterEvent = client.get(&event.meta().namespace, &event.meta().name).await?;
    client.update(repeated(&known, event)).await.map(drop)
}

/// Both as one event, which tells what happened last, whatever the clock showed then. With the metadata of `known`, whose `resource_version` makes a
/// write a compare-and-set.
fn repeated(known: &ClusterEvent, again: &ClusterEvent) -> ClusterEvent {
    let (before, last) = (known.spec.clone().unwrap_or_default(), again.spec.clone().unwrap_or_default());
    let count = before.count.saturating_add(last.count);
    let times = [before.first_time, last.first_time, last.last_time];
    let first_time = times.into_iter().flatten().min_by_key(millis);
    let spec = ClusterEventSpec { count, first_time, ..last };
    ClusterEvent { metadata: known.metadata.clone(), spec: Some(spec) }
}

/// The note is no part of the name: a note that tells a changing number would make every repetition a new object.
fn named(spec: ClusterEventSpec) -> ClusterEvent {
    let regarding = spec.regarding.clone().unwrap_or_default();
    let event_type = spec.r#type.to_string();
    let identity = [&regarding.kind, &regarding.namespace, &regarding.name, &regarding.uid, &event_type, &spec.reason, &spec.source];
    let suffix = format!(".{:016x}", hash(identity.into_iter().map(String::as_str)));
    let stem = &regarding.name[..regarding.name.floor_char_boundary(MAX_NAME - suffix.len())];
    let name = format!("{}{suffix}", stem.trim_end_matches(['.', '-']));
    let metadata = ObjectMeta { name, namespace: regarding.namespace.clone(), ..Default::default() };
    ClusterEvent { metadata: Some(metadata), spec: Some(spec) }
}

/// FNV-1a with 64 bits: the same in every process and version, as a name has to be.
fn hash<'a>(parts: impl Iterator<Item = &'a str>) -> u64 {
    parts
        .flat_map(|part| part.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(name: &str, reason: &str, note: &str) -> ClusterEvent {
        let regarding = EventSubject { kind: "Pod".into(), namespace: "default".into(), name: name.into(), uid: "u".into() };
        named(ClusterEventSpec {
            regarding: Some(regarding),
            reason: reason.into(),
            note: note.into(),
            source: "test".into(),
            count: 1,
            ..Default::default()
        })
    }

    #[test]
    fn the_same_thing_happening_again_has_the_same_name_whatever_its_note() {
        assert_eq!(happened("web", "BackOff", "in 1 s").key(), happened("web", "BackOff", "in 2 s").key());
        assert_ne!(happened("web", "BackOff", "").key(), happened("web", "Started", "").key());
        assert_ne!(happened("web", "BackOff", "").key(), happened("web2", "BackOff", "").key());
    }

    #[test]
    fn the_name_of_an_event_fits_even_when_its_object_has_the_longest_name() {
        let name = happened(&format!("{}-{}", "a".repeat(235), "b".repeat(17)), "Started", "").key().name().to_owned();
        assert!(name.len() <= MAX_NAME, "{name}");
        assert!(name.starts_with(&format!("{}.", "a".repeat(235))), "{name}");
    }

    #[test]
    fn repetitions_that_wait_are_counted_in_one_event() {
        let mut queue = Queue::default();
        for note in ["in 1 s", "in 2 s", "in 4 s"] {
            queue.push(happened("web", "BackOff", note));
        }
        let events = queue.take(10);
        assert_eq!(events.len(), 1);
        let spec = events[0].spec.as_ref().expect("has a spec");
        assert_eq!((spec.count, spec.note.as_str()), (3, "in 4 s"));
    }

    #[test]
    fn what_happens_again_after_the_clock_was_set_back_is_the_last_that_happened_and_did_not_begin_later() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let happened = |note: &str, first, last| {
            let mut event = happened("web", "BackOff", note);
            let spec = event.spec.as_mut().expect("it has one");
            (spec.first_time, spec.last_time) = (at(first), at(last));
            event
        };
        let told = |queue: &mut Queue| {
            let spec = queue.take(1).remove(0).spec.expect("it has one");
            (spec.note, spec.count, spec.first_time, spec.last_time)
        };
        let mut queue = Queue::default();
        queue.push(happened("in 1 s", 7_000, 7_200));
        queue.push(happened("in 2 s", 3_600, 3_600));
        assert_eq!(told(&mut queue), ("in 2 s".to_owned(), 2, at(3_600), at(3_600)));
        // What could not be written comes before what happened since.
        queue.push(happened("in 8 s", 3_700, 3_700));
        queue.put_back(happened("in 4 s", 7_000, 7_200));
        assert_eq!(told(&mut queue), ("in 8 s".to_owned(), 2, at(3_700), at(3_700)));
        queue.push(happened("in 8 s", 100, 300));
        queue.put_back(happened("in 4 s", 100, 200));
        assert_eq!(told(&mut queue), ("in 8 s".to_owned(), 2, at(100), at(300)));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let mut queue = Queue::default();
        for index in 0..QUEUE_LIMIT + 2 {
            queue.push(happened(&format!("p{index}"), "Started", ""));
        }
        assert_eq!(queue.dropped, 2);
        let left = queue.take(usize::MAX);
        assert_eq!(left.len(), QUEUE_LIMIT);
        assert_eq!(left[0].spec.as_ref().and_then(|spec| spec.regarding.as_ref()).map(|subject| subject.name.as_str()), Some("p2"));
        assert!(queue.events.is_empty());
    }
}
