//! What the fuzz target `etcd` reaches of the inside.

use std::sync::Arc;

use prost::Message as _;

use super::EtcdOptions;
use super::follow::Follower;
use super::load::Found;
use super::rpc::{RangeResponse, WatchResponse};
use super::shared::Shared;
use crate::store::{Feed, History, HistoryLimits};
use crate::time::Clock;

/// What an apiserver makes of an etcd that answers so: with this state, an encoded `RangeResponse`, and then with these changes, each an encoded
/// `WatchResponse`. The prefix is the default one. Runs within a runtime.
pub(in crate::store) fn follow(state: &[u8], changes: &[&[u8]]) -> Result<Feed, String> {
    let etcd = EtcdOptions::new(["127.0.0.1:1".to_owned()]);
    let (kv, keys) = (etcd.connect().map_err(|fault| fault.to_string())?, etcd.keys());
    let response = RangeResponse::decode(state).map_err(|error| error.to_string())?;
    let at = response.header.map_or(0, |header| header.revision);
    // This much etcd is believed.
    if response.kvs.iter().any(|kv| !(1..=at).contains(&kv.mod_revision)) {
        return Err("a state that has something of the future".to_owned());
    }
    let mut found = Found::default();
    found.take(&keys, response.kvs).map_err(|fault| fault.to_string())?;
    let loaded = found.loaded(&keys, at).map_err(|fault| fault.to_string())?;
    let limits = HistoryLimits::default();
    let feed = Feed::new(loaded.state.clone(), History::new(limits, loaded.state.revision()));
    let shared = Arc::new(Shared::new(kv, keys, loaded.cluster_id.clone(), limits, Clock::system(), feed.clone()));
    let mut follower = Follower::new(shared, loaded);
    for change in changes {
        let Ok(response) = WatchResponse::decode(*change) else { continue };
        follower.take(response)?;
    }
    Ok(feed)
}
