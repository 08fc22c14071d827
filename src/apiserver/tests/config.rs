use super::apply::{apply, outcomes};
use super::*;
use crate::api::v1::{ApplyOutcome, ConfigMap, Secret};

fn secret(texts: &[(&str, &str)]) -> Secret {
    let string_data = texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    let mut secret = Secret { string_data, ..Default::default() };
    secret.meta_mut().name = "db".into();
    secret
}

#[tokio::test]
async fn the_texts_of_a_secret_are_moved_into_its_data_by_every_write_and_never_returned() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let created = client.create(secret(&[("password", "one")])).await.unwrap();
    assert_eq!((created.string_data.len(), created.values()), (0, vec![("password", &b"one"[..])]));
    let mut changed = created;
    changed.string_data.insert("password".into(), "two".into());
    changed.string_data.insert("user".into(), "root".into());
    let updated = client.update(changed).await.unwrap();
    assert_eq!((updated.string_data.len(), updated.values()), (0, vec![("password", &b"two"[..]), ("user", b"root")]));
    assert_eq!(updated.meta().generation, 2);
    assert_eq!(client.get::<Secret>("", "db").await.unwrap(), updated);
}

#[tokio::test]
async fn who_applies_the_texts_of_a_secret_owns_them_as_its_data() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let (both, one) = (secret(&[("a", "1"), ("b", "2")]), secret(&[("a", "1")]));
    let first = apply(&client, vec![both.clone().into_object()]).await.unwrap();
    assert_eq!(outcomes(&first), [ApplyOutcome::Created]);
    let stored = client.get::<Secret>("", "db").await.unwrap();
    assert_eq!(stored.meta().managed_fields[0].fields, "data([a],[b])");
    assert_eq!(outcomes(&apply(&client, vec![both.into_object()]).await.unwrap()), [ApplyOutcome::Unchanged]);
    assert_eq!(outcomes(&apply(&client, vec![one.into_object()]).await.unwrap()), [ApplyOutcome::Configured]);
    assert_eq!(client.get::<Secret>("", "db").await.unwrap().values(), [("a", &b"1"[..])]);
}

#[tokio::test]
async fn a_config_map_is_as_large_as_an_object_may_be_and_no_larger() {
    let Running { client, apiserver: _apiserver, folder: _folder } = running().await;
    let map = |name: &str, bytes: usize| {
        let mut map = ConfigMap { binary_data: [("all".to_owned(), vec![0xff; bytes])].into(), ..Default::default() };
        map.meta_mut().name = name.into();
        map
    };
    let largest = client.create(map("largest", 1_048_576 - 300)).await.unwrap();
    assert_eq!(client.get::<ConfigMap>("", "largest").await.unwrap(), largest);
    assert_eq!(paths(client.create(map("larger", 1_048_576)).await), ["config_map"]);
}
