//! Lines in columns.

use std::fmt::Write as _;

/// Columns that are as wide as their widest cell was when they were made, with three blanks between.
#[derive(Debug)]
pub(super) struct Table {
    widths: Vec<usize>,
}

/// The blanks between columns.
const GAP: &str = "   ";

impl Table {
    /// Columns wide enough for all these rows.
    pub(super) fn fitting<'r>(rows: impl IntoIterator<Item = &'r [String]>) -> Self {
        let mut widths = Vec::new();
        for row in rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        Self { widths }
    }

    /// One line, without a line break. A cell may hold any text: what would break the line or drive the terminal is shown as `?`.
    pub(super) fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            let clean: String = cell.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
            let width = if index + 1 == row.len() { 0 } else { self.widths.get(index).copied().unwrap_or_default() };
            let gap = if index == 0 { "" } else { GAP };
            write!(line, "{gap}{clean:<width$}").expect("a string takes everything");
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// All rows as lines, each ending with a line break.
pub(super) fn lines(rows: &[Vec<String>]) -> String {
    let table = Table::fitting(rows.iter().map(Vec::as_slice));
    rows.iter().map(|row| table.line(row) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(&["NAME", "READY", "AGE"]), row(&["web-with-a-name", "1/1", "5s"]), row(&["ü", "", ""])];
        assert_eq!(lines(&rows), "NAME              READY   AGE\nweb-with-a-name   1/1     5s\nü\n");
    }

    #[test]
    fn a_wider_row_that_comes_later_does_not_break() {
        let table = Table::fitting([row(&["a", "b"]).as_slice()]);
        assert_eq!(table.line(&row(&["longer", "b", "c"])), "longer   b   c");
    }

    #[test]
    fn a_cell_cannot_drive_the_terminal() {
        assert_eq!(lines(&[row(&["a\u{1b}[2J\nb"])]), "a?[2J?b\n");
    }
}
