use std::collections::BTreeSet;

use super::{config_map, secret};
use crate::api::v1::{Container, Pod, env_from_source, env_var_source};
use crate::api::{ObjectKey, Resource as _};

/// Every ConfigMap and Secret that a pod names.
pub(crate) fn used_by(pod: &Pod) -> BTreeSet<ObjectKey> {
    let namespace = &pod.meta().namespace;
    pod.spec.iter().flat_map(|spec| spec.all_containers()).flat_map(|container| used_by_container(container, namespace)).collect()
}

fn used_by_container(container: &Container, namespace: &str) -> Vec<ObjectKey> {
    let mut used = Vec::new();
    for source in container.env_from.iter().filter_map(|from| from.source.as_ref()) {
        used.push(match source {
            env_from_source::Source::ConfigMapRef(map) => config_map(namespace, &map.name),
            env_from_source::Source::SecretRef(from) => secret(namespace, &from.name),
        });
    }
    for source in container.env.iter().filter_map(|variable| variable.value_from.as_ref()?.source.as_ref()) {
        used.push(match source {
            env_var_source::Source::ConfigMapKeyRef(map) => config_map(namespace, &map.name),
            env_var_source::Source::SecretKeyRef(from) => secret(namespace, &from.name),
        });
    }
    used
}
