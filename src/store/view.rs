use prost::encoding::decode_varint;

use crate::api::{Kind, LabelView};

/// What a selector looks at besides the key: labels and node, read out of an encoded object without decoding the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    node_name: Box<str>,
    /// In order, so that equal labels make equal views.
    labels: Box<[(Box<str>, Box<str>)]>,
}

impl View {
    /// Reads an encoded `Object`. What can't be read is absent: the store only ever holds what it encoded itself.
    pub fn of(object: &[u8]) -> Self {
        let Some((arm, message)) = Fields(object).next() else { return Self::default() };
        let mut view = Self::default();
        for (field, payload) in Fields(message) {
            match field {
                METADATA => view.labels = labels(payload),
                POD_SPEC if arm == Kind::Pod as u32 => view.node_name = text(payload, POD_SPEC_NODE_NAME),
                _ => {}
            }
        }
        view
    }

    pub(super) fn from_parts(node_name: String, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut labels: Vec<_> = labels.into_iter().map(|(key, value)| (key.into_boxed_str(), value.into_boxed_str())).collect();
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

// Field numbers of the protos; the test below fails if one of them moves.
const METADATA: u32 = 1;
const METADATA_LABELS: u32 = 8;
const ENTRY_KEY: u32 = 1;
const ENTRY_VALUE: u32 = 2;
const POD_SPEC: u32 = 2;
const POD_SPEC_NODE_NAME: u32 = 4;

fn labels(metadata: &[u8]) -> Box<[(Box<str>, Box<str>)]> {
    let entries = Fields(metadata).filter(|(field, _)| *field == METADATA_LABELS);
    let mut labels: Vec<_> = entries.map(|(_, entry)| (text(entry, ENTRY_KEY), text(entry, ENTRY_VALUE))).collect();
    labels.sort();
    labels.into()
}

fn text(message: &[u8], field: u32) -> Box<str> {
    let payload = Fields(message).find(|(found, _)| *found == field).map_or(&[][..], |(_, payload)| payload);
    std::str::from_utf8(payload).unwrap_or_default().into()
}

/// The length-delimited fields of an encoded message, in order, with their numbers. Ends where the bytes make no sense.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = decode_varint(&mut self.0).ok()?;
            match key & 7 {
                0 => drop(decode_varint(&mut self.0).ok()?),
                1 => drop(self.0.split_off(..8)?),
                2 => {
                    let len = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
                    return Some((u32::try_from(key >> 3).ok()?, self.0.split_off(..len)?));
                }
                5 => drop(self.0.split_off(..4)?),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::api::v1::{self, Object, object};

    #[test]
    fn a_view_shows_what_the_decoded_object_shows_for_every_kind() {
        let meta = v1::ObjectMeta {
            name: "web".into(),
            labels: [("app", "web"), ("tier", ""), ("a.b/c", "ü")].map(|(k, v)| (k.into(), v.into())).into(),
            annotations: [("app".to_owned(), "not a label".to_owned())].into(),
            resource_version: 300,
            deletion_grace_period_seconds: Some(30),
            ..Default::default()
        };
        let spec = v1::PodSpec { node_name: "node-7".into(), termination_grace_period_seconds: Some(5), ..Default::default() };
        let objects = [
            object::Kind::Pod(v1::Pod { metadata: Some(meta.clone()), spec: Some(spec), ..Default::default() }),
            object::Kind::Service(v1::Service { metadata: Some(meta.clone()), spec: Some(Default::default()), ..Default::default() }),
            object::Kind::Node(v1::Node { metadata: Some(meta.clone()), ..Default::default() }),
            object::Kind::EndpointSlice(v1::EndpointSlice { metadata: Some(meta.clone()), ..Default::default() }),
            object::Kind::Namespace(v1::Namespace { metadata: Some(meta.clone()), ..Default::default() }),
            object::Kind::Event(v1::ClusterEvent { metadata: Some(meta.clone()), ..Default::default() }),
            object::Kind::Lease(v1::Lease { metadata: Some(meta.clone()), ..Default::default() }),
        ];
        assert_eq!(objects.len(), Kind::ALL.len());
        for kind in objects {
            let object = Object { kind: Some(kind) };
            let view = View::of(&object.encode_to_vec());
            assert_eq!(view.node_name(), object.node_name());
            let labels: std::collections::HashMap<_, _> = view.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(labels, object.meta().labels);
        }
    }

    #[test]
    fn bytes_that_are_no_object_show_nothing() {
        for bytes in [&[][..], &[0x0a], &[0x0a, 200], &[0xff; 40], b"hello, world"] {
            let view = View::of(bytes);
            assert_eq!((view.node_name(), view.labels().count()), ("", 0));
        }
    }
}
