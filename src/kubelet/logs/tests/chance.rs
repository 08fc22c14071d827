//! Whatever is written, rotated, removed, broken off and resumed in whichever order: no line is lost in silence, and none comes twice.

use proptest::prelude::*;

use super::*;
use crate::kubelet::shim::log_files::log_files;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A line in so many pieces of so many letters.
    Write(usize, usize),
    Rotate,
    Restart,
    /// Removes the oldest file, if there are so many.
    Remove(usize),
    /// Reads so many pieces.
    Read(usize),
    /// Goes on with a new reader.
    Resume,
}

pub(super) fn steps(removes: bool) -> impl Strategy<Value = Vec<Step>> {
    let remove = if removes { 2 } else { 0 };
    let step = prop_oneof![
        8 => (1_usize..4, prop_oneof![0_usize..20, 15_000_usize..16_300]).prop_map(|(pieces, letters)| Step::Write(pieces, letters)),
        3 => Just(Step::Rotate),
        1 => Just(Step::Restart),
        remove => (2_usize..4).prop_map(Step::Remove),
        4 => (1_usize..3).prop_map(Step::Read),
        2 => Just(Step::Resume),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What a follower was sent, without the gaps, and the numbers of the lines before which there were some.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) text: String,
    pub(super) gaps: Vec<usize>,
}

impl Seen {
    fn read(&mut self, reader: &mut Reader) -> bool {
        let Some(piece) = reader.read().unwrap() else { return false };
        let data = String::from_utf8(piece.data).unwrap();
        if piece.gap.is_some() {
            let ends_line = !self.text.is_empty() && !self.text.ends_with('\n');
            assert!(!ends_line || data.starts_with('\n'));
            self.gaps.push(self.text.lines().count());
        }
        self.text.push_str(&data);
        true
    }
}

/// Runs the steps; gives the lines that were written and what was read.
pub(super) fn run(steps: Vec<Step>) -> (Vec<String>, Seen) {
    let (mut log, mut written, mut seen) = (Log::new(), Vec::new(), Seen::default());
    log.write(b"");
    let mut reader = log.follow();
    seen.read(&mut reader);
    for step in steps {
        match step {
            Step::Write(pieces, letters) => {
                let (begin, middle) = (format!("{} ", written.len()), "x".repeat(letters));
                log.record(if pieces == 1 { 'F' } else { 'P' }, begin.as_bytes());
                for piece in 1..pieces {
                    log.record(if piece + 1 == pieces { 'F' } else { 'P' }, middle.as_bytes());
                }
                log.now += 1;
                written.push(begin + &middle.repeat(pieces - 1));
            }
            // That happens when there is more to write.
            Step::Rotate if log.path().exists() => log.rotate(),
            Step::Rotate => {}
            Step::Restart => log.restart(),
            Step::Remove(keep) => {
                let files = log_files(log.folder.path()).unwrap();
                for file in files.iter().take(files.len().saturating_sub(keep)) {
                    fs::remove_file(file.path(log.folder.path())).unwrap();
                }
            }
            Step::Read(pieces) => {
                for _ in 0..pieces {
                    seen.read(&mut reader);
                }
            }
            // Of an empty file there may be doubts, which have a test of their own.
            Step::Resume if reader.position().mark == 0 => {}
            // As the kubelet does, it opens its file at once.
            Step::Resume => {
                reader = log.resume(reader.position());
                seen.read(&mut reader);
            }
        }
    }
    while seen.read(&mut reader) {}
    (written, seen)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_follower_is_sent_every_line_once_whatever_breaks(steps in steps(false)) {
        let (written, seen) = run(steps);
        prop_assert_eq!(seen.text.lines().collect::<Vec<_>>(), written);
        prop_assert_eq!(seen.gaps, Vec::<usize>::new());
    }
}
