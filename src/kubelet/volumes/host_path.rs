//! Files and folders of the node.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::api::v1::{HostPathType, HostPathVolumeSource};

/// Makes sure that the path is what it must be, or says why it isn't.
pub(super) fn check(host: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&host.path);
    if !path.is_absolute() {
        return Err(format!("{} is no absolute path on this system", path.display()));
    }
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path, host.r#type()),
        Err(error) => return Err(format!("{} can't be looked at: {error}", path.display())),
    };
    match host.r#type() {
        HostPathType::Directory | HostPathType::DirectoryOrCreate if !found.is_dir() => Err(format!("{} is no folder", path.display())),
        HostPathType::File | HostPathType::FileOrCreate if !found.is_file() => Err(format!("{} is no file", path.display())),
        _ => Ok(()),
    }
}

fn make(path: &Path, r#type: HostPathType) -> Result<(), String> {
    let made = match r#type {
        HostPathType::DirectoryOrCreate => std::fs::create_dir_all(path),
        HostPathType::FileOrCreate => File::create_new(path).map(drop),
        HostPathType::Unspecified | HostPathType::Directory | HostPathType::File => {
            return Err(format!("there is nothing at {} on this node", path.display()));
        }
    };
    made.map_err(|error| format!("{} can't be made: {error}", path.display()))
}
