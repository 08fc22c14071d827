use std::net::{IpAddr, Ipv4Addr};

use super::faults::{Faults, Path};
use super::meta::{check_conditions, check_labels};
use super::names;
use crate::api::v1::{EndpointSlice, Protocol, Service, ServicePort, ServiceSpec};

/// The most ports of a service.
const MAX_PORTS: usize = 100;
/// The most endpoints of a slice.
const MAX_ENDPOINTS: usize = 1000;

pub(super) fn check(path: &Path<'_>, service: &Service, faults: &mut Faults) {
    match &service.spec {
        Some(spec) => check_spec(&path.field("spec"), spec, faults),
        None => faults.add(&path.field("spec.ports"), "must have at least one port"),
    }
    if let Some(status) = &service.status {
        check_conditions(&path.field("status.conditions"), &status.conditions, faults);
    }
}

fn check_spec(path: &Path<'_>, spec: &ServiceSpec, faults: &mut Faults) {
    check_labels(&path.field("selector"), &spec.selector, faults);
    let ports = path.field("ports");
    if spec.ports.is_empty() {
        faults.add(&ports, "must have at least one port");
    } else if spec.ports.len() > MAX_PORTS {
        faults.add(&ports, format!("are {}; at most {MAX_PORTS} are allowed", spec.ports.len()));
    }
    for (index, port) in spec.ports.iter().enumerate() {
        check_port(&ports.index(index), port, spec.ports.len() > 1, faults);
    }
    faults.check_distinct(&ports, "name", spec.ports.iter().map(|port| Some(&port.name).filter(|name| !name.is_empty())));
    faults.check_distinct(&ports, "port", spec.ports.iter().map(|port| Some(port.port)));
    check_cluster_ip(&path.field("cluster_ip"), &spec.cluster_ip, faults);
}

fn check_port(path: &Path<'_>, port: &ServicePort, needs_name: bool, faults: &mut Faults) {
    if !port.name.is_empty() {
        faults.check(&path.field("name"), &port.name, names::service_port_name);
    } else if needs_name {
        faults.add(&path.field("name"), "must not be empty when a service has more than one port");
    }
    if port.protocol == Protocol::Udp as i32 {
        faults.add(&path.field("protocol"), "must be TCP: services don't carry UDP yet");
    } else {
        faults.check_enum::<Protocol>(&path.field("protocol"), port.protocol, "TCP");
    }
    if !(1..=65_535).contains(&port.port) {
        faults.add(&path.field("port"), format!("{} is no port: 1 to 65535", port.port));
    }
    check_target_port(&path.field("target_port"), &port.target_port, faults);
}

fn check_target_port(path: &Path<'_>, target: &str, faults: &mut Faults) {
    let is_number = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && !target.parse::<u32>().is_ok_and(|port| (1..=65_535).contains(&port)) {
        faults.add(path, format!("{target} is no port: 1 to 65535, or the name of a container's port"));
    } else if !is_number && !target.is_empty() && names::port_name(target).is_err() {
        faults.add(path, format!("{target:?} is neither a port number, 1 to 65535, nor the name of a container's port"));
    }
}

fn check_cluster_ip(path: &Path<'_>, cluster_ip: &str, faults: &mut Faults) {
    let is_usable = |ip: Ipv4Addr| !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast());
    if !cluster_ip.is_empty() && !cluster_ip.parse().is_ok_and(is_usable) {
        let message = format!("{cluster_ip:?} is not an IPv4 address such as 127.96.0.10; leave it out and one is chosen");
        faults.add(path, message);
    }
}

pub(super) fn check_slice(path: &Path<'_>, slice: &EndpointSlice, faults: &mut Faults) {
    let Some(spec) = &slice.spec else { return };
    let path = path.field("spec");
    let path = path.field("endpoints");
    if spec.endpoints.len() > MAX_ENDPOINTS {
        faults.add(&path, format!("are {}; at most {MAX_ENDPOINTS} are allowed", spec.endpoints.len()));
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let path = path.index(index);
        if endpoint.address.parse::<IpAddr>().is_err() {
            faults.add(&path.field("address"), format!("{:?} is not an IP address", endpoint.address));
        }
        let ports = path.field("ports");
        for (index, port) in endpoint.ports.iter().enumerate() {
            let path = ports.index(index);
            if !(1..=65_535).contains(&port.port) {
                faults.add(&path.field("port"), format!("{} is no port: 1 to 65535", port.port));
            }
            if !port.name.is_empty() {
                faults.check(&path.field("name"), &port.name, names::service_port_name);
            }
            faults.check_enum::<Protocol>(&path.field("protocol"), port.protocol, "TCP or UDP");
        }
        faults.check_distinct(&ports, "name", endpoint.ports.iter().map(|port| Some(&port.name)));
    }
}
