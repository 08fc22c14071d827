//! What is so where a file that somebody has open can be removed.

use super::*;

#[test]
fn a_log_whose_folder_is_removed_goes_on_in_a_new_one_when_its_file_is_full() {
    let mut fixture = Fixture::new();
    let mut log = fixture.open(0, 1, 2);
    fixture.add(&mut log, "lost with the folder");
    log.flush(&mut fixture.batch);
    std::fs::remove_dir_all(fixture.folder.path()).unwrap();
    fixture.add(&mut log, "after");
    log.flush(&mut fixture.batch);
    assert_eq!(fixture.files(), [("0.log".to_owned(), record("after"))]);
}

#[test]
fn a_file_that_is_removed_or_cut_short_costs_what_was_in_it_and_no_more() {
    let mut fixture = Fixture::new();
    let mut log = fixture.open(0, 200, 3);
    let mut say = |text: &str, log: &mut Log| {
        fixture.add(log, text);
        log.flush(&mut fixture.batch);
        fixture.files()
    };
    say("one", &mut log);
    std::fs::remove_file(log.present.path(&log.folder)).unwrap();
    assert_eq!(say("two", &mut log), [("0.log".to_owned(), record("two"))]);
    File::options().write(true).open(log.present.path(&log.folder)).unwrap().set_len(0).unwrap();
    assert_eq!(say("three", &mut log), [("0.log".to_owned(), record("three"))]);
    std::fs::remove_dir_all(&log.folder).unwrap();
    assert_eq!(say("four", &mut log), [("0.log".to_owned(), record("four"))]);
    for text in ["five", "six", "seven", "eight", "nine"] {
        say(text, &mut log);
    }
    assert!(!log.has_loss());
    assert_eq!(say("ten", &mut log).last().unwrap().0, "0.log");
    let names: Vec<String> = fixture.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["0.log.3", "0.log"], "the third file is full; two were removed");
}
