//! What the fuzz targets in fuzz/ reach of the inside.

use std::path::Path;

use super::backend::{embedded, etcd};
use super::{Feed, History, HistoryLimits, OpenError, Snapshot};

/// Reads the files of a folder as a start does, and changes nothing.
///
/// # Errors
/// As a start.
pub fn read_folder(folder: &Path, limits: HistoryLimits) -> Result<(Snapshot, History), OpenError> {
    embedded::read(folder, limits)
}

/// What an apiserver makes of an etcd that answers so: a `RangeResponse`, and then `WatchResponse`s, all encoded. Runs within a runtime.
///
/// # Errors
/// As a start, or as what ends a store later.
pub fn follow_etcd(state: &[u8], changes: &[&[u8]]) -> Result<Feed, String> {
    etcd::fuzzing::follow(state, changes)
}
