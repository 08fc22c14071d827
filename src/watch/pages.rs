use std::iter::Peekable;
use std::vec::IntoIter;

use prost::Message as _;

use super::Known;
use super::filter::Filter;
use super::message::{Builder, UnderWay};
use crate::api::v1::Object;
use crate::api::v1::event::Type;
use crate::api::{Kind, Matcher, ObjectKey, Revision};
use crate::store::{Snapshot, Stored};

/// The current state, or what differs from it, page by page.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) snapshot: Snapshot,
    /// What is still to be read; the next one last.
    scopes: Vec<Scope>,
    /// Where to go on in the next scope; at its beginning, if there is nothing.
    resume: Option<ObjectKey>,
    /// What the client knows of what comes from here on.
    known: ToCompare,
}

/// A page ends after this many objects, when the message is large…
const PAGE_OBJECTS: usize = 500;
/// … or when this many have been looked at, so that nobody else has to wait long.
const PAGE_LOOKED_AT: usize = 5000;

impl Pages {
    /// The state for somebody who knows these objects.
    pub(super) fn new(snapshot: Snapshot, filter: &Filter, known: Known) -> Self {
        let mut scopes = scopes(filter.matchers());
        scopes.reverse();
        Self { snapshot, scopes, resume: None, known: known.into_iter().peekable() }
    }

    /// Whether everything has been read.
    pub(super) fn is_complete(&self) -> bool {
        self.scopes.is_empty() && self.known.len() == 0
    }

    /// The next page. May be empty, even when there are more.
    pub(super) fn next(&mut self, filter: &Filter, under_way: &UnderWay) -> Builder {
        let Self { snapshot, scopes, resume, known } = self;
        let mut page = Page { message: Builder::new(under_way, 0), looked_at: 0 };
        while let Some(scope) = scopes.last() {
            let from = resume.take().unwrap_or_else(|| scope.lower_bound());
            for stored in snapshot.range(&from).take_while(|stored| scope.contains(&stored.key)) {
                let is_shown = filter.shows(stored);
                if is_shown {
                    page.put_gone(known, snapshot.revision(), |key| *key < stored.key);
                }
                if page.is_full() {
                    *resume = Some(stored.key.clone());
                    return page.message;
                }
                page.looked_at += 1;
                if is_shown {
                    page.put(stored, known);
                }
            }
            scopes.pop();
        }
        page.put_gone(known, snapshot.revision(), |_| true);
        page.message
    }
}

/// What a client knows and was not compared yet, in the order of the keys.
type ToCompare = Peekable<IntoIter<(ObjectKey, Revision)>>;

struct Page {
    message: Builder,
    looked_at: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.message.events() >= PAGE_OBJECTS || self.message.is_large() || self.looked_at >= PAGE_LOOKED_AT
    }

    /// An object that there is, unless it is known as it is.
    fn put(&mut self, stored: &Stored, known: &mut ToCompare) {
        let kind = match known.next_if(|(key, _)| *key == stored.key) {
            Some((_, revision)) if revision == stored.revision => return,
            Some(_) => Type::Modified,
            None => Type::Added,
        };
        self.message.push_event(kind, &stored.bytes);
    }

    /// Those known objects that come next, while they are wanted and there is room, as deleted.
    fn put_gone(&mut self, known: &mut ToCompare, revision: Revision, is_wanted: impl Fn(&ObjectKey) -> bool) {
        while !self.is_full()
            && let Some((key, _)) = known.next_if(|(key, _)| is_wanted(key))
        {
            self.message.push_event(Type::Deleted, &Object::bare(&key, revision.0).encode_to_vec().into());
        }
    }
}

/// A piece of the key space: a kind, one namespace of it, or one object. Ordered so that what covers another comes before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    kind: Kind,
    /// Empty: all.
    namespace: String,
    /// Empty: all.
    name: String,
}

impl Scope {
    fn lower_bound(&self) -> ObjectKey {
        match self.name.as_str() {
            "" => ObjectKey::lower_bound(self.kind, &self.namespace),
            name => ObjectKey::new(self.kind, &self.namespace, name),
        }
    }

    fn contains(&self, key: &ObjectKey) -> bool {
        key.kind() == self.kind
            && (self.namespace.is_empty() || key.namespace() == self.namespace)
            && (self.name.is_empty() || key.name() == self.name)
    }

    fn covers(&self, other: &Scope) -> bool {
        self.kind == other.kind
            && (self.namespace.is_empty() || self.namespace == other.namespace)
            && (self.name.is_empty() || self.name == other.name)
    }
}

/// Where the objects are that the matchers can match, in order, without overlap.
fn scopes(matchers: &[Matcher]) -> Vec<Scope> {
    let mut all: Vec<Scope> = matchers.iter().flat_map(scopes_of).collect();
    all.sort();
    let mut kept: Vec<Scope> = Vec::new();
    for scope in all {
        if !kept.iter().any(|wider| wider.covers(&scope)) {
            kept.push(scope);
        }
    }
    kept
}

fn scopes_of(matcher: &Matcher) -> Vec<Scope> {
    let only_pods = !matcher.node_name().is_empty();
    let kinds = Kind::ALL.into_iter().filter(|kind| matcher.kind().is_none_or(|wanted| wanted == *kind));
    let kinds = kinds.filter(|kind| !only_pods || *kind == Kind::Pod);
    // What is in no namespace can't be in the one that is asked for.
    let kinds = kinds.filter(|kind| kind.is_namespaced() || matcher.namespace().is_empty());
    kinds
        .map(|kind| {
            let is_one_object = !kind.is_namespaced() || !matcher.namespace().is_empty();
            let name = if is_one_object { matcher.name().to_owned() } else { String::new() };
            Scope { kind, namespace: matcher.namespace().to_owned(), name }
        })
        .collect()
}
