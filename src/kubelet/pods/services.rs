//! The services that pods here are told of in their environment, kept for a kubelet that can't ask.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use crate::api::v1::Service;
use crate::api::{ObjectKey, Resource};
use crate::kubelet::kept;
use crate::kubelet::os::{Host, Os};

/// A folder with a file for each service in the namespaces that have, or had, pods here.
#[derive(Debug)]
pub(super) struct Services {
    folder: PathBuf,
    /// Which there are, as of which version.
    versions: BTreeMap<ObjectKey, u64>,
}

impl Services {
    /// What an earlier kubelet has left. What can't be read counts as not kept.
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        let versions = read_all(&folder).iter().map(|service| (service.key(), service.meta().resource_version)).collect();
        Self { folder, versions }
    }

    /// Those of a namespace, in the order of their names, as of when the apiserver could last be asked.
    pub(super) fn in_namespace(&self, namespace: &str) -> Vec<Service> {
        let mut services = read_all(&self.folder);
        services.retain(|service| service.meta().namespace == namespace);
        services.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        services
    }

    /// Every service that is kept.
    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.versions.keys().cloned().collect()
    }

    /// Keeps a service, unless it is kept as it is. Gives the file if it was written.
    pub(super) fn keep(&mut self, service: &Service) -> Option<PathBuf> {
        let (key, version) = (service.key(), service.meta().resource_version);
        if self.versions.get(&key) == Some(&version) {
            return None;
        }
        let file = self.file(&key);
        match Host::make_private_folder(&self.folder).and_then(|()| kept::write(&file, service)) {
            Ok(()) => {
                self.versions.insert(key, version);
                Some(file)
            }
            Err(error) => {
                tracing::warn!(service = %key, %error, "a service can't be kept for the time without an apiserver");
                None
            }
        }
    }

    /// The service is gone.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        if self.versions.remove(key).is_none() {
            return;
        }
        match std::fs::remove_file(self.file(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(service = %key, %error, "a service that is gone can't be forgotten");
            }
            _ => {}
        }
    }

    /// Neither name has the character between them.
    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.folder.join(format!("{}_{}.binpb", key.namespace(), key.name()))
    }
}

fn read_all(folder: &std::path::Path) -> Vec<Service> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "the kept services can't be read");
            return Vec::new();
        }
    };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|kind| kind == "binpb"));
    let read = files.filter_map(|path| match kept::read::<Service>(&path) {
        Ok(service) => service,
        Err(error) => {
            tracing::warn!(%error, "a kept service can't be used");
            None
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{ObjectMeta, ServiceSpec};

    fn service(namespace: &str, name: &str, version: u64, ip: &str) -> Service {
        let metadata = ObjectMeta { name: name.into(), namespace: namespace.into(), resource_version: version, ..ObjectMeta::default() };
        Service {
            metadata: Some(metadata),
            spec: Some(ServiceSpec { cluster_ip: ip.into(), ..ServiceSpec::default() }),
            ..Service::default()
        }
    }

    #[test]
    fn the_next_kubelet_finds_the_services_as_they_were_last_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut services = Services::in_folder(folder.path().join("services"));
        assert!(services.in_namespace("a").is_empty());
        services.keep(&service("a", "web", 1, "127.96.0.1")).unwrap();
        services.keep(&service("a", "db", 2, "127.96.0.2")).unwrap();
        services.keep(&service("b", "web", 3, "127.96.0.3")).unwrap();
        services.keep(&service("a", "web", 4, "127.96.0.4")).unwrap();
        assert_eq!(services.keep(&service("a", "web", 4, "127.96.0.4")), None, "written twice");

        let mut services = Services::in_folder(folder.path().join("services"));
        let expected = [service("a", "db", 2, "127.96.0.2"), service("a", "web", 4, "127.96.0.4")];
        assert_eq!(services.in_namespace("a"), expected);
        assert_eq!(services.keep(&expected[0]), None, "written again by the next kubelet");
        services.forget(&expected[0].key());
        std::fs::write(folder.path().join("services/b_web.binpb"), "").unwrap();
        let services = Services::in_folder(folder.path().join("services"));
        assert_eq!(services.keys(), [expected[1].key()], "what was forgotten, and what is damaged");
    }
}
