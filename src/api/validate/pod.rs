use std::time::Duration;

use super::env;
use super::faults::{Faults, Path};
use super::meta::{check_conditions, check_labels, check_quantities};
use super::{names, probe, volumes};
use crate::api::v1::{Container, Pod, PodPhase, PodSpec, PodStatus, Protocol, ResourceRequirements, RestartBackoff, RestartPolicy};
use crate::api::{capability, quantity};

/// The most containers of a pod.
const MAX_CONTAINERS: usize = 32;
/// The most ports of a container.
const MAX_PORTS: usize = 100;
/// The longest that processes get to stop, in seconds: a year. Beyond that, arithmetic with deadlines would overflow on some machines.
const MAX_GRACE_PERIOD_SECONDS: i64 = 365 * 24 * 60 * 60;
/// A container that ends at once would keep the node busy with nothing else if it were started again sooner.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_hours(24);
const MAX_BACKOFF_FACTOR: f64 = 100.0;
/// What the scheduler sets aside. What can be limited besides, a node has enough of.
const REQUESTS: [&str; 2] = ["cpu", "memory"];

pub(super) fn check(path: &Path<'_>, pod: &Pod, faults: &mut Faults) {
    match &pod.spec {
        Some(spec) => check_spec(&path.field("spec"), spec, faults),
        None => faults.add(&path.field("spec.containers"), "must have at least one container"),
    }
    if let Some(status) = &pod.status {
        check_status(&path.field("status"), status, faults);
    }
}

fn check_spec(path: &Path<'_>, spec: &PodSpec, faults: &mut Faults) {
    let containers = path.field("containers");
    if spec.containers.is_empty() {
        faults.add(&containers, "must have at least one container");
    } else if spec.all_containers().count() > MAX_CONTAINERS {
        let message = format!("are {} with the init containers; at most {MAX_CONTAINERS} are allowed", spec.all_containers().count());
        faults.add(&containers, message);
    }
    for (name, list) in [("init_containers", &spec.init_containers), ("containers", &spec.containers)] {
        let path = path.field(name);
        for (index, container) in list.iter().enumerate() {
            check_container(&path.index(index), container, faults);
            let can_be_probed = name == "containers" || container.restart_policy() == RestartPolicy::Always;
            probe::check_all(&path.index(index), container, can_be_probed, faults);
        }
        faults.check_distinct(&path, "name", list.iter().map(|container| Some(&container.name)));
    }
    check_names_across(&path.field("init_containers"), spec, faults);
    check_ports_across(path, spec, faults);
    faults.check_enum::<RestartPolicy>(&path.field("restart_policy"), spec.restart_policy, "Always, OnFailure or Never");
    if !(0..=MAX_GRACE_PERIOD_SECONDS).contains(&spec.termination_grace_period_seconds()) {
        let message = format!("must be between 0 and {MAX_GRACE_PERIOD_SECONDS}");
        faults.add(&path.field("termination_grace_period_seconds"), message);
    }
    if !spec.node_name.is_empty() {
        faults.check(&path.field("node_name"), &spec.node_name, names::dns_subdomain);
    }
    check_labels(&path.field("node_selector"), &spec.node_selector, faults);
    volumes::check(path, spec, faults);
}

fn check_container(path: &Path<'_>, container: &Container, faults: &mut Faults) {
    faults.check(&path.field("name"), &container.name, names::dns_label);
    check_command(path, container, faults);
    env::check(path, container, faults);
    check_no_nul(&path.field("working_dir"), &container.working_dir, faults);
    if container.restart_policy != 0 {
        faults.check_enum::<RestartPolicy>(&path.field("restart_policy"), container.restart_policy, "Always, OnFailure or Never");
    }
    if let Some(backoff) = &container.restart_backoff {
        check_backoff(&path.field("restart_backoff"), backoff, faults);
    }
    if let Some(lifecycle) = &container.lifecycle {
        super::lifecycle::check(&path.field("lifecycle"), lifecycle, container, faults);
    }
    if !container.run_as.is_empty() {
        faults.check(&path.field("run_as"), &container.run_as, names::user);
    }
    check_ports(&path.field("ports"), container, faults);
    if let Some(resources) = &container.resources {
        check_resources(&path.field("resources"), resources, faults);
    }
    if container.image.contains(|c: char| c.is_whitespace() || c.is_control()) {
        faults.add(&path.field("image"), format!("{:?} is not the name of an image: it has blanks", container.image));
    }
}

fn check_command(path: &Path<'_>, container: &Container, faults: &mut Faults) {
    let command = path.field("command");
    match container.command.first() {
        None if container.image.is_empty() => faults.add(&command, "must name the program to run, such as [\"server\", \"--fast\"]"),
        Some(program) if program.is_empty() => faults.add(&command.index(0), "must not be empty: the program to run"),
        _ => {}
    }
    let args = path.field("args");
    for (path, words) in [(&command, &container.command), (&args, &container.args)] {
        for (index, word) in words.iter().enumerate() {
            check_no_nul(&path.index(index), word, faults);
        }
    }
}

/// No operating system can hand a process a text with a NUL in it.
pub(super) fn check_no_nul(path: &Path<'_>, text: &str, faults: &mut Faults) {
    if text.contains('\0') {
        faults.add(path, "must not contain the character NUL");
    }
}

