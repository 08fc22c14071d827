use super::faults::{Faults, Path};
use super::names;
use crate::api::v1::{ConfigMap, Secret};

/// The longest type of a secret.
const MAX_TYPE: usize = 253;

pub(super) fn check_config_map(path: &Path<'_>, map: &ConfigMap, faults: &mut Faults) {
    check_keys(&path.field("data"), map.data.keys(), faults);
    let binary = path.field("binary_data");
    check_keys(&binary, map.binary_data.keys(), faults);
    for key in map.binary_data.keys().filter(|key| map.data.contains_key(*key)) {
        faults.add(&binary.key(key), "stands in data already; a key may stand there once");
    }
}

pub(super) fn check_secret(path: &Path<'_>, secret: &Secret, faults: &mut Faults) {
    check_keys(&path.field("data"), secret.data.keys(), faults);
    let is_word = secret.r#type.len() <= MAX_TYPE && secret.r#type.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_word || secret.r#type.is_empty() {
        faults.add(&path.field("type"), format!("must be 1 to {MAX_TYPE} visible ASCII characters, such as Opaque"));
    }
}

fn check_keys<'k>(path: &Path<'_>, keys: impl Iterator<Item = &'k String>, faults: &mut Faults) {
    for key in keys {
        faults.check(&path.key(key), key, names::data_key);
    }
}
