use std::collections::BTreeSet;
use std::time::Duration;

use super::case::{Case, Step};
use super::outcome::{Outcome, Played, sum, to_json};
use super::{cases, document};
use crate::api::v1::{Object, Pod, object};
use crate::api::{capability, manifest};

static KEPT: Case = Case { name: "a.kept", promise: "It is so", needs: &[], steps: &[] };
static BROKEN: Case = Case { name: "b.broken", promise: "It is so, too", needs: &["x"], steps: &[] };

fn played(case: &'static Case, outcome: Outcome) -> Played {
    Played { case, outcome, took: Duration::from_millis(1_234) }
}

/// The rows of the table without their promises.
fn rows(page: &str) -> Vec<String> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let all = page.lines().filter(|line| line.starts_with('|')).map(cells);
    all.map(|row| row.into_iter().enumerate().filter(|(index, _)| *index != 1).map(|(_, cell)| cell).collect::<Vec<_>>().join(","))
        .collect()
}

#[test]
fn every_case_has_a_name_of_its_own_in_an_area_and_says_what_it_shows() {
    let mut names = BTreeSet::new();
    for case in cases::all() {
        assert!(names.insert(case.name), "{} stands twice", case.name);
        assert!(case.name.split_once('.').is_some_and(|(area, what)| !area.is_empty() && !what.is_empty()), "{}", case.name);
        assert!(!case.promise.is_empty() && !case.promise.ends_with('.') && !case.promise.contains('|'), "{}", case.promise);
        assert!(!case.steps.is_empty(), "{} shows nothing", case.name);
    }
}

#[test]
fn the_page_in_docs_has_a_row_for_every_case() {
    let page = include_str!("../../../docs/conformance.md");
    for case in cases::all() {
        let row = format!("| {} | {} |", case.name, case.promise);
        assert!(page.contains(&row), "{} is not in docs/conformance.md: run `bluebird conformance --write docs/conformance.md`", case.name);
    }
}

/// What a case makes. A number stands for whatever is kept, in every place where something may be put in.
fn objects(case: &Case) -> Vec<Object> {
    let manifests = case.steps.iter().filter_map(|step| match step {
        Step::Create(manifest) | Step::Apply(manifest) => Some(manifest),
        _ => None,
    });
    let filled =
        manifests.map(|manifest| manifest.split('@').enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "7" }).collect());
    filled.flat_map(|text: String| manifest::parse(&text, case.name).unwrap_or_else(|faults| panic!("{faults}"))).collect()
}

#[test]
fn a_case_needs_of_a_node_what_its_pods_do() {
    for case in cases::all().filter(|case| case.name != "obstacles.missing-capability") {
        for object in objects(case) {
            let Some(object::Kind::Pod(Pod { spec: Some(spec), .. })) = object.kind else { continue };
            let missing: Vec<_> = capability::needed(&spec)
                .into_iter()
                .filter(|need| *need != capability::RUNTIME_PROCESS && !case.needs.contains(need))
                .collect();
            assert!(missing.is_empty(), "{} doesn't say that it needs {missing:?}", case.name);
        }
    }
}

#[test]
fn a_run_is_written_beside_what_other_systems_showed() {
    let cases = [&BROKEN, &KEPT];
    let linux = [played(&KEPT, Outcome::Kept), played(&BROKEN, Outcome::NotHere("x"))];
    let first = document::merge("", &cases, "linux (root)", &linux);
    let second = document::merge(&first, &cases, "windows (wine)", &[played(&KEPT, Outcome::Failed("no".into()))]);
    assert_eq!(
        rows(&second),
        [
            "case,linux (root),linux (user),macos (root),macos (user),windows (wine),windows",
            "---,---,---,---,---,---,---",
            "a.kept,ok,never run,never run,never run,FAILED,never run",
            "b.broken,not here: x,never run,never run,never run,never run,never run",
        ]
    );
    assert!(second.contains("- **windows (wine)**: b.broken\n- **windows**: every case\n"), "{second}");
    assert_eq!(document::merge(&second, &cases, "linux (root)", &linux), second);
}

#[test]
fn a_system_of_its_own_gets_a_column_and_a_case_that_is_no_more_goes() {
    let page = document::merge("", &[&KEPT, &BROKEN], "plan9", &[played(&BROKEN, Outcome::Kept)]);
    assert!(rows(&page)[0].ends_with(",windows,plan9"), "{page}");
    let page = document::merge(&page, &[&KEPT], "plan9", &[]);
    assert_eq!(rows(&page).len(), 3, "{page}");
}

#[test]
fn a_run_is_summed_up() {
    let all = [played(&KEPT, Outcome::Kept), played(&BROKEN, Outcome::NotHere("x"))];
    assert_eq!(sum(&all), "1 kept, 0 failed, 1 not here (missing: x)");
    assert_eq!(sum(&[played(&KEPT, Outcome::Failed("why".into()))]), "0 kept, 1 failed");
    let told = played(&KEPT, Outcome::Failed("one\ntwo".into())).to_string();
    assert_eq!(told, "FAILED    a.kept (1.2 s): It is so\n          one\n          two");
    assert!(to_json("linux", &all).contains("\"reason\": \"capability x missing\""));
}
