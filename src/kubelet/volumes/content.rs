//! Which files a volume has.

use crate::api::v1::{KeyToPath, Volume, volume};
use crate::kubelet::configuration::{Configuration, Lacking, used_by_volume};
use crate::kubelet::os::Files;

/// The files of a volume that has them from a ConfigMap or a Secret; none for every other.
pub(crate) fn files(volume: &Volume, namespace: &str, configuration: &Configuration) -> Result<Files, Lacking> {
    let (items, optional): (&[KeyToPath], bool) = match &volume.source {
        Some(volume::Source::ConfigMap(map)) => (&map.items, map.optional),
        Some(volume::Source::Secret(secret)) => (&secret.items, secret.optional),
        _ => return Ok(Files::new()),
    };
    let Some(object) = used_by_volume(volume, namespace) else { return Ok(Files::new()) };
    if items.is_empty() {
        let values = configuration.values(&object, optional)?.unwrap_or_default();
        return Ok(values.into_iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect());
    }
    let file = |item: &KeyToPath| {
        let value = configuration.value(&object, &item.key, optional);
        value.map(|value| value.map(|value| (item.path.clone(), value.to_vec()))).transpose()
    };
    items.iter().filter_map(file).collect()
}
