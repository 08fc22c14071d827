use super::v1::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement};
use super::validate::names::{label_key, label_value};
use crate::error::{Error, Result};

/// A label selector as it is written on a command line: `app=web,tier!=db,zone in (a,b),zone notin (c),gpu,!old`. Empty selects everything.
///
/// # Errors
/// [`Error::Invalid`], saying which requirement is wrong and what would be right.
pub fn parse_label_selector(text: &str) -> Result<LabelSelector> {
    let mut selector = LabelSelector::default();
    if text.trim().is_empty() {
        return Ok(selector);
    }
    for requirement in split(text) {
        let LabelSelectorRequirement { key, operator, mut values } = parse_requirement(requirement.trim())?;
        let is_equality = operator == LabelSelectorOperator::In as i32 && values.len() == 1;
        if is_equality && !selector.match_labels.contains_key(&key) {
            selector.match_labels.insert(key, values.remove(0));
        } else {
            selector.match_expressions.push(LabelSelectorRequirement { key, operator, values });
        }
    }
    Ok(selector)
}

/// The parts between commas, those inside of parentheses aside.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .collect()
}

fn parse_requirement(text: &str) -> Result<LabelSelectorRequirement> {
    use LabelSelectorOperator as Operator;
    let (key, operator, values) = if let Some((key, value)) = text.split_once("!=") {
        (key, Operator::NotIn, vec![value])
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Operator::In, vec![value])
    } else if let Some((start, values)) = text.split_once('(') {
        let listed = values.strip_suffix(')').ok_or_else(|| wrong(text, "the list is not closed"))?;
        match start.trim_end().split_once(char::is_whitespace).map(|(key, word)| (key, word.trim())) {
            Some((key, "in")) => (key, Operator::In, listed.split(',').collect()),
            Some((key, "notin")) => (key, Operator::NotIn, listed.split(',').collect()),
            _ => return Err(wrong(text, "before a list stands a key and \"in\" or \"notin\"")),
        }
    } else if let Some(key) = text.strip_prefix('!') {
        (key, Operator::DoesNotExist, vec![])
    } else {
        (text, Operator::Exists, vec![])
    };
    let (key, values) = (key.trim().to_owned(), values.into_iter().map(|value| value.trim().to_owned()).collect::<Vec<_>>());
    label_key(&key).map_err(|rule| wrong(text, &format!("{key:?} is not {rule}")))?;
    for value in &values {
        label_value(value).map_err(|rule| wrong(text, &format!("{value:?} is not {rule}")))?;
    }
    Ok(LabelSelectorRequirement { key, operator: operator as i32, values })
}

fn wrong(text: &str, why: &str) -> Error {
    Error::invalid("", format!("the selector {text:?} is wrong: {why}; right are a=b, a!=b, \"a in (x,y)\", \"a notin (x,y)\", a, !a"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::parse_label_selector;
    use crate::api::v1::Selector;
    use crate::api::{Kind, LabelView as _, Matcher, ObjectKey};

    /// Whether the selector takes an object with these labels, written as `a=b c=d`.
    fn check(selector: &str, labels: &str, expected: bool) {
        let parsed = parse_label_selector(selector).expect(selector);
        let matcher = Matcher::new(&Selector { labels: Some(parsed), ..Default::default() }, "").expect(selector);
        let pairs = labels.split_whitespace().filter_map(|pair| pair.split_once('='));
        let labels: HashMap<String, String> = pairs.map(|(key, value)| (key.into(), value.into())).collect();
        let key = ObjectKey::new(Kind::Pod, "", "a");
        assert_eq!(matcher.matches(&key, &labels), expected, "{selector} on {labels:?} {:?}", labels.label("a"));
    }

    #[test]
    fn equality_selects_by_value() {
        check("app=web", "app=web", true);
        check("app==web", "app=web", true);
        check(" app = web ", "app=web", true);
        check("app=web", "app=db", false);
        check("app!=web", "app=db", true);
        check("app!=web", "", true);
        check("app!=web", "app=web", false);
        check("app=", "app=", true);
    }

    #[test]
    fn sets_select_by_membership_and_existence() {
        check("app in (web, db)", "app=db", true);
        check("app in (web,db)", "app=x", false);
        check("app notin (web)", "app=x", true);
        check("app", "app=x", true);
        check("app", "", false);
        check("!app", "", true);
        check("example.com/a in (x)", "example.com/a=x", true);
    }

    #[test]
    fn all_requirements_must_hold() {
        check("app=web,zone in (a,b),!old", "app=web zone=b", true);
        check("app=web,zone in (a,b),!old", "app=web zone=b old=1", false);
        check("app=web,app=db", "app=web", false);
        check("", "app=web", true);
    }

    #[test]
    fn a_malformed_selector_is_refused() {
        for text in ["=web", "app=a b", "app in web", "app in (a", "app on (a)", "a,,b", "!", "app in (a b)", "a=b=c", "app=web)"] {
            assert!(parse_label_selector(text).is_err(), "{text}");
        }
    }
}
