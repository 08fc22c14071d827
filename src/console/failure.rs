//! Why a command did not do what it should, in words for whoever typed it.

use std::io;

use crate::api::v1::ObjectRef;
use crate::api::{DEFAULT_NAMESPACE, Kind, ObjectKey};
use crate::error::{Error, Violation};

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// How a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not possible; this is why, and what to do next.
    Failed(String),
    /// It was said already what was not possible.
    Reported,
    /// The command that was run ended with this code.
    Ended(u8),
    /// It was typed wrongly; this is how it would be right.
    Usage(String),
    /// Whoever read the output has read enough.
    PipeClosed,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::PipeClosed,
            _ => Failure::Failed(format!("cannot write: {error}")),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(describe(&error))
    }
}

/// An error and what can be done about it.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Invalid(violations) => violations.iter().map(violation).collect::<Vec<_>>().join("\n"),
        Error::NotFound(object) => not_found(object),
        error if error.is_unavailable() => format!(
            "{error}\nIs an apiserver running there? Start one with `bluebird up`, or say where it is with --server or BLUEBIRD_SERVER."
        ),
        Error::Exhausted { retry_after: Some(after), .. } => format!("{error}\nTry again in {} s.", after.as_secs_f64().ceil()),
        Error::Conflict { .. } => format!("{error}\nGet it again and make the change to the new version."),
        other => other.to_string(),
    }
}

/// A fault with its path as in a manifest.
pub(super) fn violation(violation: &Violation) -> String {
    match violation.path.as_str() {
        "" => violation.message.clone(),
        path => format!("{}: {}", manifest_path(path), violation.message),
    }
}

fn not_found(object: &ObjectRef) -> String {
    match Kind::from_name(&object.kind) {
        Some(kind) if kind.is_namespaced() => {
            let namespace = if object.namespace.is_empty() { DEFAULT_NAMESPACE } else { &object.namespace };
            format!("there is no {kind} {:?} in namespace {namespace}", object.name)
        }
        Some(kind) => format!("there is no {kind} {:?}", object.name),
        None => Error::NotFound(object.clone()).to_string(),
    }
}

/// `pod.spec.containers[0].working_dir` → `spec.containers[0].workingDir`: the path as it would be in a manifest.
pub(super) fn manifest_path(path: &str) -> String {
    let arms = ["pod.", "service.", "node.", "endpoint_slice.", "namespace.", "event.", "lease."];
    let path = arms.iter().find_map(|arm| path.strip_prefix(arm)).unwrap_or(path);
    let mut manifest = String::with_capacity(path.len());
    let mut in_brackets = false;
    let mut after_underscore = false;
    for letter in path.chars() {
        match letter {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '_' if !in_brackets => {
                after_underscore = true;
                continue;
            }
            _ => {}
        }
        manifest.push(if after_underscore { letter.to_ascii_uppercase() } else { letter });
        after_underscore = false;
    }
    match manifest.strip_suffix("Ip") {
        Some(start) => format!("{start}IP"),
        None => manifest,
    }
}

/// `pod/web`, as kubectl names objects.
pub(super) fn short_name(key: &ObjectKey) -> String {
    format!("{}/{}", key.kind().as_str().to_lowercase(), key.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_in_the_manifest() {
        for (path, expected) in [
            ("pod.spec.containers[0].working_dir", "spec.containers[0].workingDir"),
            ("service.spec.cluster_ip", "spec.clusterIP"),
            ("pod.metadata.labels[a_b.c/d_e]", "metadata.labels[a_b.c/d_e]"),
            ("selector.kind", "selector.kind"),
            ("endpoint_slice.spec", "spec"),
        ] {
            assert_eq!(manifest_path(path), expected);
        }
    }

    #[test]
    fn whoever_was_refused_for_now_is_told_when_to_try_again() {
        let refused = |retry_after| describe(&Error::Exhausted { message: "the disk is full".into(), retry_after });
        assert_eq!(refused(Some(std::time::Duration::from_millis(1_200))), "the disk is full\nTry again in 2 s.");
        assert_eq!(refused(None), "the disk is full");
    }

    #[test]
    fn an_unreachable_server_comes_with_a_way_to_start_one() {
        let text = describe(&Error::Unavailable("cannot reach http://127.0.0.1:7443: Connection refused".into()));
        assert!(text.contains("bluebird up") && text.contains("--server"), "{text}");
    }
}
