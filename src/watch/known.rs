use crate::api::{ObjectKey, Revision};

/// What a client has: objects, each with its `resource_version`, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(Vec<(ObjectKey, Revision)>);

impl Known {
    /// From objects in any order.
    ///
    /// # Errors
    /// The key of an object that is named twice.
    pub fn new(mut objects: Vec<(ObjectKey, Revision)>) -> Result<Self, ObjectKey> {
        objects.sort_unstable();
        match objects.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(twice) => Err(twice[0].0.clone()),
            None => Ok(Self(objects)),
        }
    }

    /// The objects, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(ObjectKey, Revision)> {
        self.0.iter()
    }

    pub(super) fn into_iter(self) -> std::vec::IntoIter<(ObjectKey, Revision)> {
        self.0.into_iter()
    }
}
