use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// A response message that is put together from bytes that are encoded already, so that a stored object is never encoded again for a
/// reader. It stands in for the generated type in the generated server and is only ever sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    parts: Vec<Bytes>,
    len: usize,
}

impl Frame {
    /// No fields yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends encoded fields as they are.
    pub fn push_encoded(&mut self, fields: Bytes) {
        self.len += fields.len();
        self.parts.push(fields);
    }

    /// Appends a field that is an embedded message.
    pub fn push_message(&mut self, field: u32, message: Bytes) {
        self.push_head(field, message.len());
        self.push_encoded(message);
    }

    /// Appends a number; zero is the default and left out.
    pub fn push_uint64(&mut self, field: u32, value: u64) {
        if value != 0 {
            let mut bytes = Vec::new();
            encode_key(field, WireType::Varint, &mut bytes);
            encode_varint(value, &mut bytes);
            self.push_encoded(bytes.into());
        }
    }

    /// Appends a field that is an embedded message which is put together from encoded bytes itself.
    pub fn push_frame(&mut self, field: u32, message: Frame) {
        self.push_head(field, message.len);
        self.len += message.len;
        self.parts.extend(message.parts);
    }

    /// Appends a text; the empty one is the default and left out.
    pub fn push_string(&mut self, field: u32, value: String) {
        if !value.is_empty() {
            self.push_message(field, value.into());
        }
    }

    /// The whole message's size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no field has been appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Frame {
    fn push_head(&mut self, field: u32, len: usize) {
        let mut head = Vec::with_capacity(key_len(field) + encoded_len_varint(len as u64));
        encode_key(field, WireType::LengthDelimited, &mut head);
        encode_varint(len as u64, &mut head);
        self.push_encoded(head.into());
    }
}

impl prost::Message for Frame {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for part in &self.parts {
            buf.put_slice(part);
        }
    }

    fn merge_field(&mut self, _: u32, _: WireType, _: &mut impl Buf, _: DecodeContext) -> Result<(), DecodeError> {
        unreachable!("a server sends responses and never receives one")
    }

    fn encoded_len(&self) -> usize {
        self.len
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::api::v1;

    #[test]
    fn a_frame_decodes_as_the_message_that_it_stands_for() {
        let pod = v1::Pod { metadata: Some(v1::ObjectMeta { name: "web".into(), ..Default::default() }), ..Default::default() };
        let object = v1::Object { kind: Some(v1::object::Kind::Pod(pod)) };
        let encoded = Bytes::from(object.encode_to_vec());

        let mut list = Frame::new();
        list.push_message(1, encoded.clone());
        list.push_uint64(2, 300);
        list.push_string(3, "next".into());
        let expected = v1::ListResponse { objects: vec![object.clone()], revision: 300, continue_token: "next".into() };
        assert_eq!(v1::ListResponse::decode(list.encode_to_vec().as_slice()).unwrap(), expected);
        assert_eq!(list.encode_to_vec().len(), list.len());

        let mut result = Frame::new();
        result.push_message(1, encoded);
        let mut statuses = Frame::new();
        statuses.push_frame(1, result);
        let result = v1::UpdateStatusResult { result: Some(v1::update_status_result::Result::Object(object)) };
        let expected = v1::UpdateStatusResponse { results: vec![result] };
        assert_eq!(v1::UpdateStatusResponse::decode(statuses.encode_to_vec().as_slice()).unwrap(), expected);

        let mut bookmark = Frame::new();
        bookmark.push_uint64(2, 0);
        bookmark.push_uint64(3, 1);
        let expected = v1::WatchResponse { synced: true, ..Default::default() };
        assert_eq!(v1::WatchResponse::decode(bookmark.encode_to_vec().as_slice()).unwrap(), expected);
    }
}
