//! BlueBird runs and routes workloads on a mixed fleet of Linux, Windows and macOS machines through one small, typed gRPC API.
//!
//! ```text
//!  bluebird (console)   grpcurl / generated clients   other controllers
//!         └───────────────┬──────────┬──────────────────┘
//!                         ▼          ▼  one port
//! ┌─ apiserver ───────────────────────────────────────────────┐
//! │ api edge: default + validate → commit / watch             │
//! │ store: state in memory, one ordered commit feed, a log    │
//! │ watch: commit feed → topics → cursors                     │
//! └───────▲───────────────────▲───────────────────▲───────────┘
//!         │ outbound only: Watch + node session   │ in process
//! ┌─ kubelet ─────────────┐ ┌─ kubelet … ─┐ ┌─ controllers, scheduler ─┐
//! │ observe → plan → apply│ │             │ │ reconcile                │
//! │ → report; shim; routes│ │             │ │                          │
//! └───────────────────────┘ └─────────────┘ └──────────────────────────┘
//! ```
//!
//! The modules, each importing only from those above it (tests/tidy.rs holds the exact table):
//!
//! - [`api`]: the nouns, generated from proto/, and what can be said of them without IO; [`error`], [`time`], [`tasks`], [`telemetry`], [`arguments`].
//! - [`store`]: the state, its committer and the durable log. [`watch`]: commits to watchers.
//! - [`apiserver`]: the gRPC services over both.
//! - [`client`]: the typed client and the cache that follows a watch. [`reconcile`]: the loop that every controller runs in.
//! - [`controllers`], [`scheduler`], [`kubelet`], [`console`]: users of the client, who don't know each other.
//! - [`cluster`]: puts them together in one process. [`testing`]: the same, for anybody's tests.
//!
//! Start with [`api::v1`] and the comments in proto/bluebird/v1/watch.proto, then `kubelet/plan.rs` for how decisions are made and
//! `store/backend/embedded/committer.rs` for how they are kept. ARCHITECTURE.md names the invariants and the tests that hold them.
pub mod api;
pub mod apiserver;
pub mod arguments;
pub mod client;
pub mod cluster;
pub mod console;
pub mod controllers;
pub mod error;
pub mod kubelet;
pub mod reconcile;
pub mod scheduler;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod testing;
pub mod time;
pub mod watch;
