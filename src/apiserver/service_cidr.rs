//! The range of service addresses: it belongs to the cluster, not to an apiserver. The namespace `default` says it, which every cluster has and every
//! backup holds.

use super::StartError;
use super::writer::Writer;
use super::writes::Change;
use crate::api::v1::Object;
use crate::api::{DEFAULT_NAMESPACE, Kind, ObjectKey, SERVICE_CIDR_ANNOTATION};

/// Records the range if the cluster has none yet. Whoever wants another one has to say so there first.
///
/// # Errors
/// [`StartError::ServiceCidr`] when the cluster has another one; [`StartError::FirstWrite`].
pub(super) async fn settle(writer: &Writer, given: &str) -> Result<(), StartError> {
    let key = ObjectKey::new(Kind::Namespace, "", DEFAULT_NAMESPACE);
    let decide = |mut namespace: Object| match recorded(&namespace) {
        Some(_) => Ok(Change::Nothing),
        None => {
            record(&mut namespace, given);
            Ok(Change::Put(namespace))
        }
    };
    let namespace = writer.change(&key, false, decide).await.map_err(StartError::FirstWrite)?.into_object();
    match recorded(&namespace) {
        Some(cluster) if cluster != given => Err(StartError::ServiceCidr { cluster: cluster.to_owned(), given: given.to_owned() }),
        _ => Ok(()),
    }
}

/// Writes it into the namespace `default`.
pub(super) fn record(namespace: &mut Object, cidr: &str) {
    if let Some(metadata) = namespace.meta_mut() {
        metadata.annotations.insert(SERVICE_CIDR_ANNOTATION.to_owned(), cidr.to_owned());
    }
}

fn recorded(namespace: &Object) -> Option<&str> {
    namespace.meta().annotations.get(SERVICE_CIDR_ANNOTATION).map(String::as_str)
}
