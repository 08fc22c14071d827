//! What a case is: a promise, and the steps that show whether it is kept.

use std::pin::Pin;

use super::scene::Scene;
use crate::api::v1::{Pod, PodPhase};

/// A promise that the spec of a pod makes, as something that a node can be asked to show.
#[derive(Debug)]
pub(super) struct Case {
    /// Its area and what it is about: `stop.ignored-request`. Stays the same over versions: it is a row of docs/conformance.md.
    pub(super) name: &'static str,
    /// What a user may rely on, in a sentence.
    pub(super) promise: &'static str,
    /// The capabilities without which a node can't, and says so.
    pub(super) needs: &'static [&'static str],
    /// What is done, and what must be seen, in this order.
    pub(super) steps: &'static [Step],
}

/// One step. Pods are named as in the manifests; each case has a namespace of its own.
///
/// In texts `@node@` is the node's name, `@folder@` a folder that every machine has, and `@NAME@` what a step [`Step::Keep`] or [`Step::KeepPort`] kept
/// under a name.
#[derive(Debug)]
pub(super) enum Step {
    /// Creates the objects of a manifest, pods on the node. Where a command begins with `testapp`, the program that the run uses is put in.
    Create(&'static str),
    /// Makes the objects of a manifest so, whether they are there or not; what was made by this alone.
    Apply(&'static str),
    /// Creates a pod with one container `main`, which runs testapp with these arguments and is never started again.
    Once(&'static str, &'static [&'static str]),
    /// The same, started again whenever it ends.
    Always(&'static str, &'static [&'static str]),
    /// The same, started again when it fails.
    OnFailure(&'static str, &'static [&'static str]),
    /// Waits for a pod's phase.
    Phase(&'static str, PodPhase),
    /// Waits until a pod is as the function says, which the text tells in words.
    Until(&'static str, &'static str, fn(&Pod) -> bool),
    /// The log of a container (`POD` or `POD/CONTAINER`) is this, now.
    Log(&'static str, &'static str),
    /// Waits until this stands somewhere in the log.
    Says(&'static str, &'static str),
    /// Keeps a word under a name: the so manieth, from 0, of the first line that begins with this in the log, once there is one.
    Keep(&'static str, &'static str, &'static str, usize),
    /// Keeps the first port of a pod under a name.
    KeepPort(&'static str, &'static str),
    /// Keeps a port under a name that nobody on the node should use at the moment.
    KeepFreePort(&'static str),
    /// Deletes a pod; with a time, that is its grace period in seconds.
    Delete(&'static str, Option<i64>),
    /// Waits until a pod is gone.
    Gone(&'static str),
    /// Waits for an event in the namespace with this reason and this text in its note.
    Event(&'static str, &'static str),
    /// Waits until so many endpoints are ready behind a service.
    Endpoints(&'static str, usize),
    /// Anything else.
    Do(Doing),
}

/// What [`Step::Do`] does: fails with why the promise is not kept.
pub(super) type Doing = for<'s> fn(&'s mut Scene) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 's>>;
