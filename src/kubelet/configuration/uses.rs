use std::collections::BTreeSet;

use super::{config_map, secret};
use crate::api::v1::{Container, EnvFromSource, EnvVar, Pod, Volume, env_from_source, env_var_source, volume};
use crate::api::{ObjectKey, Resource as _};

/// Every ConfigMap and Secret that a pod names.
pub(crate) fn used_by(pod: &Pod) -> BTreeSet<ObjectKey> {
    let namespace = &pod.meta().namespace;
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let by_containers = spec.all_containers().flat_map(|container| used_by_container(container, namespace));
    by_containers.chain(spec.volumes.iter().filter_map(|volume| used_by_volume(volume, namespace))).collect()
}

/// The ConfigMap or Secret whose values a volume has.
pub(crate) fn used_by_volume(volume: &Volume, namespace: &str) -> Option<ObjectKey> {
    match volume.source.as_ref()? {
        volume::Source::ConfigMap(map) => Some(config_map(namespace, &map.name)),
        volume::Source::Secret(from) => Some(secret(namespace, &from.secret_name)),
        volume::Source::EmptyDir(_) | volume::Source::HostPath(_) => None,
    }
}

/// The ConfigMap or Secret whose values become variables.
pub(crate) fn used_by_source(from: &EnvFromSource, namespace: &str) -> Option<ObjectKey> {
    Some(match from.source.as_ref()? {
        env_from_source::Source::ConfigMapRef(map) => config_map(namespace, &map.name),
        env_from_source::Source::SecretRef(from) => secret(namespace, &from.name),
    })
}

/// The ConfigMap or Secret that a variable has its value from.
pub(crate) fn used_by_variable(variable: &EnvVar, namespace: &str) -> Option<ObjectKey> {
    Some(match variable.value_from.as_ref()?.source.as_ref()? {
        env_var_source::Source::ConfigMapKeyRef(map) => config_map(namespace, &map.name),
        env_var_source::Source::SecretKeyRef(from) => secret(namespace, &from.name),
    })
}

fn used_by_container(container: &Container, namespace: &str) -> impl Iterator<Item = ObjectKey> {
    let sources = container.env_from.iter().filter_map(move |from| used_by_source(from, namespace));
    sources.chain(container.env.iter().filter_map(move |variable| used_by_variable(variable, namespace)))
}
