//! Text to a tree of values that know their lines; what the values mean is decided later.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and the line it stands in; 0 if that isn't known.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What YAML and JSON have in common.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Why a text is neither YAML nor JSON.
pub(super) struct SyntaxError {
    pub(super) line: u64,
    pub(super) message: String,
}

/// The documents of a text, without empty ones.
pub(super) fn read(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let nodes = match serde_saphyr::from_multiple_with_options::<Spanned<Value>>(text, options()) {
        Ok(documents) => documents.into_iter().map(Node::from).collect(),
        // JSON is YAML but for a few escapes; what is right as JSON is right.
        Err(error) if text.trim_start().starts_with('{') => read_json(text).map_err(|_| SyntaxError::from(error))?,
        Err(error) => return Err(error.into()),
    };
    Ok(nodes)
}

fn read_json(text: &str) -> Result<Vec<Node>, serde_json::Error> {
    let documents = serde_json::Deserializer::from_str(text).into_iter::<PlainNode>();
    documents.map(|document| document.map(|PlainNode(value)| Node { line: 0, value })).collect()
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // A fleet's manifest may be large; aliases stay bounded, so that a small text can't become a large tree.
        budget: serde_saphyr::budget! { max_documents: 100_000, max_nodes: 10_000_000, max_events: 20_000_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

impl From<serde_saphyr::Error> for SyntaxError {
    fn from(error: serde_saphyr::Error) -> Self {
        let line = error.location().map_or(0, |location| location.line());
        let message = match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} stands twice in one mapping"),
            error => error.render_with_formatter(&serde_saphyr::UserMessageFormatter),
        };
        Self { line, message }
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { line: spanned.referenced.line(), value: spanned.value }
    }
}

/// A node of a text whose lines aren't known.
struct PlainNode(Value);

impl<'de> Deserialize<'de> for PlainNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor::<PlainNode>(std::marker::PhantomData)).map(PlainNode)
    }
}

impl From<PlainNode> for Node {
    fn from(PlainNode(value): PlainNode) -> Self {
        Self { line: 0, value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor::<Spanned<Value>>(std::marker::PhantomData))
    }
}

/// Reads any value; what is inside of it is read as `N`.
struct ValueVisitor<N>(std::marker::PhantomData<N>);

impl<'de, N: Deserialize<'de> + Into<Node>> Visitor<'de> for ValueVisitor<N> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        i128::try_from(value).map(Value::Integer).map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<N>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut map: Vec<(String, Node)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = items.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice in one mapping")));
            }
            map.push((key, items.next_value::<N>()?.into()));
        }
        Ok(Value::Map(map))
    }
}
