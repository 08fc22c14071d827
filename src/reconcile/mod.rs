//! The loop that makes what is match what is wanted, once for everybody: a queue of keys and the driver that works it off.
//!
//! A change in a [`Cache`](crate::client::Cache) wakes the keys that it affects. The wake-up carries no data: the [`Reconciler`] reads what there
//! is now. Start, reconnect, fail-over and steady state are the same path, and a period wakes everything again.

mod driver;
mod queue;

pub use driver::{Options, Outcome, Reconciler, start};
