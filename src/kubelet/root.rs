//! A kubelet's root folder: whose it is, and where things are in it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::os::{Host, Os};
use super::runtime::any_of;
use super::shim::files::PodFolder;
use super::uid::PodUid;
use crate::error::{Error, Result};

/// Made when a kubelet first begins there.
const INSTANCE_ID: &str = "instance-id";

/// The root folder of this kubelet, and of no other for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    lock: File,
}

/// Said, and not left to the closing of the file: a process that is being started at that moment has a copy of it until it executes its program.
impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the root folder can't be unlocked before this process has ended");
        }
    }
}

impl Root {
    /// Makes the folder if there is none, and locks it.
    ///
    /// # Errors
    /// Precondition when another kubelet uses it, when it is new although pods of it run, or when it can't be used at all.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unusable = |error: io::Error| Error::Precondition(format!("the root folder {} can't be used: {error}", path.display()));
        let was_there = path.try_exists().map_err(unusable)?;
        Host::make_private_folder(path).map_err(unusable)?;
        let path = dunce::canonicalize(path).map_err(unusable)?;
        if let Some(pid) = stray(&path).map_err(unusable)? {
            if !was_there {
                // What was moved can be moved back.
                std::fs::remove_dir(&path).map_err(unusable)?;
            }
            return Err(Error::Precondition(format!(
                "pods of the root folder {} run, as process {pid}, but the folder is new: was it moved or removed, or is its disk not mounted? \
                 Bring it back, or end these processes",
                path.display()
            )));
        }
        Host::make_private_folder(&path.join("pods")).map_err(unusable)?;
        let lock =
            Host::open_private_file(&path.join("lock"), File::options().create(true).truncate(false).write(true)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Precondition(format!(
                "another kubelet uses the root folder {}; give each kubelet of a machine its own with --root-dir",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// Makes sure that the folder is where it was: otherwise what is not there now may come back, and what is made there now is lost.
    ///
    /// # Errors
    /// `NotFound` when it was moved, unmounted or removed.
    pub(crate) fn check_place(&self) -> io::Result<()> {
        match Host::is_at(&self.lock, &self.path.join("lock"))? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "the root folder {} was moved, unmounted or removed; its pods are left alone until it is back",
                    self.path.display()
                ),
            )),
        }
    }

    /// The folder, without links in it: the mark of this kubelet's processes.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What shims ring.
    pub(crate) fn bell(&self) -> PathBuf {
        self.path.join("bell")
    }

    /// The folder of a pod.
    pub(crate) fn pod(&self, uid: &PodUid) -> PodFolder {
        PodFolder::at(self.path.join("pods").join(uid.as_str()))
    }

    /// Where services are kept.
    pub(crate) fn services(&self) -> PathBuf {
        self.path.join("services")
    }

    /// Where routes are kept.
    pub(crate) fn routes(&self) -> PathBuf {
        self.path.join("routes.binpb")
    }

    /// Every pod that has a folder.
    pub(crate) fn pods(&self) -> io::Result<Vec<PodUid>> {
        let mut pods = Vec::new();
        for entry in std::fs::read_dir(self.path.join("pods"))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pods.extend(entry.file_name().to_str().and_then(PodUid::new));
            }
        }
        Ok(pods)
    }

    /// A random UUID, made once: tells this kubelet from another one that was given the same node name.
    pub(crate) fn instance_id(&self) -> Result<String> {
        if let Some(known) = self.read_id(INSTANCE_ID)? {
            return Ok(known);
        }
        let new = uuid::Uuid::new_v4().to_string();
        self.write_id(INSTANCE_ID, &new)?;
        Ok(new)
    }

    /// Makes sure that the pods here are this cluster's.
    ///
    /// # Errors
    /// Precondition when they are another's.
    pub(crate) fn belongs_to(&self, cluster_id: &str) -> Result<()> {
        match self.read_id("cluster-id")? {
            Some(known) if known == cluster_id => Ok(()),
            Some(known) => Err(Error::Precondition(format!(
                "the root folder {} holds pods of cluster {known}, but the apiserver is of cluster {cluster_id}; \
                 give the kubelet that cluster's server, or another root folder",
                self.path.display()
            ))),
            // It was asked for before.
            None if self.check_place().is_err() => Ok(()),
            None => self.write_id("cluster-id", cluster_id),
        }
    }

    /// An apiserver was reached once: the pods here are its cluster's.
    pub(crate) fn has_cluster(&self) -> bool {
        matches!(self.read_id("cluster-id"), Ok(Some(_)))
    }

    /// A damaged one is taken for none.
    fn read_id(&self, name: &str) -> Result<Option<String>> {
        match std::fs::read(self.path.join(name)) {
            Ok(bytes) => {
                let id = std::str::from_utf8(&bytes).ok().map(str::trim).filter(|id| is_id(id));
                if id.is_none() {
                    tracing::warn!(file = %self.path.join(name).display(), "the file is damaged, and written anew");
                }
                Ok(id.map(str::to_owned))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Precondition(format!("{} can't be read: {error}", self.path.join(name).display()))),
        }
    }

    fn write_id(&self, name: &str, id: &str) -> Result<()> {
        Host::write_durably(&self.path.join(name), id.as_bytes())
            .map_err(|error| Error::Precondition(format!("{} can't be written: {error}", self.path.join(name).display())))
    }
}

