//! A backup of any bytes: refused, with nothing left behind, or restored as it is, far above its revision; never with a panic.
#![no_main]

use std::cell::RefCell;

use bluebird::store::{HistoryLimits, fuzzing, inspect, restore};
use bluebird_fuzz::{repair, seeds};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a temporary folder"));
}

fuzz_target!(init: seeds::write(seeds::backup), |bytes: &[u8]| {
    let Some((mode, content)) = bytes.split_first() else { return };
    FOLDER.with_borrow(|folder| {
        let (file, data) = (folder.path().join("backup"), folder.path().join("data"));
        let mut content = content.to_vec();
        // Most inputs get right checksums, since hardly any would have them.
        if mode % 8 != 0 {
            repair(&mut content);
        }
        std::fs::write(&file, content).expect("a file in the temporary folder");
        let inspected = inspect(&file);
        match restore(&file, &data) {
            Ok(restored) => {
                let inspected = inspected.expect("what can be restored can be looked at");
                let (state, history) = fuzzing::read_folder(&data, HistoryLimits::default()).expect("what was restored can be read");
                assert!(restored.now > restored.backup && restored.now == state.revision() && restored.backup == inspected.state.revision());
                assert!(history.after(restored.now, usize::MAX).is_ok() && history.after(restored.backup, usize::MAX).is_err());
                let same = |(one, other): (&bluebird::store::Stored, &bluebird::store::Stored)| one.key == other.key && one.bytes == other.bytes;
                assert!(state.len() == inspected.state.len() && state.iter().zip(inspected.state.iter()).all(same));
                std::fs::remove_dir_all(&data).expect("the folder that was just made");
            }
            Err(error) => {
                drop(error.to_string());
                assert!(!data.join("RESTORING").exists(), "an unfinished restore is left behind");
            }
        }
    });
});
