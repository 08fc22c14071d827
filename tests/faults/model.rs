//! What a group of objects is, one operation after the other: the specification against which histories are checked.

use todc_utils::Specification;

/// How many objects a group has.
pub(crate) const KEYS: usize = 3;

/// What is written: every write of a group writes a value of its own.
pub(crate) type Value = u64;

/// An object that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) value: Value,
    /// Its resource version; 0 if its write was never answered and nobody ever saw it.
    pub(crate) revision: u64,
}

/// What all objects of a group are.
pub(crate) type Objects = [Option<Held>; KEYS];

/// What a client asked for. An expected revision of 0 is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Create {
        key: usize,
        value: Value,
    },
    Update {
        key: usize,
        value: Value,
        expected: u64,
    },
    Delete {
        key: usize,
        expected: u64,
    },
    /// The same value for two objects at one revision, whether they exist or not.
    Apply {
        keys: [usize; 2],
        value: Value,
    },
    Get {
        key: usize,
    },
    List,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Done, at this revision.
    Written(u64),
    /// Refused, because the object exists.
    Exists,
    /// There is no such object.
    Missing,
    /// Refused, because the object is not at the expected revision.
    Changed,
    Found(Held),
    Listed {
        objects: Objects,
        revision: u64,
    },
    /// Nothing: it may have been done at any time since, or never. If somebody saw what it wrote, at which revision that was; otherwise 0.
    Unknown {
        revision: u64,
    },
}

/// One operation of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) asked: Asked,
    pub(crate) answered: Answered,
}

/// A group at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    objects: Objects,
    /// The last revision at which it is known to have been so: every later change has a higher one.
    revision: u64,
}

/// Objects of one group, which begins empty. Besides the order of operations it demands that of their revisions.
pub(crate) struct Group;

impl Specification for Group {
    type State = State;
    type Operation = Operation;

    fn init() -> State {
        State { objects: [None; KEYS], revision: 0 }
    }

    fn apply(operation: &Operation, state: &State) -> (bool, State) {
        match next(operation, state) {
            Some(next) => (true, next),
            None => (false, state.clone()),
        }
    }
}

/// The state after an operation; `None` if it could not have been answered so.
fn next(Operation { asked, answered }: &Operation, state: &State) -> Option<State> {
    match answered {
        Answered::Written(revision) => state.written(asked, *revision),
        Answered::Unknown { revision: 0 } => Some(state.written(asked, 0).unwrap_or_else(|| state.clone())),
        Answered::Unknown { revision } => state.written(asked, *revision),
        _ => state.is_told(asked, answered),
    }
}

impl State {
    /// What a write makes of it; `None` if it can't be written here.
    fn written(&self, asked: &Asked, revision: u64) -> Option<State> {
        let mut next = self.clone();
        match *asked {
            Asked::Create { key, value } if self.objects[key].is_none() => next.objects[key] = Some(Held { value, revision }),
            Asked::Update { key, value, expected } if self.fits(key, expected) => next.objects[key] = Some(Held { value, revision }),
            Asked::Delete { key, expected } if self.fits(key, expected) => next.objects[key] = None,
            Asked::Apply { keys, value } => keys.map(|key| next.objects[key] = Some(Held { value, revision })).into_iter().collect(),
            _ => return None,
        }
        if revision != 0 {
            next.revision = revision;
        }
        (revision == 0 || revision > self.revision).then_some(next)
    }

    /// The state that is left by a read or a refusal; `None` if it does not fit.
    fn is_told(&self, asked: &Asked, answered: &Answered) -> Option<State> {
        let fits = match (asked, answered) {
            (Asked::Create { key, .. }, Answered::Exists) => self.objects[*key].is_some(),
            (Asked::Update { key, .. } | Asked::Delete { key, .. } | Asked::Get { key }, Answered::Missing) => self.objects[*key].is_none(),
            (Asked::Update { key, expected, .. } | Asked::Delete { key, expected }, Answered::Changed) => {
                self.objects[*key].is_some() && !self.fits(*key, *expected)
            }
            (Asked::Get { key }, Answered::Found(held)) => self.objects[*key] == Some(*held) && held.revision != 0,
            (Asked::List, Answered::Listed { objects, revision }) => self.objects == *objects && *revision >= self.revision,
            _ => false,
        };
        let mut next = self.clone();
        if let Answered::Listed { revision, .. } = answered {
            next.revision = *revision;
        }
        fits.then_some(next)
    }

    fn fits(&self, key: usize, expected: u64) -> bool {
        self.objects[key].is_some_and(|held| expected == 0 || held.revision == expected)
    }
}
