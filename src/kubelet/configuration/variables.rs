//! What of a configuration becomes variables.

use super::{Configuration, Lacking, config_map, secret};
use crate::api::ObjectKey;
use crate::api::v1::{EnvFromSource, EnvVarSource, env_from_source, env_var_source, object};

/// The value that a variable takes from a configuration; `None` for one that is left out.
pub(crate) fn value_of(source: &EnvVarSource, namespace: &str, configuration: &Configuration) -> Result<Option<String>, Lacking> {
    use env_var_source::Source;
    let (object, key, optional) = match &source.source {
        Some(Source::ConfigMapKeyRef(from)) => (config_map(namespace, &from.name), &from.key, from.optional),
        Some(Source::SecretKeyRef(from)) => (secret(namespace, &from.name), &from.key, from.optional),
        None => return Ok(None),
    };
    if let Ok(Some(found)) = configuration.object(&object, optional)
        && let Some(object::Kind::ConfigMap(map)) = &found.kind
        && map.binary_data.contains_key(key)
    {
        // It is there, but no text, whether it could be left out or not.
        return Err(no_text(&object, key));
    }
    let value = configuration.value(&object, key, optional)?;
    value.map(|value| text(&object, key, value)).transpose()
}

/// All variables that come from one object, in the order of their keys.
pub(crate) fn variables(from: &EnvFromSource, namespace: &str, configuration: &Configuration) -> Result<Vec<(String, String)>, Lacking> {
    use env_from_source::Source;
    let (key, optional) = match &from.source {
        Some(Source::ConfigMapRef(map)) => (config_map(namespace, &map.name), map.optional),
        Some(Source::SecretRef(from)) => (secret(namespace, &from.name), from.optional),
        None => return Ok(Vec::new()),
    };
    let Some(object) = configuration.object(&key, optional)? else { return Ok(Vec::new()) };
    let named = |name: &str| format!("{}{name}", from.prefix);
    let mut variables = match &object.kind {
        Some(object::Kind::ConfigMap(map)) => map.data.iter().map(|(name, text)| (named(name), text.clone())).collect(),
        Some(object::Kind::Secret(secret)) => {
            let variable = |(name, value): (&str, &[u8])| Ok((named(name), text(&key, name, value)?));
            secret.values().into_iter().map(variable).collect::<Result<Vec<_>, Lacking>>()?
        }
        _ => Vec::new(),
    };
    variables.sort_unstable();
    match variables.iter().find(|(_, text)| text.contains('\0')) {
        Some((name, _)) => {
            Err(Lacking::Missing(format!("the variable {name} of the {} {:?} has the character NUL", key.kind(), key.name())))
        }
        None => Ok(variables),
    }
}

/// No operating system can hand a process anything else as a variable.
fn text(object: &ObjectKey, key: &str, value: &[u8]) -> Result<String, Lacking> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| no_text(object, key))
}

fn no_text(object: &ObjectKey, key: &str) -> Lacking {
    let (kind, name) = (object.kind(), object.name());
    Lacking::Missing(format!("the key {key:?} of the {kind} {name:?} is no text without the character NUL, which a variable has to be"))
}
