//! The ports of this node: which pod has which, and which are free.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::uid::PodUid;
use crate::api::v1::{AssignedPort, ContainerPort, Pod, Protocol};

/// Ports are handed out from here: below what systems use for outgoing connections, so that none of those takes one.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// Which pod has which port.
#[derive(Debug)]
pub(crate) struct Ports {
    taken: BTreeMap<Port, PodUid>,
    /// The node's address, at which others reach the pods.
    address: IpAddr,
    /// Where the search for a free one goes on; it goes round, so that a port rests before it is used again.
    next: u16,
}

type Port = (bool, u16);

/// Why a container can't have its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortTaken(pub(crate) String);

/// What a port of a container means: a number, the name of one of its TCP ports, or nothing for its first. `assigned` are those of the pod.
pub(crate) fn number_of(port: &str, container: &str, assigned: &[AssignedPort]) -> Option<u16> {
    if let Ok(number) = port.parse() {
        return Some(number);
    }
    let mut own = assigned.iter().filter(|known| known.container == container && known.protocol() != Protocol::Udp);
    let found = own.find(|known| port.is_empty() || known.name == port)?;
    u16::try_from(found.port).ok()
}

impl Ports {
    /// None taken. Kubelets of one machine get along better when each begins its search elsewhere.
    pub(crate) fn new(address: IpAddr) -> Self {
        Self { taken: BTreeMap::new(), address, next: fastrand::u16(..COUNT) }
    }

    /// Takes note of what a pod has, from its folder.
    pub(crate) fn remember(&mut self, uid: &PodUid, assigned: &[AssignedPort]) {
        for port in assigned {
            self.taken.entry(key(port)).or_insert_with(|| uid.clone());
        }
    }

    /// The pod has no ports any more.
    pub(crate) fn release(&mut self, uid: &PodUid) {
        self.taken.retain(|_, owner| owner != uid);
    }

    /// Makes sure that one container has its ports, before it is started: those that it names, and free ones for the rest, the same as before
    /// if they are still free. `assigned` are those of the pod.
    pub(crate) fn claim(&mut self, uid: &PodUid, pod: &Pod, container: &str, assigned: &mut [AssignedPort]) -> Result<(), PortTaken> {
        for (wanted, port) in assigned_in_order(pod, assigned) {
            if port.container != container || self.is_free(uid, port) {
                self.remember(uid, std::slice::from_ref(port));
            } else if wanted == 0 {
                self.taken.remove(&key(port));
                port.port = self.find(port.protocol())?;
                self.remember(uid, std::slice::from_ref(port));
            } else {
                return Err(self.refusal(uid, port));
            }
        }
        Ok(())
    }

    /// The ports that the pod's status tells, for a pod whose own note of them is lost; `None` if there are none that fit.
    pub(crate) fn assign_again(&mut self, uid: &PodUid, pod: &Pod) -> Option<Vec<AssignedPort>> {
        let known = &pod.status.as_ref()?.ports;
        let containers = pod.spec.iter().flat_map(|spec| spec.all_containers());
        let declared: Vec<_> =
            containers.flat_map(|container| container.ports.iter().map(|port| (container.name.as_str(), port))).collect();
        let fits = |((container, wanted), port): (&(&str, &ContainerPort), &AssignedPort)| {
            port.container == *container && port.name == wanted.name && [0, port.port].contains(&wanted.container_port)
        };
        if known.len() != declared.len() || !declared.iter().zip(known).all(fits) {
            return None;
        }
        self.remember(uid, known);
        Some(known.clone())
    }

    /// The ports of a new pod: those that it names, and free ones for the rest.
    pub(crate) fn assign(&mut self, uid: &PodUid, pod: &Pod) -> Result<Vec<AssignedPort>, PortTaken> {
        let mut assigned = Vec::new();
        for container in pod.spec.iter().flat_map(|spec| spec.all_containers()) {
            for port in &container.ports {
                let protocol = if port.protocol() == Protocol::Udp { Protocol::Udp } else { Protocol::Tcp };
                let number = if port.container_port == 0 { self.find(protocol)? } else { port.container_port };
                let (container, name) = (container.name.clone(), port.name.clone());
                let port = AssignedPort { container, name, port: number, protocol: protocol.into() };
                self.remember(uid, std::slice::from_ref(&port));
                assigned.push(port);
            }
        }
        Ok(assigned)
    }

    fn find(&mut self, protocol: Protocol) -> Result<u32, PortTaken> {
        for _ in 0..COUNT {
            let candidate = FIRST + self.next;
            self.next = (self.next + 1) % COUNT;
            let is_udp = protocol == Protocol::Udp;
            let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            if !self.taken.contains_key(&(is_udp, candidate)) && can_bind(everywhere, candidate, is_udp).is_ok() {
                return Ok(candidate.into());
            }
        }
        Err(PortTaken(format!("all ports from {FIRST} to {} are taken", FIRST + COUNT - 1)))
    }

