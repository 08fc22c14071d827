use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::OpenError;
use super::super::checkpoint::Pieces;
use super::super::record::{Reader, file_head};
use super::super::rows::HeaderRow;
use super::{files, live, load, open_tiny, put_files, record_of};
use crate::api::v1::event::Type;
use crate::api::{ObjectKey, Revision};
use crate::store::fixtures::{Script, contents, pod, pod_key, put, transaction};
use crate::store::{Commit, Event, Snapshot, Stored, put_head};

type Files = BTreeMap<String, Vec<u8>>;

/// A small store with a checkpoint and several segments, closed; or left as `kill -9` would leave it.
fn small_store(closed: bool) -> (Files, (Revision, Vec<Stored>)) {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open_tiny(folder.path()).unwrap();
    let mut script = Script { state: load(&mut backend).unwrap().0 };
    live(&mut backend, &mut script);
    if closed {
        backend.close(&script.state);
    } else {
        // So that the log has something that no checkpoint has.
        for name in ["late", "later"] {
            let (state, commits) = script.batch([transaction([put(pod(name, "", &[]))])]);
            backend.append(&mut record_of(&commits)).unwrap();
            script.state = state;
        }
    }
    drop(backend);
    let files = files(folder.path());
    assert!(files.keys().filter(|name| name.starts_with("log-")).count() >= 3, "{:?}", files.keys());
    assert!(files.keys().any(|name| name.starts_with("checkpoint-")));
    (files, contents(&script.state))
}

/// Opens damaged files. Either they are refused, with the file that is named, and nothing is changed; or (`None`) all is there.
fn refused(damaged: &Files, state: &(Revision, Vec<Stored>)) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    put_files(folder.path(), damaged);
    let mut backend = open_tiny(folder.path()).unwrap();
    match load(&mut backend) {
        Ok((found, _)) => {
            assert_eq!(contents(&found), *state);
            None
        }
        Err(error) => {
            assert_eq!(files(folder.path()), *damaged, "nothing was changed");
            let named = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
            let text = error.to_string();
            match error {
                OpenError::Damaged { file, .. } => {
                    assert!(text.contains("Nothing was changed") && text.contains("put back a copy"), "{text}");
                    Some(named(&file))
                }
                OpenError::NewerFormat { file, .. } => Some(named(&file)),
                error => panic!("{error}"),
            }
        }
    }
}