/// A process of a pod that has no folder here, where no kubelet has ever begun: what it belongs to is elsewhere.
fn stray(path: &Path) -> io::Result<Option<i32>> {
    if path.join(INSTANCE_ID).try_exists()? {
        return Ok(None);
    }
    any_of(path, |pod| !path.join("pods").join(pod).exists())
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_kubelet_on_the_same_root_folder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Root::open(folder.path()).unwrap();
        let refusal = Root::open(folder.path()).unwrap_err();
        assert!(refusal.to_string().contains("another kubelet uses the root folder"), "{refusal}");
        drop(first);
        Root::open(folder.path()).unwrap();
    }

    #[test]
    fn a_root_folder_that_was_moved_is_missed_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let (place, elsewhere) = (folder.path().join("root"), folder.path().join("elsewhere"));
        let root = Root::open(&place).unwrap();
        root.check_place().unwrap();
        std::fs::rename(&place, &elsewhere).unwrap();
        root.belongs_to("c1").unwrap();
        for another in [false, true] {
            if another {
                // As an empty folder on which a disk was mounted, and what somebody else may do to it.
                std::fs::create_dir(&place).unwrap();
                std::fs::write(place.join("lock"), "").unwrap();
            }
            let missed = root.check_place().unwrap_err();
            assert!(missed.to_string().contains("was moved, unmounted or removed"), "{missed}");
        }
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::rename(&elsewhere, &place).unwrap();
        root.check_place().unwrap();
        assert!(!root.has_cluster(), "nothing was written elsewhere");
    }

    #[test]
    fn a_root_folder_is_free_when_its_kubelet_is_gone_though_a_process_that_was_just_being_started_has_a_copy_of_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let first = Root::open(folder.path()).unwrap();
        // As a process has it between fork and exec.
        let _copy = first.lock.try_clone().unwrap();
        drop(first);
        Root::open(folder.path()).unwrap();
    }

    #[test]
    fn an_instance_keeps_its_id_and_its_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let id = root.instance_id().unwrap();
        assert!(!root.has_cluster());
        root.belongs_to("c1").unwrap();
        drop(root);

        let root = Root::open(folder.path()).unwrap();
        assert_eq!(root.instance_id().unwrap(), id);
        assert!(root.has_cluster());
        root.belongs_to("c1").unwrap();
        let refusal = root.belongs_to("c2").unwrap_err();
        assert!(matches!(refusal, Error::Precondition(_)), "{refusal}");
    }

    #[test]
    fn damaged_ids_and_strangers_among_the_pods_harm_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        for damaged in [&b""[..], b"\n", b"\xff\xfe", b"a\0b"] {
            std::fs::write(folder.path().join("instance-id"), damaged).unwrap();
            std::fs::write(folder.path().join("cluster-id"), damaged).unwrap();
            let id = root.instance_id().unwrap();
            assert_eq!(root.instance_id().unwrap(), id, "a new one, which stays");
            root.belongs_to("c1").unwrap();
        }
        std::fs::write(folder.path().join("pods/stray-file"), "").unwrap();
        std::fs::create_dir(folder.path().join("pods/no.uid")).unwrap();
        assert_eq!(root.pods().unwrap(), []);
    }
}
