//! The files of a volume, one after the other, and links to folders. Junctions need no privilege, as other links do.

use std::fs;
use std::io;
use std::os::windows::fs::FileTypeExt;
use std::path::Path;

use super::super::Files;
use crate::api::capability::{FILE_MOUNTS, FOLDER_MOUNTS};

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

/// Makes a link at a path below a folder: a junction to a folder, or a link to a file.
pub(super) fn link(folder: &Path, path: &str, target: &Path) -> io::Result<()> {
    let link = folder.join(path);
    let above = link.parent().unwrap_or(folder);
    fs::create_dir_all(above)?;
    let target = std::path::absolute(above.join(target))?;
    match fs::symlink_metadata(&link) {
        Ok(_) if leads_to(&link, &target) => return Ok(()),
        Ok(found) if found.file_type().is_symlink_dir() || junction::exists(&link).unwrap_or(false) => fs::remove_dir(&link)?,
        Ok(found) if found.is_symlink() => fs::remove_file(&link)?,
        Ok(_) => return Err(in_the_way(&link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if target.is_dir() { junction::create(&target, &link) } else { std::os::windows::fs::symlink_file(&target, &link) }
}

fn leads_to(link: &Path, target: &Path) -> bool {
    let found = junction::get_target(link).or_else(|_| fs::read_link(link));
    found.is_ok_and(|found| found == target)
}

/// What can be mounted below a folder, found by trying: not every file system has links, and links to files are not for every user.
pub(super) fn mounts(folder: &Path) -> Vec<&'static str> {
    let trial = folder.join(format!("trial-{}", std::process::id()));
    let (from, to) = (trial.join("from"), trial.join("to"));
    let sees = |name: &str, target: &Path| {
        let made = link(&trial, name, target);
        // A system may say that it has made a link, and have made none.
        made.is_ok() && fs::symlink_metadata(trial.join(name)).is_ok_and(|found| found.is_symlink()) && trial.join(name).exists()
    };
    let tried = fs::create_dir_all(&from).and_then(|()| fs::write(&to, "")).map(|()| {
        let found = [(sees("folder", &from), FOLDER_MOUNTS), (sees("file", &to), FILE_MOUNTS)];
        found.into_iter().filter_map(|(is_there, name)| is_there.then_some(name)).collect()
    });
    if let Err(error) = fs::remove_dir_all(&trial) {
        tracing::warn!(%error, folder = %trial.display(), "a folder can't be removed in which links were tried out");
    }
    tried.unwrap_or_default()
}

fn in_the_way(link: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("something else is at {} already", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_its_target_and_then_to_another_one_where_links_are_said_to_work() {
        let folder = tempfile::tempdir().unwrap();
        let can = mounts(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of the trial");
        for (name, capability) in [("folder", FOLDER_MOUNTS), ("file", FILE_MOUNTS)] {
            for target in ["one", "two"].map(|target| folder.path().join(format!("{name}-{target}"))) {
                if name == "file" {
                    fs::write(&target, "").unwrap()
                } else {
                    fs::create_dir(&target).unwrap()
                }
                let linked = [(); 2].map(|()| link(folder.path(), name, &target));
                let leads = linked.iter().all(Result::is_ok) && leads_to(&folder.path().join(name), &target);
                assert_eq!(leads, can.contains(&capability), "{name}: {linked:?}");
            }
        }
        fs::create_dir(folder.path().join("taken")).unwrap();
        let refused = link(folder.path(), "taken", folder.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    }
}
