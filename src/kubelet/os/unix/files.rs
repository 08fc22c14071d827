//! The files of a volume that switch all at once, and links that lead nowhere by surprise.
//!
//! A volume's folder has, as with Kubernetes, a folder for each state of its files and a link `..data` to the present one; each file, or folder of files,
//! is a link through that. So replacing one link switches all, and programs that watch for that elsewhere see it here.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown, symlink};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::super::{Access, Files};
use super::user::{self, User};

/// The link to the present files.
const DATA: &str = "..data";
/// The link before it takes its place.
const NEXT: &str = "..data.new";

/// How folders and files are made.
struct Rights {
    folder: u32,
    file: u32,
    /// Whose the files are, if not ours. The folders stay ours, so that he can put nothing in the way of whoever writes there, and can be read by his group.
    user: Option<User>,
}

impl Rights {
    fn of(access: Access<'_>) -> io::Result<Self> {
        Ok(match access {
            Access::Private(None) => Self { folder: 0o700, file: 0o600, user: None },
            Access::Private(Some(user)) => Self { folder: 0o750, file: 0o600, user: Some(user::find(user)?) },
            Access::Readable => Self { folder: 0o755, file: 0o644, user: None },
        })
    }

    /// Gives them to a folder that is there.
    fn give(&self, folder: &Path) -> io::Result<()> {
        let found = fs::metadata(folder)?;
        if let Some(user) = self.user.as_ref().filter(|user| found.gid() != user.gid.as_raw()) {
            chown(folder, None, Some(user.gid.as_raw()))?;
        }
        if found.mode() & 0o7777 != self.folder {
            exactly(folder, self.folder)?;
        }
        Ok(())
    }

    fn are_of(&self, file: &Path) -> bool {
        self.user.as_ref().is_none_or(|user| fs::metadata(file).is_ok_and(|found| found.uid() == user.uid.as_raw()))
    }
}

/// Makes a folder have exactly these files, all at once.
pub(in crate::kubelet::os) fn write_files(folder: &Path, files: &Files, access: Access<'_>) -> io::Result<()> {
    let rights = Rights::of(access)?;
    rights.give(folder)?;
    let states = states(folder)?;
    let present = states.iter().copied().find(|state| fs::read_link(folder.join(DATA)).is_ok_and(|link| link == Path::new(&name(*state))));
    if !present.is_some_and(|present| holds(&folder.join(name(present)), files, &rights)) {
        let next = states.last().map_or(1, |last| last + 1);
        let fresh = folder.join(name(next));
        if let Err(error) = write_state(&fresh, files, &rights) {
            remove_folder(&fresh)?;
            return Err(error);
        }
        done_if_missing(fs::remove_file(folder.join(NEXT)))?;
        symlink(name(next), folder.join(NEXT))?;
        fs::rename(folder.join(NEXT), folder.join(DATA))?;
        // Whoever is just reading in the state before isn't held up.
        for old in states.into_iter().filter(|state| Some(*state) != present) {
            remove_folder(&folder.join(name(old)))?;
        }
    }
    link_names(folder, files)
}

/// Whether a folder has files that [`write_files`] has written.
pub(in crate::kubelet::os) fn has_files(folder: &Path) -> bool {
    fs::read_link(folder.join(DATA)).is_ok()
}

/// `..7`
fn name(state: u64) -> String {
    format!("..{state}")
}

/// The states that there are, in order.
fn states(folder: &Path) -> io::Result<Vec<u64>> {
    let mut states = Vec::new();
    for entry in fs::read_dir(folder)? {
        states.extend(entry?.file_name().to_str().and_then(|name| name.strip_prefix("..")?.parse::<u64>().ok()));
    }
    states.sort_unstable();
    Ok(states)
}

/// Whether a state has these files as they are; another file there does no harm.
fn holds(state: &Path, files: &Files, rights: &Rights) -> bool {
    let is_so = |(path, content): (&String, &Vec<u8>)| {
        let file = state.join(path);
        rights.are_of(&file) && is_all_of(&file, content).unwrap_or(false)
    };
    files.iter().all(is_so) && fs::read_dir(state).is_ok_and(|entries| entries.count() == first_parts(files).len())
}

/// Whether a file is that, of which no more is read: whose file it is may have made it as long as he likes.
fn is_all_of(file: &Path, content: &[u8]) -> io::Result<bool> {
    let file = File::open(file)?;
    let length = content.len() as u64;
    if file.metadata()?.len() != length {
        return Ok(false);
    }
    let mut found = Vec::with_capacity(content.len());
    file.take(length + 1).read_to_end(&mut found)?;
    Ok(found == content)
}

