//! A tree of values to objects, through the descriptors of their kinds.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor, Value as Field};

use super::tree::{Node, Value};
use super::{Fault, Place, duration};
use crate::api::v1::Object;
use crate::api::{Kind, nearest, schema};

/// Reads documents and gathers their faults; it goes on after a fault, so that one run tells them all.
pub(super) struct Reader<'a> {
    source: &'a str,
    document: usize,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, document: 0, faults: Vec::new() }
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// The objects of a document: one, or those of a List.
    pub(super) fn document(&mut self, number: usize, node: Node) -> Vec<(Object, Place)> {
        self.document = number;
        let mut objects = Vec::new();
        self.objects(node, "", &mut objects);
        objects
    }

    fn objects(&mut self, node: Node, path: &str, objects: &mut Vec<(Object, Place)>) {
        let place = self.place(node.line);
        let Value::Map(mut entries) = node.value else {
            self.wrong_type(&node, path, "a mapping with apiVersion, kind and metadata");
            return;
        };
        let api_version = self.header(&mut entries, "apiVersion", place.line, path);
        let Some((kind_line, kind)) = self.header(&mut entries, "kind", place.line, path) else { return };
        match (kind.as_str(), Kind::from_name(&kind)) {
            ("List", _) => self.list(entries, path, objects),
            (_, Some(kind)) => {
                if let Some((line, api_version)) = api_version
                    && !kind.api_versions().contains(&api_version.as_str())
                {
                    let message = format!("{api_version:?} has no kind {kind}; write {}", kind.api_versions().join(" or "));
                    self.fault(line, join(path, "apiVersion"), message);
                }
                objects.extend(self.object(kind, entries, path).map(|object| (object, place)));
            }
            (_, None) => {
                let message = match nearest(&kind, Kind::ALL.map(Kind::as_str)) {
                    Some(right) => format!("there is no kind {kind:?}; did you mean {right:?}?"),
                    None => format!("there is no kind {kind:?}; there are {}", Kind::ALL.map(Kind::as_str).join(", ")),
                };
                self.fault(kind_line, join(path, "kind"), message);
            }
        }
    }

    /// Takes a text that every object begins with out of its entries.
    fn header(&mut self, entries: &mut Vec<(String, Node)>, key: &str, line: u64, path: &str) -> Option<(u64, String)> {
        let Some(index) = entries.iter().position(|(name, _)| name == key) else {
            self.fault(line, join(path, key), "is missing; every object begins with apiVersion and kind".into());
            return None;
        };
        match entries.remove(index).1 {
            Node { line, value: Value::Text(text) } => Some((line, text)),
            other => {
                self.wrong_type(&other, &join(path, key), "a text");
                None
            }
        }
    }

    fn list(&mut self, entries: Vec<(String, Node)>, path: &str, objects: &mut Vec<(Object, Place)>) {
        for (key, node) in entries {
            match (key.as_str(), node.value) {
                ("items", Value::List(items)) => {
                    for (index, item) in items.into_iter().enumerate() {
                        self.objects(item, &format!("{}[{index}]", join(path, "items")), objects);
                    }
                }
                ("items", value) => self.wrong_type(&Node { line: node.line, value }, &join(path, "items"), "a list of objects"),
                // What kubectl prints there says nothing.
                ("metadata", Value::Map(metadata)) if metadata.iter().all(|(_, node)| is_empty(&node.value)) => {}
                _ => self.fault(node.line, join(path, &key), "a List has only items".into()),
            }
        }
    }

    fn object(&mut self, kind: Kind, entries: Vec<(String, Node)>, path: &str) -> Option<Object> {
        let faults_before = self.faults.len();
        let message = self.message(&schema::message(kind), entries, path);
        if self.faults.len() > faults_before {
            return None;
        }
        let mut object = DynamicMessage::new(schema::object());
        object.set_field(&schema::arm(kind), Field::Message(message));
        Some(object.transcode_to().expect("both have the same descriptor"))
    }

    fn message(&mut self, descriptor: &MessageDescriptor, entries: Vec<(String, Node)>, path: &str) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for (key, node) in entries {
            let path = join(path, &key);
            let Some(field) = schema::field(descriptor, &key) else {
                self.unknown_field(descriptor, &key, node.line, path);
                continue;
            };
            if message.has_field(&field) {
                self.fault(node.line, path, "is given twice, under two spellings".into());
                continue;
            }
            if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
                && let Some(other) = oneof.fields().find(|other| message.has_field(other))
            {
                self.fault(node.line, path, format!("can't stand beside {}", schema::field_name(&other)));
                continue;
            }
            // As in Kubernetes, a word that is left empty is left out.
            let is_no_word = matches!(field.kind(), prost_reflect::Kind::Enum(_)) && is_empty(&node.value);
            if is_no_word || matches!(node.value, Value::Null) {
                continue;
            }
            if let Some(value) = self.field(&field, node, &path) {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn unknown_field(&mut self, descriptor: &MessageDescriptor, key: &str, line: u64, path: String) {
        let names: Vec<_> = descriptor.fields().map(|field| schema::field_name(&field)).collect();
        let message = match nearest(key, names.iter().map(|name| &**name)) {
            Some(right) => format!("there is no such field; did you mean {right:?}?"),
            None if names.is_empty() => "there is no such field; there are none here".to_owned(),
            None => format!("there is no such field; there are {}", names.join(", ")),
        };
        self.fault(line, path, message);
    }

    fn field(&mut self, field: &FieldDescriptor, node: Node, path: &str) -> Option<Field> {
        if field.is_map() {
            let Value::Map(entries) = node.value else {
                self.wrong_value(field, &node, path, "a mapping");
                return None;
            };
            let entry = field.kind().as_message()?.map_entry_value_field();
            let numbers = schema::takes_numbers(field);
            let mut map = HashMap::with_capacity(entries.len());
            for (key, node) in entries {
                let value = self.single(&entry, node, &format!("{path}[{key}]"), numbers)?;
                map.insert(MapKey::String(key), value);
            }
            Some(Field::Map(map))
        } else if field.is_list() {
            let Value::List(items) = node.value else {
                self.wrong_type(&node, path, "a list");
                return None;
            };
            // Not short-circuited: every item tells its faults.
            let items: Vec<_> =
                items.into_iter().enumerate().map(|(index, item)| self.single(field, item, &format!("{path}[{index}]"), false)).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Field::List)
        } else {
            self.single(field, node, path, schema::takes_numbers(field))
        }
    }

    /// One value: a field that is neither list nor map, or one item of those.
    fn single(&mut self, field: &FieldDescriptor, node: Node, path: &str, numbers: bool) -> Option<Field> {
        use prost_reflect::Kind as Type;
        let (expected, value) = match (field.kind(), node.value) {
            (Type::String, Value::Text(text)) => return Some(Field::String(text)),
            (Type::String, Value::Integer(number)) if numbers => return Some(Field::String(number.to_string())),
            (Type::String, Value::Float(number)) if numbers => return Some(Field::String(number.to_string())),
            (Type::String, value) if numbers => ("a text or a number".to_owned(), value),
            (Type::String, value) => ("a text".to_owned(), value),
            (Type::Bytes, value) => match bytes(&value) {
                Some(bytes) => return Some(Field::Bytes(bytes.into())),
                None => ("bytes as base64, in a text".to_owned(), value),
            },
            (Type::Bool, Value::Bool(value)) => return Some(Field::Bool(value)),
            (Type::Bool, value) => ("true or false".to_owned(), value),
            (Type::Enum(words), value) => {
                let words = schema::enum_words(&words);
                if let Value::Text(text) = &value
                    && let Some((number, _)) = words.iter().find(|(_, word)| word == text)
                {
                    return Some(Field::EnumNumber(*number));
                }
                (format!("one of {}", words.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>().join(", ")), value)
            }
            (Type::Message(message), Value::Text(text)) if schema::is_timestamp(&message) => match timestamp(&message, &text) {
                Some(time) => return Some(Field::Message(time)),
                None => ("a time such as 2026-01-31T12:00:00Z".to_owned(), Value::Text(text)),
            },
            (Type::Message(message), value) if schema::is_timestamp(&message) => {
                ("a time in quotes, such as \"2026-01-31T12:00:00Z\"".to_owned(), value)
            }
            (Type::Message(message), Value::Text(text)) if schema::is_duration(&message) => match duration::read(&text) {
                Some(duration) => return Some(Field::Message(transcoded(&message, &duration)?)),
                None => ("a duration such as 90s, 1.5s or 1h30m".to_owned(), Value::Text(text)),
            },
            (Type::Message(message), value) if schema::is_duration(&message) => ("a duration with its unit, such as 90s".to_owned(), value),
            (Type::Message(message), Value::Map(entries)) => return Some(Field::Message(self.message(&message, entries, path))),
            (Type::Message(_), value) => ("a mapping".to_owned(), value),
            (Type::Double, Value::Integer(number)) => return Some(Field::F64(number as f64)),
            (Type::Double, Value::Float(number)) => return Some(Field::F64(number)),
            (Type::Double, value) => ("a number".to_owned(), value),
            (number, value) => match integer(&number, &value) {
                Ok(field) => return Some(field),
                Err(expected) => (expected, value),
            },
        };
        self.wrong_value(field, &Node { line: node.line, value }, path, &expected);
        None
    }

    /// As [`Reader::wrong_type`], but of what is secret it says no more than that.
    fn wrong_value(&mut self, field: &FieldDescriptor, node: &Node, path: &str, expected: &str) {
        if !schema::is_secret(field) {
            return self.wrong_type(node, path, expected);
        }
        let hint = match field.kind() {
            prost_reflect::Kind::Bytes => "; text as it is goes under stringData",
            _ if matches!(node.value, Value::Map(_) | Value::List(_)) || expected == "a mapping" => "",
            _ => "; put it in quotes",
        };
        self.fault(node.line, path.to_owned(), format!("must be {expected}, and isn't{hint}"));
    }

    fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        let quotes = match &node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) if expected == "a text" => "; put it in quotes",
            Value::Null if expected == "a text" => "; write \"\" for an empty one",
            _ => "",
        };
        self.fault(node.line, path.to_owned(), format!("must be {expected}, not {}{quotes}", describe(&node.value)));
    }

    fn fault(&mut self, line: u64, path: String, message: String) {
        let place = self.place(line);
        self.faults.push(Fault { place, path, message });
    }

    fn place(&self, line: u64) -> Place {
        Place { source: self.source.to_owned(), document: self.document, line }
    }
}

