//! What ConfigMaps and Secrets hold.

use std::fmt;

use super::v1::{ConfigMap, Object, Secret, object};

impl ConfigMap {
    /// What it holds under a key, text or not.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).map(String::as_bytes).or_else(|| self.binary_data.get(key).map(Vec::as_slice))
    }

    /// Every key, in order, with what it holds under it.
    pub fn values(&self) -> Vec<(&str, &[u8])> {
        let texts = self.data.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
        let bytes = self.binary_data.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        let mut values: Vec<_> = texts.chain(bytes).collect();
        values.sort_unstable();
        values
    }
}

impl Secret {
    /// Every key, in order, with what it holds under it.
    pub fn values(&self) -> Vec<(&str, &[u8])> {
        let mut values: Vec<_> = self.data.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        values.sort_unstable();
        values
    }
}

/// Without what is secret: how long each value is has to do.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.string_data.iter().map(|(key, value)| (key, value.len()));
        let lengths: std::collections::BTreeMap<_, _> = self.data.iter().map(|(key, value)| (key, value.len())).chain(texts).collect();
        f.debug_struct("Secret").field("metadata", &self.metadata).field("type", &self.r#type).field("lengths", &lengths).finish()
    }
}

/// Moves the texts that a secret is written with to where they are kept. Doing it twice changes nothing more.
pub(crate) fn settle_texts(object: &mut Object) {
    if let Some(object::Kind::Secret(secret)) = &mut object.kind {
        let texts = secret.string_data.drain().map(|(key, text)| (key, text.into_bytes()));
        secret.data.extend(texts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret {
            data: [("a".to_owned(), b"hunter1".to_vec()), ("b".to_owned(), vec![0xff])].into(),
            string_data: [("a".to_owned(), "hunter2".to_owned())].into(),
            ..Secret::default()
        }
    }

    #[test]
    fn a_secret_that_is_printed_for_a_log_shows_lengths_and_no_values() {
        let printed = format!("{:?}", Object { kind: Some(object::Kind::Secret(secret())) });
        assert!(printed.contains("\"a\": 7") && !printed.contains("hunter") && !printed.contains("104, 117"), "{printed}");
    }

    #[test]
    fn the_texts_of_a_secret_become_its_data_and_win_over_it() {
        let mut object = Object { kind: Some(object::Kind::Secret(secret())) };
        settle_texts(&mut object);
        let settled = object.clone();
        settle_texts(&mut object);
        assert_eq!(object, settled);
        let Some(object::Kind::Secret(secret)) = object.kind else { panic!("a secret") };
        assert_eq!(secret.values(), [("a", &b"hunter2"[..]), ("b", &[0xff])]);
        assert!(secret.string_data.is_empty());
    }

    #[test]
    fn the_values_of_a_config_map_are_texts_and_bytes_by_key() {
        let data = [("b".to_owned(), "text".to_owned())].into();
        let map = ConfigMap { data, binary_data: [("a".to_owned(), vec![0])].into(), ..ConfigMap::default() };
        assert_eq!(map.values(), [("a", &[0][..]), ("b", b"text")]);
        assert_eq!((map.value("b"), map.value("c")), (Some(&b"text"[..]), None));
    }
}
