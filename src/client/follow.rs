//! The decisions of a [`super::Cache`], apart from all IO: what to ask the server for, and what an answer or a failure means.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::v1::{Event, Object, Selector, WatchRequest, WatchResponse, event};
use crate::api::{ObjectKey, Revision};
use crate::error::{Error, Result};

/// Objects by key, as of one revision.
pub(super) type Objects = BTreeMap<ObjectKey, Arc<Object>>;

/// Where a cache stands with its server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Follow {
    /// The whole state is being sent. It is collected aside, so that readers see the old state, whole, until the new one is.
    Collecting(Objects),
    /// Everything up to this revision is known.
    Resuming(Revision),
}

/// What a message does to the state that readers see.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// These objects changed, `None` for one that is gone; then this revision is reached.
    Advance(Vec<(ObjectKey, Option<Arc<Object>>)>, Revision),
    /// This is the state now, whatever it was.
    Replace(Objects, Revision),
}

impl Follow {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Follow::Collecting(Objects::new())
    }

    /// What to ask for on a new connection.
    pub(super) fn request(&self, selectors: &[Selector]) -> WatchRequest {
        let (send_initial, from_revision) = match self {
            Follow::Collecting(_) => (true, 0),
            Follow::Resuming(revision) => (false, revision.0),
        };
        WatchRequest { selectors: selectors.to_vec(), from_revision, send_initial, known: Vec::new() }
    }

    /// Takes a message of the connection that [`Follow::request`] opened.
    ///
    /// # Errors
    /// [`Error::Future`] when the server went back in time: it is not the one that was followed, and nothing that is known can be trusted.
    pub(super) fn message(&mut self, message: WatchResponse) -> Result<Step> {
        let revision = Revision(message.revision);
        match self {
            Follow::Collecting(aside) => {
                for (key, object) in message.events.into_iter().filter_map(change) {
                    match object {
                        Some(object) => aside.insert(key, object),
                        None => aside.remove(&key),
                    };
                }
                if !message.synced {
                    return Ok(Step::Wait);
                }
                let objects = std::mem::take(aside);
                *self = Follow::Resuming(revision);
                Ok(Step::Replace(objects, revision))
            }
            Follow::Resuming(known) if revision < *known => Err(Error::Future { requested: *known, current: revision }),
            Follow::Resuming(known) => {
                *known = revision;
                Ok(Step::Advance(message.events.into_iter().filter_map(change).collect(), revision))
            }
        }
    }

    /// Takes the end of a connection.
    pub(super) fn failed(&mut self, error: &Error) {
        let resumable = match self {
            // What was collected of an incomplete state is void: the next connection may begin at another revision.
            Follow::Collecting(_) => false,
            // A watch "from revision 0" would begin at the present.
            Follow::Resuming(Revision::ZERO) => false,
            Follow::Resuming(_) => !matches!(error, Error::Compacted { .. } | Error::Future { .. } | Error::TokenExpired { .. }),
        };
        if !resumable {
            *self = Self::new();
        }
    }

    /// Whether the whole state is being asked for.
    pub(super) fn is_collecting(&self) -> bool {
        matches!(self, Follow::Collecting(_))
    }
}

/// `None` for an object of a kind that this client doesn't know.
fn change(event: Event) -> Option<(ObjectKey, Option<Arc<Object>>)> {
    let deleted = event.r#type() == event::Type::Deleted;
    let object = event.object?;
    let key = object.key()?;
    Some((key, (!deleted).then(|| Arc::new(object))))
}

#[cfg(test)]
mod tests;
