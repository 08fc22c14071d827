//! The decisions of a [`super::Cache`], apart from all IO: what to ask the server for, and what an answer or a failure means.

use std::sync::Arc;

use super::objects::{Keep, Objects};
use crate::api::v1::{Event, KnownObject, Object, Selector, WatchRequest, WatchResponse, event};
use crate::api::{ObjectKey, Revision};
use crate::error::{Error, Result};

/// Changes by key, `None` for what is gone.
pub(super) type Differences = Vec<(ObjectKey, Option<Arc<Object>>)>;

/// The largest request that tells what is held, in bytes. Beyond that the whole state is asked for.
const KNOWN_BYTES: usize = 32 * 1024 * 1024;

/// Where a cache stands with its server.
#[derive(Debug)]
pub(super) struct Follow {
    state: State,
    keep: Keep,
}

#[derive(Debug)]
enum State {
    /// The whole state is being sent. It is collected aside, so that readers see the old state, whole, until the new one is.
    Collecting(Objects),
    /// What differs from the state of this revision, which is held, is being sent, since the history between is gone. It is collected aside, too.
    Comparing(Revision, Differences),
    /// Everything up to this revision is known.
    Resuming(Revision),
}

/// What a message does to the state that readers see.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// These objects changed; then this revision is reached.
    Advance(Differences, Revision),
    /// This is all that has changed over a gap in the history; then this revision is reached.
    Bridge(Differences, Revision),
    /// This is the state now, whatever it was.
    Replace(Objects, Revision),
}

impl Follow {
    /// Nothing is known.
    pub(super) fn new(keep: Keep) -> Self {
        Self { state: State::Collecting(Objects::new(keep.encoded)), keep }
    }

    /// What to ask for on a new connection, by whoever holds these objects.
    pub(super) fn request(&mut self, selectors: &[Selector], held: &Objects) -> WatchRequest {
        let mut known = Vec::new();
        if let State::Comparing(..) = self.state {
            match known_objects(held.versions()) {
                Some(described) => known = described,
                None => *self = Self::new(self.keep),
            }
        }
        let (send_initial, from_revision) = match self.state {
            State::Collecting(_) | State::Comparing(..) => (true, 0),
            State::Resuming(revision) => (false, revision.0),
        };
        WatchRequest { selectors: selectors.to_vec(), from_revision, send_initial, known }
    }

    /// Takes a message of the connection that [`Follow::request`] opened.
    ///
    /// # Errors
    /// [`Error::Future`] when the server went back in time: it is not the one that was followed, and nothing that is known can be trusted.
    pub(super) fn message(&mut self, message: WatchResponse) -> Result<Step> {
        let revision = Revision(message.revision);
        let trim = self.keep.trim;
        let changes = message.events.into_iter().filter_map(|event| change(event, trim));
        match &mut self.state {
            State::Collecting(aside) => {
                for (key, object) in changes {
                    match object {
                        Some(object) => aside.insert(key, object),
                        None => aside.remove(&key),
                    }
                }
                if !message.synced {
                    return Ok(Step::Wait);
                }
                let objects = std::mem::take(aside);
                self.state = State::Resuming(revision);
                Ok(Step::Replace(objects, revision))
            }
            State::Comparing(known, aside) => {
                aside.extend(changes);
                if !message.synced {
                    return Ok(Step::Wait);
                }
                went_on(*known, revision)?;
                let differences = std::mem::take(aside);
                self.state = State::Resuming(revision);
                Ok(Step::Bridge(differences, revision))
            }
            State::Resuming(known) => {
                went_on(*known, revision)?;
                *known = revision;
                Ok(Step::Advance(changes.collect(), revision))
            }
        }
    }

    /// Takes the end of a connection.
    pub(super) fn failed(&mut self, error: &Error) {
        let anew = || State::Collecting(Objects::new(self.keep.encoded));
        self.state = match (&self.state, error) {
            // What was collected of an incomplete state is void: the next connection may begin at another revision.
            (State::Collecting(_), _) => anew(),
            // What is held is of another cluster, or of a past that is lost.
            (_, Error::Future { .. }) => anew(),
            // A watch "from revision 0" would begin at the present.
            (State::Resuming(Revision::ZERO), _) => anew(),
            (State::Resuming(revision), Error::Compacted { .. }) => State::Comparing(*revision, Vec::new()),
            // A server that doesn't take what is held.
            (State::Comparing(..), Error::Invalid(_) | Error::Exhausted { retry_after: None, .. }) => anew(),
            (State::Comparing(revision, _), _) => State::Comparing(*revision, Vec::new()),
            (State::Resuming(revision), _) => State::Resuming(*revision),
        };
    }

    /// Other objects are asked for from now on: what differs from those that are held.
    pub(super) fn select_anew(&mut self) {
        self.state = match &self.state {
            State::Collecting(_) => State::Collecting(Objects::new(self.keep.encoded)),
            State::Comparing(revision, _) | State::Resuming(revision) => State::Comparing(*revision, Vec::new()),
        };
    }

    /// Whether only changes are asked for.
    pub(super) fn is_resuming(&self) -> bool {
        matches!(self.state, State::Resuming(_))
    }
}

/// What to tell a watch of objects and their versions that are held; `None` if that is more than 32 MiB, which no server takes.
pub fn known_objects<'k>(held: impl Iterator<Item = (&'k ObjectKey, u64)>) -> Option<Vec<KnownObject>> {
    describe(held, KNOWN_BYTES)
}

fn describe<'k>(held: impl Iterator<Item = (&'k ObjectKey, u64)>, limit: usize) -> Option<Vec<KnownObject>> {
    let mut bytes = 0;
    let describe = |(key, resource_version): (&ObjectKey, u64)| {
        let known = KnownObject { r#ref: Some(key.to_ref()), resource_version };
        bytes += prost::encoding::message::encoded_len(KNOWN_TAG, &known);
        (bytes <= limit).then_some(known)
    };
    held.map(describe).collect()
}

/// The number of the field `known`; any would do for a length.
const KNOWN_TAG: u32 = 4;

fn went_on(known: Revision, revision: Revision) -> Result<()> {
    match revision < known {
        true => Err(Error::Future { requested: known, current: revision }),
        false => Ok(()),
    }
}

/// `None` for an object of a kind that this client doesn't know.
fn change(event: Event, trim: fn(&mut Object)) -> Option<(ObjectKey, Option<Arc<Object>>)> {
    let deleted = event.r#type() == event::Type::Deleted;
    let mut object = event.object?;
    let key = object.key()?;
    trim(&mut object);
    Some((key, (!deleted).then(|| Arc::new(object))))
}

#[cfg(test)]
mod tests;
