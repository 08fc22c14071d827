//! Sets of fields: which fields of an object somebody has given, and so has a say in.
//!
//! A set is a tree of steps. A step is a field's name, or the key of an entry of a map or of an item of a list. As text, which is how an object
//! carries it: `metadata(labels([app])),spec(containers([main](command,env([PORT](value)))))`.

mod merge;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub(crate) use self::merge::Tree;

/// A step from a value to one within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    /// To the field of this name, as in the proto.
    Field(String),
    /// To the entry of a map, or the item of a list, of this key.
    Key(String),
}

/// The way from an object to one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldPath(pub(crate) Vec<Step>);

/// A set of fields: all at the ends of the tree, each with everything in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet(BTreeMap<Step, FieldSet>);

impl FieldSet {
    /// Whether there are no steps on from here: no field is in the set, or, within a set, this very field.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that are in one of the two.
    pub(crate) fn extend(&mut self, other: &FieldSet) {
        for (step, fields) in &other.0 {
            self.0.entry(step.clone()).or_default().extend(fields);
        }
    }

    /// Those that are in both.
    pub(crate) fn common(&self, other: &FieldSet) -> FieldSet {
        let both = self.0.iter().filter_map(|(step, fields)| Some((step.clone(), fields.common(other.0.get(step)?))));
        FieldSet(both.collect())
    }

    /// Takes out a field with everything in it, and what would be left without fields by that.
    pub(crate) fn remove(&mut self, path: &[Step]) {
        let Some((step, rest)) = path.split_first() else { return };
        if let Some(fields) = self.0.get_mut(step) {
            fields.remove(rest);
            if rest.is_empty() || fields.is_empty() {
                self.0.remove(step);
            }
        }
    }

    fn get(&self, step: &Step) -> Option<&FieldSet> {
        self.0.get(step)
    }

    fn iter(&self) -> impl Iterator<Item = (&Step, &FieldSet)> {
        self.0.iter()
    }
}

impl FromIterator<(Step, FieldSet)> for FieldSet {
    fn from_iter<I: IntoIterator<Item = (Step, FieldSet)>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl FieldPath {
    fn then(&self, step: &Step) -> Self {
        Self(self.0.iter().chain([step]).cloned().collect())
    }
}

/// As the paths of faults are written: `spec.containers[main].command`.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}
