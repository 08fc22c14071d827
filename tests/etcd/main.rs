//! Several apiservers on one real etcd, and what can happen to it.

mod broken;
mod compacted;
mod fleet;
mod secure;
mod shared;

/// How long anything may take that should take a moment.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);
