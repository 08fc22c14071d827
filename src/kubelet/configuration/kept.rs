//! A pod's configuration in its folder.

use std::io;
use std::sync::Arc;

use super::Configuration;
use crate::api::v1::event::Type;
use crate::api::v1::{ConfigMap, Event, Object, ObjectMeta, Secret, WatchResponse, object};
use crate::api::{ObjectKey, Resource};
use crate::kubelet::kept;
use crate::kubelet::shim::files::PodFolder;

impl Configuration {
    /// What an earlier kubelet kept of it. A file that is damaged is told, and as good as none: the apiserver knows better.
    pub(crate) fn from_folder(folder: &PodFolder) -> Self {
        let kept = kept::read::<WatchResponse>(&folder.configuration()).unwrap_or_else(|error| {
            tracing::warn!(%error, "what an earlier kubelet has left of ConfigMaps and Secrets can't be used");
            None
        });
        let kept = kept.unwrap_or_default();
        let known = |event: Event| {
            let is_gone = event.r#type() == Type::Deleted;
            let object = event.object?;
            Some((object.key()?, (!is_gone).then(|| Arc::new(object))))
        };
        Self { objects: kept.events.into_iter().filter_map(known).collect(), changes: kept.revision }
    }

    /// Keeps it for the next kubelet, as a watch would have told it; the revision counts the changes.
    pub(crate) fn save(&self, folder: &PodFolder) -> io::Result<()> {
        let event = |(key, object): (&ObjectKey, &Option<Arc<Object>>)| match object {
            Some(object) => Event { r#type: Type::Added.into(), object: Some((**object).clone()) },
            None => Event { r#type: Type::Deleted.into(), object: Some(Object::bare(key, 0)) },
        };
        let kept = WatchResponse { events: self.objects.iter().map(event).collect(), revision: self.changes, synced: true };
        kept::write(&folder.configuration(), &kept)
    }
}

/// An object with nothing but its name and what it holds.
pub(super) fn trimmed(object: Arc<Object>) -> Arc<Object> {
    let Some(key) = object.key() else { return object };
    let metadata = Some(bare(&key));
    Arc::new(match &object.kind {
        Some(object::Kind::ConfigMap(map)) => ConfigMap { metadata, ..map.clone() }.into_object(),
        Some(object::Kind::Secret(secret)) => Secret { metadata, ..secret.clone() }.into_object(),
        _ => return object,
    })
}

fn bare(key: &ObjectKey) -> ObjectMeta {
    ObjectMeta { name: key.name().to_owned(), namespace: key.namespace().to_owned(), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::super::{config_map, secret};
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_also_what_there_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = PodFolder::at(folder.path());
        assert_eq!(Configuration::from_folder(&folder), Configuration::default());
        let mut object = Secret { data: [("password".to_owned(), b"hunter2".to_vec())].into(), ..Secret::default() };
        object.meta_mut().name = "db".into();
        object.meta_mut().annotations.insert("long".into(), "text".into());
        let mut configuration = Configuration::default();
        configuration.learn(&secret("", "db"), Some(Arc::new(object.into_object())));
        configuration.learn(&config_map("", "absent"), None);
        configuration.save(&folder).unwrap();

        let found = Configuration::from_folder(&folder);
        assert_eq!(found.value(&secret("", "db"), "password", false), Ok(Some(&b"hunter2"[..])));
        assert_eq!(found.values(&config_map("", "absent"), true), Ok(None));
        assert_eq!(found, configuration);
        std::fs::write(folder.configuration(), b"\xff damaged").unwrap();
        assert_eq!(Configuration::from_folder(&folder), Configuration::default());
    }
}
