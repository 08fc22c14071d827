//! Control plane and node put together in one process.
