//! What a table says of an object. Everything here is a function of the object and the time.

#[cfg(test)]
mod tests;

use prost_types::Timestamp;

use super::age::age;
use super::words;
use crate::api::v1::{ClusterEvent, EndpointSlice, Lease, Node, Object, Pod, Service, object};
use crate::api::{Kind, Role, quantity};

/// What is shown where there is nothing to show.
pub(super) const NONE: &str = "<none>";
/// How many endpoints of a slice are spelt out.
const ENDPOINTS_SHOWN: usize = 3;

/// The headings of a kind's table.
pub(super) fn headings(kind: Kind, wide: bool) -> Vec<String> {
    let (narrow, more): (&[&str], &[&str]) = match kind {
        Kind::Pod => (&["NAME", "READY", "STATUS", "RESTARTS", "AGE"], &["NODE", "IP", "PORTS"]),
        Kind::Service => (&["NAME", "CLUSTER-IP", "PORT(S)", "AGE"], &["SELECTOR"]),
        Kind::Node => (&["NAME", "STATUS", "OS", "ARCH", "AGE", "VERSION"], &["IP", "HOSTNAME", "KERNEL", "CPU", "MEMORY"]),
        Kind::EndpointSlice => (&["NAME", "ENDPOINTS", "AGE"], &[]),
        Kind::Namespace => (&["NAME", "STATUS", "AGE"], &[]),
        Kind::Event => (&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], &["SOURCE", "COUNT", "FIRST SEEN", "NAME"]),
        Kind::Lease => (&["NAME", "HOLDER", "AGE"], &["RENEWED"]),
        Kind::ConfigMap => (&["NAME", "DATA", "AGE"], &[]),
        Kind::Secret => (&["NAME", "TYPE", "DATA", "AGE"], &[]),
    };
    let shown = if wide { [narrow, more].concat() } else { narrow.to_vec() };
    shown.into_iter().map(str::to_owned).collect()
}

/// The row of an object, under [`headings`].
pub(super) fn row(object: &Object, wide: bool, now: &Timestamp) -> Vec<String> {
    let name = object.meta().name.clone();
    let age = age(object.meta().creation_time.as_ref(), now);
    let (narrow, more) = match &object.kind {
        Some(object::Kind::Pod(pod)) => pod_row(pod, name, age, now),
        Some(object::Kind::Service(service)) => service_row(service, name, age),
        Some(object::Kind::Node(node)) => node_row(node, name, age),
        Some(object::Kind::EndpointSlice(slice)) => (vec![name, endpoints(slice), age], vec![]),
        Some(object::Kind::Namespace(namespace)) => (vec![name, words::namespace_phase(namespace), age], vec![]),
        Some(object::Kind::Event(event)) => event_row(event, name, now),
        Some(object::Kind::Lease(lease)) => lease_row(lease, name, age, now),
        Some(object::Kind::ConfigMap(map)) => (vec![name, (map.data.len() + map.binary_data.len()).to_string(), age], vec![]),
        Some(object::Kind::Secret(secret)) => (vec![name, secret.r#type.clone(), secret.data.len().to_string(), age], vec![]),
        None => (vec![], vec![]),
    };
    if wide { [narrow, more].concat() } else { narrow }
}

/// The narrow cells of a row, and those that a wide one has besides.
type Cells = (Vec<String>, Vec<String>);

fn pod_row(pod: &Pod, name: String, age: String, now: &Timestamp) -> Cells {
    let status = pod.status.clone().unwrap_or_default();
    let total = pod.spec.as_ref().map_or(0, |spec| spec.roles().filter(|(_, role)| *role != Role::Init).count());
    let ready = words::lasting(pod, &status).filter(|container| container.ready).count();
    let node = pod.spec.as_ref().map_or("", |spec| &spec.node_name);
    let narrow = vec![name, format!("{ready}/{total}"), words::pod_status(pod), words::restarts(pod, &status, now), age];
    (narrow, vec![or_none(node), or_none(&status.host_ip), or_none(&words::assigned_ports(&status.ports))])
}

fn service_row(service: &Service, name: String, age: String) -> Cells {
    let spec = service.spec.clone().unwrap_or_default();
    (vec![name, or_none(&spec.cluster_ip), or_none(&words::service_ports(&spec.ports)), age], vec![or_none(&words::labels(&spec.selector))])
}

fn node_row(node: &Node, name: String, age: String) -> Cells {
    let status = node.status.clone().unwrap_or_default();
    let info = status.info.unwrap_or_default();
    let capacity = |resource: &str| status.capacity.get(resource).cloned().unwrap_or_default();
    let memory = capacity("memory");
    let memory = quantity::bytes(&memory).map_or(memory, words::bytes);
    (
        vec![name, words::node_status(node), or_none(&info.os), or_none(&info.arch), age, or_none(&info.kubelet_version)],
        vec![or_none(&status.host_ip), or_none(&info.hostname), or_none(&info.kernel), or_none(&capacity("cpu")), or_none(&memory)],
    )
}

fn endpoints(slice: &EndpointSlice) -> String {
    let endpoints = slice.spec.iter().flat_map(|spec| &spec.endpoints);
    let addresses: Vec<_> =
        endpoints.flat_map(|endpoint| endpoint.ports.iter().map(|port| words::address(&endpoint.address, port.port))).collect();
    match addresses.len().checked_sub(ENDPOINTS_SHOWN) {
        Some(more @ 1..) => format!("{} + {more} more", addresses[..ENDPOINTS_SHOWN].join(",")),
        _ => or_none(&addresses.join(",")),
    }
}

fn event_row(event: &ClusterEvent, name: String, now: &Timestamp) -> Cells {
    let spec = event.spec.clone().unwrap_or_default();
    let regarding = spec.regarding.clone().unwrap_or_default();
    let subject = format!("{}/{}", regarding.kind.to_lowercase(), regarding.name);
    let seen = |time: Option<&Timestamp>| age(time.or(event.metadata.as_ref().and_then(|meta| meta.creation_time.as_ref())), now);
    let narrow = vec![seen(spec.last_time.as_ref()), words::event_type(spec.r#type()), spec.reason, subject, spec.note];
    (narrow, vec![or_none(&spec.source), spec.count.to_string(), seen(spec.first_time.as_ref()), name])
}

fn lease_row(lease: &Lease, name: String, created: String, now: &Timestamp) -> Cells {
    let spec = lease.spec.clone().unwrap_or_default();
    (vec![name, or_none(&spec.holder_identity), created], vec![age(spec.renew_time.as_ref(), now)])
}

pub(super) fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}
