//! The files of a volume, one after the other, and links to folders. Junctions need no privilege, as other links do.

use std::fs;
use std::io;
use std::path::Path;

use super::super::Files;

/// Says that the files of a folder have been written. No file of a volume has such a name.
const WRITTEN: &str = "..data";
/// A file before it takes its place.
const NEXT: &str = "..data.new";

/// Makes a folder have exactly these files, each whole.
pub(super) fn write_files(folder: &Path, files: &Files) -> io::Result<()> {
    for (path, content) in files {
        let file = folder.join(path);
        if fs::read(&file).is_ok_and(|found| found == *content) {
            continue;
        }
        if let Some(above) = file.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(folder.join(NEXT), content)?;
        fs::rename(folder.join(NEXT), &file)?;
    }
    fs::write(folder.join(WRITTEN), "")?;
    remove_others(folder, "", files)
}

fn remove_others(folder: &Path, prefix: &str, files: &Files) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(prefix))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if files.contains_key(&path) || name == WRITTEN {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true if files.keys().any(|file| file.starts_with(&format!("{path}/"))) => remove_others(folder, &path, files)?,
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Whether a folder has files that [`write_files`] has written.
pub(super) fn has_files(folder: &Path) -> bool {
    folder.join(WRITTEN).exists()
}

/// Makes a link at a path below a folder.
pub(super) fn link(folder: &Path, path: &str, target: &Path) -> io::Result<()> {
    let link = folder.join(path);
    let above = link.parent().unwrap_or(folder);
    fs::create_dir_all(above)?;
    let target = std::path::absolute(above.join(target))?;
    if !target.is_dir() {
        return match fs::symlink_metadata(&link) {
            Ok(found) if found.is_symlink() => Ok(()),
            Ok(_) => Err(in_the_way(&link)),
            Err(_) => std::os::windows::fs::symlink_file(&target, &link),
        };
    }
    match (junction::get_target(&link), link.exists()) {
        (Ok(found), _) if found == target => Ok(()),
        (Ok(_), _) => junction::delete(&link).and_then(|()| fs::remove_dir(&link)).and_then(|()| junction::create(&target, &link)),
        (Err(_), true) => Err(in_the_way(&link)),
        (Err(_), false) => junction::create(&target, &link),
    }
}

fn in_the_way(link: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("something else is at {} already", link.display()))
}
