use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::Start;
use super::channel::Channel;
use super::cursor::Cursor;
use super::filter::Filter;
use super::message::UnderWay;
use super::pace::Pace;
use super::topic::Topic;
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
    pub(super) under_way: UnderWay,
    pace: Arc<Pace>,
    /// Every commit up to this revision is in the channels that it concerns.
    published: AtomicU64,
    /// Everybody whom a commit up to this revision concerns was woken, or wasn't waiting. Only tests wait for that.
    #[cfg(test)]
    told: AtomicU64,
    /// `None` when there will be no more commits.
    channels: Mutex<Option<Channels>>,
}

/// Every channel by what it is asked for.
#[derive(Debug, Default)]
struct Channels {
    by_filter: HashMap<Arc<Filter>, Arc<Channel>>,
    by_topic: HashMap<Topic, Vec<Arc<Channel>>>,
    /// The commits up to this one have been looked at for whom they concern.
    looked_at: Revision,
}

/// How many commits the hub takes at once.
const COMMITS_AT_ONCE: usize = 256;
/// After how many commits the channels let go of what the history no longer has, …
const COMMITS_BETWEEN_SWEEPS: usize = 1024;
/// … or after so many bytes of them, which is how much the channels can keep besides the history, all together.
const BYTES_BETWEEN_SWEEPS: usize = 16 * 1024 * 1024;

impl Hub {
    /// Follows a store.
    pub fn new(store: &Store) -> Self {
        let topics = Arc::new(Topics::new(store.feed().clone()));
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
        Cursor::new(self.0.topics.subscribe(Filter::new(matchers))?, start)
    }
}

/// What tests may look at.
#[cfg(test)]
impl Hub {
    /// How many filters somebody watches with, and how many topics these listen to.
    pub(super) fn counts(&self) -> (usize, usize) {
        let channels = self.0.topics.lock();
        channels.as_ref().map_or((0, 0), |channels| (channels.by_filter.len(), channels.by_topic.len()))
    }

    /// The commits that each of the channels keeps.
    pub(super) fn kept(&self) -> Vec<Arc<Commit>> {
        let channels = self.0.topics.lock();
        channels.iter().flat_map(|channels| channels.by_filter.values()).flat_map(|channel| channel.kept()).collect()
    }

    /// How many bytes were put together and are not sent.
    pub(super) fn under_way(&self) -> usize {
        self.0.topics.under_way.bytes()
    }

