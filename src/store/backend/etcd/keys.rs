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

    /// What a key is for; `None` for one that is not ours.
    pub(super) fn read(&self, key: &[u8]) -> Option<Place> {
        match std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)? {
            CLUSTER => Some(Place::Cluster),
            TIP => Some(Place::Tip),
            rest => rest.strip_prefix(OBJECTS).and_then(ObjectKey::from_stored).map(Place::Object),
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
        let others = ["/a/b/", "/a/b/x", "/a/c/tip", "/a/btip", "/a/b/objects/", "/a/b/objects/Pod", "tip"];
        for other in others {
            assert_eq!(keys.read(other.as_bytes()), None, "{other}");
        }
        assert_eq!(keys.read(&[0xff, 0xfe]), None);
        assert!(!(first.as_ref() <= b"/a/c/tip".as_ref() && b"/a/c/tip".as_ref() < end.as_ref()));
    }
}
