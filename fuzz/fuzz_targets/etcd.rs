//! An etcd that holds and tells any keys and values: followed or given up, never with a panic, and what is told on is whole and in order.
#![no_main]

use bluebird::store::fuzzing::follow_etcd;
use bluebird_fuzz::{seeds, split};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;

fuzz_target!(init: seeds::write(seeds::etcd), |bytes: &[u8]| {
    let [state, mut rest] = split(bytes);
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let [next, others] = split(rest);
        changes.push(next);
        rest = others;
    }
    // Of this run only: the connection, which is never made, is a task of it.
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let followed = {
        let _within = runtime.enter();
        follow_etcd(state, &changes)
    };
    let Ok(feed) = followed else { return };
    let state = feed.snapshot();
    for stored in state.iter() {
        let object = stored.decode();
        assert!(object.key().as_ref() == Some(&stored.key) && object.meta().resource_version == stored.revision.0);
        assert!(stored.revision <= state.revision(), "{:?} is of the future", stored.key);
    }
    let commits = feed.after(feed.oldest(), usize::MAX).expect("the oldest is kept");
    assert!(commits.windows(2).all(|pair| pair[0].revision < pair[1].revision));
    assert!(commits.last().is_none_or(|last| last.revision == state.revision()));
});
