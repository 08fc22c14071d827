pub(super) mod embedded;
pub(super) mod etcd;
mod open_error;

use std::fmt;

use futures_util::future::BoxFuture;

pub(super) use embedded::Embedded;
pub(super) use etcd::Etcd;
pub use etcd::{EtcdOptions, Tls};
pub use open_error::OpenError;

use super::{Committed, Transaction};
use crate::error::Result;

/// Where the state is kept, and where it is decided whether a transaction happens. It publishes every commit to the store's feed, in order.
///
/// # Guarantees
/// What [`Backend::commit`] has answered with Ok is there after any crash, whole and in order. Of what it refused nothing is ever seen, except after
/// an error that leaves the outcome open: then all of it is seen later, or nothing.
pub(super) trait Backend: fmt::Debug + Send + Sync {
    /// Does all writes of a transaction that has been measured, at one revision, or none. When this returns they are durable and the feed shows them.
    /// Dropping the future leaves open whether the transaction happens.
    ///
    /// # Errors
    /// By the conditions AlreadyExists, Conflict, NotFound; Exhausted when there is no space, and nothing happened; Unavailable when
    /// the backend fails or is closed, and then the writes may or may not have happened.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed>>;

    /// Returns when the feed shows every commit that anybody, on any apiserver, was told of before the call.
    ///
    /// # Errors
    /// Unavailable when that can't be found out.
    fn catch_up(&self) -> BoxFuture<'_, Result<()>>;

    /// Whether other apiservers may commit to the same state.
    fn is_shared(&self) -> bool;

    /// The feed's history has become shorter without a commit: lets go of what is only there for it. Returns at once.
    fn compact(&self) {}

    /// Returns why the backend has closed the feed by itself, when it does. One that still answers reads never does.
    fn gave_up(&self) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
    }

    /// Finishes what waits, closes the feed and lets go of everything. Later commits answer Unavailable.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// Stops at once, as a crash would: what waits is not begun. The feed is closed when this returns, and a folder let go of.
    fn kill(&self);
}
