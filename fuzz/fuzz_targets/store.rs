//! A data folder of any bytes: refused or read, never with a panic, and never with more memory than the files are large.
#![no_main]

use std::cell::RefCell;

use bluebird::store::{HistoryLimits, fuzzing};
use bluebird_fuzz::{STORE_FILES, repair, seeds, split};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a temporary folder"));
}

fuzz_target!(init: seeds::write(seeds::store), |bytes: &[u8]| {
    let [mode, log, checkpoint, tail] = split(bytes);
    FOLDER.with_borrow(|folder| {
        // Most inputs get right checksums, since hardly any would have them.
        let repaired = mode.first().is_none_or(|mode| mode % 8 != 0);
        for (name, content) in STORE_FILES.into_iter().zip([log, checkpoint, tail]) {
            let mut content = content.to_vec();
            if name != "tail" && repaired {
                repair(&mut content);
            }
            let path = folder.path().join(name);
            if content.is_empty() {
                let _ = std::fs::remove_file(path);
            } else {
                std::fs::write(path, content).expect("a file in the temporary folder");
            }
        }
        let Ok((state, history)) = fuzzing::read_folder(folder.path(), HistoryLimits::default()) else { return };
        assert!(history.after(history.oldest(), usize::MAX).is_ok(), "the oldest is not kept");
        state.iter().for_each(|stored| drop(stored.decode()));
    });
});
