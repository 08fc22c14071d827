//! Static pods: a folder of manifests on this machine, whose pods run whether there is an apiserver or not.
//!
//! `manifest` and `choose` say which pods there are, purely; [`Watcher`] reads the folder whenever it changes; [`Mirrors`] shows the pods to the
//! apiserver. What runs them is what runs every pod.

mod choose;
mod manifest;
mod mirrors;
mod watcher;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use choose::StaticPods;
use choose::{Files, choose};
pub(crate) use mirrors::Mirrors;
use tokio::sync::watch;
pub(crate) use watcher::Watcher;

use crate::api::v1::{EventSubject, Pod};
use crate::api::{Kind, MAX_OBJECT_BYTES, Resource, STATIC_POD_ANNOTATION};

/// Whether a pod is a static pod, or the mirror of one.
pub(crate) fn is_static(pod: &Pod) -> bool {
    pod.meta().annotations.contains_key(STATIC_POD_ANNOTATION)
}

/// The static pods of this node, for all parts of the kubelet.
pub(crate) type Chosen = watch::Receiver<Arc<StaticPods>>;

/// A folder of manifests.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    node: String,
}

impl Folder {
    pub(crate) fn new(path: &Path, node: &str) -> Self {
        Self { path: path.to_owned(), node: node.to_owned() }
    }

    /// Which static pods there are now, and what is wrong. If the folder can't be read, all stays as it was before. Blocks.
    pub(crate) fn look(&self, before: &StaticPods) -> (StaticPods, Vec<String>) {
        match self.read() {
            Ok(files) => choose(before, files),
            Err(error) => (before.clone(), vec![format!("the folder of static pods {} can't be read: {error}", self.path.display())]),
        }
    }

    fn read(&self) -> io::Result<Files> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().filter(|name| is_manifest(name)).map(str::to_owned) else { continue };
            let read = match read_file(&entry.path()) {
                Ok(Some(text)) => manifest::read(&name, &text, &self.node),
                // A folder, or gone since the folder was listed.
                Ok(None) => continue,
                Err(error) => Err(format!("{name}: can't be read: {error}")),
            };
            files.insert(name, read);
        }
        Ok(files)
    }
}

/// What editors and tools leave beside a manifest is none: hidden files, copies, and whatever else ends otherwise.
fn is_manifest(name: &str) -> bool {
    let is_hidden = name.starts_with(['.', '#', '~']);
    !is_hidden && [".yaml", ".yml", ".json"].iter().any(|end| name.len() > end.len() && name.ends_with(end))
}

fn read_file(path: &Path) -> io::Result<Option<String>> {
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !found.is_file() {
        return Ok(None);
    }
    if found.len() > MAX_OBJECT_BYTES as u64 {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has {} bytes, at most {MAX_OBJECT_BYTES} are taken", found.len()),
        ));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How events name this node, which is whom they concern when a file is broken.
fn subject(node: &str) -> EventSubject {
    EventSubject { kind: Kind::Node.to_string(), name: node.to_owned(), ..EventSubject::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_count_and_nothing_that_editors_leave_beside_them() {
        for name in ["web.yaml", "web.yml", "web.json", "a.b.yaml", "x.yaml"] {
            assert!(is_manifest(name), "{name}");
        }
        for name in [
            ".web.yaml",
            ".web.yaml.swp",
            ".#web.yaml",
            "#web.yaml#",
            "#web.yaml",
            "web.yaml~",
            "~web.yaml",
            "web.yaml.swp",
            "web.yaml.tmp",
            "web.yaml.bak",
            "web.yaml-bak",
            "web.yaml.new",
            "4913",
            "README.md",
            ".yaml",
            "yaml",
            "web.YAML.orig",
        ] {
            assert!(!is_manifest(name), "{name}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_changes_nothing_and_a_file_that_cannot_only_itself() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("manifests");
        let folder = Folder::new(&path, "n1");
        let web = |name: &str| {
            format!(
                "kind: Pod\napiVersion: v1\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: main, command: [sleep, '60']}}]}}\n"
            )
        };
        let (none, faults) = folder.look(&StaticPods::new());
        assert_eq!((none.len(), faults.len()), (0, 1), "{faults:?}");

        std::fs::create_dir_all(path.join("folder.yaml")).unwrap();
        std::fs::write(path.join("web.yaml"), web("web")).unwrap();
        std::fs::write(path.join(".db.yaml.swp"), web("db")).unwrap();
        std::fs::write(path.join("large.yaml"), " ".repeat(MAX_OBJECT_BYTES + 1)).unwrap();
        std::fs::write(path.join("binary.json"), [0xff, 0xfe]).unwrap();
        let (one, faults) = folder.look(&none);
        assert_eq!(one.len(), 1);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("binary.json: can't be read") && faults[1].starts_with("large.yaml: can't be read"), "{faults:?}");
        std::fs::rename(&path, outer.path().join("elsewhere")).unwrap();
        let (same, faults) = folder.look(&one);
        assert_eq!((same, faults.len()), (one, 1));
    }
}
