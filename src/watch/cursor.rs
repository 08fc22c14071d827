use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::channel::Missing;
use super::hub::{Subscription, ended};
use super::message::{Builder, Message};
use super::pages::Pages;
use super::{Known, Start};
use crate::api::Revision;
use crate::error::{Error, Result};

/// A watch: where somebody stands in the sequence of commits. One that nobody reads costs nothing but its place in its channel.
#[derive(Debug)]
pub struct Cursor {
    subscription: Subscription,
    /// Everything up to this revision has been sent.
    position: Revision,
    phase: Phase,
    /// When it has to say where it stands, if it has sent nothing until then.
    bookmark_at: Instant,
    /// Wakes it for that, or earlier: it is set anew when it has rung, and not whenever something is sent.
    alarm: Option<Pin<Box<Sleep>>>,
    _counted: Alive,
}

/// Where the next events come from.
#[derive(Debug)]
enum Phase {
    /// From a snapshot.
    Initial(Box<Pages>),
    /// From the history, until there is no more; then live.
    Replaying,
    /// From the channel.
    Live,
    /// From the history, for the last time: the store has closed.
    Ending,
}

/// A silent watch says where it stands when this time has passed, a second less than the API promises, …
const BOOKMARK_AFTER: Duration = Duration::from_secs(9);
/// … or up to this much earlier, so that those who were sent the same thing at once don't all speak at once.
const BOOKMARK_SPREAD: Duration = Duration::from_secs(2);
/// How soon it says where it stands when the store is in touch again with what it follows.
const OUT_OF_TOUCH: Duration = Duration::from_secs(1);
/// How many commits are read from the history at once.
const REPLAY_COMMITS: usize = 256;

impl Cursor {
    pub(super) fn new(subscription: Subscription, start: Start) -> Result<Self> {
        // It listens already, so that nothing falls between that and a look at the state.
        let feed = &subscription.topics.feed;
        let from_state = |known| {
            let pages = Pages::new(feed.snapshot(), subscription.channel.filter(), known);
            (Revision::ZERO, Phase::Initial(Box::new(pages)))
        };
        // Due at once: whoever watches from now on has to know from when, and whoever was away that nothing else has happened.
        let mut is_due = false;
        let (position, phase) = match start {
            Start::Now => {
                is_due = true;
                (feed.revision(), Phase::Live)
            }
            Start::Initial => from_state(Known::default()),
            Start::Difference { known, after: None } => from_state(known),
            Start::After(requested) | Start::Difference { after: Some(requested), .. } => {
                let current = feed.revision();
                if requested > current {
                    return Err(Error::Future { requested, current });
                }
                is_due = requested < current;
                match (feed.after(requested, 0), start) {
                    (Err(Error::Compacted { .. }), Start::Difference { known, .. }) => from_state(known),
                    (reaches, _) => {
                        reaches?;
                        let is_live = !is_due && subscription.channel.is_complete_after(requested);
                        (requested, if is_live { Phase::Live } else { Phase::Replaying })
                    }
                }
            }
        };
        let bookmark_at = if is_due { Instant::now() } else { next_bookmark() };
        Ok(Self { subscription, position, phase, bookmark_at, alarm: None, _counted: Alive::begin() })
    }

    /// What comes next: everything that is ready, or, at the latest after ten seconds, a bookmark. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Compacted when the watch was read so slowly that the history no longer reaches back to where it stands; Unavailable when the store
    /// has closed. Both stay so.
    pub async fn next(&mut self) -> Result<Message> {
        loop {
            let ready = match &self.phase {
                Phase::Initial(_) => self.page(),
                Phase::Replaying | Phase::Ending => self.replay()?,
                Phase::Live => self.take(),
            };
            if let Some(message) = ready {
                self.bookmark_at = next_bookmark();
                return Ok(message);
            }
            match self.phase {
                Phase::Live => self.wait().await,
                Phase::Initial(_) | Phase::Replaying | Phase::Ending => tokio::task::consume_budget().await,
            }
        }
    }

    fn page(&mut self) -> Option<Message> {
        let Phase::Initial(pages) = &mut self.phase else { return None };
        let page = pages.next(self.subscription.channel.filter(), &self.subscription.topics.under_way);
        if pages.is_complete() {
            self.position = pages.snapshot.revision();
            self.phase = Phase::Replaying;
            return Some(page.finish(self.position, true));
        }
        (page.events() > 0).then(|| page.finish(Revision::ZERO, false))
    }

    /// Takes from the history. `None` when nothing of it matched, or nothing is left.
    fn replay(&mut self) -> Result<Option<Message>> {
        let Subscription { topics, channel } = &self.subscription;
        let commits = topics.feed.after(self.position, REPLAY_COMMITS)?;
        if commits.is_empty() {
            if let Phase::Ending = self.phase {
                return Err(ended());
            }
            self.phase = Phase::Live;
        }
        let mut message = Builder::new(&topics.under_way, 0);
        for commit in commits {
            if !message.push_commit(&commit, &channel.filter().shown(&commit)) {
                break;
            }
            self.position = commit.revision;
        }
        Ok((message.events() > 0).then(|| message.finish(self.position, false)))
    }

    /// Takes what has come in. `None` when there is nothing, and it isn't time to say so.
    fn take(&mut self) -> Option<Message> {
        // Asked before looking: what comes in afterwards is not to be passed over.
        let published = self.subscription.topics.published();
        match self.subscription.channel.take(self.position) {
            Ok(message) => {
                self.position = message.revision;
                Some(message)
            }
            // A bookmark would say that all is well.
            Err(Missing::Nothing) if !self.subscription.topics.feed.is_current() => {
                self.bookmark_at = self.bookmark_at.max(Instant::now() + OUT_OF_TOUCH);
                None
            }
            Err(Missing::Nothing) if Instant::now() >= self.bookmark_at => {
                self.position = self.position.max(published);
                Some(Builder::new(&self.subscription.topics.under_way, 0).finish(self.position, false))
            }
            Err(Missing::Nothing) => None,
            Err(Missing::Lagged) => {
                metrics::counter!("bluebird_watch_lagged_total").increment(1);
                self.phase = Phase::Replaying;
                None
            }
            Err(Missing::Closed) => {
                self.phase = Phase::Ending;
                None
            }
        }
    }

    /// Returns when there may be something to take, or a bookmark is due.
    async fn wait(&mut self) {
        let Self { subscription, bookmark_at, alarm, .. } = self;
        let mut changed = pin!(subscription.channel.changed(self.position));
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*bookmark_at)));
        poll_fn(|context| {
            if changed.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            while alarm.as_mut().poll(context).is_ready() {
                if Instant::now() >= *bookmark_at {
                    return Poll::Ready(());
                }
                alarm.as_mut().reset(*bookmark_at);
            }
            Poll::Pending
        })
        .await;
    }
}

fn next_bookmark() -> Instant {
    Instant::now() + BOOKMARK_AFTER - BOOKMARK_SPREAD.mul_f32(fastrand::f32())
}

/// Counts a watch as long as it lives.
#[derive(Debug)]
struct Alive(());

impl Alive {
    fn begin() -> Self {
        metrics::gauge!("bluebird_watches").increment(1);
        Self(())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        metrics::gauge!("bluebird_watches").decrement(1);
    }
}
