//! What an object must be like to be stored.

mod config;
mod env;
mod faults;
mod lifecycle;
mod meta;
pub(crate) mod names;
mod others;
mod pod;
mod probe;
mod service;
mod update;
mod volumes;

#[cfg(test)]
mod tests;

use prost::Message as _;

use self::faults::{Faults, Path};
use super::v1::{Object, object};
use super::{Kind, MAX_OBJECT_BYTES};
use crate::error::Violation;

pub use self::update::validate_update;

/// Every fault of an object, each with its path in proto names, beginning with the arm: `pod.spec.containers[0].name`. Empty: it may be stored.
///
/// The object should have gone through [`default_object`](super::default_object).
pub fn validate(object: &Object) -> Vec<Violation> {
    let mut faults = Faults::default();
    match (object.kind(), &object.kind) {
        (Some(kind), Some(arm)) => {
            let path = Path::root(kind.arm_name());
            let size = object.encoded_len();
            if size > MAX_OBJECT_BYTES {
                faults.add(&path, format!("is {size} bytes long when encoded; at most {MAX_OBJECT_BYTES} are allowed"));
            }
            meta::check(&path.field("metadata"), kind, object.meta(), &mut faults);
            check_arm(&path, arm, &mut faults);
        }
        _ => faults.add(&Path::root("kind"), format!("must be set: one of {}", Kind::ALL.map(Kind::arm_name).join(", "))),
    }
    faults.into_violations()
}

fn check_arm(path: &Path<'_>, arm: &object::Kind, faults: &mut Faults) {
    match arm {
        object::Kind::Pod(pod) => pod::check(path, pod, faults),
        object::Kind::Service(service) => service::check(path, service, faults),
        object::Kind::EndpointSlice(slice) => service::check_slice(path, slice, faults),
        object::Kind::Node(node) => others::check_node(path, node, faults),
        object::Kind::Event(event) => others::check_event(path, event, faults),
        object::Kind::Lease(lease) => others::check_lease(path, lease, faults),
        object::Kind::Namespace(namespace) => others::check_namespace(path, namespace, faults),
        object::Kind::ConfigMap(map) => config::check_config_map(path, map, faults),
        object::Kind::Secret(secret) => config::check_secret(path, secret, faults),
    }
}
