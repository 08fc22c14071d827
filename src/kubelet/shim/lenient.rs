//! What a newer kubelet or shim may say in words that this one doesn't know: each such word alone is taken for the nearest that it knows, and harms nothing
//! that stands beside it.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Word<T> {
    Known(T),
    Unknown(IgnoredAny),
}

impl<T> Word<T> {
    fn known(self) -> Option<T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Unknown(IgnoredAny) => None,
        }
    }
}

/// The value, or the default for one that is not understood.
pub(super) fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Word::deserialize(from).map(|word| word.known().unwrap_or_default())
}

/// Those that are understood.
pub(super) fn those_known<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Vec::<Word<T>>::deserialize(from).map(|words| words.into_iter().filter_map(Word::known).collect())
}
