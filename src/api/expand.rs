/// Replaces `$(NAME)` in `text` by what `lookup` says of NAME, exactly as Kubernetes does for commands, arguments and environment values.
///
/// `$$` stands for `$`, so that `$$(NAME)` stays as the text `$(NAME)`. A name that `lookup` doesn't know, and a `$(` that is never closed,
/// stay as they are. What was put in is not looked at again.
pub fn expand<'v>(text: &str, lookup: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after_escape) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after_escape;
        } else if let Some((name, after_reference)) = after.strip_prefix('(').and_then(|reference| reference.split_once(')')) {
            match lookup(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after_reference;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn check(text: &str, expected: &str) {
        let lookup = |name: &str| match name {
            "A" => Some("a"),
            "EMPTY" => Some(""),
            "NESTED" => Some("$(A)"),
            _ => None,
        };
        assert_eq!(expand(text, lookup), expected, "{text}");
    }

    #[test]
    fn a_known_variable_is_replaced_wherever_it_stands() {
        check("$(A)", "a");
        check("x$(A)y$(A)", "xaya");
        check("[$(EMPTY)]", "[]");
    }

    #[test]
    fn an_unknown_variable_stays_as_it_is() {
        check("$(B) $() $(A", "$(B) $() $(A");
    }

    #[test]
    fn two_dollars_are_one_and_no_reference() {
        check("$$(A)", "$(A)");
        check("$$$(A)", "$a");
        check("$$$$(A)", "$$(A)");
        check("100$$", "100$");
    }

    #[test]
    fn a_dollar_alone_means_nothing() {
        check("$", "$");
        check("a$", "a$");
        check("$A ${A} $ü", "$A ${A} $ü");
    }

    #[test]
    fn a_reference_ends_at_the_first_parenthesis() {
        check("$($(A))", "$($(A))");
        check("$(A))", "a)");
    }

    #[test]
    fn what_was_put_in_is_not_expanded_again() {
        check("$(NESTED)", "$(A)");
    }

    proptest::proptest! {
        #[test]
        fn text_without_a_dollar_stays(text in "[^$]*") {
            proptest::prop_assert_eq!(expand(&text, |_| Some("x")), text);
        }

        #[test]
        fn doubled_dollars_give_the_text_back(text in ".*") {
            proptest::prop_assert_eq!(expand(&text.replace('$', "$$"), |_| Some("x")), text);
        }
    }
}
