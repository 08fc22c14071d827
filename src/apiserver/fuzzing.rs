//! What the fuzz targets in fuzz/ reach of the inside.

use prost_types::Timestamp;

use super::control_plane;
use super::ownership::Applier;
use super::writes::{self, Change};
use crate::api::v1::{DeleteRequest, Object};
use crate::error::Result;

/// A request about an object that exists.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Spec and metadata.
    Update(Object),
    /// What a field manager wants of it, also against others if `force`.
    Apply {
        /// What it gives.
        object: Object,
        /// Who.
        manager: &'static str,
        /// Against others.
        force: bool,
    },
    /// The status.
    UpdateStatus(Object),
    /// What a kubelet says of its node.
    Join(Object),
    /// Its end.
    Delete(DeleteRequest),
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are puts")]
pub enum Outcome {
    /// It is so already.
    Nothing,
    /// It becomes this.
    Put(Object),
    /// It goes.
    Remove,
}

/// A new object as it would be stored.
///
/// # Errors
/// As the rpc.
pub fn create(object: Object) -> Result<Object> {
    writes::create(object, NOW, UID.to_owned())
}

/// A new object as it would be stored when a field manager applies it.
///
/// # Errors
/// As the rpc.
pub fn apply_new(object: Object, manager: &'static str) -> Result<Object> {
    writes::apply_new(object, &applier(manager, false), UID.to_owned())
}

/// What a request makes of an object.
///
/// # Errors
/// As the rpc.
pub fn decide(old: &Object, asked: Asked) -> Result<Outcome> {
    let change = match asked {
        Asked::Update(new) => writes::update(old, new),
        Asked::Apply { object, manager, force } => writes::apply(old, object, &applier(manager, force)),
        Asked::UpdateStatus(given) => writes::update_status(old.clone(), given),
        Asked::Join(given) => writes::join_known(old, given),
        Asked::Delete(request) => writes::delete(old, &request, NOW),
    };
    Ok(match change? {
        Change::Nothing => Outcome::Nothing,
        Change::Put(object) => Outcome::Put(object),
        Change::Remove => Outcome::Remove,
    })
}

/// Whether a text is a continue token.
pub fn is_continue_token(text: &str) -> bool {
    control_plane::is_continue_token(text)
}

fn applier(manager: &str, force: bool) -> Applier {
    Applier { manager: manager.to_owned(), force, now: NOW }
}

const UID: &str = "0b7b1a57-0000-4000-8000-000000000000";
const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 0 };
