//! What a router should do, decided from services and endpoint slices, and what changes from one such decision to the next.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::api::v1::{EndpointSlice, Protocol, Service};
use crate::api::{ObjectKey, Resource, condition};

/// Every route of a node, by the address that a service is reached at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable(BTreeMap<SocketAddr, Route>);

/// Where the connections of one port of a service go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The service.
    pub service: ObjectKey,
    /// The ready addresses behind it, sorted, each once. Without any the connection is refused.
    pub backends: Vec<SocketAddr>,
}

/// One step from a table to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An address that there was no route for.
    Added(SocketAddr, Route),
    /// Other backends, or another service, at the same address.
    Changed(SocketAddr, Route),
    /// No route any more.
    Removed(SocketAddr),
}

/// The table for these services and slices.
///
/// A service without an address has no route yet, nor has one that the service controller did not call `Ready`: the address that it asks for may
/// be another one's. A port without backends has a route that leads nowhere. Where two services have the same address and port, which the service
/// controller prevents, the first by namespace and name has it.
pub fn routes<'a>(services: impl IntoIterator<Item = &'a Service>, slices: impl IntoIterator<Item = &'a EndpointSlice>) -> RouteTable {
    let slices: HashMap<(&str, &str), &EndpointSlice> = slices.into_iter().map(|slice| (name_of(slice), slice)).collect();
    let mut table = BTreeMap::new();
    for service in services.into_iter().filter(|service| is_ready(service)) {
        let Some(spec) = &service.spec else { continue };
        let Ok(address) = spec.cluster_ip.parse::<IpAddr>() else { continue };
        let slice = slices.get(&name_of(service)).copied();
        for port in spec.ports.iter().filter(|port| port.protocol() != Protocol::Udp) {
            let Some(number) = port_number(port.port) else { continue };
            let route = Route { service: service.key(), backends: backends(slice, &port.name) };
            match table.entry(SocketAddr::new(address, number)) {
                Entry::Vacant(free) => drop(free.insert(route)),
                Entry::Occupied(mut taken) if route.service < taken.get().service => drop(taken.insert(route)),
                Entry::Occupied(_) => {}
            }
        }
    }
    RouteTable(table)
}

fn is_ready(service: &Service) -> bool {
    service.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::READY))
}

/// What turns `old` into `new`: nothing for a route that stays as it is. Removals come first, then the rest by address.
pub fn difference(old: &RouteTable, new: &RouteTable) -> Vec<Change> {
    let removed = old.0.keys().filter(|frontend| !new.0.contains_key(frontend)).map(|frontend| Change::Removed(*frontend));
    let other = new.0.iter().filter_map(|(frontend, route)| match old.0.get(frontend) {
        None => Some(Change::Added(*frontend, route.clone())),
        Some(before) if before != route => Some(Change::Changed(*frontend, route.clone())),
        Some(_) => None,
    });
    removed.chain(other).collect()
}

impl RouteTable {
    /// Takes one step.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Added(frontend, route) | Change::Changed(frontend, route) => drop(self.0.insert(frontend, route)),
            Change::Removed(frontend) => drop(self.0.remove(&frontend)),
        }
    }

    /// The routes by address.
    pub fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &Route)> {
        self.0.iter()
    }
}

impl FromIterator<(SocketAddr, Route)> for RouteTable {
    fn from_iter<I: IntoIterator<Item = (SocketAddr, Route)>>(routes: I) -> Self {
        Self(routes.into_iter().collect())
    }
}

fn name_of<R: Resource>(resource: &R) -> (&str, &str) {
    (&resource.meta().namespace, &resource.meta().name)
}

fn backends(slice: Option<&EndpointSlice>, port_name: &str) -> Vec<SocketAddr> {
    let endpoints = slice.and_then(|slice| slice.spec.as_ref()).map(|spec| spec.endpoints.as_slice()).unwrap_or_default();
    let mut backends: Vec<SocketAddr> = endpoints
        .iter()
        .filter_map(|endpoint| {
            let port = endpoint.ports.iter().find(|port| port.name == port_name && port.protocol() != Protocol::Udp)?;
            Some(SocketAddr::new(endpoint.address.parse().ok()?, port_number(port.port)?))
        })
        .collect();
    backends.sort_unstable();
    backends.dedup();
    backends
}

