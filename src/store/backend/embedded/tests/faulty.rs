use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::super::disk::{Disk, DiskFile, RealDisk};

/// What goes wrong at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process dies before it.
    Crash,
    /// The process dies in the middle of it: a write is half done, everything else is done.
    Tear,
    /// The power fails in the middle of it: what was not synced is half there, names that were not synced are as before.
    PowerFailure(Kept),
    /// It fails, a write half done, and everything works again.
    Error(ErrorKind),
}

/// Which half of what was not synced survives a power failure: a disk writes in whatever order it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    First,
    Last,
}

/// A disk on which one operation goes wrong. After a crash nothing changes any more.
#[derive(Default)]
pub(super) struct FaultyDisk {
    state: Mutex<State>,
    gate: Mutex<Gate>,
    moved: Condvar,
}

/// Where operations on the log wait.
#[derive(Default)]
struct Gate {
    holds: Option<Held>,
    /// How many have come here.
    came: usize,
    /// How many may go.
    may_go: usize,
}

/// What is held up, of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Writes,
    Syncs,
}

/// No test holds anything up for longer.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    operations: usize,
    trouble: Option<(usize, Trouble)>,
    /// What goes wrong after that.
    second: Option<(usize, Trouble)>,
    struck: bool,
    crashed: bool,
    /// Files with this in their names can't be made.
    no_space_for: Option<&'static str>,
    /// So many bytes are all that the files of a folder may have.
    space: Option<u64>,
    /// For each file: its contents when it was synced last. The tail never is: its first contents stand for an old version.
    synced: HashMap<PathBuf, Vec<u8>>,
    old_tail: Option<Vec<u8>>,
    /// What has to be undone if the power fails before the folder is synced, in order: renames, and removals as the contents.
    unsynced_names: Vec<Name>,
}

enum Name {
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf, Vec<u8>),
}

enum Course {
    Normal,
    /// Do half of it, then fail like this.
    Half(io::Error),
    Fail(io::Error),
}

impl FaultyDisk {
    pub(super) fn new(at: usize, trouble: Trouble) -> Self {
        Self { state: Mutex::new(State { trouble: Some((at, trouble)), ..State::default() }), ..Self::default() }
    }

    /// Two operations go wrong, the second one so many after the first.
    pub(super) fn with_two(at: usize, first: Trouble, later: usize, second: Trouble) -> Self {
        let state = State { trouble: Some((at, first)), second: Some((at + later, second)), ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// From now on these operations on the log wait until they are let go.
    pub(super) fn hold(&self, what: Held) {
        self.gate.lock().unwrap().holds = Some(what);
    }

    /// Returns when so many have been held up. Blocks.
    pub(super) fn until_held(&self, count: usize) {
        let gate = self.gate.lock().unwrap();
        let (gate, _) = self.moved.wait_timeout_while(gate, LONGEST, |gate| gate.came < count).unwrap();
        assert!(gate.came >= count, "only {} came, not {count}", gate.came);
    }

    /// Lets the next one go.
    pub(super) fn let_one_go(&self) {
        self.gate.lock().unwrap().may_go += 1;
        self.moved.notify_all();
    }

    /// Lets all go, and holds nothing up any more.
    pub(super) fn let_all_go(&self) {
        self.gate.lock().unwrap().holds = None;
        self.moved.notify_all();
    }

    fn pass(&self, what: Held, file: &DiskFile) {
        let mut gate = self.gate.lock().unwrap();
        let is_log = file.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"));
        if !is_log || gate.holds != Some(what) {
            return;
        }
        gate.came += 1;
        self.moved.notify_all();
        let waits = |gate: &mut Gate| gate.holds == Some(what) && gate.may_go == 0;
        let (mut gate, late) = self.moved.wait_timeout_while(gate, LONGEST, waits).unwrap();
        assert!(!late.timed_out(), "nobody let it go");
        gate.may_go = gate.may_go.saturating_sub(1);
    }

    /// Whether any trouble has come.
    pub(super) fn has_struck(&self) -> bool {
        self.state.lock().unwrap().struck
    }

    pub(super) fn trouble_next(&self, trouble: Trouble) {
        let mut state = self.state.lock().unwrap();
        state.trouble = Some((state.operations, trouble));
    }

    pub(super) fn trouble_after_next(&self, trouble: Trouble) {
        let mut state = self.state.lock().unwrap();
        state.trouble = Some((state.operations + 1, trouble));
    }

    pub(super) fn no_space_for(&self, name: Option<&'static str>) {
        self.state.lock().unwrap().no_space_for = name;
    }

    pub(super) fn space(&self, bytes: Option<u64>) {
        self.state.lock().unwrap().space = bytes;
    }

    /// What the power failure leaves. Call it when the store is gone.
    pub(super) fn lose_what_was_not_synced(&self) {
        let mut state = self.state.lock().unwrap();
        let Some((_, Trouble::PowerFailure(kept))) = state.trouble.filter(|_| state.crashed) else { return };
        for (path, synced) in &state.synced {
            let Ok(bytes) = std::fs::read(path) else { continue };
            let left = match &state.old_tail {
                Some(old) if path.ends_with("tail") => old.clone(),
                _ => half_of_what_changed(synced, &bytes, kept),
            };
            std::fs::write(path, left).unwrap();
        }
        while let Some(name) = state.unsynced_names.pop() {
            match name {
                Name::Renamed(from, to) => std::fs::rename(to, from).unwrap(),
                Name::Removed(path, bytes) => std::fs::write(path, bytes).unwrap(),
            }
        }
    }

    fn course(&self) -> Course {
        let mut state = self.state.lock().unwrap();
        let this = state.operations;
        state.operations += 1;
        let dead = || io::Error::other("the process is dead");
        if state.crashed {
            return Course::Fail(dead());
        }
        match state.trouble {
            Some((at, trouble)) if at == this => {
                (state.crashed, state.struck) = (!matches!(trouble, Trouble::Error(_)), true);
                state.trouble = state.second.take().or(state.trouble);
                match trouble {
                    Trouble::Crash => Course::Fail(dead()),
                    Trouble::Tear | Trouble::PowerFailure(_) => Course::Half(dead()),
                    Trouble::Error(kind) => Course::Half(kind.into()),
                }
            }
            _ => Course::Normal,
        }
    }

    /// For what has no halves: a process that dies in the middle of it has done it, an error has not.
    fn whole<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.course() {
            Course::Normal => operation(),
            Course::Half(error) if self.state.lock().unwrap().crashed => operation().and(Err(error)),
            Course::Half(error) | Course::Fail(error) => Err(error),
        }
    }

    fn halved(&self, bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self.course() {
            Course::Normal => write(bytes),
            Course::Half(error) => write(&bytes[..bytes.len() / 2]).and(Err(error)),
            Course::Fail(error) => Err(error),
        }
    }
}

impl FaultyDisk {
    /// How many of the bytes there is space for. To write over what is there needs none.
    fn fits(&self, file: &DiskFile, offset: u64, bytes: usize) -> io::Result<usize> {
        let Some(space) = self.state.lock().unwrap().space else { return Ok(bytes) };
        let mut used = 0;
        for entry in std::fs::read_dir(file.path.parent().unwrap())? {
            used += entry?.metadata()?.len();
        }
        let there = file.file.metadata()?.len().saturating_sub(offset);
        Ok(bytes.min((there + space.saturating_sub(used)) as usize))
    }

