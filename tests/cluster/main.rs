//! A whole cluster in this process, real pods beside it, and what must hold whatever is killed.
//!
//! The programs of these pods are shell scripts.
#![cfg(unix)]

mod exec;
mod faults;
mod objects;
mod pods;
mod port_forward;
mod routing;
mod several;
mod steps;
mod top;
