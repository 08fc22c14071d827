//! A page about one object: names and values in two columns, with parts indented.

use std::fmt::Write as _;

use prost_types::Timestamp;

use super::age::age;
use super::rows::NONE;
use super::{table, words};
use crate::api::v1::{ClusterEvent, Condition};

/// Where values begin.
const COLUMN: usize = 18;

/// Lines of text, growing downwards.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// `Name:   value`
    pub(super) fn field(&mut self, name: &str, value: &str) {
        self.line("", name, if value.is_empty() { NONE } else { value });
    }

    /// A value of several lines, sorted, the name before the first.
    pub(super) fn lines(&mut self, name: &str, values: impl Iterator<Item = String>) {
        let mut values: Vec<_> = values.collect();
        values.sort();
        let Some((first, rest)) = values.split_first() else { return self.field(name, "") };
        self.field(name, first);
        for value in rest {
            self.line("", "", value);
        }
    }

    /// `Containers:`
    pub(super) fn heading(&mut self, name: &str) {
        self.0 += &format!("{name}:\n");
    }

    /// `  main:`
    pub(super) fn item(&mut self, name: &str) {
        self.0 += &format!("  {name}:\n");
    }

    /// `    Ready:   True`
    pub(super) fn inner(&mut self, name: &str, value: &str) {
        self.line("    ", name, value);
    }

    /// Finished lines.
    pub(super) fn text(&mut self, text: &str) {
        self.0 += text;
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, indent: &str, name: &str, value: &str) {
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        let width = COLUMN - indent.len();
        // A value of several lines goes on under itself.
        let value = value.trim_end().replace('\n', &format!("\n{:COLUMN$}", ""));
        writeln!(self.0, "{indent}{name:<width$} {value}").expect("a string takes everything");
    }
}

/// The conditions as a table of their own.
pub(super) fn conditions(conditions: &[Condition]) -> String {
    if conditions.is_empty() {
        return String::new();
    }
    let mut rows = vec![["  Type", "Status", "Reason", "Message"].map(str::to_owned).to_vec()];
    rows.extend(conditions.iter().map(|condition| {
        let status = words::condition_status(condition.status()).to_owned();
        vec![format!("  {}", condition.r#type), status, condition.reason.clone(), condition.message.clone()]
    }));
    format!("Conditions:\n{}", table::lines(&rows))
}

/// The events as a table of their own.
pub(super) fn events(events: &[ClusterEvent], now: &Timestamp) -> String {
    if events.is_empty() {
        return format!("Events:            {NONE}\n");
    }
    let mut rows = vec![["  Type", "Reason", "Age", "From", "Message"].map(str::to_owned).to_vec()];
    rows.extend(events.iter().filter_map(|event| event.spec.as_ref()).map(|spec| {
        let last = age(spec.last_time.as_ref(), now);
        let age = match spec.count {
            0 | 1 => last,
            count => format!("{last} (x{count} over {})", age(spec.first_time.as_ref(), now)),
        };
        vec![format!("  {}", words::event_type(spec.r#type())), spec.reason.clone(), age, spec.source.clone(), spec.note.clone()]
    }));
    format!("Events:\n{}", table::lines(&rows))
}
