//! What names may look like: the rules of Kubernetes, which has them from RFC 1123, RFC 6335 and its own label syntax. A rule answers
//! with what would be right.

type Rule = Result<(), &'static str>;

/// What goes into one part of a host name.
pub(crate) fn dns_label(text: &str) -> Rule {
    holds(
        text.len() <= 63 && is_dns_part(text),
        "a DNS label: at most 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    )
}

/// DNS labels with dots between them.
pub(crate) fn dns_subdomain(text: &str) -> Rule {
    holds(
        text.len() <= 253 && text.split('.').all(is_dns_part),
        "a DNS subdomain: at most 253 characters of a-z, 0-9, '-' and '.', each part beginning and ending with a letter or digit",
    )
}

/// A name of a container's port. It has a letter, so that it can't be taken for a number.
pub(crate) fn port_name(text: &str) -> Rule {
    let fits = text.len() <= 15 && is_dns_part(text) && !text.contains("--") && text.bytes().any(|byte| byte.is_ascii_lowercase());
    holds(
        fits,
        "a port name: at most 15 characters of a-z, 0-9 and single '-', at least one letter, beginning and ending with a letter or digit",
    )
}

/// A name of a service's port.
pub(crate) fn service_port_name(text: &str) -> Rule {
    holds(
        text.len() <= 15 && is_dns_part(text),
        "a DNS label of at most 15 characters: a-z, 0-9 and '-', beginning and ending with a letter or digit",
    )
}

/// What stands left of a label's value: a word, or a DNS subdomain, `/` and a word.
pub(crate) fn label_key(text: &str) -> Rule {
    let fits = match text.split_once('/') {
        Some((prefix, name)) => dns_subdomain(prefix).is_ok() && is_label_word(name),
        None => is_label_word(text),
    };
    holds(
        fits,
        "a label key: a word of at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, \
         after a DNS subdomain and '/' if need be",
    )
}

/// What a label is set to: nothing, or a word.
pub(crate) fn label_value(text: &str) -> Rule {
    holds(
        text.is_empty() || is_label_word(text),
        "a label value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, or nothing",
    )
}

/// The name of an environment variable.
pub(crate) fn env_name(text: &str) -> Rule {
    let begins = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    let fits = begins && text != "." && !text.starts_with("..") && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    holds(fits, "a variable name: letters, digits, '_', '-' and '.', not beginning with a digit or \"..\"")
}

/// Whom a container runs as: `USER` or `USER:GROUP`.
pub(crate) fn user(text: &str) -> Rule {
    let is_name = |name: &str| {
        (1..=32).contains(&name.len())
            && !name.starts_with('-')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.$".contains(&byte))
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    holds(is_name(user) && group.is_none_or(is_name), "a user: USER or USER:GROUP, each a name or a number of at most 32 characters")
}

/// What a value of a ConfigMap or Secret is known by. It may become the name of a file.
pub(crate) fn data_key(text: &str) -> Rule {
    let fits = (1..=253).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    holds(
        fits && text != "." && !text.starts_with(".."),
        "a key: at most 253 letters, digits, '-', '_' and '.', not \".\" and not beginning with \"..\"",
    )
}

/// One word of a condition's type, a reason or a kind.
pub(crate) fn camel_case(text: &str) -> Rule {
    let begins = text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
    holds(begins && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "one CamelCase word")
}

fn holds(fits: bool, expected: &'static str) -> Rule {
    if fits { Ok(()) } else { Err(expected) }
}

fn is_dns_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
        && bytes.len() <= 63
        && bytes.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
