//! docs/conformance.md: case × operating system. Everything here is a function of the text that was there and of what was played.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::case::Case;
use super::outcome::Played;

/// The columns that are there even if nobody has ever run them.
const COLUMNS: [&str; 6] = ["linux (root)", "linux (user)", "macos (root)", "macos (user)", "windows (wine)", "windows"];
/// In a cell of what was never run.
const NEVER: &str = "never run";

const HEAD: &str = "\
# Conformance

What the spec of a pod promises, as cases that a live node was asked to show. `bluebird conformance --write docs/conformance.md` writes this page, a column
for each system and user that a node's pods run as; what it did not run stays as it was. *Not here* names the capability that the node says is missing: the
same pod isn't placed there, and says why.

";

/// The page with the results of one more run.
pub(super) fn merge(before: &str, cases: &[&Case], column: &str, played: &[Played]) -> String {
    let mut cells = read(before);
    for one in played {
        cells.entry(one.case.name.to_owned()).or_default().insert(column.to_owned(), one.outcome.cell());
    }
    let mut columns: Vec<&str> = COLUMNS.to_vec();
    for known in cells.values().flat_map(BTreeMap::keys) {
        if !columns.contains(&known.as_str()) {
            columns.push(known);
        }
    }
    let mut cases: Vec<&&Case> = cases.iter().collect();
    cases.sort_by_key(|case| case.name);
    let cell = |case: &Case, column: &str| cells.get(case.name).and_then(|row| row.get(column)).map_or(NEVER, String::as_str);

    let mut page = HEAD.to_owned();
    line(&mut page, &[&["case", "promise"], columns.as_slice()].concat());
    line(&mut page, &vec!["---"; columns.len() + 2]);
    for case in &cases {
        let row = columns.iter().map(|column| cell(case, column));
        line(&mut page, &[case.name, case.promise].into_iter().chain(row).collect::<Vec<_>>());
    }
    page += "\n## Never run\n\n";
    for column in columns {
        let never: Vec<_> = cases.iter().filter(|case| cell(case, column) == NEVER).map(|case| case.name).collect();
        let names = match never.len() {
            0 => "nothing: every case was run".to_owned(),
            count if count == cases.len() => "every case".to_owned(),
            _ => never.join(", "),
        };
        writeln!(page, "- **{column}**: {names}").expect("a string takes everything");
    }
    page
}

fn line(page: &mut String, cells: &[&str]) {
    writeln!(page, "| {} |", cells.join(" | ")).expect("a string takes everything");
}

/// What the page says of each case, by column.
fn read(page: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut rows = page.lines().filter(|line| line.starts_with("| ")).map(cells);
    let Some(columns) = rows.next() else { return BTreeMap::new() };
    let known = |row: Vec<String>| {
        let results = columns.iter().cloned().zip(row.iter().cloned()).skip(2).filter(|(_, result)| result != NEVER);
        Some((row.first()?.clone(), results.collect()))
    };
    rows.skip(1).filter_map(known).collect()
}
