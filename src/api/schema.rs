//! The descriptors of the messages, and how their fields and values are written in manifests.

use std::borrow::Cow;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor};

use super::{FILE_DESCRIPTOR_SET, Kind};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("build.rs writes valid descriptors"));

/// Words that Kubernetes writes in capitals.
const ACRONYMS: [&str; 2] = ["TCP", "UDP"];

/// Lists whose items are known by a key: the first of these fields that isn't empty. Applies merge them item by item; all other lists are one value.
const KEYED_LISTS: [(&str, &[&str]); 7] = [
    ("bluebird.v1.PodSpec.volumes", &["name"]),
    ("bluebird.v1.Container.volume_mounts", &["mount_path"]),
    ("bluebird.v1.PodSpec.containers", &["name"]),
    ("bluebird.v1.PodSpec.init_containers", &["name"]),
    ("bluebird.v1.Container.env", &["name"]),
    ("bluebird.v1.Container.ports", &["name", "container_port"]),
    ("bluebird.v1.ServiceSpec.ports", &["name", "port"]),
];

/// What a field's value is made of, when several have a say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One value that nobody has a part of: a number, a text, a time, a list without keys.
    Whole,
    /// Fields.
    Message,
    /// Entries by their keys.
    Map,
    /// Items by the first of these fields of them that isn't empty.
    Keyed(&'static [&'static str]),
}

/// `Object`, whose arms are the kinds.
pub(crate) fn object() -> MessageDescriptor {
    POOL.get_message_by_name("bluebird.v1.Object").expect("object.proto has it")
}

/// The arm of a kind.
pub(crate) fn arm(kind: Kind) -> FieldDescriptor {
    object().get_field(kind as u32).expect("a kind's number is that of its arm")
}

/// The message of a kind.
pub(crate) fn message(kind: Kind) -> MessageDescriptor {
    arm(kind).kind().as_message().expect("every arm is a message").clone()
}

/// The field of this name in a manifest.
pub(crate) fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.fields().find(|field| field_name(field) == name || field.json_name() == name)
}

/// What a field's value is made of.
pub(crate) fn shape(field: &FieldDescriptor) -> Shape {
    use prost_reflect::Kind as Type;
    let keyed = || KEYED_LISTS.iter().find(|(name, _)| *name == field.full_name());
    match field.kind() {
        Type::Message(entry) if field.is_map() && entry.map_entry_key_field().kind() == Type::String => Shape::Map,
        Type::Message(_) if field.is_list() => keyed().map_or(Shape::Whole, |(_, keys)| Shape::Keyed(keys)),
        Type::Message(message) if !field.is_map() && !is_text(&message) => Shape::Message,
        _ => Shape::Whole,
    }
}

/// How a field is called in manifests: `clusterIP`. That is its name in JSON, but for the capitals that Kubernetes gives an IP.
pub(crate) fn field_name(field: &FieldDescriptor) -> Cow<'static, str> {
    match field.json_name().strip_suffix("Ip") {
        Some(start) => Cow::Owned(format!("{start}IP")),
        None => Cow::Owned(field.json_name().to_owned()),
    }
}

/// The words for the values of an enum, as Kubernetes writes them, by number. The first value of every enum is "not set", and has none.
pub(crate) fn enum_words(descriptor: &EnumDescriptor) -> Vec<(i32, String)> {
    let prefix = screaming(descriptor.name());
    let values = descriptor.values().filter(|value| value.number() != 0);
    values.map(|value| (value.number(), camel(value.name().strip_prefix(&prefix).unwrap_or(value.name())))).collect()
}

/// Whether a manifest may have a number where the field is text, as Kubernetes allows for quantities and target ports.
pub(crate) fn takes_numbers(field: &FieldDescriptor) -> bool {
    is_target_port(field)
        || matches!(
            field.full_name(),
            "bluebird.v1.ResourceRequirements.requests" | "bluebird.v1.ResourceRequirements.limits" | "bluebird.v1.NodeStatus.capacity"
        )
}

/// Whether it is a text that is written as a number when it is one: the name of a port, or its number.
pub(crate) fn is_target_port(field: &FieldDescriptor) -> bool {
    [
        "bluebird.v1.ServicePort.target_port",
        "bluebird.v1.HTTPGetAction.port",
        "bluebird.v1.TCPSocketAction.port",
        "bluebird.v1.GRPCAction.port",
    ]
    .contains(&field.full_name())
}

