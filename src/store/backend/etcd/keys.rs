use std::fmt;

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::api::ObjectKey;

/// Where things are in etcd: all keys of a cluster begin with its prefix.
///
/// - `cluster`: a [`ClusterRow`], put once.
/// - `objects/` and the key as stored: the encoded object, its `resource_version` being zero: the true one is etcd's `mod_revision`.
/// - `tip`: a [`TipRow`], put by every transaction. So its `mod_revision` is the cluster's current revision, and every revision has an event.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    prefix: String,
}

/// What a key is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Cluster,
    Object(ObjectKey),
    Tip,
    /// Nothing that this version knows. It is left alone.
    Other,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ClusterRow {
    /// Random.
    #[prost(string, tag = "1")]
    pub(super) id: String,
    /// How the other values are to be read.
    #[prost(uint32, tag = "2")]
    pub(super) format: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TipRow {
    /// When the transaction was made, by the clock of the apiserver that made it.
    #[prost(message, optional, tag = "1")]
    pub(super) time: Option<Timestamp>,
}

/// The format that we write, and the newest that we know.
pub(super) const FORMAT: u32 = 1;

const CLUSTER: &str = "cluster";
const OBJECTS: &str = "objects/";
const TIP: &str = "tip";

impl Keys {
    pub(super) fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    pub(super) fn cluster(&self) -> Bytes {
        format!("{}{CLUSTER}", self.prefix).into()
    }

    /// Where the clusters would be whose keys this one's are among.
    pub(super) fn clusters_around(&self) -> impl Iterator<Item = Bytes> {
        let parents = self.prefix.match_indices('/').map(|(at, _)| &self.prefix[..=at]);
        parents.filter(|parent| *parent != self.prefix).map(|parent| format!("{parent}{CLUSTER}").into())
    }

    pub(super) fn tip(&self) -> Bytes {
        format!("{}{TIP}", self.prefix).into()
    }

    pub(super) fn object(&self, key: &ObjectKey) -> Bytes {
        format!("{}{OBJECTS}{}", self.prefix, key.as_stored()).into()
    }

    /// The first key, and what comes after the last one.
    pub(super) fn all(&self) -> (Bytes, Bytes) {
        let mut end = self.prefix.clone().into_bytes();
        // ASCII, as the flag's parser sees to.
        *end.last_mut().expect("not empty") += 1;
        (self.prefix.clone().into(), end.into())
    }

    /// What a key is for; `None` for that of an object which can't be.
    pub(super) fn read(&self, key: &[u8]) -> Option<Place> {
        match key.strip_prefix(self.prefix.as_bytes()) {
            Some(rest) if rest == CLUSTER.as_bytes() => Some(Place::Cluster),
            Some(rest) if rest == TIP.as_bytes() => Some(Place::Tip),
            Some(rest) => match rest.strip_prefix(OBJECTS.as_bytes()) {
                Some(stored) => ObjectKey::from_stored(std::str::from_utf8(stored).ok()?).map(Place::Object),
                None => Some(Place::Other),
            },
            None => Some(Place::Other),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;

    #[test]
    fn every_key_is_read_as_what_it_was_made_for_and_is_within_the_range() {
        let keys = Keys::new("/a/b/");
        let pod = ObjectKey::new(Kind::Pod, "default", "web");
        let (first, end) = keys.all();
        for (key, place) in [(keys.cluster(), Place::Cluster), (keys.tip(), Place::Tip), (keys.object(&pod), Place::Object(pod))] {
            assert_eq!(keys.read(&key), Some(place));
            assert!(first <= key && key < end);
        }
        for other in ["/a/b/", "/a/b/x", "/a/c/tip", "/a/btip", "tip"] {
            assert_eq!(keys.read(other.as_bytes()), Some(Place::Other), "{other}");
        }
        for wrong in [&b"/a/b/objects/"[..], b"/a/b/objects/Pod", b"/a/b/objects/\xff"] {
            assert_eq!(keys.read(wrong), None);
        }
        let around: Vec<_> = keys.clusters_around().collect();
        assert_eq!(around, ["/cluster", "/a/cluster"]);
        assert!(!(first.as_ref() <= b"/a/c/tip".as_ref() && b"/a/c/tip".as_ref() < end.as_ref()));
    }
}