    /// Only if it will be asked for, as files may be large.
    fn remember(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let fails = |trouble: Option<(usize, Trouble)>| matches!(trouble, Some((_, Trouble::PowerFailure(_))));
        if fails(state.trouble) || fails(state.second) {
            state.synced.insert(path.to_owned(), std::fs::read(path)?);
        }
        Ok(())
    }
}

fn half_of_what_changed(before: &[u8], after: &[u8], kept: Kept) -> Vec<u8> {
    let changed = before.iter().zip(after).position(|(before, after)| before != after).unwrap_or(before.len().min(after.len()));
    let middle = changed + (after.len() - changed) / 2;
    let mut left = match kept {
        Kept::First => after[..middle].to_vec(),
        Kept::Last => before[..middle.min(before.len())].to_vec(),
    };
    match kept {
        Kept::First => left.extend_from_slice(before.get(middle..).unwrap_or_default()),
        Kept::Last => {
            left.resize(middle, 0);
            left.extend_from_slice(&after[middle..]);
        }
    }
    left
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        self.whole(|| {
            let no_space_for = self.state.lock().unwrap().no_space_for;
            if no_space_for.is_some_and(|name| path.to_str().is_some_and(|path| path.contains(name))) {
                return Err(ErrorKind::StorageFull.into());
            }
            let file = RealDisk.create(path)?;
            self.state.lock().unwrap().synced.insert(path.to_owned(), Vec::new());
            Ok(file)
        })
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        self.whole(|| RealDisk.open(path))
    }

    fn write(&self, file: &DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.pass(Held::Writes, file);
        self.halved(bytes, |bytes| {
            let fits = self.fits(file, offset, bytes.len())?;
            RealDisk.write(file, offset, &bytes[..fits])?;
            if file.path.ends_with("tail") {
                self.state.lock().unwrap().old_tail.get_or_insert_with(|| bytes.to_vec());
            }
            if fits < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        self.pass(Held::Syncs, file);
        // Nothing is really synced, for speed. A power failure in the middle of a sync has not synced everything.
        match self.course() {
            Course::Normal => self.remember(&file.path),
            Course::Half(error) | Course::Fail(error) => Err(error),
        }
    }

    fn truncate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        self.whole(|| {
            if let Some(synced) = self.state.lock().unwrap().synced.get_mut(&file.path) {
                synced.truncate(len as usize);
            }
            RealDisk.truncate(file, len)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole(|| {
            let mut state = self.state.lock().unwrap();
            let synced = state.synced.remove(from).unwrap_or_default();
            state.synced.insert(to.to_owned(), synced);
            state.unsynced_names.push(Name::Renamed(from.to_owned(), to.to_owned()));
            RealDisk.rename(from, to)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole(|| {
            let bytes = std::fs::read(path)?;
            let mut state = self.state.lock().unwrap();
            state.synced.remove(path);
            state.unsynced_names.push(Name::Removed(path.to_owned(), bytes));
            RealDisk.remove(path)
        })
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        match self.course() {
            Course::Normal => {
                self.state.lock().unwrap().unsynced_names.clear();
                Ok(())
            }
            Course::Half(error) | Course::Fail(error) => Err(error),
        }
    }
}
