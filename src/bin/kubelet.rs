//! `kubelet`.
fn main() {}
