//! A watch, read when a test wants it, and everything that it was sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bluebird::api::v1::event::Type;
use bluebird::api::v1::{KnownObject, Selector, WatchRequest, WatchResponse};
use bluebird::api::{ObjectKey, Revision};
use bluebird::client::{Client, Incoming};
use bluebird::error::Error;
use bluebird::watch::checkers::{Recorded, Reference, Seen, Stream, Watched};
use bluebird::watch::{Known, Start};

/// How long anything may take that should take a moment.
const DEADLINE: Duration = Duration::from_secs(60);

/// A watch over all its streams, and what its reader has.
pub(crate) struct Recorder {
    begun: Instant,
    watched: Watched,
    held: BTreeMap<ObjectKey, Revision>,
    stream: Option<Incoming<WatchResponse>>,
}

impl Recorder {
    /// What really happens.
    pub(crate) fn of_everything() -> Recorder {
        Self::new("everything", Vec::new())
    }

    /// The objects of the tests.
    pub(crate) fn of_leases(name: &str) -> Recorder {
        Self::new(name, vec![Selector { kind: "Lease".into(), namespace: "default".into(), ..Default::default() }])
    }

    fn new(name: &str, selectors: Vec<Selector>) -> Recorder {
        let watched = Watched { name: name.to_owned(), selectors, streams: Vec::new() };
        Recorder { begun: Instant::now(), watched, held: BTreeMap::new(), stream: None }
    }

    /// Begins a stream, as soon as an apiserver answers.
    pub(crate) async fn open(&mut self, client: &Client, start: Start) {
        let opening = async {
            loop {
                match client.watch(request(&self.watched.selectors, &start)).await {
                    Ok(stream) => return stream,
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{start:?}: {error}"),
                }
            }
        };
        self.stream = Some(tokio::time::timeout(DEADLINE, opening).await.expect("an apiserver answers in time"));
        if let Start::Initial = start {
            self.held.clear();
        }
        self.watched.streams.push(Stream { start, messages: Vec::new() });
    }

    /// Goes on where it was.
    pub(crate) async fn resume(&mut self, client: &Client) {
        self.open(client, Start::After(self.last_revision())).await;
    }

    /// Goes on where it was, telling what it has in case that the history is gone, as a cache does.
    pub(crate) async fn heal(&mut self, client: &Client) {
        let known = Known::new(self.held.iter().map(|(key, revision)| (key.clone(), *revision)).collect()).expect("a map's keys");
        let after = Some(self.last_revision()).filter(|last| *last > Revision::ZERO);
        self.open(client, Start::Difference { known, after }).await;
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, Error> {
        let stream = self.stream.as_mut().expect("it was opened");
        let message = stream.next_within(DEADLINE).await?.expect("a watch ends with a reason");
        for event in &message.events {
            let object = event.object.as_ref().expect("an event has an object");
            let (key, revision) = (object.key().expect("an object has a kind"), Revision(object.meta().resource_version));
            match event.r#type() {
                Type::Deleted => drop(self.held.remove(&key)),
                _ => drop(self.held.insert(key, revision)),
            }
        }
        let seen = Seen { at: self.begun.elapsed(), message: message.clone() };
        self.watched.streams.last_mut().expect("it was opened").messages.push(seen);
        Ok(message)
    }

    /// Reads until it was sent everything up to a revision.
    pub(crate) async fn up_to(&mut self, revision: Revision) -> Result<(), Error> {
        while self.last_revision() < revision {
            self.next().await?;
        }
        Ok(())
    }

    /// Everything up to this revision was sent.
    pub(crate) fn last_revision(&self) -> Revision {
        self.watched.streams.last().map_or(Revision::ZERO, Stream::last_revision)
    }

    /// Whether the last stream has completed the initial state.
    pub(crate) fn is_synced(&self) -> bool {
        self.watched.streams.last().is_some_and(|stream| stream.messages.iter().any(|seen| seen.message.synced))
    }

    /// How many events the last stream has sent.
    pub(crate) fn received_of_last(&self) -> usize {
        self.watched.streams.last().map_or(0, |stream| stream.messages.iter().map(|seen| seen.message.events.len()).sum())
    }

    /// How many streams it took.
    pub(crate) fn streams(&self) -> usize {
        self.watched.streams.len()
    }

    /// Panics if one of these watches broke a guarantee, taking this one for the truth.
    pub(crate) fn check<const N: usize>(&self, watches: [Recorder; N]) {
        let messages = self.watched.streams.iter().flat_map(|stream| &stream.messages).map(|seen| &seen.message);
        let watches = watches.into_iter().map(|recorder| recorder.watched).collect();
        Recorded { reference: Reference::from_watch(messages), watches }.assert_kept(DEADLINE);
    }
}

fn request(selectors: &[Selector], start: &Start) -> WatchRequest {
    let request = WatchRequest { selectors: selectors.to_vec(), ..Default::default() };
    match start {
        Start::Now => request,
        Start::Initial => WatchRequest { send_initial: true, ..request },
        Start::After(revision) => WatchRequest { from_revision: revision.0, ..request },
        Start::Difference { known, after } => {
            let known = known.iter().map(|(key, revision)| KnownObject { r#ref: Some(key.to_ref()), resource_version: revision.0 });
            WatchRequest {
                from_revision: after.map_or(0, |after| after.0),
                send_initial: after.is_none(),
                known: known.collect(),
                ..request
            }
        }
    }
}
