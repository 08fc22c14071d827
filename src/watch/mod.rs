//! Who is told of which commit. The [`Hub`] reads the store's feed and passes each commit to the channels that it may concern, found by topic; a
//! channel is shared by all watches with the same filter, and looks at each commit once for all of them. A [`Cursor`] is one watch: it takes what
//! its channel has after where it stands, as a [`Message`] that is put together once and shared by all who stand there.
//!
//! A cursor is no queue. One that isn't read falls behind, and when its channel no longer has what comes next, it reads on from the store's history.
//! The committer never waits for any of this, and the hub wakes only so many at once that others have their turn between.
//!
//! The seven guarantees of a watch are written in proto/bluebird/v1/watch.proto; [`checkers`] checks them on a recorded run.

mod channel;
pub mod checkers;
mod cursor;
mod filter;
mod hub;
mod known;
mod message;
mod pace;
mod pages;
mod topic;

#[cfg(test)]
mod tests;

pub use cursor::Cursor;
pub use hub::Hub;
pub use known::Known;
pub use message::Message;

use crate::api::Revision;

/// Where a watch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the changes after the current revision. The first batch is a bookmark that says which one that is.
    Now,
    /// With the changes after this revision.
    After(Revision),
    /// With the current state, then the changes after it.
    Initial,
    /// With the changes after a revision, if one is given and the history reaches back to it; otherwise with the difference between what is known
    /// and the current state, then the changes after that.
    Difference {
        /// What is known.
        known: Known,
        /// Up to where everything is.
        after: Option<Revision>,
    },
}
