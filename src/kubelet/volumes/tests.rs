use std::sync::Arc;

use super::*;
use crate::api::v1::{
    ConfigMap, ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathType, HostPathVolumeSource, KeyToPath, ObjectMeta, PodSpec, Secret,
    SecretVolumeSource, VolumeMount,
};
use crate::kubelet::configuration::{config_map, secret};

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

#[test]
fn what_was_written_to_an_empty_folder_is_there_when_it_is_mounted_again() {
    let scene = Scene::new();
    let variables = scene.mount(empty_dir(), "cache/data").unwrap();
    assert_eq!(variables, [("VOLUME_MY_DATA".to_owned(), scene.folder.path().join("volumes/my-data"))]);
    std::fs::write(scene.work().join("cache/data/kept"), "1").unwrap();
    scene.mount(empty_dir(), "cache/data").unwrap();
    assert_eq!(scene.read("cache/data/kept"), "1");
}

#[test]
fn files_of_a_config_map_follow_it_and_stay_when_it_goes() {
    let mut scene = Scene::new();
    assert_eq!(scene.mount(from_map(&[], false), "config"), Err(Lacking::Unknown));
    scene.configuration.learn(&config_map("", "web"), None);
    assert_eq!(scene.fault(from_map(&[], false), "config"), "volume my-data: there is no ConfigMap \"web\" in the namespace \"default\"");
    scene.with(from_map(&[], false), |volumes| volumes.refresh()).unwrap();
    assert!(!scene.folder.path().join("volumes").exists(), "what nobody mounts yet isn't made");

    scene.hold(&[("colour", "blue")]);
    scene.mount(from_map(&[], false), "config").unwrap();
    assert_eq!(scene.read("config/colour"), "blue");
    scene.hold(&[("colour", "red"), ("size", "1")]);
    scene.with(from_map(&[], false), |volumes| volumes.refresh()).unwrap();
    assert_eq!((scene.read("config/colour"), scene.read("config/size")), ("red".to_owned(), "1".to_owned()));
    scene.configuration.learn(&config_map("", "web"), None);
    scene.with(from_map(&[], false), |volumes| volumes.refresh()).unwrap();
    scene.mount(from_map(&[], false), "config").unwrap();
    assert_eq!(scene.read("config/colour"), "red");
}

#[test]
fn items_choose_keys_and_paths_and_what_is_optional_may_be_missing() {
    let mut scene = Scene::new();
    scene.configuration.learn(&config_map("", "web"), None);
    scene.mount(from_map(&[], true), "config").unwrap();
    assert!(scene.work().join("config").is_dir());
    scene.hold(&[("page", "<p>"), ("other", "")]);
    scene.mount(from_map(&[("page", "html/index.html"), ("missing", "x")], true), "config").unwrap();
    assert_eq!(scene.read("config/html/index.html"), "<p>");
    assert!(!scene.work().join("config/other").exists() && !scene.work().join("config/x").exists());
    let mut other = Scene::new();
    other.hold(&[("page", "<p>")]);
    let fault = other.fault(from_map(&[("missing", "x")], false), "config");
    assert_eq!(fault, "volume my-data: the ConfigMap \"web\" has no key \"missing\"");
}

#[test]
fn a_path_of_the_node_must_be_what_its_type_says() {
    let (scene, node) = (Scene::new(), tempfile::tempdir().unwrap());
    let (folder, file, none) = (node.path().join("folder"), node.path().join("file"), node.path().join("none"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&file, "1").unwrap();
    let fault = |path: &Path, r#type| scene.fault(host_path(path, r#type), "data");
    let says = |path: &Path, what: &str| format!("volume my-data: {} {what}", path.display());
    for r#type in [HostPathType::Unspecified, HostPathType::Directory, HostPathType::File] {
        assert_eq!(fault(&none, r#type), format!("volume my-data: there is nothing at {} on this node", none.display()));
    }
    assert_eq!(fault(&file, HostPathType::Directory), says(&file, "is no folder"));
    assert_eq!(fault(&file, HostPathType::DirectoryOrCreate), says(&file, "is no folder"));
    assert_eq!(fault(&folder, HostPathType::File), says(&folder, "is no file"));
    assert_eq!(fault(Path::new("not/absolute"), HostPathType::File), says(Path::new("not/absolute"), "is no absolute path on this system"));
    assert!(fault(&none.join("below"), HostPathType::FileOrCreate).contains("can't be made"));

    let made = none.join("made/deep");
    scene.mount(host_path(&made, HostPathType::DirectoryOrCreate), "made").unwrap();
    assert!(made.is_dir());
    scene.mount(host_path(&made.join("file"), HostPathType::FileOrCreate), "made-file").unwrap();
    assert_eq!(scene.read("made-file"), "");
    let variables = scene.mount(host_path(&file, HostPathType::File), "file").unwrap();
    assert_eq!((variables[0].1.clone(), scene.read("file")), (file, "1".to_owned()));
}

#[test]
fn what_a_container_has_put_in_a_volumes_place_is_told_and_not_written_through() {
    let mut scene = Scene::new();
    scene.hold(&[("colour", "blue")]);
    scene.mount(from_secret(), "secret").unwrap();
    let (volume, moved) = (scene.folder.path().join("volumes/my-data"), scene.folder.path().join("moved"));
    std::fs::rename(&volume, &moved).unwrap();
    std::fs::write(&volume, "mine").unwrap();
    let fault = scene.fault(from_secret(), "secret");
    assert!(fault.contains("is not the folder any more that it was made as"), "{fault}");
    std::fs::remove_file(&volume).unwrap();
    scene.mount(from_secret(), "secret").unwrap();
    assert_eq!(scene.read("secret/colour"), "blue");
    std::fs::write(scene.work().join("taken"), "").unwrap();
    let fault = scene.fault(from_secret(), "taken");
    assert!(fault.starts_with("volume my-data: the link taken can't be made: something else is at"), "{fault}");
}
