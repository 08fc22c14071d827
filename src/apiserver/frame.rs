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
        let mut head = Vec::with_capacity(key_len(field) + encoded_len_varint(message.len() as u64));
        encode_key(field, WireType::LengthDelimited, &mut head);
        encode_varint(message.len() as u64, &mut head);
        self.push_encoded(head.into());
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

    /// The whole message's size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no field has been appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
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