    /// Nobody else has it, among our pods and on the machine. The node's address decides: that is where the pod must be reached.
    fn is_free(&self, uid: &PodUid, port: &AssignedPort) -> bool {
        let (is_udp, number) = key(port);
        self.taken.get(&(is_udp, number)).is_none_or(|owner| owner == uid)
            && !matches!(can_bind(self.address, number, is_udp), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
    }

    fn refusal(&self, uid: &PodUid, port: &AssignedPort) -> PortTaken {
        let owner = match self.taken.get(&key(port)).filter(|owner| *owner != uid) {
            Some(owner) => format!("pod {owner} of this node"),
            None => "another program on this machine".to_owned(),
        };
        PortTaken(format!("port {} ({}) is taken by {owner}", port.port, protocol_name(port)))
    }
}

/// Each assigned port with the number that the pod's spec names for it, 0 for any.
fn assigned_in_order<'a>(pod: &Pod, assigned: &'a mut [AssignedPort]) -> Vec<(u32, &'a mut AssignedPort)> {
    let wanted = pod.spec.iter().flat_map(|spec| spec.all_containers()).flat_map(|container| &container.ports);
    wanted.map(|port| port.container_port).zip(assigned.iter_mut()).collect()
}

fn key(port: &AssignedPort) -> Port {
    (port.protocol() == Protocol::Udp, u16::try_from(port.port).unwrap_or(0))
}

fn protocol_name(port: &AssignedPort) -> &'static str {
    if port.protocol() == Protocol::Udp { "UDP" } else { "TCP" }
}

fn can_bind(address: IpAddr, port: u16, is_udp: bool) -> io::Result<()> {
    let address = SocketAddr::new(address, port);
    if is_udp { UdpSocket::bind(address).map(drop) } else { TcpListener::bind(address).map(drop) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{Container, ContainerPort, PodSpec};

    fn pod(ports: &[u32]) -> Pod {
        let ports = ports.iter().map(|port| ContainerPort { container_port: *port, ..Default::default() }).collect();
        let container = Container { name: "main".into(), ports, ..Default::default() };
        Pod { spec: Some(PodSpec { containers: vec![container], ..Default::default() }), ..Default::default() }
    }

    fn uid(name: &str) -> PodUid {
        PodUid::new(name).unwrap()
    }

    fn ports() -> Ports {
        Ports::new(Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn every_port_handed_out_is_another_one_and_free() {
        let mut ports = ports();
        let mut seen = std::collections::BTreeSet::new();
        for name in ["a", "b", "c"] {
            for assigned in ports.assign(&uid(name), &pod(&[0, 0])).unwrap() {
                TcpListener::bind((Ipv4Addr::LOCALHOST, assigned.port as u16)).unwrap();
                assert!(seen.insert(assigned.port), "{seen:?}");
            }
        }
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn a_pod_keeps_the_port_that_it_was_given() {
        let (mut ports, pod) = (ports(), pod(&[0]));
        let mut assigned = ports.assign(&uid("a"), &pod).unwrap();
        let before = assigned.clone();
        ports.claim(&uid("a"), &pod, "main", &mut assigned).unwrap();
        assert_eq!(assigned, before);
    }

    #[test]
    fn a_given_port_that_another_program_took_is_replaced() {
        let (mut ports, pod) = (ports(), pod(&[0]));
        let mut assigned = ports.assign(&uid("a"), &pod).unwrap();
        let before = assigned[0].port;
        let _thief = TcpListener::bind((Ipv4Addr::LOCALHOST, before as u16)).unwrap();
        ports.claim(&uid("a"), &pod, "main", &mut assigned).unwrap();
        assert_ne!(assigned[0].port, before);
    }

    #[test]
    fn a_fixed_port_that_another_program_has_is_refused() {
        let thief = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = u32::from(thief.local_addr().unwrap().port());
        let (mut ports, pod) = (ports(), pod(&[number]));
        let mut assigned = ports.assign(&uid("a"), &pod).unwrap();
        let PortTaken(refusal) = ports.claim(&uid("a"), &pod, "main", &mut assigned).unwrap_err();
        assert_eq!(refusal, format!("port {number} (TCP) is taken by another program on this machine"));
        drop(thief);
        ports.claim(&uid("a"), &pod, "main", &mut assigned).unwrap();
        assert_eq!(assigned[0].port, number);
    }

    #[test]
    fn a_fixed_port_goes_to_the_next_pod_when_the_first_releases_it() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let (mut ports, pod) = (ports(), pod(&[free.into()]));
        let mut first = ports.assign(&uid("a"), &pod).unwrap();
        ports.claim(&uid("a"), &pod, "main", &mut first).unwrap();
        let mut second = ports.assign(&uid("b"), &pod).unwrap();
        let PortTaken(refusal) = ports.claim(&uid("b"), &pod, "main", &mut second).unwrap_err();
        assert_eq!(refusal, format!("port {free} (TCP) is taken by pod a of this node"));
        ports.release(&uid("a"));
        ports.claim(&uid("b"), &pod, "main", &mut second).unwrap();
    }
}
