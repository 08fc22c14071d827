use super::faults::{Faults, Path};
use super::names;
use super::pod::check_no_nul;
use crate::api::v1::{Container, ExecAction, HttpGetAction, Probe, Protocol, probe};

/// The longest that a probe may wait between tries or before the first, in seconds: a day.
const MAX_PERIOD: u32 = 24 * 60 * 60;
/// The longest that a try may take, in seconds.
const MAX_TIMEOUT: u32 = 60 * 60;
const MAX_SUCCESSES: u32 = 1_000;
const MAX_FAILURES: u32 = 10_000;

/// All probes of a container.
pub(super) fn check_all(path: &Path<'_>, container: &Container, can_be_probed: bool, faults: &mut Faults) {
    let probes = [
        ("startup_probe", &container.startup_probe, 1),
        ("liveness_probe", &container.liveness_probe, 1),
        ("readiness_probe", &container.readiness_probe, MAX_SUCCESSES),
    ];
    for (name, probe, max_successes) in probes {
        let Some(probe) = probe else { continue };
        let path = path.field(name);
        if can_be_probed {
            check_probe(&path, probe, container, max_successes, faults);
        } else {
            faults.add(&path, "is for containers that keep running: an init container has probes only if its restart_policy is Always");
        }
    }
}

fn check_probe(path: &Path<'_>, probe: &Probe, container: &Container, max_successes: u32, faults: &mut Faults) {
    for (name, value, least, most) in [
        ("initial_delay_seconds", probe.initial_delay_seconds, 0, MAX_PERIOD),
        ("timeout_seconds", probe.timeout_seconds, 1, MAX_TIMEOUT),
        ("period_seconds", probe.period_seconds, 1, MAX_PERIOD),
        ("success_threshold", probe.success_threshold, 1, max_successes),
        ("failure_threshold", probe.failure_threshold, 1, MAX_FAILURES),
    ] {
        if !(least..=most).contains(&value) {
            faults
                .add(&path.field(name), if least == most { format!("must be {least}") } else { format!("must be from {least} to {most}") });
        }
    }
    match &probe.handler {
        None => faults.add(path, "must say what to do: exec, http_get, tcp_socket or grpc"),
        Some(probe::Handler::Exec(action)) => check_exec(&path.field("exec"), action, faults),
        Some(probe::Handler::HttpGet(action)) => check_http(&path.field("http_get"), action, container, faults),
        Some(probe::Handler::TcpSocket(action)) => {
            let path = path.field("tcp_socket");
            check_port(&path.field("port"), &action.port, container, faults);
            check_host(&path.field("host"), &action.host, faults);
        }
        Some(probe::Handler::Grpc(action)) => check_port(&path.field("grpc").field("port"), &action.port, container, faults),
    }
}

pub(super) fn check_exec(path: &Path<'_>, action: &ExecAction, faults: &mut Faults) {
    let command = path.field("command");
    if action.command.first().is_none_or(String::is_empty) {
        faults.add(&command, "must name the program to run, such as [\"check\", \"--fast\"]");
    }
    action.command.iter().enumerate().for_each(|(index, word)| check_no_nul(&command.index(index), word, faults));
}

pub(super) fn check_http(path: &Path<'_>, action: &HttpGetAction, container: &Container, faults: &mut Faults) {
    check_port(&path.field("port"), &action.port, container, faults);
    check_host(&path.field("host"), &action.host, faults);
    if !action.path.starts_with('/') || action.path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        faults.add(&path.field("path"), format!("{:?} is no path: it begins with '/' and has no blanks", action.path));
    }
    if action.scheme != "HTTP" {
        faults.add(&path.field("scheme"), format!("{:?} is not known; there is HTTP", action.scheme));
    }
}

fn check_host(path: &Path<'_>, host: &str, faults: &mut Faults) {
    let is_host = host.is_empty() || names::dns_subdomain(host).is_ok() || host.parse::<std::net::IpAddr>().is_ok();
    if !is_host {
        faults.add(path, format!("{host:?} is neither a host name nor an address"));
    }
}

/// A number, the name of a TCP port of the container, or nothing for its first.
fn check_port(path: &Path<'_>, port: &str, container: &Container, faults: &mut Faults) {
    let mut tcp = container.ports.iter().filter(|port| port.protocol != Protocol::Udp as i32);
    match port.parse::<u32>() {
        Ok(1..=65_535) => {}
        Ok(number) => faults.add(path, format!("{number} is no port: 1 to 65535")),
        Err(_) if port.is_empty() && tcp.next().is_some() => {}
        Err(_) if !port.is_empty() && tcp.any(|known| known.name == port) => {}
        Err(_) if port.is_empty() => faults.add(path, "must not be empty: the container has no TCP port"),
        Err(_) => faults.add(path, format!("{port:?} is neither a number nor the name of a TCP port of the container")),
    }
}