    /// Returns when all commits up to a revision are in the channels, and those who waited for them have been woken. Keeps the runtime busy, so that
    /// paused time stands still.
    pub(super) async fn settle(&self, revision: Revision) {
        while self.0.topics.told.load(Ordering::Acquire) < revision.0 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when the hub has noticed that the store is closed.
    pub(super) async fn ended(&self) {
        while self.0.topics.lock().is_some() {
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
    fn new(feed: Feed) -> Self {
        let revision = feed.revision();
        let channels = Channels { looked_at: revision, ..Channels::default() };
        Self {
            feed,
            under_way: UnderWay::default(),
            pace: Arc::default(),
            published: AtomicU64::new(revision.0),
            #[cfg(test)]
            told: AtomicU64::new(revision.0),
            channels: Mutex::new(Some(channels)),
        }
    }

    fn run(&self, stopping: &AtomicBool) {
        let _ends = EndsTopics(self);
        let this = std::thread::current();
        self.pace.set_hub(this.clone());
        self.feed.follow(this.clone());
        let mut round = Round { position: self.published(), ..Round::default() };
        while !stopping.load(Ordering::Acquire) {
            // Asked before reading, so that the last commits aren't missed.
            let last = self.feed.is_closed();
            let has_news = self.take_in(&mut round);
            self.sweep(&mut round);
            self.call(&mut round);
            match (has_news, round.is_full, round.resting_until()) {
                (true, ..) => {}
                (false, true, _) => self.pace.wait(),
                (false, false, Some(until)) => std::thread::park_timeout(until.saturating_duration_since(Instant::now())),
                (false, false, None) if last => break,
                (false, false, None) => std::thread::park(),
            }
        }
        self.feed.unfollow(&this);
    }

    /// Takes commits from the feed. Returns whether there were any.
    fn take_in(&self, round: &mut Round) -> bool {
        let Ok(commits) = self.feed.after(round.position, COMMITS_AT_ONCE) else {
            self.skip(round);
            return true;
        };
        for commit in &commits {
            self.publish(commit, round);
        }
        !commits.is_empty()
    }

    fn publish(&self, commit: &Arc<Commit>, round: &mut Round) {
        Topic::touched_by(commit, &mut round.touched);
        if let Some(channels) = self.lock().as_mut() {
            let listening = round.touched.iter().filter_map(|topic| channels.by_topic.get(topic)).flatten();
            round.listening.extend(listening.cloned());
            channels.looked_at = commit.revision;
        }
        round.since_sweep.commits += 1;
        round.since_sweep.bytes += commit.bytes();
        // Outside of the lock, since this is where the work is.
        round.resting.extend(round.listening.drain(..).filter(|channel| channel.push(commit)));
        round.position = commit.revision;
        self.published.store(commit.revision.0, Ordering::Release);
    }

    /// Makes the channels let go of what the history no longer has, when that may be much, or it has become too old.
    fn sweep(&self, round: &mut Round) {
        let expirations = self.feed.expirations();
        let SinceSweep { commits, bytes, expirations: before } = round.since_sweep;
        if commits < COMMITS_BETWEEN_SWEEPS && bytes < BYTES_BETWEEN_SWEEPS && expirations == before {
            return;
        }
        round.since_sweep = SinceSweep { expirations, ..SinceSweep::default() };
        if let Some(channels) = self.lock().as_ref() {
            let oldest = self.feed.oldest();
            channels.by_filter.values().for_each(|channel| channel.forget_up_to(oldest));
        }
    }

    /// Wakes those who wait for what has come in, as many as may be at once, one channel after the other.
    fn call(&self, round: &mut Round) {
        let now = Instant::now();
        let ready = round.resting.extract_if(.., |channel| channel.begin_round(now));
        round.calling.extend(ready.map(|channel| (channel, None)));
        round.is_full = false;
        while let Some((channel, begun)) = round.calling.pop_front() {
            let room = self.pace.room();
            if room == 0 {
                // It has its turn as soon as there is room.
                round.calling.push_front((channel, begun));
                round.is_full = true;
                return;
            }
            let begun = begun.unwrap_or_else(Instant::now);
            let has_more = channel.call(room, &mut round.woken);
            self.pace.called(round.woken.len());
            round.woken.drain(..).for_each(Waker::wake);
            if has_more {
                round.calling.push_back((channel, Some(begun)));
            } else if channel.end_round(rest_after(begun)) {
                round.resting.push(channel);
            }
        }
        #[cfg(test)]
        if round.resting.is_empty() {
            self.told.store(round.position.0, Ordering::Release);
        }
    }

    /// The history has overtaken us: everybody has to see for themselves what they missed.
    fn skip(&self, round: &mut Round) {
        round.position = self.feed.revision();
        if let Some(channels) = self.lock().as_mut() {
            channels.looked_at = round.position;
            channels.by_filter.values().for_each(|channel| channel.skip_to(round.position));
            round.resting = channels.by_filter.values().cloned().collect();
            round.calling.clear();
        }
        self.published.store(round.position.0, Ordering::Release);
    }

    fn end(&self) {
        let channels = self.lock().take().unwrap_or_default();
        let mut woken = Vec::new();
        for channel in channels.by_filter.into_values() {
            channel.close();
            channel.call(usize::MAX, &mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Every commit up to this revision is in the channels that it concerns.
    pub(super) fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// Listens to what a filter shows from now on.
    fn subscribe(self: &Arc<Self>, filter: Filter) -> Result<Subscription> {
        let mut channels = self.lock();
        let channels = channels.as_mut().ok_or_else(ended)?;
        let channel = match channels.by_filter.get(&filter) {
            Some(channel) => Arc::clone(channel),
            None => {
                let channel = Arc::new(Channel::new(filter, channels.looked_at, &self.pace, &self.under_way));
                channels.add(&channel);
                channel
            }
        };
        channel.join();
        Ok(Subscription { channel, topics: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Channels>> {
        self.channels.lock().expect("nothing panics while holding it")
    }
}

/// What the hub has before it.
#[derive(Default)]
struct Round {
    /// The last commit that was taken in.
    position: Revision,
    /// Channels with somebody to wake, who have to wait until that channel has rested.
    resting: Vec<Arc<Channel>>,
    /// Channels in a round, and since when they are called; a channel that waits for its first turn is not yet.
    calling: VecDeque<(Arc<Channel>, Option<Instant>)>,
    /// No more may be woken for now.
    is_full: bool,
    since_sweep: SinceSweep,
    // Kept for their memory.
    touched: Vec<Topic>,
    listening: Vec<Arc<Channel>>,
    woken: Vec<Waker>,
}

/// What came since the channels were swept.
#[derive(Default)]
struct SinceSweep {
    commits: usize,
    bytes: usize,
    /// How often the history had let go of something for its age.
    expirations: u64,
}

/// A round that takes at least so long is followed by a rest of the same length, …
const LONG: Duration = Duration::from_millis(1);
/// … but no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// When a channel with many watches may wake them again. If they were woken for every commit, they and those who write would get nothing else done;
/// this way they take what has come in meanwhile all at once.
fn rest_after(begun: Instant) -> Option<Instant> {
    let now = Instant::now();
    let took = now - begun;
    (took >= LONG).then(|| now + took.min(LONGEST_REST))
}

impl Round {
    /// When the first of the channels that rest has rested.
    fn resting_until(&self) -> Option<Instant> {
        let now = Instant::now();
        self.resting.iter().map(|channel| channel.rests_until().unwrap_or(now)).min()
    }
}

impl Channels {
    fn add(&mut self, channel: &Arc<Channel>) {
        for topic in channel.filter().topics() {
            self.by_topic.entry(topic).or_default().push(Arc::clone(channel));
        }
        self.by_filter.insert(Arc::clone(channel.filter()), Arc::clone(channel));
    }

    fn remove(&mut self, channel: &Arc<Channel>) {
        for topic in channel.filter().topics() {
            if let Entry::Occupied(mut listening) = self.by_topic.entry(topic) {
                listening.get_mut().retain(|listener| !Arc::ptr_eq(listener, channel));
                if listening.get().is_empty() {
                    listening.remove();
                }
            }
        }
        self.by_filter.remove(channel.filter());
    }
}

/// Ends all watches, however the hub ends.
struct EndsTopics<'a>(&'a Topics);

impl Drop for EndsTopics<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a watch of a closed store answers.
pub(super) fn ended() -> Error {
    Error::Unavailable("the apiserver is shutting down; resume the watch with another one, or with this one when it is back".to_owned())
}

/// A place among those who listen to a channel. A channel without listeners is forgotten.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: Arc<Channel>,
    pub(super) topics: Arc<Topics>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Under this lock, so that nobody joins a channel that is about to be forgotten.
        let mut channels = self.topics.lock();
        if self.channel.leave()
            && let Some(channels) = channels.as_mut()
        {
            channels.remove(&self.channel);
        }
    }
}

#[cfg(test)]
mod tests;
