//! `Error` ⇄ gRPC status. The details decide; the text is for people.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use super::{Error, InternalError, Violation, fitting};
use crate::api::Revision;
use crate::api::v1::{self, ObjectError};

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let rpc = to_rpc(&error);
        let encoded = rpc.encode_to_vec();
        Status::with_details(Code::from(rpc.code), rpc.message, encoded.into())
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        let details = pb::Status::decode(status.details()).map(|rpc| rpc.details).unwrap_or_default();
        from_parts(status.code(), status.message(), &details)
    }
}

impl From<Error> for ObjectError {
    fn from(error: Error) -> ObjectError {
        let pb::Status { code, message, details } = to_rpc(&error);
        ObjectError { code, message, details }
    }
}

impl From<ObjectError> for Error {
    fn from(error: ObjectError) -> Error {
        from_parts(Code::from(error.code), &error.message, &error.details)
    }
}

fn to_rpc(error: &Error) -> pb::Status {
    let (code, details) = match error {
        Error::Invalid(violations) => (Code::InvalidArgument, vec![bad_request(violations)]),
        Error::NotFound(object) => (Code::NotFound, vec![object_detail(object)]),
        Error::AlreadyExists(object) => (Code::AlreadyExists, vec![object_detail(object)]),
        Error::Conflict { object, expected, actual } => {
            let conflict = v1::Conflict { r#ref: Some(fitting::object(object)), expected: expected.0, actual: actual.0 };
            (Code::Aborted, vec![detail("Conflict", &conflict)])
        }
        Error::ApplyConflict(conflicts) => {
            (Code::Aborted, vec![detail("ApplyConflict", &v1::ApplyConflict { conflicts: fitting::conflicts(conflicts) })])
        }
        Error::Superseded(_) => (Code::Aborted, Vec::new()),
        Error::Precondition(_) => (Code::FailedPrecondition, Vec::new()),
        Error::Compacted { requested, oldest } => {
            (Code::OutOfRange, vec![detail("HistoryCompacted", &v1::HistoryCompacted { requested: requested.0, oldest: oldest.0 })])
        }
        Error::Future { requested, current } => {
            (Code::OutOfRange, vec![detail("FutureRevision", &v1::FutureRevision { requested: requested.0, current: current.0 })])
        }
        Error::TokenExpired { revision } => {
            (Code::OutOfRange, vec![detail("ContinueTokenExpired", &v1::ContinueTokenExpired { revision: revision.0 })])
        }
        Error::TransactionTooLarge { objects, bytes } => {
            let detail_of = v1::TransactionTooLarge { objects: *objects as u64, bytes: *bytes as u64 };
            (Code::ResourceExhausted, vec![detail("TransactionTooLarge", &detail_of)])
        }
        Error::Exhausted { retry_after, .. } => (Code::ResourceExhausted, retry_after.iter().map(|after| retry_info(*after)).collect()),
        Error::Unavailable(_) => (Code::Unavailable, vec![retry_info(UNAVAILABLE_RETRY)]),
        Error::NotDone(_) => (Code::Unavailable, vec![retry_info(UNAVAILABLE_RETRY), detail("NotDone", &v1::NotDone {})]),
        Error::Elsewhere { node, apiserver } => {
            (Code::Unavailable, vec![detail("NodeElsewhere", &v1::NodeElsewhere { node: node.clone(), apiserver: apiserver.clone() })])
        }
        Error::Timeout(_) => (Code::DeadlineExceeded, Vec::new()),
        Error::Cancelled => (Code::Cancelled, Vec::new()),
        Error::Internal(_) => (Code::Internal, Vec::new()),
    };
    pb::Status { code: code as i32, message: fitting::message(&error.to_string()), details }
}

/// What UNAVAILABLE proposes: long enough for a restart of the apiserver.
const UNAVAILABLE_RETRY: Duration = Duration::from_millis(500);

fn from_parts(code: Code, message: &str, details: &[Any]) -> Error {
    let text = || message.to_owned();
    match code {
        Code::InvalidArgument | Code::Unimplemented => match find::<pb::BadRequest>(details, GOOGLE, "BadRequest") {
            Some(bad) => Error::Invalid(bad.field_violations.into_iter().map(|v| Violation::new(v.field, v.description)).collect()),
            None => Error::invalid("", text()),
        },
        Code::NotFound => Error::NotFound(object(details, message)),
        Code::AlreadyExists => Error::AlreadyExists(object(details, message)),
        Code::Aborted => aborted(message, details),
        Code::FailedPrecondition => Error::Precondition(text()),
        Code::OutOfRange => out_of_range(message, details),
        Code::ResourceExhausted => exhausted(message, details),
        Code::Unavailable => unavailable(message, details),
        Code::Unknown => Error::Unavailable(text()),
        Code::DeadlineExceeded => Error::Timeout(text()),
        Code::Cancelled => Error::Cancelled,
        Code::PermissionDenied | Code::Unauthenticated => Error::Precondition(text()),
        Code::Ok | Code::Internal | Code::DataLoss => Error::Internal(InternalError(())),
    }
}

fn aborted(message: &str, details: &[Any]) -> Error {
    if let Some(v1::Conflict { r#ref, expected, actual }) = find(details, OURS, "Conflict") {
        return Error::Conflict { object: r#ref.unwrap_or_default(), expected: Revision(expected), actual: Revision(actual) };
    }
    match find(details, OURS, "ApplyConflict") {
        Some(v1::ApplyConflict { conflicts, .. }) => Error::ApplyConflict(conflicts),
        None => Error::Superseded(message.to_owned()),
    }
}

fn exhausted(message: &str, details: &[Any]) -> Error {
    if let Some(v1::TransactionTooLarge { objects, bytes }) = find(details, OURS, "TransactionTooLarge") {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        return Error::TransactionTooLarge { objects: count(objects), bytes: count(bytes) };
    }
    let delay = find::<pb::RetryInfo>(details, GOOGLE, "RetryInfo").and_then(|info| info.retry_delay);
    Error::Exhausted { message: message.to_owned(), retry_after: delay.and_then(|delay| Duration::try_from(delay).ok()) }
}

fn unavailable(message: &str, details: &[Any]) -> Error {
    if let Some(v1::NodeElsewhere { node, apiserver }) = find(details, OURS, "NodeElsewhere") {
        return Error::Elsewhere { node, apiserver };
    }
    match find(details, OURS, "NotDone") {
        Some(v1::NotDone {}) => Error::NotDone(message.to_owned()),
        None => Error::Unavailable(message.to_owned()),
    }
}

fn out_of_range(message: &str, details: &[Any]) -> Error {
    if let Some(v1::HistoryCompacted { requested, oldest }) = find(details, OURS, "HistoryCompacted") {
        return Error::Compacted { requested: Revision(requested), oldest: Revision(oldest) };
    }
    if let Some(v1::FutureRevision { requested, current }) = find(details, OURS, "FutureRevision") {
        return Error::Future { requested: Revision(requested), current: Revision(current) };
    }
    match find(details, OURS, "ContinueTokenExpired") {
        Some(v1::ContinueTokenExpired { revision }) => Error::TokenExpired { revision: Revision(revision) },
        // Also what HTTP/2 libraries say of a message that is too large.
        None => Error::invalid("", message),
    }
}

const OURS: &str = "type.googleapis.com/bluebird.v1.";
const GOOGLE: &str = "type.googleapis.com/google.rpc.";

fn detail(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("{OURS}{name}"), value: message.encode_to_vec() }
}

fn object_detail(object: &v1::ObjectRef) -> Any {
    detail("ObjectDetail", &v1::ObjectDetail { r#ref: Some(fitting::object(object)) })
}

fn bad_request(violations: &[Violation]) -> Any {
    let told = fitting::violations(violations).into_iter();
    let told =
        told.map(|Violation { path, message }| pb::bad_request::FieldViolation { field: path, description: message, ..Default::default() });
    let field_violations = told.collect();
    Any { type_url: format!("{GOOGLE}BadRequest"), value: pb::BadRequest { field_violations }.encode_to_vec() }
}

fn retry_info(after: Duration) -> Any {
    let info = pb::RetryInfo { retry_delay: prost_types::Duration::try_from(after).ok() };
    Any { type_url: format!("{GOOGLE}RetryInfo"), value: info.encode_to_vec() }
}

fn find<M: Message + Default>(details: &[Any], package: &str, name: &str) -> Option<M> {
    let any = details.iter().find(|any| any.type_url.strip_prefix(package) == Some(name))?;
    M::decode(any.value.as_slice()).ok()
}

fn object(details: &[Any], message: &str) -> v1::ObjectRef {
    find::<v1::ObjectDetail>(details, OURS, "ObjectDetail")
        .and_then(|detail| detail.r#ref)
        .unwrap_or_else(|| v1::ObjectRef { name: message.to_owned(), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_way_through_a_status() {
        let object = v1::ObjectRef { kind: "Pod".into(), namespace: "default".into(), name: "web".into() };
        let errors = [
            Error::Invalid(vec![Violation::new("pod.spec.containers[0].name", "must be a DNS label"), Violation::new("", "empty")]),
            Error::NotFound(object.clone()),
            Error::AlreadyExists(object.clone()),
            Error::Conflict { object, expected: Revision(3), actual: Revision(9) },
            Error::ApplyConflict(vec![v1::FieldConflict {
                path: "service.spec.ports[http].port".into(),
                manager: "ci".into(),
                r#ref: None,
            }]),
            Error::Superseded("a newer session".into()),
            Error::Precondition("being deleted".into()),
            Error::Compacted { requested: Revision(1), oldest: Revision(7) },
            Error::Future { requested: Revision(9), current: Revision(7) },
            Error::TokenExpired { revision: Revision(5) },
            Error::TransactionTooLarge { objects: 101, bytes: 7 },
            Error::Exhausted { message: "too many".into(), retry_after: Some(Duration::from_millis(1500)) },
            Error::Exhausted { message: "too large".into(), retry_after: None },
            Error::Unavailable("starting".into()),
            Error::NotDone("stopping".into()),
            Error::Elsewhere { node: "n1".into(), apiserver: "a".into() },
            Error::Timeout("silent".into()),
            Error::Cancelled,
            Error::Internal(InternalError(())),
        ];
        for error in errors {
            assert_eq!(Error::from(Status::from(error.clone())), error);
            assert_eq!(Error::from(ObjectError::from(error.clone())), error);
        }
    }
}
