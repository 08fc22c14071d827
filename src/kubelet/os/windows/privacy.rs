//! What keeps folders from the machine's other users: access control lists, which are told and read as text.

use std::ffi::c_void;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;

use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use windows_sys::Win32::Foundation::{ERROR_ALREADY_EXISTS, HLOCAL, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW, ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW,
    GetNamedSecurityInfoW, SDDL_REVISION_1, SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetTokenInformation, PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::CreateDirectoryW;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::{check, owned, wide};

/// Longer paths need the form of them that the system doesn't interpret.
const LONG: usize = 240;
/// Enough for any user's identity.
const TOKEN_BYTES: usize = 256;

/// Makes a folder, with those on the way to it, that only the system, the administrators and this process's user can look into; so is what will be in it. One that
/// is there stays as it is.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.is_dir()).collect();
    let descriptor = if missing.is_empty() { return Ok(()) } else { Local::private()? };
    let attributes =
        SECURITY_ATTRIBUTES { nLength: size_of::<SECURITY_ATTRIBUTES>() as u32, lpSecurityDescriptor: descriptor.0, bInheritHandle: 0 };
    for folder in missing.into_iter().rev() {
        let name = long(folder);
        // SAFETY: the name ends with a zero, and the descriptor lives longer than this.
        match check(unsafe { CreateDirectoryW(name.as_ptr(), &raw const attributes) }) {
            Err(error) if error.raw_os_error() == Some(ERROR_ALREADY_EXISTS.cast_signed()) && folder.is_dir() => {}
            other => other?,
        }
    }
    Ok(())
}

/// A named pipe for one caller, which nobody but those can be.
pub(super) fn private_pipe(name: &str) -> io::Result<NamedPipeServer> {
    let descriptor = Local::private()?;
    let mut attributes =
        SECURITY_ATTRIBUTES { nLength: size_of::<SECURITY_ATTRIBUTES>() as u32, lpSecurityDescriptor: descriptor.0, bInheritHandle: 0 };
    let mut options = ServerOptions::new();
    options.first_pipe_instance(true).max_instances(1);
    // SAFETY: the attributes are what is asked for, and live longer than this.
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast()) }
}

/// Whether nobody but those can look into a folder.
pub(super) fn is_private(folder: &Path) -> io::Result<bool> {
    let name = wide(&folder.to_string_lossy());
    let mut descriptor: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
    let (none, list) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the name ends with a zero; the pointers are to values of the right kinds, or null where nothing is asked for.
    let status = unsafe {
        GetNamedSecurityInfoW(
            name.as_ptr(),
            SE_FILE_OBJECT,
            DACL_SECURITY_INFORMATION,
            none,
            none,
            list,
            std::ptr::null_mut(),
            &raw mut descriptor,
        )
    };
    let found = Local(descriptor);
    match status {
        // The system has names of its own for some users: so both are told in its words.
        0 => Ok(admits_only(&found.text()?, &Local::private()?.text()?)),
        status => Err(io::Error::from_raw_os_error(status.cast_signed())),
    }
}

/// Whether a list admits nobody whom another one doesn't name.
fn admits_only(list: &str, other: &str) -> bool {
    let known: Vec<&str> = entries(other).filter_map(|entry| entry.rsplit(';').next()).collect();
    let is_fine = |entry: &str| {
        entry.starts_with("D;") || entry.starts_with("OD;") || entry.rsplit(';').next().is_some_and(|who| known.contains(&who))
    };
    // Where there is no list everybody is admitted.
    entries(list).next().is_some() && entries(list).all(is_fine)
}

/// `kind;flags;rights;object;inherited object;who`, of each.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split('(').skip(1).filter_map(|entry| entry.split(')').next())
}

/// The list of a private folder. P: nothing of what holds above it holds here. OI, CI: it holds for files and folders in it.
fn private() -> io::Result<String> {
    Ok(format!("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;{})", user()?))
}

