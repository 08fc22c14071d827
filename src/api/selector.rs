use std::collections::HashMap;

use super::v1::{LabelSelector, LabelSelectorOperator, Selector};
use super::{Kind, ObjectKey};
use crate::error::{Error, Violation};

/// What a selector looks at besides the key.
pub trait LabelView {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
    /// The node that a pod is bound to; empty for everything else.
    fn node_name(&self) -> &str;
}

impl LabelView for super::v1::Object {
    fn label(&self, key: &str) -> Option<&str> {
        self.meta().labels.get(key).map(String::as_str)
    }

    fn node_name(&self) -> &str {
        super::v1::Object::node_name(self)
    }
}

/// A checked [`Selector`], ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    kind: Option<Kind>,
    namespace: String,
    name: String,
    node_name: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Matcher {
    /// Checks a selector; `path` is where it stands in the request.
    ///
    /// # Errors
    /// [`Error::Invalid`] with a path per fault.
    pub fn new(selector: &Selector, path: &str) -> Result<Self, Error> {
        let mut violations = Vec::new();
        let kind = match selector.kind.as_str() {
            "" => None,
            name => {
                let kind = Kind::from_name(name);
                if kind.is_none() {
                    let all: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                    violations.push(Violation::new(format!("{path}.kind"), format!("unknown kind {name:?}; there are {}", all.join(", "))));
                }
                kind
            }
        };
        let requirements = requirements(selector.labels.as_ref(), &format!("{path}.labels"), &mut violations);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        Ok(Self {
            kind,
            namespace: selector.namespace.clone(),
            name: selector.name.clone(),
            node_name: selector.node_name.clone(),
            requirements,
        })
    }

    /// Whether it selects this object.
    pub fn matches(&self, key: &ObjectKey, view: &impl LabelView) -> bool {
        self.matches_key(key) && self.matches_view(view)
    }

    /// Whether kind, namespace and name fit; the rest may not.
    pub fn matches_key(&self, key: &ObjectKey) -> bool {
        self.kind.is_none_or(|kind| kind == key.kind())
            && (self.namespace.is_empty() || self.namespace == key.namespace())
            && (self.name.is_empty() || self.name == key.name())
            && (self.node_name.is_empty() || key.kind() == Kind::Pod)
    }

    /// Whether labels and node fit; the rest may not.
    pub fn matches_view(&self, view: &impl LabelView) -> bool {
        (self.node_name.is_empty() || self.node_name == view.node_name())
            && self.requirements.iter().all(|requirement| requirement.holds(view.label(&requirement.key)))
    }

    /// True when the key alone decides.
    pub fn is_key_only(&self) -> bool {
        self.node_name.is_empty() && self.requirements.is_empty()
    }

    /// The one kind that it selects, if it names one.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// The one namespace that it selects; empty: all.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The one name that it selects; empty: all.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The one node whose pods it selects; empty: all.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|wanted| wanted == value);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

fn requirements(labels: Option<&LabelSelector>, path: &str, violations: &mut Vec<Violation>) -> Vec<Requirement> {
    let Some(labels) = labels else { return Vec::new() };
    let mut requirements: Vec<Requirement> = labels
        .match_labels
        .iter()
        .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In, values: vec![value.clone()] })
        .collect();
    for (index, expression) in labels.match_expressions.iter().enumerate() {
        let path = format!("{path}.match_expressions[{index}]");
        let operator = match expression.operator() {
            LabelSelectorOperator::In => Operator::In,
            LabelSelectorOperator::NotIn => Operator::NotIn,
            LabelSelectorOperator::Exists => Operator::Exists,
            LabelSelectorOperator::DoesNotExist => Operator::DoesNotExist,
            LabelSelectorOperator::Unspecified => {
                violations.push(Violation::new(format!("{path}.operator"), "must be In, NotIn, Exists or DoesNotExist"));
                continue;
            }
        };
        let wants_values = matches!(operator, Operator::In | Operator::NotIn);
        if wants_values == expression.values.is_empty() {
            let rule = if wants_values { "needs at least one value" } else { "takes no values" };
            violations.push(Violation::new(format!("{path}.values"), rule));
        }
        if expression.key.is_empty() {
            violations.push(Violation::new(format!("{path}.key"), "must not be empty"));
        }
        requirements.push(Requirement { key: expression.key.clone(), operator, values: expression.values.clone() });
    }
    requirements.sort();
    requirements
}

impl LabelView for HashMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }

    fn node_name(&self) -> &str {
        ""
    }
}