/// A number of the field's type, or what would be one. As in Kubernetes and in JSON of protobuf, 64 bits may stand in quotes.
fn integer(number: &prost_reflect::Kind, value: &Value) -> Result<Field, String> {
    use prost_reflect::Kind as Type;
    let given = match (number, value) {
        (_, Value::Integer(given)) => Some(*given),
        (Type::Int64 | Type::Uint64, Value::Text(text)) => text.parse().ok(),
        _ => None,
    };
    let (field, least, most) = match number {
        Type::Int32 => (given.and_then(|given| given.try_into().ok()).map(Field::I32), i128::from(i32::MIN), i128::from(i32::MAX)),
        Type::Int64 => (given.and_then(|given| given.try_into().ok()).map(Field::I64), i128::from(i64::MIN), i128::from(i64::MAX)),
        Type::Uint32 => (given.and_then(|given| given.try_into().ok()).map(Field::U32), 0, i128::from(u32::MAX)),
        Type::Uint64 => (given.and_then(|given| given.try_into().ok()).map(Field::U64), 0, i128::from(u64::MAX)),
        other => return Err(format!("left out: manifests have no values of type {other:?}")),
    };
    field.ok_or_else(|| format!("a whole number from {least} to {most}"))
}

/// As Kubernetes reads it: base64 that may be broken into lines.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    let Value::Text(text) = value else { return None };
    BASE64.decode(text.split_ascii_whitespace().collect::<String>()).ok()
}

fn timestamp(descriptor: &MessageDescriptor, text: &str) -> Option<DynamicMessage> {
    transcoded(descriptor, &text.parse::<prost_types::Timestamp>().ok()?)
}

fn transcoded(descriptor: &MessageDescriptor, value: &impl prost::Message) -> Option<DynamicMessage> {
    let mut message = DynamicMessage::new(descriptor.clone());
    message.transcode_from(value).ok()?;
    Some(message)
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Null) || matches!(value, Value::Text(text) if text.is_empty())
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Text(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
        Value::Text(_) => "a long text".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

fn join(path: &str, field: &str) -> String {
    match path {
        "" => field.to_owned(),
        path => format!("{path}.{field}"),
    }
}
