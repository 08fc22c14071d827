use std::fmt;

use crate::error::Violation;

/// Where a value stands in an object. It is only written out when there is something to say of the value.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub(super) fn root(arm: &'a str) -> Self {
        Self { parent: None, step: Step::Field(arm) }
    }

    pub(super) fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    pub(super) fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match (self.step, self.parent) {
            (Step::Field(name), None) => f.write_str(name),
            (Step::Field(name), Some(_)) => write!(f, ".{name}"),
            (Step::Index(index), _) => write!(f, "[{index}]"),
            (Step::Key(key), _) => write!(f, "[{key}]"),
        }
    }
}

/// The faults found so far.
#[derive(Default)]
pub(super) struct Faults(Vec<Violation>);

impl Faults {
    pub(super) fn add(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.0.push(Violation::new(path.to_string(), message));
    }

    /// Says how `given` breaks a rule, if it does.
    pub(super) fn check(&mut self, path: &Path<'_>, given: &str, rule: impl Fn(&str) -> Result<(), &'static str>) {
        match (rule(given), given) {
            (Ok(()), _) => {}
            (Err(expected), "") => self.add(path, format!("must not be empty: {expected}")),
            (Err(expected), given) => self.add(path, format!("{given:?} is not {expected}")),
        }
    }

    /// Says which of `items` stand for something that stood before, by a key each; an empty key is no duplicate.
    pub(super) fn check_distinct<'k, K: Eq + std::hash::Hash + fmt::Debug + 'k>(
        &mut self,
        path: &Path<'_>,
        field: &str,
        keys: impl Iterator<Item = Option<K>>,
    ) {
        let mut seen = std::collections::HashMap::new();
        for (index, key) in keys.enumerate() {
            let Some(key) = key else { continue };
            if let Some(first) = seen.get(&key) {
                let item = path.index(index);
                let at = if field.is_empty() { item } else { item.field(field) };
                self.add(&at, format!("{key:?} stands in [{first}] already; each may stand there once"));
            } else {
                seen.insert(key, index);
            }
        }
    }

    /// Says that an enum holds a number that has no name, or none where one is needed.
    pub(super) fn check_enum<E: TryFrom<i32>>(&mut self, path: &Path<'_>, value: i32, names: &str) {
        if value == 0 || E::try_from(value).is_err() {
            self.add(path, format!("must be {names}"));
        }
    }

    pub(super) fn into_violations(self) -> Vec<Violation> {
        self.0
    }
}
