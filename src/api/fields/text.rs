//! A set of fields as text: steps with commas between, what is within a step in parentheses after it. A key stands in brackets, and in quotes as in
//! JSON when it has characters that mean something here.

use std::fmt;
use std::str::FromStr;

use super::{FieldSet, Step};

/// Characters that end a step.
const MARKS: [char; 6] = ['(', ')', '[', ']', ',', '"'];

impl fmt::Display for FieldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (step, fields)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match step {
                Step::Field(name) => f.write_str(name)?,
                Step::Key(key) if key.contains(MARKS) => write!(f, "[{}]", serde_json::Value::from(key.as_str()))?,
                Step::Key(key) => write!(f, "[{key}]")?,
            }
            if !fields.is_empty() {
                write!(f, "({fields})")?;
            }
        }
        Ok(())
    }
}

/// The text is no set of fields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl FromStr for FieldSet {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut rest = text;
        let fields = if text.is_empty() { FieldSet::default() } else { set(&mut rest)? };
        if rest.is_empty() { Ok(fields) } else { Err(Malformed) }
    }
}

fn set(rest: &mut &str) -> Result<FieldSet, Malformed> {
    let mut fields = FieldSet::default();
    loop {
        let step = step(rest)?;
        let within = if eat(rest, '(') { closed(rest, ')', set)? } else { FieldSet::default() };
        fields.0.insert(step, within);
        if !eat(rest, ',') {
            return Ok(fields);
        }
    }
}

fn step(rest: &mut &str) -> Result<Step, Malformed> {
    if eat(rest, '[') {
        return closed(rest, ']', key).map(Step::Key);
    }
    match word(rest) {
        "" => Err(Malformed),
        name => Ok(Step::Field(name.to_owned())),
    }
}

fn key(rest: &mut &str) -> Result<String, Malformed> {
    if !rest.starts_with('"') {
        return Ok(word(rest).to_owned());
    }
    let mut texts = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let key = texts.next().and_then(Result::ok).ok_or(Malformed)?;
    *rest = &rest[texts.byte_offset()..];
    Ok(key)
}

/// What stands before the next mark.
fn word<'t>(rest: &mut &'t str) -> &'t str {
    let (word, after) = rest.split_at(rest.find(MARKS).unwrap_or(rest.len()));
    *rest = after;
    word
}

fn closed<T>(rest: &mut &str, mark: char, inner: impl FnOnce(&mut &str) -> Result<T, Malformed>) -> Result<T, Malformed> {
    let inner = inner(rest)?;
    if eat(rest, mark) { Ok(inner) } else { Err(Malformed) }
}

fn eat(rest: &mut &str, mark: char) -> bool {
    rest.strip_prefix(mark).inspect(|after| *rest = after).is_some()
}
