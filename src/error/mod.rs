//! The one error type: what went wrong, in the terms in which a program can act on it.

mod fitting;
mod grpc;

use std::fmt;
use std::time::Duration;

use crate::api::v1::{FieldConflict, ObjectRef};
use crate::api::{MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OBJECTS, ObjectKey, Revision};

/// Shorthand for results with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. A variant exists only where somebody acts differently on it; each has one gRPC code.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// The request is wrong and will stay so: INVALID_ARGUMENT.
    Invalid(Vec<Violation>),
    /// There is no such thing: NOT_FOUND.
    NotFound(ObjectRef),
    /// There is such a thing already: ALREADY_EXISTS.
    AlreadyExists(ObjectRef),
    /// A compare-and-set was lost: ABORTED. Read again and decide again.
    Conflict {
        /// The object.
        object: ObjectRef,
        /// The resource version that the request expected.
        expected: Revision,
        /// The current one; zero: no such object.
        actual: Revision,
    },
    /// Other field managers own fields of what was applied, with other values: ABORTED. Apply without them, or take them over.
    ApplyConflict(Vec<FieldConflict>),
    /// A stream was replaced by a newer one of the same owner: ABORTED without a detail.
    Superseded(String),
    /// The request doesn't fit the state of things: FAILED_PRECONDITION. Change that state first.
    Precondition(String),
    /// The history no longer reaches back that far: OUT_OF_RANGE. Start anew.
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest that can be resumed from.
        oldest: Revision,
    },
    /// The revision is of the future: OUT_OF_RANGE. Start anew.
    Future {
        /// The revision that was asked for.
        requested: Revision,
        /// The current one.
        current: Revision,
    },
    /// The snapshot that a continue token refers to is gone: OUT_OF_RANGE. List again.
    TokenExpired {
        /// The snapshot's revision.
        revision: Revision,
    },
    /// It would be more than one transaction takes: RESOURCE_EXHAUSTED with a TransactionTooLarge detail. Ask for it in parts.
    TransactionTooLarge {
        /// How many objects would be written.
        objects: usize,
        /// How many bytes.
        bytes: usize,
    },
    /// A limit is reached: RESOURCE_EXHAUSTED.
    Exhausted {
        /// Which limit.
        message: String,
        /// When trying again makes sense, if waiting helps.
        retry_after: Option<Duration>,
    },
    /// Not now: UNAVAILABLE. Retry with back-off. A write may have been done all the same, or may still be.
    Unavailable(String),
    /// Not now, and nothing of it was done or will be: UNAVAILABLE with a NotDone detail. Another apiserver may be asked at once, also for a write.
    NotDone(String),
    /// Only the apiserver that has the node's session can do this: UNAVAILABLE with a NodeElsewhere detail. Ask the others.
    Elsewhere {
        /// The node.
        node: String,
        /// The apiserver, by the name of its lease.
        apiserver: String,
    },
    /// Somebody was silent for too long: DEADLINE_EXCEEDED.
    Timeout(String),
    /// Whoever asked went away: CANCELLED.
    Cancelled,
    /// A bug or a broken machine: INTERNAL. The detail is logged where it happened, and never sent.
    Internal(InternalError),
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where, as a path of proto field names: `pod.spec.containers[0].name`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Violation {
    /// A fault at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Something that a client can't act on. It has no `Display`: its text is for our log, written where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalError(());

impl Error {
    /// A single fault of a request.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Invalid(vec![Violation::new(path, message)])
    }

    /// The same, with the paths of faults below this one.
    pub fn within(mut self, path: &str) -> Self {
        if let Error::Invalid(violations) = &mut self {
            violations.iter_mut().for_each(|violation| violation.path.insert_str(0, &format!("{path}.")));
        }
        self
    }

    /// There is no object of this key.
    pub fn not_found(key: &ObjectKey) -> Self {
        Error::NotFound(key.to_ref())
    }

    /// Logs what happened and hides it.
    pub fn internal(detail: impl fmt::Display) -> Self {
        tracing::error!(error = %detail, "internal error");
        Error::Internal(InternalError(()))
    }

    /// Whether the server could not be asked, or not now.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::NotDone(_) | Error::Elsewhere { .. })
    }

    /// What the server says of when trying again makes sense: not before.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Exhausted { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Unavailable(_)
            | Error::NotDone(_)
            | Error::Elsewhere { .. }
            | Error::Timeout(_)
            | Error::Superseded(_)
            | Error::Cancelled
            | Error::Internal(_) => true,
            Error::Exhausted { retry_after, .. } => retry_after.is_some(),
            Error::Invalid(_)
            | Error::NotFound(_)
            | Error::AlreadyExists(_)
            | Error::Conflict { .. }
            | Error::ApplyConflict(_)
            | Error::TransactionTooLarge { .. }
            | Error::Precondition(_)
            | Error::Compacted { .. }
            | Error::Future { .. }
            | Error::TokenExpired { .. } => false,
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(violations) => {
                for (index, Violation { path, message }) in violations.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    match path.as_str() {
                        "" => write!(f, "{separator}{message}")?,
                        path => write!(f, "{separator}{path}: {message}")?,
                    }
                }
                Ok(())
            }
            Error::NotFound(object) => write!(f, "{} not found", named(object)),
            Error::AlreadyExists(object) => write!(f, "{} already exists", named(object)),
            Error::Conflict { object, actual: Revision::ZERO, .. } => {
                write!(f, "{} has changed: it does not exist any more, or is another one of the same name", named(object))
            }
            Error::Conflict { object, expected, actual } => {
                write!(f, "{} has changed: its resource version is {actual}, not {expected}", named(object))
            }
            Error::ApplyConflict(conflicts) => {
                let first = conflicts.first().map_or_else(String::new, |first| format!(", {} first, by {:?}", first.path, first.manager));
                write!(f, "{} of the fields are owned by other field managers{first}; leave them out, or force it", conflicts.len())
            }
            Error::Superseded(message)
            | Error::Precondition(message)
            | Error::Unavailable(message)
            | Error::NotDone(message)
            | Error::Timeout(message) => f.write_str(message),
            Error::Compacted { requested, oldest } => {
                write!(f, "revision {requested} is no longer in the history, which begins at {oldest}; start anew with the current state")
            }
            Error::Future { requested, current } => {
                write!(f, "revision {requested} does not exist yet, the current one is {current}; start anew with the current state")
            }
            Error::TokenExpired { revision } => {
                write!(f, "the continue token is for the snapshot of revision {revision}, which is gone; list again from the start")
            }
            Error::TransactionTooLarge { objects, bytes } => {
                write!(
                    f,
                    "{objects} objects of {bytes} bytes would change, and one transaction takes {MAX_TRANSACTION_OBJECTS} of {MAX_TRANSACTION_BYTES}: "
                )?;
                f.write_str("apply without prune first, then prune in several requests, each naming in `keep` what the others prune")
            }
            Error::Exhausted { message, .. } => f.write_str(message),
            Error::Elsewhere { node, apiserver } => write!(f, "node {node:?} has its session with another apiserver: {apiserver}"),
            Error::Cancelled => f.write_str("the request was cancelled"),
            Error::Internal(_) => f.write_str("internal error; the server's log tells more"),
        }
    }
}

fn named(object: &ObjectRef) -> String {
    match (object.kind.as_str(), object.namespace.as_str()) {
        ("", _) => format!("{:?}", object.name),
        (kind, "") => format!("{kind} {:?}", object.name),
        (kind, namespace) => format!("{kind} {:?} in namespace {namespace:?}", object.name),
    }
}
