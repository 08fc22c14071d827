//! ConfigMaps and Secrets, as the pods of this node use them.
//!
//! - [`used_by`] says which a pod names. [`Followed`] watches these, of all pods, and no others: a node is sent no secret that it has no pod for.
//! - A [`Configuration`] is what one pod's are like, as they were last seen. It is kept in the pod's folder, so that the pod can be started again
//!   without the apiserver.

mod followed;
mod kept;
mod uses;
mod variables;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use followed::Followed;
pub(crate) use uses::{used_by, used_by_source, used_by_variable, used_by_volume};
pub(crate) use variables::{value_of, variables};

use crate::api::v1::Object;
use crate::api::{Kind, ObjectKey};

/// The ConfigMaps and Secrets that a pod uses, as they were last seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Configuration {
    /// `None` for one that there is not; absent for one of which nothing is known yet.
    objects: BTreeMap<ObjectKey, Option<Arc<Object>>>,
    /// Counts the changes of what they hold.
    changes: u64,
}

/// Why something can't be had of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// Nobody knows yet; whoever waits is woken.
    Unknown,
    /// It isn't there, or isn't what is needed: a sentence for people, in which nothing secret is.
    Missing(String),
}

/// What an object holds: values by their keys, in order.
type Values<'a> = Vec<(&'a str, &'a [u8])>;

impl Configuration {
    /// Counts the changes of what the objects hold.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes note of how an object is now, `None` if there is none; true if that is another state than before.
    pub(crate) fn learn(&mut self, key: &ObjectKey, object: Option<Arc<Object>>) -> bool {
        if self.objects.get(key).is_some_and(|known| same_content(known.as_deref(), object.as_deref())) {
            return false;
        }
        self.objects.insert(key.clone(), object.map(kept::trimmed));
        self.changes += 1;
        true
    }

    /// An object: `Ok(None)` for one that there is not and that may be left out.
    pub(crate) fn object(&self, key: &ObjectKey, optional: bool) -> Result<Option<&Object>, Lacking> {
        match self.objects.get(key) {
            None => Err(Lacking::Unknown),
            Some(Some(object)) => Ok(Some(object)),
            Some(None) if optional => Ok(None),
            Some(None) => {
                Err(Lacking::Missing(format!("there is no {} {:?} in the namespace {:?}", key.kind(), key.name(), key.namespace())))
            }
        }
    }

    /// What an object holds, by key: `Ok(None)` for one that there is not and that may be left out.
    pub(crate) fn values(&self, key: &ObjectKey, optional: bool) -> Result<Option<Values<'_>>, Lacking> {
        self.object(key, optional).map(|object| object.map(content))
    }

    /// What an object holds under a key: `Ok(None)` if that isn't there and may be left out.
    pub(crate) fn value(&self, object: &ObjectKey, key: &str, optional: bool) -> Result<Option<&[u8]>, Lacking> {
        let Some(values) = self.values(object, optional)? else { return Ok(None) };
        match values.iter().find(|(name, _)| *name == key) {
            Some((_, value)) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(Lacking::Missing(format!("the {} {:?} has no key {key:?}", object.kind(), object.name()))),
        }
    }
}

fn content(object: &Object) -> Values<'_> {
    match &object.kind {
        Some(crate::api::v1::object::Kind::ConfigMap(map)) => map.values(),
        Some(crate::api::v1::object::Kind::Secret(secret)) => secret.values(),
        _ => Vec::new(),
    }
}

/// Labels and the like change without changing anything for a pod; one that was made anew with the same content does, too. It matters under which of
/// its maps a ConfigMap has a key: only texts become variables.
fn same_content(one: Option<&Object>, other: Option<&Object>) -> bool {
    use crate::api::v1::object::Kind;
    match (one, other) {
        (Some(one), Some(other)) => match (&one.kind, &other.kind) {
            (Some(Kind::ConfigMap(one)), Some(Kind::ConfigMap(other))) => {
                (&one.data, &one.binary_data) == (&other.data, &other.binary_data)
            }
            _ => content(one) == content(other),
        },
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// The key of a ConfigMap in a pod's namespace.
pub(crate) fn config_map(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(Kind::ConfigMap, namespace, name)
}

/// The key of a Secret in a pod's namespace.
pub(crate) fn secret(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(Kind::Secret, namespace, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Resource as _;
    use crate::api::v1::{ConfigMap, Secret};

    fn map(value: &str, version: u64) -> Option<Arc<Object>> {
        let data = [("colour".to_owned(), value.to_owned())].into();
        let mut map = ConfigMap { data, ..ConfigMap::default() };
        (map.meta_mut().name, map.meta_mut().resource_version) = ("web".into(), version);
        Some(Arc::new(map.into_object()))
    }

    #[test]
    fn a_configuration_changes_when_what_is_held_does_and_counts_that() {
        let (mut configuration, key) = (Configuration::default(), config_map("", "web"));
        assert_eq!(configuration.value(&key, "colour", true), Err(Lacking::Unknown));
        assert!(configuration.learn(&key, None));
        assert!(!configuration.learn(&key, None));
        assert!(configuration.learn(&key, map("red", 1)));
        assert!(!configuration.learn(&key, map("red", 2)), "only its labels have changed");
        assert_eq!(configuration.value(&key, "colour", false), Ok(Some(&b"red"[..])));
        assert!(configuration.learn(&key, map("blue", 3)));
        assert_eq!((configuration.changes(), configuration.value(&key, "colour", false)), (3, Ok(Some(&b"blue"[..]))));
        // The same bytes, which are no text any more, and so none that a variable may have.
        let binary_data = [("colour".to_owned(), b"blue".to_vec())].into();
        assert!(configuration.learn(&key, Some(Arc::new(ConfigMap { binary_data, ..ConfigMap::default() }.into_object()))));
    }

    #[test]
    fn what_is_missing_is_told_by_name_unless_it_may_be() {
        let (mut configuration, map_key, secret_key) = (Configuration::default(), config_map("shop", "web"), secret("shop", "db"));
        configuration.learn(&map_key, None);
        configuration.learn(&secret_key, Some(Arc::new(Secret::default().into_object())));
        let missing = |text: &str| Err(Lacking::Missing(text.to_owned()));
        assert_eq!(configuration.value(&map_key, "a", false), missing("there is no ConfigMap \"web\" in the namespace \"shop\""));
        assert_eq!(configuration.value(&secret_key, "a", false), missing("the Secret \"db\" has no key \"a\""));
        assert_eq!((configuration.value(&map_key, "a", true), configuration.value(&secret_key, "a", true)), (Ok(None), Ok(None)));
    }
}
