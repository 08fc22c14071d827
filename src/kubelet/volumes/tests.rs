use std::sync::Arc;

use super::*;
use crate::api::v1::{
    ConfigMap, ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathType, HostPathVolumeSource, KeyToPath, ObjectMeta, PodSpec, Secret,
    SecretVolumeSource, VolumeMount,
};
use crate::kubelet::configuration::{config_map, secret};

#[cfg(all(test, unix))]
mod unix;

/// A pod's folder with its volumes, and what is known of their sources.
struct Scene {
    folder: tempfile::TempDir,
    configuration: Configuration,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap(), configuration: Configuration::default() };
        std::fs::create_dir(scene.work()).unwrap();
        scene
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn hold(&mut self, values: &[(&str, &str)]) {
        let values = || values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let map = ConfigMap { data: values().collect(), ..ConfigMap::default() };
        self.configuration.learn(&config_map("", "web"), Some(Arc::new(map.into_object())));
        let data = values().map(|(key, value)| (key, value.into_bytes())).collect();
        self.configuration.learn(&secret("", "db"), Some(Arc::new(Secret { data, ..Secret::default() }.into_object())));
    }

    /// Lets a container mount one volume at `path`.
    fn mount(&self, source: volume::Source, path: &str) -> Result<Vec<(String, PathBuf)>, Lacking> {
        self.with(source, |volumes| {
            let mount = VolumeMount { name: "my-data".into(), mount_path: path.into() };
            let container = Container { volume_mounts: vec![mount], ..Container::default() };
            volumes.mount(&container).map(|()| volumes.variables(&container))
        })
    }

    fn with<T>(&self, source: volume::Source, act: impl FnOnce(&Volumes<'_>) -> T) -> T {
        let volume = Volume { name: "my-data".into(), source: Some(source) };
        let spec = Some(PodSpec { volumes: vec![volume], ..PodSpec::default() });
        let metadata = Some(ObjectMeta { namespace: "default".into(), ..ObjectMeta::default() });
        let (pod, folder) = (Pod { metadata, spec, status: None }, PodFolder::at(self.folder.path()));
        act(&Volumes { pod: &pod, folder: &folder, configuration: &self.configuration })
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.work().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What is said of a mount that can't be.
    fn fault(&self, source: volume::Source, path: &str) -> String {
        match self.mount(source, path) {
            Err(Lacking::Missing(message)) => message,
            other => panic!("{other:?}"),
        }
    }
}

fn empty_dir() -> volume::Source {
    volume::Source::EmptyDir(EmptyDirVolumeSource {})
}

fn host_path(path: &Path, r#type: HostPathType) -> volume::Source {
    volume::Source::HostPath(HostPathVolumeSource { path: path.to_string_lossy().into_owned(), r#type: r#type.into() })
}

fn from_map(items: &[(&str, &str)], optional: bool) -> volume::Source {
    let items = items.iter().map(|(key, path)| KeyToPath { key: (*key).into(), path: (*path).into() }).collect();
    volume::Source::ConfigMap(ConfigMapVolumeSource { name: "web".into(), items, optional })
}

fn from_secret() -> volume::Source {
    volume::Source::Secret(SecretVolumeSource { secret_name: "db".into(), ..SecretVolumeSource::default() })
}
