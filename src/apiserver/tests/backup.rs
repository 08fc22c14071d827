use std::collections::BTreeMap;

use super::*;
use crate::api::v1::{BackupResponse, WatchRequest};
use crate::client::Incoming;

/// Reads a backup to its end: the file, and the last message.
async fn read(pieces: &mut Incoming<BackupResponse>) -> (Vec<u8>, BackupResponse) {
    let mut file = Vec::new();
    let mut before = 0;
    while let Some(piece) = tokio::time::timeout(PATIENCE, pieces.next()).await.unwrap().unwrap() {
        file.extend_from_slice(&piece.data);
        assert!(piece.objects >= before && piece.objects <= piece.total_objects && piece.bytes <= piece.total_bytes);
        before = piece.objects;
        if let Some(checksum) = piece.checksum {
            assert_eq!((checksum, piece.objects, piece.bytes), (crc32fast::hash(&file), piece.total_objects, piece.total_bytes));
            assert_eq!(pieces.next().await, Ok(None));
            return (file, piece);
        }
    }
    panic!("it ended without a checksum");
}

/// An apiserver on what is restored of a backup.
async fn restored(file: &[u8]) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    std::fs::write(&backup, file).unwrap();
    crate::apiserver::restore(&backup, &config(&folder).data_dir).unwrap();
    let apiserver = start(config(&folder), Clock::system()).await.unwrap();
    Running { client: Client::from_channel(apiserver.channel()), apiserver, folder }
}

async fn services(client: &Client) -> BTreeMap<String, u64> {
    let listed = client.list::<Service>("").await.unwrap();
    listed.iter().map(|service| (service.meta().name.clone(), service.meta().resource_version)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_writes_has_exactly_the_objects_of_its_revision() {
    let running = running().await;
    let client = running.another_client();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = async move {
        let mut written = Vec::new();
        while stopped.try_recv().is_err() {
            let name = format!("s{}", written.len());
            let mut large = service(&name);
            large.meta_mut().annotations.insert("padding".into(), "x".repeat(20_000));
            written.push((name, client.create(large).await.unwrap().meta().resource_version));
        }
        written
    };
    let backup = async {
        while services(&running.client).await.len() < 50 {}
        let read = read(&mut running.client.backup().await.unwrap()).await;
        stop.send(()).unwrap();
        read
    };
    let (written, (file, last)) = tokio::join!(writer, backup);
    let expected: BTreeMap<_, _> = written.iter().filter(|(_, revision)| *revision <= last.revision).cloned().collect();
    assert!(expected.len() >= 50 && expected.len() < written.len(), "{} of {}", expected.len(), written.len());

    let newest = running.client.create(service("last")).await.unwrap().meta().resource_version;
    let second = restored(&file).await;
    assert_eq!(services(&second.client).await, expected);
    let created = second.client.create(service("last")).await.unwrap().meta().resource_version;
    assert!(created > newest + 1_000_000, "{created} after {newest}");
    for from in [1, last.revision, newest] {
        let end = super::watch::refusal(&second.client, WatchRequest { from_revision: from, ..Default::default() }).await;
        assert!(matches!(end, Error::Compacted { requested, .. } if requested.0 == from), "{end:?}");
    }
}

/// More than a connection takes without its being read.
async fn create_large(client: &Client) {
    for index in 0..40 {
        let mut large = service(&format!("s{index}"));
        large.meta_mut().annotations.insert("padding".into(), "x".repeat(200_000));
        client.create(large).await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_reader_gets_the_state_as_it_was_when_it_began() {
    let running = running().await;
    let client = &running.client;
    create_large(client).await;
    let before = services(client).await;
    let mut pieces = client.backup().await.unwrap();
    let revision = pieces.next().await.unwrap().unwrap().revision;
    for index in 0..40 {
        client.delete::<Service>("", &format!("s{index}"), Default::default()).await.unwrap();
    }
    let mut rest = Vec::new();
    let mut first = client.backup().await.unwrap();
    rest.extend(first.next().await.unwrap().unwrap().data);
    assert!(rest.len() < 1000, "the head of the file");
    drop(first);
    let mut count = 0;
    while let Some(piece) = pieces.next().await.unwrap() {
        assert_eq!(piece.revision, revision);
        count = piece.objects;
    }
    // The namespaces of every cluster come on top.
    assert!(count as usize >= before.len(), "{count}");
    assert!(services(client).await.is_empty());
}

#[tokio::test]
async fn a_backup_ends_with_the_apiserver_and_says_so() {
    let running = running().await;
    create_large(&running.client).await;
    let mut pieces = running.client.backup().await.unwrap();
    pieces.next().await.unwrap();
    running.apiserver.shutdown().await;
    let end = loop {
        match tokio::time::timeout(PATIENCE, pieces.next()).await.unwrap() {
            Ok(Some(piece)) => assert_eq!(piece.checksum, None),
            Ok(None) => panic!("it looks complete"),
            Err(error) => break error,
        }
    };
    assert!(end.is_unavailable(), "{end:?}");
}

#[tokio::test]
async fn only_so_many_backups_are_read_at_the_same_time() {
    let running = running().await;
    let client = &running.client;
    create_large(client).await;
    // Each over a connection of its own: what nobody reads holds up its connection.
    let mut readers = Vec::new();
    let refused = loop {
        let client = running.another_client();
        match client.backup().await {
            Ok(mut pieces) => {
                pieces.next().await.unwrap().unwrap();
                readers.push((client, pieces));
            }
            Err(error) => break error,
        }
    };
    assert_eq!(readers.len(), 4);
    assert!(matches!(&refused, Error::Exhausted { retry_after: Some(_), .. }), "{refused:?}");
    while readers[0].1.next().await.unwrap().is_some() {}
    client.backup().await.unwrap();
}
