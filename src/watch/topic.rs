use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};

use crate::api::{Kind, LabelView as _, Matcher, ObjectKey};
use crate::store::Commit;

/// What a commit may be about, as a hash. Should two topics collide, somebody is woken in vain, and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Topic {
    hash: u64,
    narrow: bool,
}

#[derive(Hash)]
enum About<'a> {
    Everything,
    Kind(Kind),
    Namespace(Kind, &'a str),
    Object(&'a ObjectKey),
    /// The pods of a node.
    Node(&'a str),
}

impl Topic {
    /// The narrowest topic that covers everything a matcher can match.
    pub(super) fn covering(matcher: &Matcher) -> Self {
        if !matcher.node_name().is_empty() {
            return Self::of(About::Node(matcher.node_name()));
        }
        let Some(kind) = matcher.kind() else { return Self::of(About::Everything) };
        let one_namespace = !kind.is_namespaced() || !matcher.namespace().is_empty();
        match (one_namespace, matcher.name()) {
            (true, name) if !name.is_empty() => Self::of(About::Object(&ObjectKey::new(kind, matcher.namespace(), name))),
            (true, _) if kind.is_namespaced() => Self::of(About::Namespace(kind, matcher.namespace())),
            _ => Self::of(About::Kind(kind)),
        }
    }

    /// Every topic that a commit touches, each once.
    pub(super) fn touched_by(commit: &Commit, topics: &mut Vec<Self>) {
        topics.clear();
        topics.push(Self::of(About::Everything));
        for event in &commit.events {
            let key = event.key();
            topics.push(Self::of(About::Kind(key.kind())));
            topics.push(Self::of(About::Object(key)));
            if key.kind().is_namespaced() {
                topics.push(Self::of(About::Namespace(key.kind(), key.namespace())));
            }
            for view in [Some(event.view()), event.view_before()].into_iter().flatten() {
                if !view.node_name().is_empty() {
                    topics.push(Self::of(About::Node(view.node_name())));
                }
            }
        }
        topics.sort_unstable();
        topics.dedup();
    }

    /// Whether it is about so few objects that little happens in it.
    pub(super) fn is_narrow(self) -> bool {
        self.narrow
    }

    fn of(about: About<'_>) -> Self {
        let narrow = matches!(about, About::Object(_) | About::Node(_));
        Self { hash: BuildHasherDefault::<DefaultHasher>::default().hash_one(about), narrow }
    }
}
