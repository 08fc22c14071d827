//! Who is told of which commit. The [`Hub`] reads the store's feed and passes each commit to the topics that it touches; a [`Cursor`] listens to
//! the narrowest topics that cover what it watches, so that a commit wakes only those who may care.
//!
//! A cursor is no queue. One that isn't read falls behind, and when it has fallen out of its topics' short channels it reads on from the
//! store's history, from where it stands. The committer never waits for any of this.
//!
//! The seven guarantees of a watch are written in proto/bluebird/v1/watch.proto; [`checkers`] checks them on a recorded run.

pub mod checkers;
mod cursor;
mod filter;
mod hub;
mod known;
mod pages;
mod topic;

#[cfg(test)]
mod tests;

pub use cursor::{Batch, Cursor};
pub use hub::Hub;
pub use known::Known;

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
