//! What this node is and can do.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::Path;

use prost_types::Timestamp;

use super::Config;
use super::os::fence::Places;
use super::os::{Host, Os};
use crate::api::v1::{ConditionStatus, Node, NodeInfo, NodeSpec, NodeStatus, ObjectMeta};
use crate::api::{capability, condition};
use crate::error::{Error, Result};

/// Begins the labels that only the kubelet sets.
const LABEL_PREFIX: &str = "kubernetes.io/";

/// What the node can do that another might not, sorted. `program` is the executable that plays roles.
pub(crate) fn capabilities(root: &Path, program: &Path, routes: bool, places: &Places) -> Vec<String> {
    let enforced = places.enforced();
    let found = [
        (enforced.cpu, capability::CPU_LIMITS),
        (enforced.memory, capability::MEMORY_LIMITS),
        (enforced.pids, capability::PIDS_LIMITS),
        (Host::may_run_as(), capability::RUN_AS),
        (true, capability::RESTART_ON_CONFIG_CHANGE),
        (routes, "routes.proxy"),
        (routes && may_listen_low(), "routes.low-ports"),
    ];
    let found = found.into_iter().filter_map(|(is_there, name)| is_there.then_some(name));
    let mut capabilities: Vec<String> =
        Host::CAPABILITIES.iter().copied().chain(Host::try_out(root, program)).chain(found).map(str::to_owned).collect();
    capabilities.sort();
    capabilities
}

/// Whether this kubelet may listen on ports below 1024, which some systems keep for root. Found by trying: on some machines everybody may.
fn may_listen_low() -> bool {
    let tried = |port| match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Some(true),
        Err(error) => (error.kind() == ErrorKind::PermissionDenied).then_some(false),
    };
    // One that is taken tells nothing.
    LOW_PORTS.filter_map(tried).next().unwrap_or(false)
}

/// Ports that hardly anybody uses.
const LOW_PORTS: std::ops::Range<u16> = 1..8;

/// The node as it introduces itself.
///
/// # Errors
/// Invalid for a label that isn't the user's to set.
pub(crate) fn node(config: &Config, host_ip: IpAddr, capabilities: &[String], started: Timestamp, now: Timestamp) -> Result<Node> {
    if let Some(reserved) = config.labels.keys().find(|label| label.starts_with(LABEL_PREFIX)) {
        return Err(Error::invalid("labels", format!("the label {reserved} is set by the kubelet itself; choose another prefix")));
    }
    let hostname = Host::hostname();
    let own = [("os", Host::NAME), ("arch", arch()), ("hostname", &label_of(&hostname))];
    let mut labels: std::collections::HashMap<String, String> = config.labels.clone().into_iter().collect();
    labels.extend(own.map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), value.to_owned())));

    let mut conditions = Vec::new();
    condition::set(&mut conditions, condition::READY, ConditionStatus::True, "KubeletReady", "the kubelet is connected", now);
    let status = NodeStatus {
        conditions,
        info: Some(NodeInfo {
            os: Host::NAME.to_owned(),
            arch: arch().to_owned(),
            kernel: Host::kernel_version(),
            hostname,
            kubelet_version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
        capacity: capacity(config.max_pods)?.into_iter().collect(),
        capabilities: capabilities.to_vec(),
        host_ip: host_ip.to_string(),
        start_time: Some(started),
        session: None,
    };
    let metadata = ObjectMeta { name: config.node_name.clone(), labels, ..ObjectMeta::default() };
    Ok(Node { metadata: Some(metadata), spec: Some(NodeSpec::default()), status: Some(status) })
}

fn capacity(max_pods: u32) -> Result<[(String, String); 3]> {
    let cores =
        std::thread::available_parallelism().map_err(|error| Error::internal(format!("the processors can't be counted: {error}")))?;
    let memory = Host::memory_bytes().map_err(|error| Error::internal(format!("the memory can't be measured: {error}")))?;
    Ok([("cpu", cores.to_string()), ("memory", memory.to_string()), ("pods", max_pods.to_string())]
        .map(|(name, amount)| (name.to_owned(), amount)))
}

/// As container images name it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A machine's name as the value of a label: what can't stand in one is a `-`. Linux calls a machine without a name "(none)".
fn label_of(hostname: &str) -> String {
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let fitted: String = hostname.chars().map(|character| if fits(character) { character } else { '-' }).take(63).collect();
    fitted.trim_matches(['-', '_', '.']).to_owned()
}

/// The machine's own name, fit to be a node's.
pub fn default_node_name() -> String {
    let hostname = Host::hostname().to_lowercase();
    let fits = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-' || character == '.';
    let name: String = hostname.chars().map(|character| if fits(character) { character } else { '-' }).collect();
    match name.trim_matches(['-', '.']) {
        "" => "node".to_owned(),
        name => name.to_owned(),
    }
}

/// The address of this machine on the way to a server: where others can reach its pods. Loopback for a server on this machine.
pub fn address_towards(server: &str) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let authority = server.split("://").nth(1).unwrap_or(server).split(['/', ',']).next().unwrap_or_default();
    let Some(server) = authority.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()) else { return loopback };
    // Connecting a datagram socket sends nothing; the kernel only chooses the way.
    let any = SocketAddr::new(if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }, 0);
    let chosen = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(server)?;
        socket.local_addr()
    });
    chosen.map_or(loopback, |address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_tells_what_it_is_and_can_do() {
        let mut config = Config::new("n1", "unused".into());
        config.labels.insert("zone".to_owned(), "a".to_owned());
        let now = Timestamp { seconds: 5, nanos: 0 };
        let capabilities = capabilities(Path::new("."), &config.shim_program, true, &Places::default());
        let node = node(&config, Ipv4Addr::LOCALHOST.into(), &capabilities, now, now).unwrap();
        let labels = &node.metadata.as_ref().unwrap().labels;
        assert_eq!((labels["zone"].as_str(), labels["kubernetes.io/os"].as_str()), ("a", Host::NAME));
        let status = node.status.unwrap();
        assert!(condition::is_true(&status.conditions, condition::READY));
        assert!(status.capabilities.is_sorted(), "{:?}", status.capabilities);
        assert!(crate::api::quantity::bytes(&status.capacity["memory"]).unwrap() > 0, "{:?}", status.capacity);
    }

    #[test]
    fn whatever_a_machine_is_called_its_label_is_one() {
        let long = "x".repeat(62) + ".example.org";
        for (hostname, label) in [
            ("DESKTOP-A1", "DESKTOP-A1"),
            ("web_1.example.org", "web_1.example.org"),
            ("(none)", "none"),
            ("b\u{fc}cher", "b-cher"),
            ("-", ""),
            (long.as_str(), &long[..62]),
        ] {
            assert_eq!(label_of(hostname), label);
        }
    }

    #[test]
    fn a_label_of_the_kubelets_own_cannot_be_forged() {
        let mut config = Config::new("n1", "unused".into());
        config.labels.insert("kubernetes.io/os".to_owned(), "plan9".to_owned());
        let now = Timestamp::default();
        assert!(matches!(node(&config, Ipv4Addr::LOCALHOST.into(), &[], now, now), Err(Error::Invalid(_))));
    }

    #[test]
    fn the_address_towards_a_server_on_this_machine_is_loopback() {
        assert_eq!(address_towards("http://127.0.0.1:7443"), Ipv4Addr::LOCALHOST);
        assert_eq!(address_towards("unix:/run/bluebird.sock"), Ipv4Addr::LOCALHOST);
    }
}
