//! The commands of `bluebird` and what they print.
