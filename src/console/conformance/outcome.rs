//! What became of cases, and how it is told.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde_json::json;

use super::case::Case;

/// A case that was played, or could not be.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) case: &'static Case,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The promise was kept.
    Kept,
    /// It was not, and why.
    Failed(String),
    /// The node says that it can't: this capability is missing.
    NotHere(&'static str),
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, seconds) = (self.case.name, self.took.as_secs_f64());
        match &self.outcome {
            Outcome::Kept => write!(f, "ok        {name} ({seconds:.1} s)"),
            Outcome::Failed(why) => {
                write!(f, "FAILED    {name} ({seconds:.1} s): {}\n          {}", self.case.promise, why.replace('\n', "\n          "))
            }
            Outcome::NotHere(missing) => write!(f, "not here  {name} (capability {missing} missing)"),
        }
    }
}

/// The last line.
pub(super) fn sum(played: &[Played]) -> String {
    let count = |is: fn(&Outcome) -> bool| played.iter().filter(|one| is(&one.outcome)).count();
    let (kept, failed) = (count(|outcome| *outcome == Outcome::Kept), count(|outcome| matches!(outcome, Outcome::Failed(_))));
    let missing: BTreeSet<&str> = played.iter().filter_map(|one| one.outcome.missing()).collect();
    let not_here = match missing.len() {
        0 => String::new(),
        _ => format!(
            ", {} not here (missing: {})",
            count(|outcome| outcome.missing().is_some()),
            missing.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    format!("{kept} kept, {failed} failed{not_here}")
}

impl Outcome {
    fn missing(&self) -> Option<&'static str> {
        match self {
            Outcome::NotHere(missing) => Some(missing),
            _ => None,
        }
    }

    /// In a cell of the table.
    pub(super) fn cell(&self) -> String {
        match self {
            Outcome::Kept => "ok".to_owned(),
            Outcome::Failed(_) => "FAILED".to_owned(),
            Outcome::NotHere(missing) => format!("not here: {missing}"),
        }
    }
}

/// For programs: one object, with a list of the cases.
pub(super) fn to_json(column: &str, played: &[Played]) -> String {
    let cases: Vec<_> = played
        .iter()
        .map(|one| {
            let (outcome, reason) = match &one.outcome {
                Outcome::Kept => ("kept", String::new()),
                Outcome::Failed(why) => ("failed", why.clone()),
                Outcome::NotHere(missing) => ("not here", format!("capability {missing} missing")),
            };
            json!({ "name": one.case.name, "promise": one.case.promise, "outcome": outcome, "reason": reason, "seconds": one.took.as_secs_f64() })
        })
        .collect();
    format!("{:#}", json!({ "node": column, "cases": cases }))
}

/// The column of a node: its system, and who its pods run as.
pub(super) fn column(os: &str, user: &str) -> String {
    match user {
        "windows" | "unknown" => os.to_owned(),
        user => format!("{os} ({user})"),
    }
}
