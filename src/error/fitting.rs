//! Errors travel in HTTP/2 trailers, of which most clients take 8 KiB or 16 KiB: a larger one would break the whole connection. So what names or quotes
//! what a client sent is cut, and of very many faults the first are told.

use prost::Message as _;

use super::Violation;
use crate::api::v1::{FieldConflict, ObjectRef};

/// The most bytes of faults or conflicts in one error. Base64 makes four out of three, and the text comes on top, twice.
const MAX_LIST_BYTES: usize = 3 * 1024;
/// The most bytes of an error's text.
const MAX_MESSAGE_BYTES: usize = 1024;
/// The most bytes of a path, a name or the text of one fault. No name that is right is longer.
const MAX_TEXT_BYTES: usize = 400;

pub(super) fn message(text: &str) -> String {
    cut(text, MAX_MESSAGE_BYTES)
}

pub(super) fn object(object: &ObjectRef) -> ObjectRef {
    let short = |text: &str| cut(text, MAX_TEXT_BYTES);
    ObjectRef { kind: short(&object.kind), namespace: short(&object.namespace), name: short(&object.name) }
}

/// The faults, or the first of them and how many more there are.
pub(super) fn violations(violations: &[Violation]) -> Vec<Violation> {
    let short = |violation: &Violation| Violation::new(cut(&violation.path, MAX_TEXT_BYTES), cut(&violation.message, MAX_TEXT_BYTES));
    let mut told = first(violations.iter().map(short), |violation| violation.path.len() + violation.message.len() + 8);
    if told.len() < violations.len() {
        told.push(Violation::new("", format!("and {} more", violations.len() - told.len())));
    }
    told
}

/// The conflicts, or the first of them.
pub(super) fn conflicts(conflicts: &[FieldConflict]) -> Vec<FieldConflict> {
    let short = |conflict: &FieldConflict| FieldConflict {
        r#ref: conflict.r#ref.as_ref().map(object),
        path: cut(&conflict.path, MAX_TEXT_BYTES),
        manager: cut(&conflict.manager, MAX_TEXT_BYTES),
    };
    first(conflicts.iter().map(short), |conflict| conflict.encoded_len() + 4)
}

/// As many as fit, at least one.
fn first<T>(items: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut left = MAX_LIST_BYTES;
    items
        .enumerate()
        .map_while(|(index, item)| {
            let fits = left.checked_sub(bytes(&item));
            left = fits.unwrap_or(0);
            (index == 0 || fits.is_some()).then_some(item)
        })
        .collect()
}

fn cut(text: &str, max: usize) -> String {
    match text.len() {
        len if len <= max => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(max - '…'.len_utf8())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_two_characters() {
        assert_eq!((cut("äöü", 6), cut("äöü", 5), cut("aäöü", 6)), ("äöü".into(), "ä…".into(), "aä…".into()));
    }

    #[test]
    fn of_very_many_faults_the_first_are_told_and_how_many_more_there_are() {
        let many: Vec<_> = (0..1000).map(|index| Violation::new(format!("objects[{index}].pod.metadata.name"), "x".repeat(1000))).collect();
        let told = violations(&many);
        assert_eq!((told[0].path.as_str(), told[0].message.len()), ("objects[0].pod.metadata.name", MAX_TEXT_BYTES));
        assert_eq!(told.last().map(|last| last.message.clone()), Some(format!("and {} more", 1001 - told.len())));
        assert!(told.len() > 5 && told.len() < 10, "{}", told.len());
        assert_eq!(violations(&many[..1]).len(), 1);
    }
}
