//! `bluebird`.
fn main() {}