/// This process's user, as text.
fn user() -> io::Result<String> {
    let mut token = std::ptr::null_mut();
    // SAFETY: the pointer is to a value of the right kind.
    check(unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) })?;
    let token = owned(token)?;
    let mut buffer = [0_u64; TOKEN_BYTES / size_of::<u64>()];
    let mut length = 0;
    // SAFETY: the buffer is as large as is said, and as aligned as the structure has to be.
    check(unsafe {
        GetTokenInformation(token.as_raw_handle(), TokenUser, buffer.as_mut_ptr().cast(), TOKEN_BYTES as u32, &raw mut length)
    })?;
    let mut text = std::ptr::null_mut();
    // SAFETY: the buffer begins with the structure, whose pointer leads into it.
    check(unsafe { ConvertSidToStringSidW((*buffer.as_ptr().cast::<TOKEN_USER>()).User.Sid, &raw mut text) })?;
    Ok(Local(text.cast()).read())
}

/// What the system has allocated for us.
struct Local(*mut c_void);

impl Local {
    /// The descriptor of a private folder.
    fn private() -> io::Result<Self> {
        let (text, mut descriptor) = (wide(&private()?), std::ptr::null_mut());
        // SAFETY: the text ends with a zero, and the pointers are to values of the right kinds.
        check(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(text.as_ptr(), SDDL_REVISION_1, &raw mut descriptor, std::ptr::null_mut())
        })?;
        Ok(Self(descriptor))
    }

    /// Of a descriptor: its list.
    fn text(&self) -> io::Result<String> {
        let mut text = std::ptr::null_mut();
        // SAFETY: this is a descriptor of the system's, and the pointers are to values of the right kinds.
        check(unsafe {
            ConvertSecurityDescriptorToStringSecurityDescriptorW(
                self.0,
                SDDL_REVISION_1,
                DACL_SECURITY_INFORMATION,
                &raw mut text,
                std::ptr::null_mut(),
            )
        })?;
        Ok(Self(text.cast()).read())
    }

    /// Of a text: it.
    fn read(&self) -> String {
        let start: *const u16 = self.0.cast();
        // SAFETY: the text ends with a zero.
        let units = (0..).map(|index| unsafe { *start.add(index) }).take_while(|unit| *unit != 0);
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: allocated by the system for whoever called it. Null is allowed.
        unsafe { LocalFree(self.0 as HLOCAL) };
    }
}

/// As the system takes a path of any length.
fn long(path: &Path) -> Vec<u16> {
    let name: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    let has_drive = name.get(1) == Some(&u16::from(b':'));
    if has_drive && name.len() > LONG { r"\\?\".encode_utf16().chain(name).collect() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_private_when_it_admits_only_whom_it_should() {
        let private = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;S-1-5-21-7)";
        let private_enough = |list: &str| admits_only(list, private);
        assert!(private_enough(private));
        assert!(private_enough("D:AI(A;ID;FA;;;BA)(D;;FA;;;WD)"));
        assert!(!private_enough("D:(A;OICI;FA;;;SY)(A;;0x1200a9;;;BU)"), "the users are others");
        assert!(!private_enough("D:NO_ACCESS_CONTROL"));
    }

    #[test]
    fn a_folder_that_is_made_private_is_with_what_is_on_the_way_to_it_and_one_for_everybody_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (above, private) = (folder.path().join("a"), folder.path().join("a").join("b"));
        make_folder(&private).unwrap();
        make_folder(&private).unwrap();
        assert!(is_private(&private).unwrap() && is_private(&above).unwrap());
        std::fs::write(private.join("file"), "told").unwrap();
        assert_eq!(std::fs::read(private.join("file")).unwrap(), b"told");

        let open = folder.path().join("open");
        let (name, text) = (wide(&open.to_string_lossy()), wide("D:P(A;OICI;FA;;;WD)"));
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: the text ends with a zero, and the pointers are to values of the right kinds.
        let made = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(text.as_ptr(), SDDL_REVISION_1, &raw mut descriptor, std::ptr::null_mut())
        };
        check(made).unwrap();
        let descriptor = Local(descriptor);
        let attributes =
            SECURITY_ATTRIBUTES { nLength: size_of::<SECURITY_ATTRIBUTES>() as u32, lpSecurityDescriptor: descriptor.0, bInheritHandle: 0 };
        // SAFETY: the name ends with a zero, and the descriptor lives longer than this.
        check(unsafe { CreateDirectoryW(name.as_ptr(), &raw const attributes) }).unwrap();
        assert!(!is_private(&open).unwrap());
    }
}