fn write_state(state: &Path, files: &Files, rights: &Rights) -> io::Result<()> {
    let make = |folder: &Path| DirBuilder::new().mode(0o700).create(folder).and_then(|()| rights.give(folder));
    make(state)?;
    for (path, content) in files {
        let file = state.join(path);
        let above: Vec<&Path> = file.ancestors().skip(1).take_while(|folder| *folder != state).collect();
        for folder in above.into_iter().rev().filter(|folder| !folder.exists()) {
            make(folder)?;
        }
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        opened.write_all(content)?;
        if let Some(user) = &rights.user {
            fchown(&opened, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        exactly(&file, rights.file)?;
    }
    Ok(())
}

/// Whatever the umask.
fn exactly(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Makes a link for each name, and removes those for names that are no more.
fn link_names(folder: &Path, files: &Files) -> io::Result<()> {
    let names = first_parts(files);
    for name in &names {
        let (link, target) = (folder.join(name), Path::new(DATA).join(name));
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            continue;
        }
        done_if_missing(fs::remove_file(&link))?;
        symlink(&target, &link)?;
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = fs::read_link(&path).is_ok_and(|target| target.starts_with(DATA));
        if is_ours && !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(&name)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn first_parts(files: &Files) -> Vec<&str> {
    let mut names: Vec<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    names.dedup();
    names
}

fn done_if_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a link at a path below a folder, step by step, so that no link that somebody has put on the way is followed.
pub(in crate::kubelet::os) fn link(folder: &Path, path: &str, target: &Path, user: Option<&str>) -> io::Result<()> {
    let user = user.map(user::find).transpose()?;
    let only_folders = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at: OwnedFd = File::options().read(true).custom_flags(only_folders.bits()).open(folder)?.into();
    let mut parts: Vec<&str> = path.split('/').collect();
    let Some(name) = parts.pop() else { return Ok(()) };
    for part in parts {
        at = match openat(&at, part, only_folders, Mode::empty()) {
            Err(Errno::ENOENT) => {
                make_whole(folder, &at, part, user.as_ref())?;
                openat(&at, part, only_folders, Mode::empty())
            }
            found => found,
        }
        .map_err(|error| in_the_way(part, error))?;
    }
    match readlinkat(&at, name) {
        Ok(found) if Path::new(&found) == target => return Ok(()),
        Ok(_) => unlinkat(&at, name, UnlinkatFlags::NoRemoveDir)?,
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(in_the_way(name, error)),
    }
    Ok(symlinkat(target, &at, name)?)
}

/// Makes a folder that has its owner from the start, beside the one that containers can write to: where it is to go, they could put another one in its place
/// before that is given away. Everybody may pass it, since the pod's containers may be several users, now or later; nobody else gets into the pod's folder.
fn make_whole(folder: &Path, at: &OwnedFd, part: &str, user: Option<&User>) -> io::Result<()> {
    let fresh = folder.with_extension("new");
    remove_folder(&fresh)?;
    DirBuilder::new().mode(0o700).create(&fresh)?;
    exactly(&fresh, 0o755)?;
    if let Some(user) = user {
        chown(&fresh, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    renameat(AT_FDCWD, &fresh, at, part).map_err(|error| in_the_way(part, error))
}

fn in_the_way(part: &str, error: Errno) -> io::Error {
    match error {
        Errno::ELOOP | Errno::ENOTDIR | Errno::EINVAL | Errno::ENOTEMPTY | Errno::EEXIST => {
            io::Error::new(io::ErrorKind::AlreadyExists, format!("something else is at {part:?} already"))
        }
        error => error.into(),
    }
}

/// Removes a folder with all that is in it, links and not what they lead to. What its owner has made read-only goes, too.
pub(in crate::kubelet::os) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            done_if_missing(fs::remove_dir_all(path))
        }
        outcome => done_if_missing(outcome),
    }
}

/// Gives back to its owner what he may do with every folder.
fn open_up(folder: &Path) -> io::Result<()> {
    debug_assert!(!folder.components().any(|part| part == Component::ParentDir));
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() {
        return Ok(());
    }
    fs::set_permissions(folder, Permissions::from_mode(found.permissions().mode() | 0o700))?;
    for entry in fs::read_dir(folder)? {
        open_up(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
