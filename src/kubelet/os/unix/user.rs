//! The users that containers run as.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User as Account};

use crate::kubelet::os::Known;

/// Whom a process is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kubelet::os) struct User {
    pub(in crate::kubelet::os) uid: Uid,
    pub(in crate::kubelet::os) gid: Gid,
    /// Absent for a number that no account has.
    account: Option<Account>,
}

/// `USER` or `USER:GROUP`, each a name or a number.
pub(in crate::kubelet::os) fn find(text: &str) -> io::Result<User> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let number = user.parse().ok().map(Uid::from_raw);
    let account = match number {
        Some(uid) => Account::from_uid(uid)?,
        None => Account::from_name(user)?,
    };
    let uid = account.as_ref().map(|account| account.uid).or(number).ok_or_else(|| missing(format!("the user {user} does not exist")))?;
    let gid = match (group, &account) {
        (Some(group), _) => find_group(group)?,
        (None, Some(account)) => account.gid,
        (None, None) => return Err(missing(format!("the user {user} does not exist, so its group must be named: {user}:GROUP"))),
    };
    Ok(User { uid, gid, account })
}

fn find_group(group: &str) -> io::Result<Gid> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    Group::from_name(group)?.map(|group| group.gid).ok_or_else(|| missing(format!("the group {group} does not exist")))
}

/// How many groups a process of macOS can have.
#[cfg(target_os = "macos")]
const MOST_GROUPS: usize = 16;

/// Not as the kind that it is: it would be taken for a missing program.
fn missing(message: String) -> io::Error {
    io::Error::other(message)
}

impl User {
    /// All groups that the account is in, with the one that it is to have.
    #[cfg(target_os = "linux")]
    pub(in crate::kubelet::os) fn groups(&self) -> io::Result<Vec<Gid>> {
        match &self.account {
            Some(account) => Ok(nix::unistd::getgrouplist(&std::ffi::CString::new(account.name.as_str())?, self.gid)?),
            None => Ok(vec![self.gid]),
        }
    }

    /// The same, as far as a process can have them at once.
    #[cfg(target_os = "macos")]
    pub(in crate::kubelet::os) fn groups(&self) -> io::Result<Vec<nix::libc::gid_t>> {
        let Some(account) = &self.account else { return Ok(vec![self.gid.as_raw()]) };
        let name = std::ffi::CString::new(account.name.as_str())?;
        let mut groups = [0; MOST_GROUPS];
        let mut count = MOST_GROUPS as nix::libc::c_int;
        // SAFETY: there is room for as many as is said. It fails when there are more, after it has written so many.
        unsafe { nix::libc::getgrouplist(name.as_ptr(), self.gid.as_raw().cast_signed(), groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0).min(MOST_GROUPS);
        Ok(groups[..count].iter().map(|group| group.cast_unsigned()).collect())
    }

    pub(in crate::kubelet::os) fn known(&self) -> Option<Known> {
        self.account.as_ref().map(|account| Known { name: account.name.clone(), home: account.dir.clone() })
    }
}

/// Gives a user a folder of its own, and lets it reach that without seeing what is beside it. Where several users share the folder, each may write
/// there and none may remove what is another's.
pub(in crate::kubelet::os) fn hand_over(folder: &Path, above: &[&Path], user: &User) -> io::Result<()> {
    for above in above {
        let mode = std::fs::metadata(above)?.permissions().mode();
        if mode & 0o011 != 0o011 {
            std::fs::set_permissions(above, PermissionsExt::from_mode(mode & 0o7777 | 0o011))?;
        }
    }
    let (found, own) = (std::fs::metadata(folder)?, Uid::effective().as_raw());
    let is_shared = found.uid() == own && found.mode() & 0o1777 == 0o1777;
    if is_shared || found.uid() == user.uid.as_raw() {
        Ok(())
    } else if found.uid() == own {
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
    } else {
        // Whoever owns the folder could remove what is in it, whatever its mode.
        chown(folder, Some(own), None)?;
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o1777))
    }
}
