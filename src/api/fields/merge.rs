//! The fields of an object by their names: which it gives, which differ from another's, and laying some of them over another object.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage as _, Value};

use super::{FieldPath, FieldSet, Step};
use crate::api::schema::{self, Shape};
use crate::api::v1::Object;

/// An object whose fields can be reached by name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    arm: FieldDescriptor,
    message: DynamicMessage,
}

/// What of the metadata a manifest decides.
const OF_METADATA: [&str; 2] = ["labels", "annotations"];

impl Tree {
    /// The tree of an object; `None` when it is of no kind.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        let arm = schema::arm(object.kind()?);
        let mut dynamic = DynamicMessage::new(schema::object());
        dynamic.transcode_from(object).expect("both have the same descriptor");
        let Some(Value::Message(message)) = dynamic.take_field(&arm) else { return None };
        Some(Self { arm, message })
    }

    /// The object again.
    pub(crate) fn into_object(self) -> Object {
        let mut dynamic = DynamicMessage::new(schema::object());
        dynamic.set_field(&self.arm, Value::Message(self.message));
        dynamic.transcode_to().expect("both have the same descriptor")
    }

    /// The fields that it gives of what a manifest decides: labels, annotations and everything but status and metadata. What has its type's zero value
    /// (empty, false, 0) and is not `optional` can't be told from what is absent, and is not given.
    pub(crate) fn fields(&self) -> FieldSet {
        let mut fields = FieldSet::default();
        for (field, value) in self.message.fields() {
            let within = match (field.name(), value) {
                ("status", _) => continue,
                ("metadata", Value::Message(metadata)) => {
                    let given = metadata.fields().filter(|(field, _)| OF_METADATA.contains(&field.name()));
                    let given: FieldSet = given.map(|(field, value)| (name(&field), within(&field, value))).collect();
                    if given.is_empty() {
                        continue;
                    }
                    given
                }
                (_, value) => within(&field, value),
            };
            fields.0.insert(name(&field), within);
        }
        fields
    }

    /// Those of some fields that another object has otherwise, or one of the two has not.
    pub(crate) fn differing(&self, other: &Tree, fields: &FieldSet) -> Vec<FieldPath> {
        let mut differing = Vec::new();
        compare(&self.message, &other.message, fields, &FieldPath::default(), &mut differing);
        differing
    }

    /// Clears those of some fields that are not to be kept, items of lists as a whole, and what has nothing in it any more by that.
    pub(crate) fn clear(&mut self, fields: &FieldSet, kept: &FieldSet) {
        clear(&mut self.message, fields, kept);
    }

    /// Makes some fields be as another object, which has them, has them. Items of lists keep their places among items that the other hasn't.
    pub(crate) fn overlay(&mut self, other: &Tree, fields: &FieldSet) {
        overlay(&mut self.message, &other.message, fields);
    }
}

fn name(field: &FieldDescriptor) -> Step {
    Step::Field(field.name().to_owned())
}

fn given(message: &DynamicMessage) -> FieldSet {
    message.fields().map(|(field, value)| (name(&field), within(&field, value))).collect()
}

/// The steps on from a field that has this value.
fn within(field: &FieldDescriptor, value: &Value) -> FieldSet {
    match (schema::shape(field), value) {
        (Shape::Message, Value::Message(message)) => given(message),
        (Shape::Map, Value::Map(entries)) => entries.iter().map(|(key, value)| (entry_step(key), within_entry(value))).collect(),
        (Shape::Keyed(keys), Value::List(items)) => with_steps(items, keys).map(|(step, item)| (step, within_item(item, keys))).collect(),
        _ => FieldSet::default(),
    }
}

fn within_entry(value: &Value) -> FieldSet {
    value.as_message().map_or_else(FieldSet::default, given)
}

