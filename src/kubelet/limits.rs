//! What a container may use, as its fence is told.

use super::os::fence::Limits;
use crate::api::quantity::{self, NoQuantity};
use crate::api::v1::Container;

/// As its spec says, which was checked when the pod was created.
pub(crate) fn of(container: &Container) -> Limits {
    let Some(resources) = &container.resources else { return Limits::default() };
    let limit = |name: &str, parse: fn(&str) -> Result<u64, NoQuantity>| resources.limits.get(name).and_then(|amount| parse(amount).ok());
    let cpu_millis = limit("cpu", quantity::cpu_millis);
    Limits {
        cpu_millis,
        cpu_request_millis: resources.requests.get("cpu").and_then(|amount| quantity::cpu_millis(amount).ok()).or(cpu_millis),
        memory_bytes: limit("memory", quantity::bytes),
        pids: limit("pids", quantity::bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::ResourceRequirements;

    fn check(requests: &[(&str, &str)], limits: &[(&str, &str)], expected: Limits) {
        let amounts = |all: &[(&str, &str)]| all.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect();
        let resources = Some(ResourceRequirements { requests: amounts(requests), limits: amounts(limits) });
        assert_eq!(of(&Container { resources, ..Container::default() }), expected);
    }

    #[test]
    fn amounts_are_told_in_the_units_of_the_system() {
        check(&[], &[], Limits::default());
        check(&[("cpu", "250m"), ("memory", "1Gi")], &[], Limits { cpu_request_millis: Some(250), ..Limits::default() });
        check(
            &[("cpu", "1")],
            &[("cpu", "1.5"), ("memory", "64Mi"), ("pids", "20")],
            Limits { cpu_millis: Some(1500), cpu_request_millis: Some(1000), memory_bytes: Some(64 << 20), pids: Some(20) },
        );
    }

    #[test]
    fn a_limit_of_cpu_is_what_is_asked_for_when_nothing_else_is() {
        check(&[], &[("cpu", "2")], Limits { cpu_millis: Some(2000), cpu_request_millis: Some(2000), ..Limits::default() });
    }
}
