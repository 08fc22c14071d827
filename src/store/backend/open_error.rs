use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a store can't be opened. In a folder nothing has been changed then; in an etcd a new cluster may have got its first keys.
#[derive(Debug)]
pub enum OpenError {
    /// Another apiserver uses the folder.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The data is not as it was written.
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        fault: String,
    },
    /// A backup is not as it was written, or it is none.
    DamagedBackup {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        fault: String,
    },
    /// There is a store already where a backup should be restored.
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// A backup was being restored here, and that was not finished.
    HalfRestored {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no store to look into.
    NoStore {
        /// Where.
        path: PathBuf,
    },
    /// A newer BlueBird has written the file.
    NewerFormat {
        /// Which file.
        file: PathBuf,
        /// Its format's number.
        found: u32,
        /// The newest that we know.
        known: u32,
    },
    /// The etcd can't be used.
    Etcd {
        /// Which.
        address: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The operating system refused something.
    Io {
        /// On what.
        path: PathBuf,
        /// What was tried: a verb.
        doing: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse { folder } => {
                write!(f, "{} is in use by another apiserver; stop that one, or give this one another data folder", folder.display())
            }
            OpenError::Damaged { file, offset, fault } => write!(
                f,
                "{} is damaged at byte {offset}: {fault}. Nothing was changed. To go on, stop here and put back a copy of the whole folder {}; or \
                 move that folder aside to begin with an empty cluster",
                file.display(),
                file.parent().unwrap_or(file).display()
            ),
            OpenError::DamagedBackup { file, offset, fault } => {
                write!(f, "{} is no sound backup: at byte {offset}, {fault}. Nothing was changed. Use another one", file.display())
            }
            OpenError::NotEmpty { folder } => write!(
                f,
                "there is a store in {} already. Nothing was changed. Restore to another folder, or move that one aside",
                folder.display()
            ),
            OpenError::HalfRestored { folder } => write!(
                f,
                "a backup was being restored to {}, and that was not finished. Run `apiserver restore` again, or remove the folder",
                folder.display()
            ),
            OpenError::NoStore { path } => write!(f, "there is no store in {}, and it is no backup", path.display()),
            OpenError::NewerFormat { file, found, known } => write!(
                f,
                "{} was written by a newer version (format {found}, this one knows up to {known}). Nothing was changed. Use that version, or another \
                 data folder",
                file.display()
            ),
            OpenError::Etcd { address, fault } => write!(f, "can't use {address}: {fault}"),
            OpenError::Io { path, doing, source } => write!(f, "can't {doing} {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { source, .. } => Some(source),
            OpenError::InUse { .. }
            | OpenError::Damaged { .. }
            | OpenError::DamagedBackup { .. }
            | OpenError::NotEmpty { .. }
            | OpenError::HalfRestored { .. }
            | OpenError::NoStore { .. }
            | OpenError::NewerFormat { .. }
            | OpenError::Etcd { .. } => None,
        }
    }
}
