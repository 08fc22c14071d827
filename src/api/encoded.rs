use prost::encoding::decode_varint;

use super::{Kind, LabelView};

/// An encoded `Object`, at whose labels and node a selector can look without decoding it. What can't be read is absent: whoever keeps encoded
/// objects has encoded them itself.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    arm: u32,
    message: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// Looks at the bytes of an `Object`.
    pub fn new(object: &'a [u8]) -> Self {
        let (arm, message) = Fields(object).next().unwrap_or_default();
        Self { arm, message }
    }

    /// Every label, as it comes.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let entries = Fields(field(self.message, METADATA)).filter(|(field, _)| *field == METADATA_LABELS);
        entries.map(|(_, entry)| (text(entry, ENTRY_KEY), text(entry, ENTRY_VALUE)))
    }

    /// The node that a pod is bound to; empty for everything else.
    pub fn node_name(&self) -> &'a str {
        match self.arm == Kind::Pod as u32 {
            true => text(field(self.message, POD_SPEC), POD_SPEC_NODE_NAME),
            false => "",
        }
    }
}

impl LabelView for Encoded<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn node_name(&self) -> &str {
        Encoded::node_name(self)
    }
}

// Field numbers of the protos; the test below fails if one of them moves.
const METADATA: u32 = 1;
const METADATA_LABELS: u32 = 8;
const ENTRY_KEY: u32 = 1;
const ENTRY_VALUE: u32 = 2;
const POD_SPEC: u32 = 2;
const POD_SPEC_NODE_NAME: u32 = 4;

fn text(message: &[u8], number: u32) -> &str {
    std::str::from_utf8(field(message, number)).unwrap_or_default()
}

fn field(message: &[u8], number: u32) -> &[u8] {
    Fields(message).find(|(found, _)| *found == number).map_or(&[][..], |(_, payload)| payload)
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
    fn an_encoded_object_shows_what_the_decoded_one_shows_for_every_kind() {
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
            object::Kind::ConfigMap(v1::ConfigMap { metadata: Some(meta.clone()), ..Default::default() }),
            object::Kind::Secret(v1::Secret { metadata: Some(meta.clone()), ..Default::default() }),
        ];
        assert_eq!(objects.len(), Kind::ALL.len());
        for kind in objects {
            let object = Object { kind: Some(kind) };
            let bytes = object.encode_to_vec();
            let encoded = Encoded::new(&bytes);
            assert_eq!(encoded.node_name(), object.node_name());
            let labels: std::collections::HashMap<_, _> = encoded.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(labels, object.meta().labels);
            assert_eq!((encoded.label("tier"), encoded.label("no")), (Some(""), None));
        }
    }

    #[test]
    fn bytes_that_are_no_object_show_nothing() {
        for bytes in [&[][..], &[0x0a], &[0x0a, 200], &[0xff; 40], b"hello, world"] {
            let encoded = Encoded::new(bytes);
            assert_eq!((encoded.node_name(), encoded.labels().count()), ("", 0));
        }
    }
}