/// Whether nobody should see its value by accident, not even in an error: what a secret holds.
pub(crate) fn is_secret(field: &FieldDescriptor) -> bool {
    let name = field.full_name();
    ["bluebird.v1.Secret.data", "bluebird.v1.Secret.string_data"].contains(&name)
        || ["bluebird.v1.Secret.DataEntry.value", "bluebird.v1.Secret.StringDataEntry.value"].contains(&name)
}

/// Whether a message is written as one text.
pub(crate) fn is_text(message: &MessageDescriptor) -> bool {
    is_timestamp(message) || is_duration(message)
}

/// `google.protobuf.Duration`, which is written as `90s`.
pub(crate) fn is_duration(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.protobuf.Duration"
}

/// `google.protobuf.Timestamp`, which is written as RFC 3339 text.
pub(crate) fn is_timestamp(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.protobuf.Timestamp"
}

/// `RestartPolicy` → `RESTART_POLICY_`.
fn screaming(name: &str) -> String {
    let mut screaming = String::new();
    for (index, letter) in name.char_indices() {
        if index > 0 && letter.is_ascii_uppercase() {
            screaming.push('_');
        }
        screaming.push(letter.to_ascii_uppercase());
    }
    screaming + "_"
}

/// `ON_FAILURE` → `OnFailure`.
fn camel(name: &str) -> String {
    let word = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) if !ACRONYMS.contains(&word) => first.to_owned() + &rest.to_ascii_lowercase(),
        _ => word.to_owned(),
    };
    name.split('_').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_are_written_as_kubernetes_writes_them() {
        let words = |name: &str| {
            let descriptor = POOL.get_enum_by_name(&format!("bluebird.v1.{name}")).expect(name);
            enum_words(&descriptor).into_iter().map(|(_, word)| word).collect::<Vec<_>>()
        };
        assert_eq!(words("RestartPolicy"), ["Always", "OnFailure", "Never"]);
        assert_eq!(words("Protocol"), ["TCP", "UDP"]);
        assert_eq!(words("ConditionStatus"), ["True", "False", "Unknown"]);
        assert_eq!(words("LabelSelectorOperator"), ["In", "NotIn", "Exists", "DoesNotExist"]);
    }

    #[test]
    fn every_kind_has_an_arm_of_its_name() {
        for kind in Kind::ALL {
            assert_eq!(arm(kind).name(), kind.arm_name());
        }
    }

    #[test]
    fn of_every_list_of_messages_it_is_decided_whether_its_items_have_keys() {
        const WITHOUT_KEYS: [&str; 5] = [
            "bluebird.v1.EndpointSliceSpec.endpoints",
            "bluebird.v1.Endpoint.ports",
            "bluebird.v1.Container.env_from",
            "bluebird.v1.ConfigMapVolumeSource.items",
            "bluebird.v1.SecretVolumeSource.items",
        ];
        fn lists(message: &MessageDescriptor, found: &mut Vec<FieldDescriptor>) {
            for field in message.fields().filter(|field| !matches!(field.name(), "metadata" | "status")) {
                if let prost_reflect::Kind::Message(inner) = field.kind() {
                    lists(&inner, found);
                    if field.is_list() {
                        found.push(field);
                    }
                }
            }
        }
        let mut found = Vec::new();
        Kind::ALL.iter().for_each(|kind| lists(&message(*kind), &mut found));
        assert!(found.len() >= KEYED_LISTS.len());
        for list in found {
            let has_keys = !WITHOUT_KEYS.contains(&list.full_name());
            assert_eq!(matches!(shape(&list), Shape::Keyed(_)), has_keys, "{}: say it in KEYED_LISTS, or here", list.full_name());
            if let Shape::Keyed(keys) = shape(&list) {
                let item = list.kind().as_message().expect("a list of messages").clone();
                assert!(keys.iter().all(|key| item.get_field_by_name(key).is_some()), "{keys:?} of {}", item.full_name());
            }
        }
    }

    #[test]
    fn an_ip_is_written_in_capitals() {
        let spec = POOL.get_message_by_name("bluebird.v1.ServiceSpec").expect("service.proto has it");
        let names: Vec<_> = spec.fields().map(|field| field_name(&field).into_owned()).collect();
        assert_eq!(names, ["selector", "ports", "clusterIP"]);
        assert!(field(&spec, "clusterIP").is_some() && field(&spec, "clusterIp").is_some());
    }
}
