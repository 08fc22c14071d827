use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::filter::{Filter, Shown};
use super::message::{Builder, Message, UnderWay, bytes_of};
use super::pace::Pace;
use crate::api::Revision;
use crate::store::Commit;

/// What all watches with the same filter share: the last commits that concern them, looked at once for all, and the messages made of these.
#[derive(Debug)]
pub(super) struct Channel {
    filter: Arc<Filter>,
    pace: Arc<Pace>,
    under_way: UnderWay,
    /// The last commit that was looked at. Only the hub's thread asks, and says.
    looked_at: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Commits with something in them that the filter shows, the oldest first.
    entries: VecDeque<Entry>,
    /// Whatever the filter shows after this revision is in the entries.
    complete_after: Revision,
    /// Messages from some revision up to the newest entry.
    messages: Vec<(Revision, Message)>,
    /// How many watches there are.
    watches: usize,
    /// Those who have everything and wait for more, by ticket: whoever waits for longest comes first.
    waiting: BTreeMap<u64, Waker>,
    next_ticket: u64,
    /// Those with tickets below this one are woken in this round.
    called_below: u64,
    /// Something came in since the round began, and somebody waits for it: there will be another round.
    has_news: bool,
    /// The hub knows that there is somebody to wake.
    is_calling: bool,
    /// When the next round may begin.
    rests_until: Option<Instant>,
    /// There will be no more commits.
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    /// The one of the history, so that it costs next to nothing however many channels keep it.
    commit: Arc<Commit>,
    shown: Box<[Shown]>,
}

/// What a channel can't give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is nothing new, but there may be.
    Nothing,
    /// Something between was let go of; the history may have it.
    Lagged,
    /// There is nothing new, and there won't be.
    Closed,
}

/// How many commits are kept for a watch that is behind, before it has to read the history.
const KEPT: usize = 256;
/// The same for a filter that few objects can match, of which there may be as many as watches.
const KEPT_IF_NARROW: usize = 16;

impl Channel {
    /// For a filter, complete after a revision.
    pub(super) fn new(filter: Filter, complete_after: Revision, pace: &Arc<Pace>, under_way: &UnderWay) -> Self {
        let inner = Inner {
            entries: VecDeque::new(),
            complete_after,
            messages: Vec::new(),
            watches: 0,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            called_below: 0,
            has_news: false,
            is_calling: false,
            rests_until: None,
            is_closed: false,
        };
        Self {
            filter: Arc::new(filter),
            pace: Arc::clone(pace),
            under_way: under_way.clone(),
            looked_at: AtomicU64::new(complete_after.0),
            inner: Mutex::new(inner),
        }
    }

    pub(super) fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// Takes in a commit, unless it has it. Returns whether there is somebody to wake whom the hub doesn't know of.
    pub(super) fn push(&self, commit: &Arc<Commit>) -> bool {
        // A channel of several topics is told of a commit for each of them.
        if self.looked_at.swap(commit.revision.0, Ordering::Relaxed) >= commit.revision.0 {
            return false;
        }
        let shown = self.filter.shown(commit);
        if shown.is_empty() {
            return false;
        }
        let mut inner = self.lock();
        inner.messages.clear();
        inner.entries.push_back(Entry { commit: Arc::clone(commit), shown: shown.into() });
        let kept = if self.filter.is_narrow() { KEPT_IF_NARROW } else { KEPT };
        if inner.entries.len() > kept {
            inner.drop_oldest();
        }
        inner.has_news = !inner.waiting.is_empty();
        inner.has_news && !std::mem::replace(&mut inner.is_calling, true)
    }

    /// What comes after a revision, as far as one message can take it.
    pub(super) fn take(&self, after: Revision) -> Result<Message, Missing> {
        let mut inner = self.lock();
        if after < inner.complete_after {
            return Err(Missing::Lagged);
        }
        if let Some((_, message)) = inner.messages.iter().find(|(from, _)| *from == after) {
            return Ok(message.clone());
        }
        let first = inner.entries.partition_point(|entry| entry.revision() <= after);
        if first == inner.entries.len() {
            return Err(if inner.is_closed { Missing::Closed } else { Missing::Nothing });
        }
        let room = inner.entries.range(first..).map(|entry| bytes_of(&entry.commit, &entry.shown)).sum();
        let (mut builder, mut up_to) = (Builder::new(&self.under_way, room), after);
        for entry in inner.entries.range(first..) {
            if !builder.push_commit(&entry.commit, &entry.shown) {
                break;
            }
            up_to = entry.revision();
        }
        let message = builder.finish(up_to, false);
        if inner.entries.back().is_some_and(|newest| newest.revision() == message.revision) {
            inner.messages.push((after, message.clone()));
        }
        Ok(message)
    }

