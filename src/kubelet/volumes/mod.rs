//! The volumes of a pod: what is in them, and where its containers see them.
//!
//! Every volume but that of the node's own files is a folder in the pod's folder. A container of plain processes has no view of the file system of its
//! own, so a mount is a link below the folder that it starts in, and a variable. What a container does to its folder leads the kubelet nowhere else.

mod content;
mod host_path;

// Wine, in which tests run for Windows, has no links.
#[cfg(all(test, unix))]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use content::files;

use super::configuration::{Configuration, Lacking};
use super::os::{Access, Host, Os};
use super::shim::files::PodFolder;
use crate::api::Resource as _;
use crate::api::capability::is_absolute;
use crate::api::v1::{Container, Pod, Volume, volume};

/// The volumes of one pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volumes<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) folder: &'a PodFolder,
    pub(crate) configuration: &'a Configuration,
}

impl Volumes<'_> {
    /// Makes sure that a container finds what it mounts where it mounts it.
    ///
    /// # Errors
    /// What is lacking or can't be done, with the volume's name.
    pub(crate) fn mount(&self, container: &Container) -> Result<(), Lacking> {
        let user = known(container);
        for mount in &container.volume_mounts {
            let Some(volume) = self.get(&mount.name) else { continue };
            let failed = |message: &str| Lacking::Missing(format!("volume {}: {message}", volume.name));
            let named = |lacking: Lacking| match lacking {
                Lacking::Missing(message) => failed(&message),
                Lacking::Unknown => Lacking::Unknown,
            };
            self.provide(volume, user).map_err(named)?;
            if is_absolute(&mount.mount_path) {
                return Err(failed(&format!("this node can't mount at the absolute path {}", mount.mount_path)));
            }
            let target = self.target(volume, &mount.mount_path);
            let cannot = |error: io::Error| failed(&format!("the link {} can't be made: {error}", mount.mount_path));
            Host::link(&self.folder.work(), &mount.mount_path, &target, user).map_err(cannot)?;
        }
        Ok(())
    }

    /// Brings the files of ConfigMaps and Secrets up to date in the volumes that there are. One that can't be doesn't keep others from it.
    ///
    /// # Errors
    /// What can't be done, with the volume's name.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        let volumes = self.pod.spec.as_ref().map_or(&[][..], |spec| &spec.volumes);
        let refresh = |volume: &Volume| match self.is_there(volume) {
            true => self.write(volume).map_err(|error| io::Error::new(error.kind(), format!("volume {}: {error}", volume.name))),
            false => Ok(()),
        };
        let outcomes: Vec<_> = volumes.iter().map(refresh).collect();
        outcomes.into_iter().collect()
    }

    /// The names of variables that tell a container where its volumes are, and where they are.
    pub(crate) fn variables(&self, container: &Container) -> Vec<(String, PathBuf)> {
        let mounted = container.volume_mounts.iter().filter_map(|mount| self.get(&mount.name));
        mounted.map(|volume| (format!("VOLUME_{}", volume.name.to_ascii_uppercase().replace('-', "_")), self.path(volume))).collect()
    }

    fn get(&self, name: &str) -> Option<&Volume> {
        self.pod.spec.as_ref()?.volumes.iter().find(|volume| volume.name == name)
    }

    fn path(&self, volume: &Volume) -> PathBuf {
        match &volume.source {
            Some(volume::Source::HostPath(host)) => PathBuf::from(&host.path),
            _ => self.folder.volume(&volume.name),
        }
    }

    /// What a link at this path below the folder that containers start in leads to. A pod's folder may be moved as a whole.
    fn target(&self, volume: &Volume, mount_path: &str) -> PathBuf {
        match &volume.source {
            Some(volume::Source::HostPath(host)) => PathBuf::from(&host.path),
            _ => {
                let up: PathBuf = mount_path.split('/').map(|_| "..").collect();
                up.join("volumes").join(&volume.name)
            }
        }
    }

    /// Makes sure that a volume is there, and that a user can use it if it is to.
    fn provide(&self, volume: &Volume, user: Option<&str>) -> Result<(), Lacking> {
        let told = |error: io::Error| Lacking::Missing(error.to_string());
        match &volume.source {
            Some(volume::Source::HostPath(host)) => host_path::check(host).map_err(Lacking::Missing),
            Some(volume::Source::EmptyDir(_)) => {
                let hand_over = |user| Host::hand_over(&self.folder.volume(&volume.name), &[], user);
                self.own_folder(volume).and_then(|()| user.map_or(Ok(()), hand_over)).map_err(told)
            }
            Some(volume::Source::ConfigMap(_) | volume::Source::Secret(_)) => {
                match content::files(volume, self.namespace(), self.configuration) {
                    Ok(_) => self.own_folder(volume).and_then(|()| self.write(volume)).map_err(told),
                    // As in Kubernetes, what a pod has it keeps when its source goes.
                    Err(_) if self.is_there(volume) => Ok(()),
                    Err(lacking) => Err(lacking),
                }
            }
            None => Ok(()),
        }
    }

    /// Writes the files of a ConfigMap or Secret, if it is known what they are.
    fn write(&self, volume: &Volume) -> io::Result<()> {
        let access = match &volume.source {
            Some(volume::Source::Secret(_)) => Access::Private(self.reader(volume)),
            _ => Access::Readable,
        };
        match content::files(volume, self.namespace(), self.configuration) {
            Ok(files) => Host::write_files(&self.folder.volume(&volume.name), &files, access),
            Err(_) => Ok(()),
        }
    }

    /// Who reads a Secret: the one user that the containers are that mount it, if any is somebody else than the kubelet.
    fn reader(&self, volume: &Volume) -> Option<&str> {
        let mut containers = self.pod.spec.iter().flat_map(|spec| spec.all_containers());
        containers.find_map(|container| known(container).filter(|_| container.volume_mounts.iter().any(|mount| mount.name == volume.name)))
    }

    /// The files of a ConfigMap or Secret have been written, and their folder is still where they were.
    fn is_there(&self, volume: &Volume) -> bool {
        let folder = self.folder.volume(&volume.name);
        let is_folder = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let has_source = matches!(&volume.source, Some(volume::Source::ConfigMap(_) | volume::Source::Secret(_)));
        has_source && is_folder(&self.folder.volumes()) && is_folder(&folder) && Host::has_files(&folder)
    }

    /// Makes the volume's folder. A container may have put something else there: nothing is written through that.
    fn own_folder(&self, volume: &Volume) -> io::Result<()> {
        for folder in [self.folder.volumes(), self.folder.volume(&volume.name)] {
            match std::fs::symlink_metadata(&folder) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(not_a_folder(&folder)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Host::make_private_folder(&folder)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn namespace(&self) -> &str {
        &self.pod.meta().namespace
    }
}

/// Whom a container's processes are, if that is somebody. That a user is not there is told when the container is started.
fn known(container: &Container) -> Option<&str> {
    Some(container.run_as.as_str()).filter(|user| !user.is_empty() && Host::known(user).is_ok())
}

fn not_a_folder(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not the folder any more that it was made as", path.display()))
}
