//! Cuts what a process writes into the pieces of which its log is made. Pure.

/// The longest piece, in bytes. A longer line is several of them.
pub(super) const LONGEST: usize = 16 * 1024;

/// One stream of a container: what was written since the last newline waits here for the rest of its line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

/// Whether a piece is the end of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// More of the line follows.
    Partial,
    /// The line is complete with it.
    Full,
}

impl Lines {
    /// Takes what was read and gives every piece that is complete by now, without its newline.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut give: impl FnMut(Tag, &[u8])) {
        while !bytes.is_empty() {
            let room = LONGEST - self.rest.len();
            // One byte more than fits: a newline right behind the longest piece still ends it.
            let seen = &bytes[..bytes.len().min(room + 1)];
            let (tag, length, used) = match memchr::memchr(b'\n', seen) {
                Some(end) => (Tag::Full, end, end + 1),
                None if seen.len() > room => (Tag::Partial, room, room),
                None => {
                    self.rest.extend_from_slice(bytes);
                    return;
                }
            };
            if self.rest.is_empty() {
                give(tag, &bytes[..length]);
            } else {
                self.rest.extend_from_slice(&bytes[..length]);
                give(tag, &self.rest);
                // Given back: most of the time nothing waits.
                self.rest = Vec::new();
            }
            bytes = &bytes[used..];
        }
    }

    /// Gives what never got its newline: nothing follows any more.
    pub(super) fn finish(&mut self, mut give: impl FnMut(Tag, &[u8])) {
        if !self.rest.is_empty() {
            give(Tag::Full, &self.rest);
            self.rest = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pieces of what was read in these parts.
    fn pieces(parts: &[&[u8]]) -> Vec<(Tag, Vec<u8>)> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(part, |tag, piece| found.push((tag, piece.to_vec())));
        }
        lines.finish(|tag, piece| found.push((tag, piece.to_vec())));
        found
    }

    fn full(text: &[u8]) -> (Tag, Vec<u8>) {
        (Tag::Full, text.to_vec())
    }

    #[test]
    fn a_line_is_one_piece_however_it_was_read() {
        assert_eq!(pieces(&[b"one\ntwo\n"]), [full(b"one"), full(b"two")]);
        assert_eq!(pieces(&[b"o", b"ne\nt", b"wo", b"\n"]), [full(b"one"), full(b"two")]);
        assert_eq!(pieces(&[b"\n\n"]), [full(b""), full(b"")]);
        assert_eq!(pieces(&[b"no newline"]), [full(b"no newline")]);
        assert_eq!(pieces(&[]), []);
    }

    #[test]
    fn a_long_line_is_cut_and_its_last_piece_says_so() {
        let longest = vec![b'x'; LONGEST];
        let mut line = longest.clone();
        line.push(b'\n');
        assert_eq!(pieces(&[&line]), [full(&longest)], "a line that just fits is whole");
        line.insert(0, b'x');
        assert_eq!(pieces(&[&line]), [(Tag::Partial, longest.clone()), full(b"x")]);
        assert_eq!(pieces(&[&longest, &longest]), [(Tag::Partial, longest.clone()), full(&longest)]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_no_piece_is_too_long(
            lengths in prop::collection::vec(0..3 * LONGEST, 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = lengths.iter().map(|length| vec![b'x'; *length]).collect::<Vec<_>>().join(&b'\n');
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let mut joined = Vec::new();
            for (tag, piece) in pieces(&parts) {
                prop_assert!(piece.len() <= LONGEST);
                joined.extend(piece);
                if tag == Tag::Full {
                    joined.push(b'\n');
                }
            }
            let mut expected = bytes.clone();
            if bytes.last().is_some_and(|last| *last != b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(joined, expected);
        }
    }
}
