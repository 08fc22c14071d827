use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::broadcast;

use super::cursor::Cursor;
use super::topic::Topic;
use super::{Start, filter};
use crate::api::{Matcher, Revision};
use crate::error::{Error, Result};
use crate::store::{Commit, Feed, Store};

/// Passes the store's commits on to those who watch. A handle; when the last one is dropped, or the store closes, its watches end.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Following>);

/// The thread that reads the feed. Its own, so that neither the committer nor the runtime's workers wait while it wakes thousands.
#[derive(Debug)]
struct Following {
    topics: Arc<Topics>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Who listens to what.
#[derive(Debug)]
pub(super) struct Topics {
    pub(super) feed: Feed,
    /// Every commit up to this revision is in the channels of its topics.
    published: AtomicU64,
    /// `None` when there will be no more commits.
    senders: Mutex<Option<HashMap<Topic, broadcast::Sender<Arc<Commit>>>>>,
}

/// How many commits wait in a topic for a listener before it has to read the history.
const CAPACITY: usize = 64;
/// The same for a topic of few objects, of which there may be as many as watches.
const NARROW_CAPACITY: usize = 8;
/// How many commits the hub takes at once.
const COMMITS_AT_ONCE: usize = 256;

impl Hub {
    /// Follows a store.
    pub fn new(store: &Store) -> Self {
        let feed = store.feed().clone();
        let published = AtomicU64::new(feed.revision().0);
        let topics = Arc::new(Topics { feed, published, senders: Mutex::new(Some(HashMap::new())) });
        let stopping = Arc::new(AtomicBool::new(false));
        let (publisher, stop) = (Arc::clone(&topics), Arc::clone(&stopping));
        let thread = std::thread::Builder::new().name("bluebird-hub".to_owned()).spawn(move || publisher.run(&stop));
        if let Err(error) = &thread {
            tracing::error!(%error, "can't start the hub; every watch will be refused");
            topics.end();
        }
        Self(Arc::new(Following { topics, stopping, thread: thread.ok() }))
    }

    /// Watches objects that any of these matches; none at all means every object.
    ///
    /// # Errors
    /// Compacted or Future for a revision that can't be resumed from; Unavailable when the store is closed.
    pub fn watch(&self, matchers: Vec<Matcher>, start: Start) -> Result<Cursor> {
        Cursor::new(&self.0.topics, filter::Filter::new(matchers), start)
    }
}

/// What tests may look at.
#[cfg(test)]
impl Hub {
    /// How many topics somebody listens to.
    pub(super) fn topics(&self) -> usize {
        self.0.topics.senders.lock().expect(UNPOISONED).as_ref().map_or(0, HashMap::len)
    }

    /// Returns when all commits up to a revision are in the channels. Keeps the runtime busy, so that paused time stands still.
    pub(super) async fn settle(&self, revision: Revision) {
        while self.0.topics.published() < revision {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when the hub has noticed that the store is closed.
    pub(super) async fn ended(&self) {
        while self.0.topics.senders.lock().expect(UNPOISONED).is_some() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the hub had panicked");
            }
        }
    }
}

impl Topics {
    fn run(&self, stopping: &AtomicBool) {
        let _ends = EndsTopics(self);
        let this = std::thread::current();
        self.feed.follow(this.clone());
        let mut position = Revision(self.published.load(Ordering::Acquire));
        let mut touched = Vec::new();
        while !stopping.load(Ordering::Acquire) {
            // Asked before reading, so that the last commits aren't missed.
            let last = self.feed.is_closed();
            match self.feed.after(position, COMMITS_AT_ONCE) {
                Ok(commits) if commits.is_empty() && last => break,
                Ok(commits) if commits.is_empty() => std::thread::park(),
                Ok(commits) => {
                    for commit in commits {
                        position = commit.revision;
                        self.publish(commit, &mut touched);
                    }
                }
                Err(_) => position = self.skip(),
            }
        }
        self.feed.unfollow(&this);
    }

    fn publish(&self, commit: Arc<Commit>, touched: &mut Vec<Topic>) {
        Topic::touched_by(&commit, touched);
        let listening: Vec<_> = {
            let senders = self.senders.lock().expect(UNPOISONED);
            touched.iter().filter_map(|topic| senders.as_ref()?.get(topic).cloned()).collect()
        };
        // Outside of the lock, as it wakes everybody who listens.
        for sender in listening {
            // It fails when the last listener has just gone.
            let _ = sender.send(Arc::clone(&commit));
        }
        self.published.store(commit.revision.0, Ordering::Release);
    }

    /// The history has overtaken us: everybody has to see for themselves what they missed.
    fn skip(&self) -> Revision {
        let revision = self.feed.revision();
        // Closes the channels first: a listener who sees the new revision must find its channel closed.
        if let Some(senders) = self.senders.lock().expect(UNPOISONED).as_mut() {
            senders.clear();
        }
        self.published.store(revision.0, Ordering::Release);
        revision
    }

    fn end(&self) {
        self.senders.lock().expect(UNPOISONED).take();
    }

    /// Every commit up to this revision is in the channels of its topics.
    pub(super) fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// Listens to a topic from now on.
    pub(super) fn subscribe(self: &Arc<Self>, topic: Topic) -> Result<Subscription> {
        let mut senders = self.senders.lock().expect(UNPOISONED);
        let senders = senders.as_mut().ok_or_else(ended)?;
        let capacity = if topic.is_narrow() { NARROW_CAPACITY } else { CAPACITY };
        let receiver = senders.entry(topic).or_insert_with(|| broadcast::Sender::new(capacity)).subscribe();
        Ok(Subscription { receiver: Some(receiver), topic, topics: Arc::clone(self) })
    }
}

/// Ends all watches, however the hub ends.
struct EndsTopics<'a>(&'a Topics);

impl Drop for EndsTopics<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

const UNPOISONED: &str = "nothing panics while holding it";

/// What a watch of a closed store answers.
pub(super) fn ended() -> Error {
    Error::Unavailable("the apiserver is shutting down; resume the watch with another one, or with this one when it is back".to_owned())
}

/// A place among those who listen to a topic. A topic without listeners is forgotten.
#[derive(Debug)]
pub(super) struct Subscription {
    receiver: Option<broadcast::Receiver<Arc<Commit>>>,
    topic: Topic,
    topics: Arc<Topics>,
}

impl Subscription {
    pub(super) fn receiver(&mut self) -> &mut broadcast::Receiver<Arc<Commit>> {
        self.receiver.as_mut().expect("only dropping takes it")
    }

    #[cfg(test)]
    pub(super) fn topic(&self) -> Topic {
        self.topic
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut senders = self.topics.senders.lock().expect(UNPOISONED);
        // Under the lock, so that of two who leave at once one sees that it is the last.
        drop(self.receiver.take());
        if let Some(senders) = senders.as_mut()
            && senders.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 0)
        {
            senders.remove(&self.topic);
        }
    }
}
