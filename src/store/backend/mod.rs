mod embedded;
mod open_error;

use std::sync::Arc;

pub use embedded::Embedded;
pub use open_error::OpenError;

use super::{Commit, History, Snapshot};
use crate::api::Revision;
use crate::error::Result;

/// Where commits are kept. Used by one thread, the committer's.
///
/// # Guarantees
/// What [`Backend::append`] has answered with Ok is there after any crash, whole and in order. Of what it refused nothing is ever seen again, except
/// after an error that leaves the outcome open (see there): then all of it is there after a restart, or nothing.
///
/// # Assumptions
/// `load` is called once, first. Commits are appended in the order of their revisions, without a gap.
pub trait Backend: Send {
    /// Reads the state, and the commits that led there as far as they are kept: they are pushed to `history`, oldest first, the last one being the
    /// state's. An empty place is made a new cluster at revision 0.
    ///
    /// # Errors
    /// Whatever makes the data doubtful; nothing is changed then.
    fn load(&mut self, history: &mut History) -> Result<Loaded, OpenError>;

    /// Makes commits durable, all or none.
    ///
    /// # Errors
    /// Exhausted: there was no space, nothing was written, it may be tried again. Unavailable: the same for another reason; or, when the
    /// message says that the store is read-only from now on, the outcome is open and every later append fails too.
    fn append(&mut self, commits: &[Arc<Commit>]) -> Result<()>;

    /// Lets go of what neither the state nor a history from `oldest` on needs. Called after every batch; long work is only begun here.
    fn compact(&mut self, state: &Snapshot, oldest: Revision);

    /// Ends: waits for work that was begun, and prepares a fast start from `state`. Failing to is logged, as nothing is lost.
    fn close(&mut self, state: &Snapshot);
}

/// What a backend holds.
#[derive(Debug)]
pub struct Loaded {
    /// A random id that the cluster got when its data was created.
    pub cluster_id: String,
    /// Every object, as of the last commit.
    pub state: Snapshot,
}