    /// Whether everything that comes after a revision can be had here.
    pub(super) fn is_complete_after(&self, revision: Revision) -> bool {
        revision >= self.lock().complete_after
    }

    /// Ready when [`Channel::take`] has something else to say than that there is nothing after this revision.
    pub(super) fn changed(&self, after: Revision) -> Changed<'_> {
        Changed { channel: self, after, ticket: None }
    }

    /// Begins a round: everybody who waits now is to be woken. Returns false if it is too early.
    pub(super) fn begin_round(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        if inner.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        inner.rests_until = None;
        inner.called_below = inner.next_ticket;
        inner.has_news = false;
        true
    }

    /// When the next round may begin, if it isn't now.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.lock().rests_until
    }

    /// Takes out up to so many of those who are to be woken in this round. Returns whether there may be more.
    pub(super) fn call(&self, most: usize, called: &mut Vec<Waker>) -> bool {
        let mut inner = self.lock();
        let below = inner.called_below;
        for _ in 0..most {
            match inner.waiting.first_entry() {
                Some(first) if *first.key() < below => called.push(first.remove()),
                _ => return false,
            }
        }
        true
    }

    /// Ends a round. Returns whether there is to be another one, not before `rests_until` if that is given.
    pub(super) fn end_round(&self, rests_until: Option<Instant>) -> bool {
        let mut inner = self.lock();
        inner.rests_until = rests_until;
        inner.is_calling = inner.has_news;
        inner.is_calling
    }

    /// Lets go of everything up to a revision, of which not everything has come in. Everybody is to be woken.
    pub(super) fn skip_to(&self, revision: Revision) {
        self.looked_at.store(revision.0, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.entries.clear();
        inner.messages.clear();
        inner.complete_after = revision;
        inner.has_news = !inner.waiting.is_empty();
        inner.is_calling = true;
    }

    /// Lets go of what the history no longer has.
    pub(super) fn forget_up_to(&self, oldest: Revision) {
        let mut inner = self.lock();
        while inner.entries.front().is_some_and(|entry| entry.revision() <= oldest) {
            inner.drop_oldest();
        }
    }

    /// Nothing comes any more. Everybody is to be woken.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.called_below = inner.next_ticket;
    }

    /// Counts a watch.
    pub(super) fn join(&self) {
        self.lock().watches += 1;
    }

    /// Returns whether that was the last watch.
    pub(super) fn leave(&self) -> bool {
        let mut inner = self.lock();
        inner.watches -= 1;
        inner.watches == 0
    }

    /// The commits that are kept for those who are behind.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<Arc<Commit>> {
        self.lock().entries.iter().map(|entry| Arc::clone(&entry.commit)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while holding it")
    }
}

impl Entry {
    fn revision(&self) -> Revision {
        self.commit.revision
    }
}

impl Inner {
    fn newest(&self) -> Revision {
        self.entries.back().map_or(self.complete_after, Entry::revision)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.complete_after = oldest.revision();
        }
    }

    /// Whether every watch waits, and none of them is to be woken: then all of them have everything.
    fn is_idle(&self) -> bool {
        let longest = self.waiting.first_key_value().map(|(ticket, _)| *ticket);
        self.waiting.len() == self.watches && !self.has_news && longest.is_none_or(|ticket| ticket >= self.called_below)
    }

    /// Gives back the memory of what everybody has: most channels are idle most of the time.
    fn rest(&mut self) {
        self.complete_after = self.newest();
        self.entries = VecDeque::new();
        self.messages = Vec::new();
    }
}

/// A wait for something new.
pub(super) struct Changed<'a> {
    channel: &'a Channel,
    after: Revision,
    ticket: Option<u64>,
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.channel.lock();
        if let Some(ticket) = self.ticket.take()
            && inner.waiting.remove(&ticket).is_none()
        {
            self.channel.pace.heard();
        }
        if inner.is_closed || self.after < inner.complete_after || self.after < inner.newest() {
            return Poll::Ready(());
        }
        let ticket = inner.next_ticket;
        inner.next_ticket += 1;
        inner.waiting.insert(ticket, context.waker().clone());
        if inner.is_idle() {
            inner.rest();
        }
        drop(inner);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket
            && self.channel.lock().waiting.remove(&ticket).is_none()
        {
            self.channel.pace.heard();
        }
    }
}
