//! Commits to watchers: the hub, cursors, and the seven guarantees.