/// The field that an item is known by goes without saying.
fn within_item(item: &Value, keys: &[&str]) -> FieldSet {
    let mut fields = within_entry(item);
    if let Some((key, _)) = item.as_message().and_then(|item| key_of(item, keys)) {
        fields.0.remove(&name(&key));
    }
    fields
}

fn entry_step(key: &MapKey) -> Step {
    Step::Key(key.as_str().unwrap_or_default().to_owned())
}

/// Each item with its step: by the first of its key fields that isn't empty. One that has the key of an item before it has another step.
fn with_steps<'v>(items: &'v [Value], keys: &'static [&'static str]) -> impl Iterator<Item = (Step, &'v Value)> {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(items.len());
    items.iter().map(move |item| {
        let key = item.as_message().and_then(|item| key_of(item, keys)).map(|(_, key)| key).unwrap_or_default();
        let times = seen.entry(key.clone()).or_default();
        *times += 1;
        (Step::Key(if *times == 1 { key } else { format!("{key}#{times}") }), item)
    })
}

/// The first of these fields that isn't empty, and its text.
fn key_of(item: &DynamicMessage, keys: &[&str]) -> Option<(FieldDescriptor, String)> {
    keys.iter().find_map(|key| {
        let field = item.descriptor().get_field_by_name(key).filter(|field| item.has_field(field))?;
        let text = match item.get_field(&field).as_ref() {
            Value::String(text) => text.clone(),
            Value::U32(number) => number.to_string(),
            _ => return None,
        };
        Some((field, text))
    })
}

/// The field that a step leads to; `None` when an apiserver of another version knew more of them.
fn field_at(message: &DynamicMessage, step: &Step) -> Option<FieldDescriptor> {
    match step {
        Step::Field(name) => message.descriptor().get_field_by_name(name),
        Step::Key(_) => None,
    }
}

fn compare(left: &DynamicMessage, right: &DynamicMessage, fields: &FieldSet, path: &FieldPath, differing: &mut Vec<FieldPath>) {
    for (step, fields) in fields.iter() {
        let Some(field) = field_at(left, step) else { continue };
        let path = path.then(step);
        if left.has_field(&field) != right.has_field(&field) {
            differing.push(path);
            continue;
        }
        let (left, right) = (left.get_field(&field), right.get_field(&field));
        match (schema::shape(&field), left.as_ref(), right.as_ref()) {
            (Shape::Message, Value::Message(left), Value::Message(right)) => compare(left, right, fields, &path, differing),
            (Shape::Map, Value::Map(left), Value::Map(right)) => {
                for (step, fields) in fields.iter() {
                    let Step::Key(key) = step else { continue };
                    let key = MapKey::String(key.clone());
                    compare_entries(left.get(&key), right.get(&key), fields, path.then(step), differing);
                }
            }
            (Shape::Keyed(keys), Value::List(left), Value::List(right)) => {
                let [left, right] = [left, right].map(|items| with_steps(items, keys).collect::<HashMap<_, _>>());
                for (step, fields) in fields.iter() {
                    compare_entries(left.get(step).copied(), right.get(step).copied(), fields, path.then(step), differing);
                }
            }
            (_, left, right) if left != right => differing.push(path),
            _ => {}
        }
    }
}

fn compare_entries(left: Option<&Value>, right: Option<&Value>, fields: &FieldSet, path: FieldPath, differing: &mut Vec<FieldPath>) {
    match (left, right) {
        (Some(Value::Message(left)), Some(Value::Message(right))) => compare(left, right, fields, &path, differing),
        (left, right) if left != right => differing.push(path),
        _ => {}
    }
}

