//! The nouns: the generated messages and what can be said of them without IO, clocks or async.

/// The messages of package `bluebird.v1`, generated from proto/bluebird/v1.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/messages/bluebird.v1.rs"));
}

pub mod capability;
pub mod condition;
mod config;
mod containers;
mod defaults;
mod encoded;
mod expand;
pub(crate) mod fields;
mod key;
mod kind;
pub mod manifest;
mod nearest;
mod object;
pub mod quantity;
pub(crate) mod schema;
mod selector;
mod selector_text;
mod validate;

pub(crate) use config::settle_texts;
pub use containers::Role;
pub(crate) use defaults::undefault_object;
pub use defaults::{DEFAULT_GRACE_PERIOD_SECONDS, default_object, default_restart_backoff};
pub use encoded::Encoded;
pub use expand::expand;
pub use key::{
    APPLY_SET_LABEL, CONTENTS_FINALIZER, DEFAULT_NAMESPACE, ObjectKey, Revision, SERVICE_CIDR_ANNOTATION, STATIC_POD_ANNOTATION,
    STATIC_POD_FILE_ANNOTATION, SYSTEM_NAMESPACE,
};
pub use kind::Kind;
pub use nearest::nearest;
pub use object::Resource;
pub use selector::{LabelView, Matcher};
pub use selector_text::parse_label_selector;
pub(crate) use validate::names;
pub use validate::{validate, validate_update};

/// The descriptors of everything in proto/, with comments, as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest encoded object, in bytes.
pub const MAX_OBJECT_BYTES: usize = 1024 * 1024;
/// The most objects that one transaction may write.
pub const MAX_TRANSACTION_OBJECTS: usize = 100;
/// The most encoded bytes that one transaction may write: the 1.5 MiB that etcd takes by default, less 128 KiB for keys and conditions, so that
/// the backends don't differ.
pub const MAX_TRANSACTION_BYTES: usize = 1408 * 1024;
