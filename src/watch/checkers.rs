//! The seven guarantees of a watch, as functions over what watches were seen to send. Any test that watches can record and end with
//! [`Recorded::check`]: it takes the messages as a client sees them, from inside or from outside of the process.

mod model;
mod rules;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use model::Reference;

use super::Start;
use crate::api::v1::{Selector, WatchResponse};
use crate::api::{Matcher, ObjectKey, Revision};

/// What a run left behind.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// What really happened.
    pub reference: Reference,
    /// What the watches sent.
    pub watches: Vec<Watched>,
}

/// One watch over all its resumes.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// For the report.
    pub name: String,
    /// What it watched; empty: everything.
    pub selectors: Vec<Selector>,
    /// Its streams, one after the other.
    pub streams: Vec<Stream>,
}

/// One stream of a watch.
#[derive(Clone, Debug)]
pub struct Stream {
    /// How it was asked for.
    pub start: Start,
    /// What it sent, until it ended or nobody looked any more.
    pub messages: Vec<Seen>,
}

/// A message and when it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since any one point in time.
    pub at: Duration,
    /// The message.
    pub message: WatchResponse,
}

/// A guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "proto/bluebird/v1/watch.proto says what they mean")]
pub enum Guarantee {
    Filtered,
    Ordered,
    Unique,
    Atomic,
    Reliable,
    Resumable,
    Bookmarkable,
}

/// A guarantee that wasn't kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub guarantee: Guarantee,
    /// By the watch of this name.
    pub watch: String,
    /// What happened instead.
    pub fault: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watch {:?} is not {:?}: {}", self.watch, self.guarantee, self.fault)
    }
}

impl Recorded {
    /// Checks every watch for every guarantee. `silence` is how long a watch may send nothing.
    pub fn check(&self, silence: Duration) -> Vec<Broken> {
        let mut broken = Vec::new();
        for watch in &self.watches {
            let checks = [
                (Guarantee::Filtered, rules::filtered(&self.reference, watch)),
                (Guarantee::Ordered, rules::ordered(watch)),
                (Guarantee::Unique, rules::unique(watch)),
                (Guarantee::Atomic, rules::atomic(watch)),
                (Guarantee::Reliable, rules::reliable(&self.reference, watch)),
                (Guarantee::Resumable, rules::resumable(&self.reference, watch)),
                (Guarantee::Bookmarkable, rules::bookmarkable(watch, silence)),
            ];
            let faults = checks.into_iter().filter_map(|(guarantee, check)| check.err().map(|fault| (guarantee, fault)));
            broken.extend(faults.map(|(guarantee, fault)| Broken { guarantee, watch: watch.name.clone(), fault }));
        }
        broken
    }

    /// Panics with everything that was broken.
    pub fn assert_kept(&self, silence: Duration) {
        let broken: Vec<_> = self.check(silence).iter().map(Broken::to_string).collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}

impl Watched {
    fn matchers(&self) -> Vec<Matcher> {
        let everything = [Selector::default()];
        let selectors = if self.selectors.is_empty() { &everything[..] } else { &self.selectors };
        selectors.iter().map(|selector| Matcher::new(selector, "selector").expect("the server took it")).collect()
    }
}

impl Stream {
    /// The revision up to which everything had been sent when the stream ended; its start, if it sent nothing.
    pub fn last_revision(&self) -> Revision {
        let sent = self.messages.iter().map(|seen| Revision(seen.message.revision)).max().unwrap_or_default();
        self.resumed_from().map_or(sent, |resumed| sent.max(resumed))
    }

    /// After which revision it went on with the changes, without looking at the state.
    fn resumed_from(&self) -> Option<Revision> {
        match self.start {
            Start::After(revision) => Some(revision),
            Start::Difference { after, .. } if !self.is_difference() => after,
            Start::Difference { .. } | Start::Initial | Start::Now => None,
        }
    }

    /// Whether it began with the initial state, or the difference to it.
    fn is_initial(&self) -> bool {
        matches!(self.start, Start::Initial) || self.is_difference()
    }

    fn is_difference(&self) -> bool {
        let says_so = self.messages.first().is_some_and(|seen| seen.message.synced || seen.message.revision == 0);
        matches!(&self.start, Start::Difference { after, .. } if after.is_none() || says_so)
    }

    /// What was known of the state that it began with.
    fn known(&self) -> BTreeMap<&ObjectKey, Revision> {
        match &self.start {
            Start::Difference { known, .. } => known.iter().map(|(key, revision)| (key, *revision)).collect(),
            Start::Now | Start::After(_) | Start::Initial => BTreeMap::new(),
        }
    }

    /// After which revision its changes begin; `None` if it ended before it said.
    fn begins_after(&self) -> Option<Revision> {
        if let Some(resumed) = self.resumed_from() {
            return Some(resumed);
        }
        if self.is_initial() {
            let completed = self.messages.iter().find(|seen| seen.message.synced);
            return completed.map(|seen| Revision(seen.message.revision));
        }
        // Whatever came before its first event or bookmark is not known to be missing.
        self.messages.first().map(|seen| {
            let events = seen.message.events.iter().map(|event| model::revision_of(event).0.saturating_sub(1));
            Revision(events.min().unwrap_or(seen.message.revision))
        })
    }

    /// The messages of the initial state, and those of the changes after it.
    fn parts(&self) -> (&[Seen], &[Seen]) {
        let initial = match self.is_initial() {
            true => self.messages.iter().position(|seen| seen.message.synced).map_or(self.messages.len(), |synced| synced + 1),
            false => 0,
        };
        self.messages.split_at(initial)
    }
}
