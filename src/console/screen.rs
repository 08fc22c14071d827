//! Lines that are drawn anew in place.

/// What stands on the terminal now, as far as it will be drawn over.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The lengths of the lines drawn last.
    drawn: Vec<usize>,
}

impl Screen {
    /// The text that replaces what was drawn last by these lines, on a terminal of this many columns and lines. Lines that are too long are
    /// cut, and when there are too many the rest is counted.
    pub(super) fn draw(&mut self, lines: &[String], (width, height): (usize, usize)) -> String {
        let room = height.saturating_sub(2).max(1);
        let mut shown: Vec<String> = lines.iter().map(|line| line.chars().take(width.saturating_sub(1)).collect()).collect();
        if shown.len() > room {
            let more = shown.len() - room + 1;
            shown.truncate(room - 1);
            shown.push(format!("… and {more} more"));
        }
        let mut text = self.erase(width);
        for line in &shown {
            text.extend([line, "\n"]);
        }
        self.drawn = shown.iter().map(|line| line.chars().count()).collect();
        text
    }

    /// The text that takes away what was drawn last. A terminal that became narrower has broken long lines, which then take several.
    pub(super) fn erase(&mut self, width: usize) -> String {
        let rows: usize = self.drawn.iter().map(|length| length.div_ceil(width.max(1)).max(1)).sum();
        self.drawn.clear();
        match rows {
            0 => String::new(),
            // Up so many rows, then clear to the end of the screen.
            rows => format!("\u{1b}[{rows}F\u{1b}[J"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Screen;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn the_first_drawing_takes_nothing_away() {
        assert_eq!(Screen::default().draw(&lines(&["a", "b"]), (80, 24)), "a\nb\n");
    }

    #[test]
    fn the_next_drawing_replaces_as_many_rows_as_were_drawn() {
        let mut screen = Screen::default();
        screen.draw(&lines(&["a", "b"]), (80, 24));
        assert_eq!(screen.draw(&lines(&["c"]), (80, 24)), "\u{1b}[2F\u{1b}[Jc\n");
        assert_eq!(screen.erase(80), "\u{1b}[1F\u{1b}[J");
        assert_eq!(screen.erase(80), "");
    }

    #[test]
    fn lines_are_cut_at_the_edge() {
        assert_eq!(Screen::default().draw(&lines(&["abcdef"]), (4, 24)), "abc\n");
    }

    #[test]
    fn rows_of_a_terminal_that_became_narrower_are_counted() {
        let mut screen = Screen::default();
        screen.draw(&lines(&[&"x".repeat(70), ""]), (80, 24));
        assert_eq!(screen.erase(30), "\u{1b}[4F\u{1b}[J");
    }

    #[test]
    fn more_lines_than_the_terminal_has_are_counted() {
        let many: Vec<_> = (0..10).map(|line| line.to_string()).collect();
        assert_eq!(Screen::default().draw(&many, (80, 5)), "0\n1\n… and 8 more\n");
    }
}
