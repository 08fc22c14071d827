//! What the fuzz targets in fuzz/ reach of the inside.

use super::contents::Contents;
use super::follow::Follow;
use super::objects::Keep;
use crate::api::v1::WatchResponse;
use crate::api::{Kind, Revision};
use crate::error::Error;

/// What a watch's connection tells a cache.
#[derive(Clone, Debug)]
pub enum Told {
    /// A message.
    Message(WatchResponse),
    /// Its end, with this error.
    End(Error),
}

/// Lets a cache follow a server that says whatever it likes. Returns the revision that it reached, and how many objects it holds then.
pub fn follow(told: impl IntoIterator<Item = Told>) -> (Option<Revision>, usize) {
    let (mut follow, mut contents) = (Follow::new(Keep { encoded: &[Kind::Pod], ..Keep::default() }), Contents::default());
    let mut subscription = Some(contents.subscribe());
    follow.request(&[], contents.objects());
    for told in told {
        let failure = match told {
            Told::Message(message) => follow.message(message).map(|step| _ = contents.apply(step, &std::sync::Arc::default())).err(),
            Told::End(error) => Some(error),
        };
        if let Some(error) = failure {
            follow.failed(&error);
            follow.request(&[], contents.objects());
            subscription = None;
        }
    }
    drop(subscription);
    (contents.revision(), contents.objects().len())
}
