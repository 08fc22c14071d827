use std::fmt;

/// The kinds of objects there are.
///
/// The order is the order of lists, and the number is the one of the arm in `Object`: both are stored, so neither may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Containers that run together on one node.
    Pod = 1,
    /// A stable address for a changing set of pods.
    Service = 2,
    /// A machine.
    Node = 3,
    /// The ready addresses behind a service.
    EndpointSlice = 4,
    /// A scope for names.
    Namespace = 5,
    /// Something that happened.
    Event = 6,
    /// A claim that has to be renewed.
    Lease = 7,
    /// Configuration of pods.
    ConfigMap = 8,
    /// What pods need and others must not see.
    Secret = 9,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 9] = [
        Kind::Pod,
        Kind::Service,
        Kind::Node,
        Kind::EndpointSlice,
        Kind::Namespace,
        Kind::Event,
        Kind::Lease,
        Kind::ConfigMap,
        Kind::Secret,
    ];

    /// The word after `kind:` in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Pod => "Pod",
            Kind::Service => "Service",
            Kind::Node => "Node",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Namespace => "Namespace",
            Kind::Event => "Event",
            Kind::Lease => "Lease",
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }

    /// The arm of `Object` that holds it, with which paths into an object begin.
    pub const fn arm_name(self) -> &'static str {
        match self {
            Kind::Pod => "pod",
            Kind::Service => "service",
            Kind::Node => "node",
            Kind::EndpointSlice => "endpoint_slice",
            Kind::Namespace => "namespace",
            Kind::Event => "event",
            Kind::Lease => "lease",
            Kind::ConfigMap => "config_map",
            Kind::Secret => "secret",
        }
    }

    /// The names under which people ask for it on a command line: plural first, then short ones.
    pub const fn aliases(self) -> &'static [&'static str] {
        match self {
            Kind::Pod => &["pods", "pod", "po"],
            Kind::Service => &["services", "service", "svc"],
            Kind::Node => &["nodes", "node", "no"],
            Kind::EndpointSlice => &["endpointslices", "endpointslice", "eps"],
            Kind::Namespace => &["namespaces", "namespace", "ns"],
            Kind::Event => &["events", "event", "ev"],
            Kind::Lease => &["leases", "lease"],
            Kind::ConfigMap => &["configmaps", "configmap", "cm"],
            Kind::Secret => &["secrets", "secret"],
        }
    }

    /// The `apiVersion`s that a manifest of this kind may state: ours and the one that Kubernetes uses.
    pub const fn api_versions(self) -> &'static [&'static str] {
        match self {
            Kind::Pod | Kind::Service | Kind::Node | Kind::Namespace | Kind::Event | Kind::ConfigMap | Kind::Secret => {
                &["v1", "bluebird/v1"]
            }
            Kind::EndpointSlice => &["bluebird/v1", "discovery.k8s.io/v1"],
            Kind::Lease => &["bluebird/v1", "coordination.k8s.io/v1"],
        }
    }

    /// Whether its objects live in namespaces.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Kind::Node | Kind::Namespace)
    }

    /// The kind of exactly this name, as in YAML.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The kind that a person means: its name or an alias, in any case.
    pub fn from_alias(alias: &str) -> Option<Kind> {
        let alias = alias.to_ascii_lowercase();
        Kind::ALL.into_iter().find(|kind| kind.aliases().contains(&alias.as_str()))
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
