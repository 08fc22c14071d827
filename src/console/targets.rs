//! Which objects the words of a command line mean.

use super::failure::{Failure, Result};
use crate::api::{Kind, ObjectKey, nearest};

/// What the words name.
#[derive(Debug, PartialEq)]
pub(super) enum Targets {
    /// All objects of some kinds.
    Kinds(Vec<Kind>),
    /// These objects.
    Keys(Vec<ObjectKey>),
}

/// Reads `KIND`, `KIND,KIND`, `KIND NAME…` and `KIND/NAME…`.
pub(super) fn parse(words: &[String], namespace: &str) -> Result<Targets> {
    let Some(first) = words.first() else {
        return Err(Failure::Usage(format!("name a kind: {}", kinds())));
    };
    if words.iter().any(|word| word.contains('/')) {
        let keys = words.iter().map(|word| match word.split_once('/') {
            Some((kind, name)) if !name.is_empty() => Ok(ObjectKey::new(parse_kind(kind)?, namespace, name)),
            _ => Err(Failure::Usage(format!("{word:?} must be KIND/NAME, like the others"))),
        });
        return keys.collect::<Result<_>>().map(Targets::Keys);
    }
    let kinds = first.split(',').map(parse_kind).collect::<Result<Vec<_>>>()?;
    match (kinds.as_slice(), &words[1..]) {
        (_, []) => Ok(Targets::Kinds(kinds)),
        ([kind], names) => Ok(Targets::Keys(names.iter().map(|name| ObjectKey::new(*kind, namespace, name)).collect())),
        _ => Err(Failure::Usage("names can follow only one kind; write KIND/NAME for each object".into())),
    }
}

/// The kind that a word means.
pub(super) fn parse_kind(word: &str) -> Result<Kind> {
    Kind::from_alias(word).ok_or_else(|| {
        let plurals = Kind::ALL.iter().flat_map(|kind| kind.aliases());
        Failure::Usage(match nearest(word, plurals.copied()) {
            Some(right) => format!("there is no kind {word:?}; did you mean {right:?}?"),
            None => format!("there is no kind {word:?}; there are {}", kinds()),
        })
    })
}

fn kinds() -> String {
    Kind::ALL.map(|kind| kind.aliases()[0]).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Targets> {
        let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words, "prod")
    }

    #[track_caller]
    fn check(text: &str, expected: Targets) {
        assert_eq!(words(text).expect(text), expected);
    }

    #[test]
    fn objects_are_named_as_in_kubectl() {
        check("po", Targets::Kinds(vec![Kind::Pod]));
        check("Pods,svc", Targets::Kinds(vec![Kind::Pod, Kind::Service]));
        check("pod a b", Targets::Keys(vec![ObjectKey::new(Kind::Pod, "prod", "a"), ObjectKey::new(Kind::Pod, "prod", "b")]));
        check("pod/a svc/b", Targets::Keys(vec![ObjectKey::new(Kind::Pod, "prod", "a"), ObjectKey::new(Kind::Service, "prod", "b")]));
    }

    #[test]
    fn a_wrong_kind_is_answered_with_the_nearest_or_all() {
        for (text, hint) in [
            ("pdos", "\"pods\""),
            ("deployments", "endpointslices"),
            ("", "pods, services"),
            ("pod/", "KIND/NAME"),
            ("pod/a b", "KIND/NAME"),
            ("po,svc a", "only one kind"),
        ] {
            let Err(Failure::Usage(message)) = words(text) else { panic!("{text} is wrong") };
            assert!(message.contains(hint), "{text}: {message}");
        }
    }
}
