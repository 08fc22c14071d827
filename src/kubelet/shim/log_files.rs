//! Which files the logs of a container are in.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How much of a container's logs is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLimits {
    /// A file that would get larger is renamed, and a new one begun.
    pub(crate) max_bytes: u64,
    /// The newest files that are kept, over all runs of the container; at least two, so that whoever reads one finds the next.
    pub(crate) max_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_bytes: 10 * 1024 * 1024, max_files: 5 }
    }
}

/// One file, `ATTEMPT.log` or `ATTEMPT.log.NUMBER`. They sort from the oldest to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogFile {
    /// Of which run.
    pub(crate) attempt: u32,
    /// Counts up from 1 with each file of the run that became full; the largest number for the one that is still written.
    pub(crate) number: u32,
}

impl LogFile {
    /// The one that is written.
    pub(crate) fn present(attempt: u32) -> Self {
        Self { attempt, number: u32::MAX }
    }

    /// Where it is in the folder of the container's logs.
    pub(crate) fn path(self, folder: &Path) -> PathBuf {
        match self.number {
            u32::MAX => folder.join(format!("{}.log", self.attempt)),
            number => folder.join(format!("{}.log.{number}", self.attempt)),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let (attempt, number) = name.split_once(".log")?;
        let number = match number {
            "" => u32::MAX,
            number => number.strip_prefix('.')?.parse().ok()?,
        };
        Some(Self { attempt: attempt.parse().ok()?, number })
    }
}

/// All log files in a container's folder, from the oldest to the newest; none where there is no folder.
pub(crate) fn log_files(folder: &Path) -> io::Result<Vec<LogFile>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.extend(entry?.file_name().to_str().and_then(LogFile::parse));
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_written_is_the_newest_of_its_run() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1.log", "0.log", "0.log.2", "0.log.10", "x.log", "2.log.y", "notes"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = log_files(folder.path()).unwrap().into_iter().map(|file| file.path(folder.path())).collect();
        assert_eq!(names, ["0.log.2", "0.log.10", "0.log", "1.log"].map(|name| folder.path().join(name)));
        assert_eq!(log_files(&folder.path().join("none")).unwrap(), []);
    }
}
