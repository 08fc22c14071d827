//! What is so where a file that somebody has open is gone at once when it is removed. Windows may keep it, with its name, until nobody has it any more.

use proptest::prelude::*;

use super::chance::{run, steps};
use super::*;

#[test]
fn a_file_that_somebody_has_removed_is_read_to_its_end_and_the_next_one_after_it() {
    let mut log = Log::new();
    log.line("a");
    let mut reader = log.follow();
    assert_eq!(drain(&mut reader), "a\n");
    let mut held = File::options().append(true).open(log.path()).unwrap();
    log.remove("0.log");
    held.write_all(b"2026-11-21T16:00:00.000000005Z stdout F b\n").unwrap();
    assert_eq!(drain(&mut reader), "b\n");
    log.line("c");
    assert_eq!(drain(&mut reader), "[gap]c\n");
}

#[test]
fn a_position_whose_file_is_gone_is_a_gap() {
    let mut log = Log::new();
    log.line("a");
    let mut reader = log.follow();
    assert_eq!(drain(&mut reader), "a\n");
    log.rotate();
    log.now += 1;
    log.line("b");
    log.remove("0.log.1");
    assert_eq!(drain(&mut log.resume(reader.position())), "[gap]b\n");
    assert_eq!(drain(&mut reader), "[gap]b\n");
}

#[test]
fn what_was_removed_unread_is_a_gap_and_what_is_held_open_is_not() {
    let mut log = Log::new();
    log.line("a");
    let mut reader = log.follow();
    assert_eq!(drain(&mut reader), "a\n");
    log.line("b");
    for line in ["c", "d", "e"] {
        log.rotate();
        log.line(line);
    }
    log.remove("0.log.1");
    log.remove("0.log.2");
    assert_eq!(drain(&mut reader), "b\n[gap]d\ne\n");
    log.record('P', b"begun");
    assert_eq!(drain(&mut reader), "begun");
    log.rotate();
    log.line("f");
    log.restart();
    log.line("g");
    for name in ["0.log.3", "0.log.4", "0.log"] {
        log.remove(name);
    }
    log.rotate();
    log.line("h");
    log.remove("1.log.1");
    assert_eq!(drain(&mut reader), "\n[gap]h\n");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn where_lines_are_missing_there_is_a_gap_and_none_comes_twice(steps in steps(true)) {
        let (written, seen) = run(steps);
        let mut expected = 0;
        for (index, line) in seen.text.lines().enumerate() {
            let place: usize = line.split(' ').next().and_then(|number| number.parse().ok()).expect("a line begins with its number");
            let is_whole = written[place] == line;
            prop_assert!(is_whole || written[place].starts_with(line) && seen.gaps.contains(&(index + 1)), "{} is cut off in silence", place);
            prop_assert!(place >= expected, "{} came twice, or late", place);
            prop_assert!(place == expected || seen.gaps.contains(&index), "{} to {} are missing in silence", expected, place);
            expected = place + 1;
        }
        prop_assert!(expected == written.len() || seen.gaps.contains(&seen.text.lines().count()), "the last ones are missing in silence");
    }
}
