//! `apiserver`.
fn main() {}