fn check_ports(path: &Path<'_>, container: &Container, faults: &mut Faults) {
    if container.ports.len() > MAX_PORTS {
        faults.add(path, format!("are {}; at most {MAX_PORTS} are allowed", container.ports.len()));
    }
    for (index, port) in container.ports.iter().enumerate() {
        let path = path.index(index);
        if !port.name.is_empty() {
            faults.check(&path.field("name"), &port.name, names::port_name);
        } else if container.ports.len() > 1 {
            faults.add(&path.field("name"), "must not be empty when a container has more than one port");
        }
        if port.container_port > 65_535 {
            let message = format!("{} is no port: 1 to 65535, or 0 for a free one", port.container_port);
            faults.add(&path.field("container_port"), message);
        }
        faults.check_enum::<Protocol>(&path.field("protocol"), port.protocol, "TCP or UDP");
    }
}

fn check_backoff(path: &Path<'_>, backoff: &RestartBackoff, faults: &mut Faults) {
    let given = |duration: Option<prost_types::Duration>| duration.map(Duration::try_from);
    let (initial, cap) = (given(backoff.initial), given(backoff.cap));
    let is_wait = |wait: &Duration| (SHORTEST_BACKOFF..=LONGEST_BACKOFF).contains(wait);
    if initial.as_ref().is_some_and(|initial| !initial.as_ref().is_ok_and(is_wait)) {
        faults.add(&path.field("initial"), "must be from 10ms to 24h");
    } else if let (Some(Ok(initial)), Some(cap)) = (initial, cap)
        && !cap.as_ref().is_ok_and(|cap| (initial..=LONGEST_BACKOFF).contains(cap))
    {
        faults.add(&path.field("cap"), "must not be less than initial, and at most 24h");
    }
    if !(1.0..=MAX_BACKOFF_FACTOR).contains(&backoff.factor) {
        faults.add(&path.field("factor"), format!("must be from 1 to {MAX_BACKOFF_FACTOR}"));
    }
    if given(backoff.reset).is_some_and(|reset| reset.is_err()) {
        faults.add(&path.field("reset"), "must not be negative");
    }
}

/// Each container is known by its name alone.
fn check_names_across(path: &Path<'_>, spec: &PodSpec, faults: &mut Faults) {
    for (index, init) in spec.init_containers.iter().enumerate() {
        if let Some(same) = spec.containers.iter().position(|container| container.name == init.name) {
            let message = format!("{:?} is the name of containers[{same}] already; each may stand there once", init.name);
            faults.add(&path.index(index).field("name"), message);
        }
    }
}

/// All containers of a pod share one network, so that neither names nor numbers of ports may repeat.
fn check_ports_across(path: &Path<'_>, spec: &PodSpec, faults: &mut Faults) {
    let mut seen = std::collections::HashMap::new();
    let lists = [("init_containers", &spec.init_containers), ("containers", &spec.containers)];
    let all = lists.into_iter().flat_map(|(list, containers)| containers.iter().enumerate().map(move |found| (list, found)));
    for (list, (index, container)) in all {
        for (port_index, port) in container.ports.iter().enumerate() {
            let path = path.field(list);
            let path = path.index(index);
            let (path, at) = (path.field("ports"), (list, index, port_index));
            let path = path.index(port_index);
            let name = (!port.name.is_empty()).then(|| ("name", format!("{:?}", port.name)));
            let protocol = if port.protocol == Protocol::Udp as i32 { "UDP" } else { "TCP" };
            let number = (port.container_port != 0).then(|| ("container_port", format!("{protocol} {}", port.container_port)));
            for (field, value) in name.into_iter().chain(number) {
                if let Some((list, container, port)) = seen.insert((field, value.clone()), at) {
                    let message = format!("{value} is taken by {list}[{container}].ports[{port}]: a pod has one network");
                    faults.add(&path.field(field), message);
                }
            }
        }
    }
}

fn check_resources(path: &Path<'_>, resources: &ResourceRequirements, faults: &mut Faults) {
    let limits = path.field("limits");
    check_quantities(&limits, &resources.limits, &capability::LIMITS.map(|(name, _)| name), faults);
    for (name, limit) in &resources.limits {
        if quantity::bytes(limit) == Ok(0) {
            faults.add(&limits.key(name), format!("{limit:?} leaves nothing to run with; leave the limit out for none"));
        }
    }
    let requests = path.field("requests");
    check_quantities(&requests, &resources.requests, &REQUESTS, faults);
    for (name, request) in &resources.requests {
        let Some(limit) = resources.limits.get(name) else { continue };
        let parse = if name == "cpu" { quantity::cpu_millis } else { quantity::bytes };
        if let (Ok(requested), Ok(limited)) = (parse(request), parse(limit))
            && requested > limited
        {
            faults.add(&requests.key(name), format!("{request} is more than the limit, {limit}"));
        }
    }
}

fn check_status(path: &Path<'_>, status: &PodStatus, faults: &mut Faults) {
    faults.check_enum::<PodPhase>(&path.field("phase"), status.phase, "Pending, Running, Succeeded or Failed");
    check_conditions(&path.field("conditions"), &status.conditions, faults);
    for (name, statuses) in
        [("init_container_statuses", &status.init_container_statuses), ("container_statuses", &status.container_statuses)]
    {
        faults.check_distinct(&path.field(name), "name", statuses.iter().map(|container| Some(&container.name)));
    }
    for (index, port) in status.ports.iter().enumerate() {
        if !(1..=65_535).contains(&port.port) {
            faults.add(&path.field("ports").index(index).field("port"), format!("{} is no port: 1 to 65535", port.port));
        }
    }
}