/// Where the contents of a file end, and zeros begin.
fn contents_len(name: &str, bytes: &[u8]) -> usize {
    if name == "tail" {
        return bytes.len();
    }
    let folder = tempfile::tempdir().unwrap();
    put_files(folder.path(), &[(name.to_owned(), bytes.to_owned())].into());
    let (mut reader, _) = Reader::open(&folder.path().join(name)).unwrap();
    loop {
        let offset = reader.offset();
        match reader.next::<()>().unwrap() {
            Some(record) => record.unwrap(),
            None => return offset as usize,
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_with_the_file_named_or_harmless_in_the_tail() {
    for closed in [true, false] {
        let (files, state) = small_store(closed);
        for (name, bytes) in &files {
            let contents = contents_len(name, bytes);
            for position in (0..contents).step_by(97).chain((0..contents.min(64)).step_by(5)).chain([contents - 1]) {
                let mut damaged = files.clone();
                damaged.get_mut(name).unwrap()[position] ^= 1 << (position % 8);
                let expected = (name != "tail").then(|| name.clone());
                assert_eq!(refused(&damaged, &state), expected, "{name} at {position}");
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_the_zeros_after_the_last_record_loses_nothing() {
    let (files, state) = small_store(false);
    let mut zeros = 0;
    for name in files.keys().filter(|name| name.starts_with("log-")) {
        for position in (contents_len(name, &files[name])..files[name].len()).step_by(5) {
            let mut damaged = files.clone();
            damaged.get_mut(name).unwrap()[position] ^= 1 << (position % 8);
            let blamed = refused(&damaged, &state);
            // Only the last segment can have a write that was cut short.
            assert!(blamed.is_none_or(|blamed| blamed == *name), "{name} at {position}");
            zeros += 1;
        }
    }
    assert!(zeros > 30, "segments are written over zeros: {zeros}");
}

#[test]
fn zeros_where_acknowledged_records_were_are_refused() {
    let (files, state) = small_store(false);
    let last = files.keys().rfind(|name| name.starts_with("log-")).unwrap();
    let contents = contents_len(last, &files[last]);
    for begin in (0..contents).step_by(31) {
        for end in [begin + 8, contents, files[last].len()] {
            let mut damaged = files.clone();
            damaged.get_mut(last).unwrap()[begin..end.max(begin + 1)].fill(0);
            assert_eq!(refused(&damaged, &state).as_ref(), Some(last), "{begin}..{end}");
        }
    }
}

#[test]
fn a_segment_that_was_prepared_and_not_written_to_is_sound_whatever_became_of_its_zeros() {
    let (mut files, state) = small_store(false);
    files.remove("tail");
    let first = files.keys().find(|name| name.starts_with("log-")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    put_files(folder.path(), &files);
    let (_, HeaderRow { cluster_id, role, .. }) = Reader::open(&folder.path().join(first)).unwrap();
    // As if a crash had come right after the new segment got its name.
    let revision = state.0.next();
    let head = file_head(&HeaderRow { cluster_id, role, revision: revision.0 });
    for zeros in [0, 1, 7, 8, 9, 100, 5000] {
        let mut prepared = files.clone();
        let mut segment = head.clone();
        segment.resize(head.len() + zeros, 0);
        prepared.insert(format!("log-{:020}", revision.0), segment);
        assert_eq!(refused(&prepared, &state), None, "{zeros} zeros");
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused_by_name_or_harmless_in_the_tail() {
    for closed in [true, false] {
        let (files, state) = small_store(closed);
        for (name, bytes) in &files {
            let contents = contents_len(name, bytes);
            for len in (0..bytes.len()).step_by(53).chain(bytes.len().saturating_sub(9)..bytes.len()) {
                let mut damaged = files.clone();
                damaged.get_mut(name).unwrap().truncate(len);
                let blamed = refused(&damaged, &state);
                match name.as_str() {
                    "tail" => assert_eq!(blamed, None, "{name} cut to {len}"),
                    name if len >= contents => assert_eq!(blamed, None, "{name} without some of its zeros"),
                    // When the end of a segment that isn't the last one falls between two records, it shows at the next segment.
                    name => assert!(blamed.as_deref() >= Some(name), "{name} cut to {len}: {blamed:?}"),
                }
            }
        }
    }
}

/// A commit whose object is whatever these bytes are.
fn commit_of(key: ObjectKey, revision: Revision, object: &[u8]) -> Commit {
    let mut record = Vec::new();
    put_head(Type::Added, object.len(), &mut record);
    record.extend_from_slice(object);
    let event = Event::from_stored(key, record.into(), None).expect("the frame of an event");
    Commit { revision, time: Default::default(), events: [event].into() }
}

#[test]
fn what_is_no_object_behind_a_right_checksum_is_refused_with_the_file_named() {
    let (files, state) = small_store(false);
    let other = prost::Message::encode_to_vec(&pod("other", "", &[]));
    for wrong in [&[0xff; 20][..], &other[..other.len() - 1], &other, &[]] {
        // In the log.
        let folder = tempfile::tempdir().unwrap();
        put_files(folder.path(), &files);
        let mut backend = open_tiny(folder.path()).unwrap();
        load(&mut backend).unwrap();
        let commit = commit_of(pod_key("wrong"), state.0.next(), wrong);
        backend.append(&mut record_of(&[Arc::new(commit)])).unwrap();
        drop(backend);
        let in_log = super::files(folder.path());
        let blamed = refused(&in_log, &state).expect("refused");
        assert!(blamed.starts_with("log-"), "{blamed}");

        // In a checkpoint.
        let mut with_wrong = Snapshot::default();
        with_wrong.insert(Stored { key: pod_key("wrong"), revision: Revision(1), bytes: wrong.to_vec().into() });
        with_wrong.set_revision(state.0);
        let name = format!("checkpoint-{:020}", state.0.0);
        let mut in_checkpoint = files.clone();
        in_checkpoint.insert(name.clone(), Pieces::of("any", with_wrong).collect::<Vec<_>>().concat());
        assert_eq!(refused(&in_checkpoint, &state), Some(name));
    }
}

#[test]
fn a_missing_file_is_refused_unless_it_is_the_tail() {
    let (files, state) = small_store(true);
    for name in files.keys() {
        let mut damaged = files.clone();
        damaged.remove(name);
        let oldest = files.keys().find(|name| name.starts_with("log-")).unwrap();
        match name.as_str() {
            "tail" => assert_eq!(refused(&damaged, &state), None),
            // What only the history needs makes the history shorter.
            name if name == oldest => assert_eq!(refused(&damaged, &state), None),
            name => assert!(refused(&damaged, &state).is_some(), "{name}"),
        }
    }
    let only_the_checkpoint = files.iter().filter(|(name, _)| name.starts_with("checkpoint-"));
    let only_the_checkpoint: Files = only_the_checkpoint.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    assert!(refused(&only_the_checkpoint, &state).is_some());
    let only_the_tail: Files = [("tail".to_owned(), files["tail"].clone())].into();
    assert!(refused(&only_the_tail, &state).is_some());
}

#[test]
fn the_files_of_two_clusters_are_no_store() {
    let (files, state) = small_store(true);
    let (others, _) = small_store(true);
    let last = files.keys().rfind(|name| name.starts_with("log-")).unwrap();
    let mut mixed = files.clone();
    mixed.insert(last.clone(), others[last].clone());
    assert_eq!(refused(&mixed, &state).as_ref(), Some(last));
}

#[test]
fn a_format_of_the_future_is_refused_as_such() {
    let (mut files, _) = small_store(true);
    let (name, bytes) = files.iter_mut().next().unwrap();
    bytes[8] = 2;
    let name = name.clone();
    let folder = tempfile::tempdir().unwrap();
    put_files(folder.path(), &files);
    let error = load(&mut open_tiny(folder.path()).unwrap()).unwrap_err();
    assert!(matches!(&error, OpenError::NewerFormat { file, found: 2, known: 1 } if file.ends_with(&name)), "{error}");
}

#[test]
fn a_last_write_that_was_cut_short_and_never_acknowledged_is_dropped() {
    let (files, state) = small_store(false);
    let last = files.keys().rfind(|name| name.starts_with("log-")).unwrap();
    let contents = contents_len(last, &files[last]);
    for torn in [&[7][..], &[0; 8], &[0; 300], &[20, 0, 0, 0, 1, 2, 3, 4, 5], &[1, 0, 0, 0, 1, 2, 3, 4, 5], &[0, 0, 0, 0, 0, 0, 0, 0, 5]] {
        for zeros in [0, 1, 7, 8, 9, 1000] {
            let mut damaged = files.clone();
            let bytes = damaged.get_mut(last).unwrap();
            bytes.truncate(contents);
            bytes.extend_from_slice(torn);
            bytes.resize(contents + torn.len() + zeros, 0);
            assert_eq!(refused(&damaged, &state), None, "{torn:?} and {zeros} zeros");
        }
    }
    // A write that isn't the last one was synced before the next began: this is no crash. Unless the head lies in two sectors: then its length may be
    // what is torn.
    let mut damaged = files.clone();
    let bytes = damaged.get_mut(last).unwrap();
    bytes.truncate(contents);
    bytes.extend_from_slice(&[1, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
    let in_two_sectors = contents % 512 > 504;
    assert_eq!(refused(&damaged, &state).as_ref(), Some(last).filter(|_| !in_two_sectors));
}
