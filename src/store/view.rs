use crate::api::{Encoded, LabelView};

/// What a selector looks at besides the key, as an object once had it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    node_name: Box<str>,
    /// In order, so that equal labels make equal views.
    labels: Box<[(Box<str>, Box<str>)]>,
}

impl View {
    /// Reads an encoded `Object`. What can't be read is absent: the store only ever holds what it encoded itself.
    pub fn of(object: &[u8]) -> Self {
        let encoded = Encoded::new(object);
        Self::from_parts(encoded.node_name(), encoded.labels())
    }

    pub(super) fn from_parts<T: Into<Box<str>>>(node_name: impl Into<Box<str>>, labels: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut labels: Vec<_> = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        labels.sort();
        Self { node_name: node_name.into(), labels: labels.into() }
    }

    /// Every label.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl LabelView for View {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value)
    }

    fn node_name(&self) -> &str {
        &self.node_name
    }
}
