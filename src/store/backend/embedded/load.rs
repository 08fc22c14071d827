//! Reads the files of a folder and checks that together they are one store. Changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::End;
use super::record::{Fault, Reader};
use super::rows::{BatchRow, Role};
use super::tail::Tail;
use super::{CHECKPOINT, LOG, UNFINISHED, checkpoint, checkpoint_path, restore, segment_path, tail_path};
use crate::api::Revision;
use crate::store::{Commit, History, OpenError, Snapshot};

/// What is in a folder.
pub(super) struct Found {
    /// The first revisions of the log's segments, in order.
    pub(super) segments: Vec<Revision>,
    /// The revisions of the checkpoints, in order.
    pub(super) checkpoints: Vec<Revision>,
    /// Files that a crash left unfinished.
    pub(super) unfinished: Vec<PathBuf>,
}

/// What the files say.
pub(super) struct Contents {
    pub(super) cluster_id: String,
    pub(super) state: Snapshot,
    /// Where the last segment ends.
    pub(super) end: End,
    /// How much of the log is not in the checkpoint, in bytes.
    pub(super) replayed: u64,
}

impl Found {
    /// Lists a folder.
    ///
    /// # Errors
    /// When it can't be listed, or is left half restored.
    pub(super) fn list(folder: &Path) -> Result<Self, OpenError> {
        if restore::marker(folder).exists() {
            return Err(OpenError::HalfRestored { folder: folder.to_owned() });
        }
        Self::list_any(folder)
    }

    /// Lists a folder, also one that is left half restored.
    pub(super) fn list_any(folder: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: folder.to_owned(), doing: "list", source };
        let mut found = Self { segments: Vec::new(), checkpoints: Vec::new(), unfinished: Vec::new() };
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(revision) = numbered(name, LOG) {
                found.segments.push(revision);
            } else if let Some(revision) = numbered(name, CHECKPOINT) {
                found.checkpoints.push(revision);
            } else if name.ends_with(UNFINISHED) {
                found.unfinished.push(path);
            }
        }
        found.segments.sort();
        found.checkpoints.sort();
        Ok(found)
    }

    /// Whether no store has been made here yet.
    pub(super) fn is_new(&self, folder: &Path) -> bool {
        self.segments.is_empty() && self.checkpoints.is_empty() && !tail_path(folder).exists()
    }

    /// Reads everything: the newest checkpoint, and the log over it.
    pub(super) fn read(&self, folder: &Path, history: &mut History) -> Result<Contents, OpenError> {
        let (cluster_id, state) = match self.checkpoints.last() {
            Some(revision) => {
                checkpoint::read(&checkpoint_path(folder, *revision), Some(*revision)).map(|(id, state)| (Some(id), state))?
            }
            None => (None, Snapshot::default()),
        };
        let tail = Tail::read(&tail_path(folder));
        let checkpoint = state.revision();
        let mut replay = Replay { folder, tail, cluster_id, checkpoint, state, next: None, end: End::default(), replayed: 0, history };
        for (index, first) in self.segments.iter().enumerate() {
            replay.segment(*first, index + 1 == self.segments.len())?;
        }
        replay.finish(self.segments.last().copied())
    }
}

fn numbered(name: &str, prefix: &str) -> Option<Revision> {
    let digits = name.strip_prefix(prefix)?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(Revision)).flatten()
}

struct Replay<'a> {
    folder: &'a Path,
    tail: Option<Tail>,
    cluster_id: Option<String>,
    checkpoint: Revision,
    state: Snapshot,
    /// The revision that has to come next; any, before the first segment.
    next: Option<Revision>,
    /// Of the last segment that was read.
    end: End,
    replayed: u64,
    history: &'a mut History,
}

impl Replay<'_> {
    fn segment(&mut self, first: Revision, last: bool) -> Result<(), OpenError> {
        let (mut reader, header) = Reader::open(&segment_path(self.folder, first))?;
        reader.expect(&header, Role::Log, first.0, self.cluster_id.as_deref())?;
        self.cluster_id = Some(header.cluster_id);
        self.check_begins(first, &reader)?;
        self.history.reach(Revision(first.0.saturating_sub(1)));
        self.next = Some(first);
        // The tail only speaks of the segment that was written to last.
        let durable = self.tail.filter(|tail| tail.segment == first).map_or(reader.offset(), |tail| tail.len);
        loop {
            let offset = reader.offset();
            match reader.next::<BatchRow>()? {
                Some(Ok(batch)) => {
                    let replayed =
                        self.batch(batch).ok_or_else(|| reader.damaged(offset, "a record holds other commits than its place asks for"))?;
                    self.replayed += if replayed { reader.offset() - offset } else { 0 };
                }
                Some(Err(fault)) if last && fault.torn && fault.offset >= durable => {
                    let Fault { offset, what, .. } = fault;
                    let file = segment_path(self.folder, first);
                    tracing::warn!(file = %file.display(), offset, what, "dropping a last write that a crash cut short; nobody was told that it happened");
                    self.end = End { durable: offset, zeros: offset };
                    return Ok(());
                }
                Some(Err(fault)) => return Err(reader.damaged(fault.offset, fault.what)),
                None if offset < durable => {
                    return Err(reader.damaged(offset, format!("its contents end here, but {durable} bytes had been written and synced")));
                }
                None => {
                    self.end = End { durable: offset, zeros: reader.len() };
                    return Ok(());
                }
            }
        }
    }

    fn check_begins(&self, first: Revision, reader: &Reader) -> Result<(), OpenError> {
        let (expected, fits) = match self.next {
            Some(next) => (next, first == next),
            None => (self.checkpoint.next(), first <= self.checkpoint.next()),
        };
        if fits {
            return Ok(());
        }
        Err(reader
            .damaged(0, format!("the log goes on here with revision {first}, but {expected} should come; a file is missing or cut off")))
    }

    /// Takes a record's commits. Says whether they were news to the state; `None` when they don't belong here.
    fn batch(&mut self, batch: BatchRow) -> Option<bool> {
        let mut news = false;
        for row in batch.commits {
            let commit: Commit = row.into_commit()?;
            if Some(commit.revision) != self.next {
                return None;
            }
            self.next = Some(commit.revision.next());
            if commit.revision > self.checkpoint {
                self.state.apply(&commit.events, commit.revision);
                news = true;
            } else {
                self.state.share(&commit.events, commit.revision);
            }
            self.history.recall(Arc::new(commit));
        }
        Some(news)
    }

    fn finish(self, last: Option<Revision>) -> Result<Contents, OpenError> {
        let missing = |file: PathBuf, fault: String| Err(OpenError::Damaged { file, offset: 0, fault });
        let Some((last, cluster_id, next)) = last.zip(self.cluster_id).zip(self.next).map(|((last, id), next)| (last, id, next)) else {
            let first = self.tail.map_or(self.checkpoint.next(), |tail| tail.segment);
            return missing(segment_path(self.folder, first), "the file is missing".to_owned());
        };
        if let Some(tail) = self.tail.filter(|tail| tail.segment > last) {
            return missing(segment_path(self.folder, tail.segment), "the file is missing".to_owned());
        }
        if next <= self.checkpoint {
            let fault = format!(
                "the log ends with revision {}, before the checkpoint of {}; a file is missing or cut off",
                next.0 - 1,
                self.checkpoint
            );
            return Err(OpenError::Damaged { file: segment_path(self.folder, last), offset: self.end.durable, fault });
        }
        Ok(Contents { cluster_id, state: self.state, end: self.end, replayed: self.replayed })
    }
}
