//! Objects to text, through the descriptors of their kinds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, ReflectMessage as _, Value as Field};
use serde_json::{Map, Value};

use crate::api::schema;
use crate::api::v1::Object;

/// An object as a YAML document, ending with a line break: `apiVersion`, `kind`, then its fields in the order of the proto.
pub fn to_yaml(object: &Object) -> String {
    yaml(&tree(object))
}

/// Objects as one YAML document of kind `List`.
pub fn list_to_yaml(objects: &[Object]) -> String {
    yaml(&list(objects))
}

/// An object as indented JSON, ending with a line break, in the order of [`to_yaml`]. 64-bit numbers are numbers.
pub fn to_json(object: &Object) -> String {
    json(&tree(object))
}

/// An object as a JSON value, as [`to_json`] prints it.
pub(crate) fn to_value(object: &Object) -> Value {
    tree(object)
}

/// Objects as indented JSON of kind `List`.
pub fn list_to_json(objects: &[Object]) -> String {
    json(&list(objects))
}

fn yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { compact_list_indent: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).expect("a tree of texts, numbers, lists and maps is YAML")
}

fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

fn list(objects: &[Object]) -> Value {
    let items = objects.iter().map(tree).collect();
    Value::Object(Map::from_iter([header("apiVersion", "v1"), header("kind", "List"), ("items".to_owned(), Value::Array(items))]))
}

fn tree(object: &Object) -> Value {
    let Some(kind) = object.kind() else { return Value::Object(Map::new()) };
    let mut dynamic = DynamicMessage::new(schema::object());
    dynamic.transcode_from(object).expect("both have the same descriptor");
    let mut tree = Map::from_iter([header("apiVersion", kind.api_versions()[0]), header("kind", kind.as_str())]);
    if let Field::Message(arm) = dynamic.get_field(&schema::arm(kind)).as_ref() {
        tree.append(&mut message(arm));
    }
    Value::Object(tree)
}

fn header(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), value.into())
}

fn message(message: &DynamicMessage) -> Map<String, Value> {
    let descriptor = message.descriptor();
    let fields = descriptor.fields().filter(|field| message.has_field(field));
    fields.map(|field| (schema::field_name(&field).into_owned(), self::field(&field, &message.get_field(&field)))).collect()
}

fn field(field: &FieldDescriptor, value: &Field) -> Value {
    match value {
        Field::List(items) => items.iter().map(|item| single(field, item)).collect(),
        Field::Map(entries) => {
            let entry = field.kind().as_message().expect("a map's entries are messages").map_entry_value_field();
            let entries = entries.iter().map(|(key, value)| (key.as_str().unwrap_or_default().to_owned(), single(&entry, value)));
            // Maps have no order of their own; text that is compared should.
            let sorted: std::collections::BTreeMap<_, _> = entries.collect();
            Value::Object(sorted.into_iter().collect())
        }
        value => single(field, value),
    }
}

fn single(field: &FieldDescriptor, value: &Field) -> Value {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(number) => (*number).into(),
        Field::I64(number) => (*number).into(),
        Field::U32(number) => (*number).into(),
        Field::U64(number) => (*number).into(),
        Field::F32(number) => (*number).into(),
        Field::F64(number) => (*number).into(),
        Field::String(text) if schema::is_target_port(field) => port(text),
        Field::String(text) => text.as_str().into(),
        Field::EnumNumber(number) => word(field.kind().as_enum(), *number),
        Field::Message(nested) if schema::is_timestamp(&nested.descriptor()) => {
            nested.transcode_to::<prost_types::Timestamp>().expect("both have the same descriptor").to_string().into()
        }
        Field::Message(nested) if schema::is_duration(&nested.descriptor()) => {
            nested.transcode_to::<prost_types::Duration>().expect("both have the same descriptor").to_string().into()
        }
        Field::Message(nested) => Value::Object(message(nested)),
        Field::Bytes(bytes) => BASE64.encode(bytes).into(),
        Field::List(_) | Field::Map(_) => unreachable!("lists and maps are no single values"),
    }
}

fn port(text: &str) -> Value {
    match text.parse::<u32>() {
        Ok(number) if number.to_string() == text => number.into(),
        _ => text.into(),
    }
}

/// The word for an enum's value; the number itself if a newer apiserver knows more words than we do.
fn word(descriptor: Option<&EnumDescriptor>, number: i32) -> Value {
    let words = descriptor.map(schema::enum_words).unwrap_or_default();
    words.into_iter().find(|(known, _)| *known == number).map_or_else(|| number.into(), |(_, word)| word.into())
}