fn clear(message: &mut DynamicMessage, fields: &FieldSet, kept: &FieldSet) {
    for (step, fields) in fields.iter() {
        let Some(field) = field_at(message, step).filter(|field| message.has_field(field)) else { continue };
        let kept = kept.get(step);
        let nothing = FieldSet::default();
        let is_empty = match (schema::shape(&field), message.get_field_mut(&field)) {
            (Shape::Message, Value::Message(within)) => {
                clear(within, fields, kept.unwrap_or(&nothing));
                kept.is_none() && within.fields().next().is_none()
            }
            (Shape::Map, Value::Map(entries)) => {
                entries.retain(|key, value| clear_entry(&entry_step(key), value, fields, kept.unwrap_or(&nothing)));
                entries.is_empty()
            }
            (Shape::Keyed(keys), Value::List(items)) => {
                let steps: Vec<_> = with_steps(items, keys).map(|(step, _)| step).collect();
                let mut steps = steps.iter();
                items.retain_mut(|item| steps.next().is_none_or(|step| clear_entry(step, item, fields, kept.unwrap_or(&nothing))));
                items.is_empty()
            }
            _ => kept.is_none(),
        };
        if is_empty {
            message.clear_field(&field);
        }
    }
}

/// Clears what is to be cleared of an entry. False: the whole of it.
fn clear_entry(step: &Step, value: &mut Value, fields: &FieldSet, kept: &FieldSet) -> bool {
    match (fields.get(step), kept.get(step), value) {
        (Some(fields), Some(kept), Value::Message(message)) => {
            clear(message, fields, kept);
            true
        }
        (fields, kept, _) => fields.is_none() || kept.is_some(),
    }
}

fn overlay(target: &mut DynamicMessage, from: &DynamicMessage, fields: &FieldSet) {
    for (step, fields) in fields.iter() {
        let Some(field) = field_at(target, step) else { continue };
        let value = from.get_field(&field);
        match (schema::shape(&field), value.as_ref()) {
            (Shape::Message, Value::Message(from)) => {
                if let Value::Message(target) = target.get_field_mut(&field) {
                    overlay(target, from, fields);
                }
            }
            (Shape::Map, Value::Map(from)) => {
                if let Value::Map(target) = target.get_field_mut(&field) {
                    let given = from.iter().filter_map(|(key, value)| Some((key, value, fields.get(&entry_step(key))?)));
                    for (key, value, fields) in given {
                        let old = target.remove(key);
                        target.insert(key.clone(), overlaid(old, value, fields, &[]));
                    }
                }
            }
            (Shape::Keyed(keys), Value::List(from)) => {
                if let Value::List(target) = target.get_field_mut(&field) {
                    overlay_list(target, from, fields, keys);
                }
            }
            (_, value) => target.set_field(&field, value.clone()),
        }
    }
}

fn overlaid(old: Option<Value>, value: &Value, fields: &FieldSet, keys: &[&str]) -> Value {
    let Value::Message(from) = value else { return value.clone() };
    let mut target = match old {
        Some(Value::Message(old)) => old,
        _ => DynamicMessage::new(from.descriptor()),
    };
    if let Some((key, _)) = key_of(from, keys) {
        target.set_field(&key, from.get_field(&key).into_owned());
    }
    overlay(&mut target, from, fields);
    Value::Message(target)
}

/// The given items come in their own order, in the places that given items had before; new ones come before the next one that was there before.
fn overlay_list(target: &mut Vec<Value>, from: &[Value], fields: &FieldSet, keys: &'static [&'static str]) {
    let places: HashMap<_, _> = with_steps(target, keys).enumerate().map(|(place, (step, _))| (step, place)).collect();
    let mut old: Vec<_> = std::mem::take(target).into_iter().map(Some).collect();
    let mut given = Vec::with_capacity(from.len());
    for (step, item) in with_steps(from, keys) {
        let Some(fields) = fields.get(&step) else { continue };
        let before = places.get(&step).and_then(|place| old[*place].take());
        given.push((before.is_some(), overlaid(before, item, fields, keys)));
    }
    let mut given = given.into_iter();
    for item in old {
        match item {
            Some(item) => target.push(item),
            None => {
                for (had_place, item) in given.by_ref() {
                    target.push(item);
                    if had_place {
                        break;
                    }
                }
            }
        }
    }
    target.extend(given.map(|(_, item)| item));
}
