//! Objects as people write them: YAML or JSON in the shape of Kubernetes, for every kind through its descriptor.
//!
//! - One text may hold several documents, and a document of kind `List` several objects under `items`. Empty documents are skipped.
//! - Fields are `camelCase`, enums are words (`Always`, `TCP`), times are RFC 3339, bytes are base64, quantities and target ports are text or numbers.
//! - A field that the kind doesn't have, a value of another type, a key that stands twice and an object that stands twice are errors with
//!   their place. A field that is null is as if it were left out.
//! - `status` and what the apiserver writes into `metadata` are read like everything else, so that what was printed can be applied;
//!   the apiserver takes `uid` and `resourceVersion` as conditions and keeps its own values for the rest.

mod duration;
mod read;
mod tree;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use super::ObjectKey;
use super::v1::Object;

pub(crate) use self::write::to_value;
pub use self::write::{list_to_json, list_to_yaml, to_json, to_yaml};

/// The objects of one text; `source` names it in errors.
///
/// # Errors
/// Every fault that was found, each with its place.
pub fn parse(text: &str, source: &str) -> Result<Vec<Object>, Faults> {
    let mut manifest = Manifest::new("");
    manifest.read(text, source)?;
    Ok(manifest.into_objects())
}

/// The objects of several texts that belong together.
#[derive(Debug, Default)]
pub struct Manifest {
    namespace: String,
    objects: Vec<Object>,
    places: BTreeMap<ObjectKey, Place>,
}

impl Manifest {
    /// No objects yet. Those that come without a namespace, and should have one, get this one.
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// Adds the objects of a text, in its order; `source` names it in errors.
    ///
    /// # Errors
    /// Every fault that was found, each with its place. Then nothing was added.
    pub fn read(&mut self, text: &str, source: &str) -> Result<(), Faults> {
        let documents = tree::read(text).map_err(|error| Faults(vec![Fault::syntax(source, error)]))?;
        let mut reader = read::Reader::new(source);
        let read: Vec<_> = documents.into_iter().enumerate().flat_map(|(index, node)| reader.document(index + 1, node)).collect();
        let mut faults = reader.into_faults();
        let mut places = self.places.clone();
        let mut objects = Vec::with_capacity(read.len());
        for (mut object, place) in read {
            self.fill_namespace(&mut object);
            if let Some(key) = object.key() {
                if let Some(first) = places.get(&key) {
                    let message = format!("{key} stands in {first} already; an object may be given once");
                    faults.push(Fault { place, path: "metadata.name".into(), message });
                    continue;
                }
                places.insert(key, place);
            }
            objects.push(object);
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        self.places = places;
        self.objects.extend(objects);
        Ok(())
    }

    fn fill_namespace(&self, object: &mut Object) {
        if !self.namespace.is_empty()
            && object.kind().is_some_and(|kind| kind.is_namespaced())
            && let Some(meta) = object.meta_mut()
            && meta.namespace.is_empty()
        {
            meta.namespace.clone_from(&self.namespace);
        }
    }

    /// Where an object was read.
    pub fn place(&self, key: &ObjectKey) -> Option<&Place> {
        self.places.get(key)
    }

    /// All objects so far, in the order in which they were read.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// All objects, in the order in which they were read.
    pub fn into_objects(self) -> Vec<Object> {
        self.objects
    }
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or whatever else the text came from.
    pub source: String,
    /// Which document of the text, from 1, empty ones not counted; 0 if it isn't known.
    pub document: usize,
    /// The line, from 1; 0 if it isn't known.
    pub line: u64,
}

/// Something that is wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// The field, as in the manifest: `spec.containers[0].command`. Empty: the document as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All faults of a text, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Fault {
    fn syntax(source: &str, error: tree::SyntaxError) -> Self {
        let place = Place { source: source.to_owned(), document: 0, line: error.line };
        Self { place, path: String::new(), message: error.message }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.document) {
            (0, 0) => f.write_str(&self.source),
            (0, document) => write!(f, "{} (document {document})", self.source),
            (line, 0) => write!(f, "{}:{line}", self.source),
            (line, document) => write!(f, "{}:{line} (document {document})", self.source),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}: {}", self.place, self.message),
            path => write!(f, "{}: {path}: {}", self.place, self.message),
        }
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}
