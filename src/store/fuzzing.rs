//! What the fuzz targets in fuzz/ reach of the inside.

use std::path::Path;

use super::backend::embedded;
use super::{History, HistoryLimits, OpenError, Snapshot};

/// Reads the files of a folder as a start does, and changes nothing.
///
/// # Errors
/// As a start.
pub fn read_folder(folder: &Path, limits: HistoryLimits) -> Result<(Snapshot, History), OpenError> {
    embedded::read(folder, limits)
}
