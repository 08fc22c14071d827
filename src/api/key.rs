use std::fmt;
use std::sync::Arc;

use super::{Kind, v1};

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The namespace in which the control plane keeps what it needs itself, where several apiservers share a store.
pub const SYSTEM_NAMESPACE: &str = "bluebird-system";
/// The finalizer that every namespace is created with, and that its controller removes once the namespace is empty.
pub const CONTENTS_FINALIZER: &str = "bluebird/contents";
/// The annotation of the namespace [`DEFAULT_NAMESPACE`] that says from which range the cluster's services have their addresses.
pub const SERVICE_CIDR_ANNOTATION: &str = "bluebird/service-cidr";
/// The annotation of a pod that mirrors a static pod of its node: a hash of the static pod's content. Only the node's kubelet sets it.
pub const STATIC_POD_ANNOTATION: &str = "bluebird/static-pod";
/// The annotation of such a pod that names the file of the static pod, in the folder that its kubelet watches.
pub const STATIC_POD_FILE_ANNOTATION: &str = "bluebird/static-pod-file";
/// The label of objects that were applied as parts of a set: its name.
pub const APPLY_SET_LABEL: &str = "bluebird/apply-set";

/// Which object: kind, namespace and name, in one allocation that clones share.
///
/// Ordered by kind, then namespace, then name. The namespace is empty for kinds that live in none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

/// Stands between the parts; it sorts before everything that a name may contain.
const SEPARATOR: char = '\0';

impl ObjectKey {
    /// The key of an object. For a kind without namespaces `namespace` is ignored; otherwise an empty one means [`DEFAULT_NAMESPACE`].
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = match (kind.is_namespaced(), namespace) {
            (false, _) => "",
            (true, "") => DEFAULT_NAMESPACE,
            (true, namespace) => namespace,
        };
        // Every write makes a few of these, so this asks for memory once for the parts and once for the key.
        let mut key = String::with_capacity(2 + namespace.len() + name.len());
        key.push(kind as u8 as char);
        key.push_str(namespace);
        key.push(SEPARATOR);
        key.push_str(name);
        Self(key.into())
    }

    /// The smallest key that any object of this kind (and namespace, unless empty) could have, for ranges.
    pub fn lower_bound(kind: Kind, namespace: &str) -> Self {
        match namespace {
            "" => Self(String::from(kind as u8 as char).into()),
            namespace => Self(format!("{}{namespace}{SEPARATOR}", kind as u8 as char).into()),
        }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        Kind::from_byte(self.0.as_bytes()[0]).expect("a key begins with its kind")
    }

    /// The namespace; empty for kinds without.
    pub fn namespace(&self) -> &str {
        self.0[1..].split_once(SEPARATOR).map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0[1..].split_once(SEPARATOR).map_or("", |(_, name)| name)
    }

    /// The key as one string, for storing; [`ObjectKey::from_stored`] reads it back.
    pub fn as_stored(&self) -> &str {
        &self.0
    }

    /// Reads what [`ObjectKey::as_stored`] gave; `None` for anything that can't be a key.
    pub fn from_stored(stored: &str) -> Option<Self> {
        let kind = Kind::from_byte(*stored.as_bytes().first()?)?;
        let (namespace, name) = stored[1..].split_once(SEPARATOR)?;
        let fits = kind.is_namespaced() != namespace.is_empty() && !name.is_empty() && !name.contains(SEPARATOR);
        fits.then(|| Self(stored.into()))
    }

    /// The message that names this object.
    pub fn to_ref(&self) -> v1::ObjectRef {
        v1::ObjectRef { kind: self.kind().to_string(), namespace: self.namespace().to_owned(), name: self.name().to_owned() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            "" => write!(f, "{}/{}", self.kind(), self.name()),
            namespace => write!(f, "{}/{namespace}/{}", self.kind(), self.name()),
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a commit: one sequence for the whole cluster and all kinds, from 1; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first commit.
    pub const ZERO: Revision = Revision(0);

    /// The one after this. The largest number that there is has none: it is told by others only, and nothing comes after it.
    pub const fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_after_the_largest_revision() {
        assert_eq!(Revision(6).next(), Revision(7));
        assert_eq!(Revision(u64::MAX).next(), Revision(u64::MAX));
    }
}