fn port_number(port: u32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::v1::{ConditionStatus, Endpoint, EndpointPort, EndpointSliceSpec, ServicePort, ServiceSpec, ServiceStatus};

    fn service(name: &str, ip: &str, ports: &[(&str, u32)]) -> Service {
        let ports = ports.iter().map(|(name, port)| ServicePort { name: (*name).into(), port: *port, ..Default::default() }).collect();
        let mut service = Service { spec: Some(ServiceSpec { cluster_ip: ip.into(), ports, ..Default::default() }), ..Default::default() };
        service.meta_mut().name = name.into();
        let conditions = &mut service.status.get_or_insert_default().conditions;
        condition::set(conditions, condition::READY, ConditionStatus::True, "", "", Default::default());
        service
    }

    fn slice(name: &str, endpoints: &[(&str, &str, u32)]) -> EndpointSlice {
        let endpoints = endpoints
            .iter()
            .map(|(address, port_name, port)| Endpoint {
                address: (*address).into(),
                ports: vec![EndpointPort { name: (*port_name).into(), port: *port, ..Default::default() }],
                ..Default::default()
            })
            .collect();
        let mut slice = EndpointSlice { spec: Some(EndpointSliceSpec { endpoints }), ..Default::default() };
        slice.meta_mut().name = name.into();
        slice
    }

    fn text(table: &RouteTable) -> String {
        table.iter().map(|(frontend, route)| format!("{frontend} {} {:?}\n", route.service, route.backends)).collect()
    }

    #[test]
    fn each_port_leads_to_the_endpoints_of_its_name() {
        let table = routes(
            &[service("web", "127.96.0.5", &[("http", 80), ("admin", 81)]), service("new", "", &[("", 80)])],
            &[slice("web", &[("10.0.0.2", "http", 4001), ("10.0.0.1", "http", 4000), ("10.0.0.1", "http", 4000)])],
        );
        let expected = "127.96.0.5:80 Service/default/web [10.0.0.1:4000, 10.0.0.2:4001]\n127.96.0.5:81 Service/default/web []\n";
        assert_eq!(text(&table), expected);
    }

    #[test]
    fn the_first_of_two_services_has_a_contested_address() {
        let (a, b) = (service("a", "127.96.0.5", &[("", 80)]), service("b", "127.96.0.5", &[("", 80)]));
        assert_eq!(routes([&a, &b], []), routes([&b, &a], []));
        assert_eq!(text(&routes([&b, &a], [])), "127.96.0.5:80 Service/default/a []\n");
    }

    #[test]
    fn a_service_that_asks_for_the_address_of_another_one_has_no_route() {
        let (mut thief, owner) = (service("a", "127.96.0.5", &[("", 80)]), service("b", "127.96.0.5", &[("", 80)]));
        for refused in [Some(ConditionStatus::False), None] {
            thief.status = refused.map(|status| {
                let mut conditions = Vec::new();
                condition::set(&mut conditions, condition::READY, status, "AddressTaken", "", Default::default());
                ServiceStatus { conditions }
            });
            assert_eq!(text(&routes([&thief, &owner], [])), "127.96.0.5:80 Service/default/b []\n");
        }
    }

    #[test]
    fn what_can_not_be_an_address_is_no_route() {
        assert_eq!(
            routes(&[service("web", "nowhere", &[("", 80)]), service("far", "127.96.0.5", &[("", 70_000)])], []),
            RouteTable::default()
        );
        let table = routes(&[service("web", "127.96.0.5", &[("", 80)])], &[slice("web", &[("?", "", 1), ("10.0.0.1", "", 0)])]);
        assert_eq!(text(&table), "127.96.0.5:80 Service/default/web []\n");
    }

    fn any_table() -> impl Strategy<Value = RouteTable> {
        let frontend = (1..6u8, 80..83u16).prop_map(|(host, port)| SocketAddr::from(([127, 96, 0, host], port)));
        let backends = prop::collection::btree_set((1..4u8).prop_map(|host| SocketAddr::from(([10, 0, 0, host], 4000))), 0..3);
        let route = ("[ab]", backends).prop_map(|(name, backends)| Route {
            service: ObjectKey::new(crate::api::Kind::Service, "", &name),
            backends: backends.into_iter().collect(),
        });
        prop::collection::btree_map(frontend, route, 0..10).prop_map(RouteTable)
    }

    proptest! {
        #[test]
        fn applying_the_difference_to_the_old_table_gives_the_new_one(old in any_table(), new in any_table()) {
            let mut table = old.clone();
            for change in difference(&old, &new) {
                table.apply(change);
            }
            prop_assert_eq!(table, new);
        }

        #[test]
        fn the_difference_names_only_what_changed(old in any_table(), new in any_table()) {
            let mut table = old.clone();
            for change in difference(&old, &new) {
                let before = table.clone();
                table.apply(change);
                prop_assert_ne!(before, table.clone());
            }
            prop_assert!(difference(&new, &new).is_empty());
        }
    }
}
