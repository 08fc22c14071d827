use super::topic::Topic;
use crate::api::v1::event::Type;
use crate::api::{LabelView, Matcher, ObjectKey};
use crate::store::{Commit, Event, Stored, View};

/// An event of a commit, by its place there, and what it means to somebody: an object that begins to match is added to what he sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) index: u32,
    pub(super) kind: Type,
}

/// What a watch wants to see: objects that any of its matchers matches.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Filter(Box<[Matcher]>);

impl Filter {
    /// No matchers at all match everything.
    pub(super) fn new(mut matchers: Vec<Matcher>) -> Self {
        if matchers.is_empty() {
            matchers.push(Matcher::new(&Default::default(), "").expect("an empty selector is well-formed"));
        }
        Self(matchers.into())
    }

    pub(super) fn matchers(&self) -> &[Matcher] {
        &self.0
    }

    /// The topics to listen to, each once.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = self.0.iter().map(Topic::covering).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Whether so few objects can match that little happens to them.
    pub(super) fn is_narrow(&self) -> bool {
        self.0.iter().all(|matcher| Topic::covering(matcher).is_narrow())
    }

    /// Whether the watch shows this object.
    pub(super) fn shows(&self, stored: &Stored) -> bool {
        let mut view = None;
        let fits = |matcher: &Matcher| {
            matcher.matches_key(&stored.key)
                && (matcher.is_key_only() || matcher.matches_view(view.get_or_insert_with(|| View::of(&stored.bytes))))
        };
        self.0.iter().any(fits)
    }

    /// A commit's events as the watch sees them.
    pub(super) fn shown(&self, commit: &Commit) -> Vec<Shown> {
        let shown = |(index, event)| Some(Shown { index, kind: self.seen_as(event)? });
        (0..).zip(&commit.events).filter_map(shown).collect()
    }

    fn seen_as(&self, event: &Event) -> Option<Type> {
        let now = event.kind() != Type::Deleted && self.matches(event.key(), event.view());
        let before = event.view_before().is_some_and(|view| self.matches(event.key(), view));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(Type::Added),
            (true, true) => Some(Type::Modified),
            (true, false) => Some(Type::Deleted),
        }
    }

    fn matches(&self, key: &ObjectKey, view: &impl LabelView) -> bool {
        self.0.iter().any(|matcher| matcher.matches(key, view))
    }
}
