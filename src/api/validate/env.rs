use super::faults::{Faults, Path};
use super::names;
use super::pod::check_no_nul;
use crate::api::v1::{Container, EnvFromSource, EnvVar, env_from_source, env_var_source};

pub(super) fn check(path: &Path<'_>, container: &Container, faults: &mut Faults) {
    let env = path.field("env");
    for (index, variable) in container.env.iter().enumerate() {
        check_variable(&env.index(index), variable, faults);
    }
    let env_from = path.field("env_from");
    for (index, from) in container.env_from.iter().enumerate() {
        check_from(&env_from.index(index), from, faults);
    }
}

fn check_variable(path: &Path<'_>, variable: &EnvVar, faults: &mut Faults) {
    faults.check(&path.field("name"), &variable.name, names::env_name);
    check_no_nul(&path.field("value"), &variable.value, faults);
    let Some(from) = &variable.value_from else { return };
    let path = path.field("value_from");
    if !variable.value.is_empty() {
        faults.add(&path, "can't stand beside value: a variable has one of the two");
    }
    let (path, name, key) = match &from.source {
        Some(env_var_source::Source::ConfigMapKeyRef(map)) => (path.field("config_map_key_ref"), &map.name, &map.key),
        Some(env_var_source::Source::SecretKeyRef(secret)) => (path.field("secret_key_ref"), &secret.name, &secret.key),
        None => return faults.add(&path, "must say where the value comes from: config_map_key_ref or secret_key_ref"),
    };
    faults.check(&path.field("name"), name, names::dns_subdomain);
    faults.check(&path.field("key"), key, names::data_key);
}

fn check_from(path: &Path<'_>, from: &EnvFromSource, faults: &mut Faults) {
    if !from.prefix.is_empty() {
        faults.check(&path.field("prefix"), &from.prefix, names::env_name);
    }
    let (path, name) = match &from.source {
        Some(env_from_source::Source::ConfigMapRef(map)) => (path.field("config_map_ref"), &map.name),
        Some(env_from_source::Source::SecretRef(secret)) => (path.field("secret_ref"), &secret.name),
        None => return faults.add(path, "must say where the variables come from: config_map_ref or secret_ref"),
    };
    faults.check(&path.field("name"), name, names::dns_subdomain);
}
