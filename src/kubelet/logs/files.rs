//! Where the files of a container's log stand among each other, as far as their names tell.

use std::io;
use std::path::{Path, PathBuf};

use crate::kubelet::shim::log_files::{LogFile, log_files};

/// A file's place among those of a container. They are ordered as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Which run of the container.
    pub(super) attempt: u32,
    /// From 1: the number that the file has, or will have when it is full.
    pub(super) number: u32,
}

/// The files of a container that are there.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// Ascending; each with whether it has its number already.
    files: Vec<(Place, bool)>,
}

impl Files {
    /// Looks into the folder of a container's logs. `known` is the number of a file that was the one written to: from its name alone that can't be told.
    pub(super) fn list(folder: &Path, known: Option<Place>) -> io::Result<Self> {
        let (mut files, mut last) = (Vec::new(), None);
        // Ascending, the one that is written to behind those of its run that are full.
        for file in log_files(folder)? {
            let is_full = file != LogFile::present(file.attempt);
            let after_last = last.filter(|last: &Place| last.attempt == file.attempt).map_or(1, |last| last.number.saturating_add(1));
            let known = known.filter(|known| known.attempt == file.attempt).map_or(1, |known| known.number);
            let number = if is_full { file.number } else { after_last.max(known) };
            let place = Place { attempt: file.attempt, number };
            files.push((place, is_full));
            last = Some(place);
        }
        Ok(Self { folder: folder.to_owned(), files })
    }

    /// Ascending.
    pub(super) fn places(&self) -> impl DoubleEndedIterator<Item = Place> {
        self.files.iter().map(|(place, _)| *place)
    }

    /// The files of one run, ascending.
    pub(super) fn of(&self, attempt: u32) -> impl DoubleEndedIterator<Item = Place> {
        self.places().filter(move |place| place.attempt == attempt)
    }

    /// The newest run that has a file.
    pub(super) fn newest(&self) -> Option<u32> {
        self.places().next_back().map(|place| place.attempt)
    }

    /// Whether a file is there.
    pub(super) fn has(&self, place: Place) -> bool {
        self.places().any(|found| found == place)
    }

    /// Where a file is now. The one that is written to may be renamed at any moment.
    pub(super) fn path(&self, place: Place) -> PathBuf {
        let is_full = self.files.contains(&(place, true));
        let file = LogFile { attempt: place.attempt, number: place.number };
        if is_full { file } else { LogFile::present(place.attempt) }.path(&self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], known: Option<(u32, u32)>, expected: &[(u32, u32, &str)]) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let files = Files::list(folder.path(), known.map(|(attempt, number)| Place { attempt, number })).unwrap();
        let found: Vec<_> = files.places().map(|place| (place.attempt, place.number, files.path(place))).collect();
        let expected: Vec<_> = expected.iter().map(|(attempt, number, name)| (*attempt, *number, folder.path().join(name))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn files_are_in_the_order_in_which_they_were_written() {
        check(
            &["10.log", "9.log.10", "9.log", "9.log.9", "10.log.1"],
            None,
            &[(9, 9, "9.log.9"), (9, 10, "9.log.10"), (9, 11, "9.log"), (10, 1, "10.log.1"), (10, 2, "10.log")],
        );
    }

    #[test]
    fn a_file_whose_predecessors_were_removed_keeps_its_number() {
        check(&["3.log"], None, &[(3, 1, "3.log")]);
        check(&["3.log"], Some((3, 4)), &[(3, 4, "3.log")]);
        check(&["3.log", "3.log.5"], Some((3, 4)), &[(3, 5, "3.log.5"), (3, 6, "3.log")]);
        check(&["3.log"], Some((2, 4)), &[(3, 1, "3.log")]);
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_files() {
        let files = Files::list(Path::new("/nowhere/at/all"), None).unwrap();
        assert_eq!((files.newest(), files.places().count()), (None, 0));
    }
}
