//! Which service has which address. Pure: what it knows it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::api::v1::{ConditionStatus, Service};
use crate::api::{ObjectKey, Resource, condition};
use crate::error::{Error, Result};

/// Why a service has no address: every one is taken.
const RANGE_FULL: &str = "RangeFull";
/// Why a service has no address: the one that it asks for is another one's.
const ADDRESS_TAKEN: &str = "AddressTaken";
/// Why a service has no address: the one that it asks for is not one that a service can have.
const OUT_OF_RANGE: &str = "OutOfRange";

/// The addresses that services can have: all of a network but its own, the broadcast address and the first one, which is the lock of a
/// machine's router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::controllers) struct Range {
    first: u32,
    count: u32,
}

impl Range {
    /// Reads a range in CIDR notation.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is none, or has no room for a service.
    pub(in crate::controllers) fn parse(cidr: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid("service_cidr", format!("{cidr:?} {why}, such as 127.96.0.0/12"));
        let (address, prefix) = cidr.split_once('/').ok_or_else(|| wrong("is no range of addresses"))?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong("is no range of IPv4 addresses"))?;
        let prefix: u32 = prefix.parse().map_err(|_| wrong("is no range of addresses"))?;
        if !(8..=30).contains(&prefix) {
            return Err(wrong("must have a prefix between 8 and 30"));
        }
        let size = 1u32 << (32 - prefix);
        if u32::from(address) % size != 0 {
            return Err(wrong("has bits after its prefix; write the address of the network"));
        }
        Ok(Self { first: u32::from(address) + 2, count: size - 3 })
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address).checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// All addresses, from one that depends on the key alone: a service that is made again gets its old address if that is still free, and
    /// the address of one that was deleted isn't the next to be handed out.
    fn starting_at(&self, key: &ObjectKey) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let (first, count) = (self.first, self.count);
        let start = crc32fast::hash(format!("{}/{}", key.namespace(), key.name()).as_bytes()) % count;
        (0..count).map(move |step| Ipv4Addr::from(first + ((u64::from(start) + u64::from(step)) % u64::from(count)) as u32))
    }
}

/// Who has which address, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_address: BTreeMap<Ipv4Addr, Claim>,
    by_service: BTreeMap<ObjectKey, Ipv4Addr>,
    refused: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Claim {
    service: ObjectKey,
    uid: String,
    /// Its status says so: it is not given up for another one.
    confirmed: bool,
}

/// What to do about a service's address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Give it this one.
    Assign(Ipv4Addr),
    /// It has its own.
    Keep,
    /// It can't have one now.
    Refuse { reason: &'static str, message: String },
}

impl Claims {
    /// Takes in a service as it is now, `None` when it is gone. Returns the services that may get an address because of that.
    pub(super) fn observe(&mut self, key: &ObjectKey, service: Option<&Service>) -> Vec<ObjectKey> {
        let claimed = self.by_service.get(key).and_then(|address| self.by_address.get(address));
        let uid = service.map(|service| service.meta().uid.as_str());
        let released = claimed.is_some_and(|claim| Some(claim.uid.as_str()) != uid);
        if released && let Some(address) = self.by_service.remove(key) {
            self.by_address.remove(&address);
        }
        match service {
            Some(service) => self.observe_address(key, service),
            None => drop(self.refused.remove(key)),
        }
        if released { std::mem::take(&mut self.refused).into_iter().collect() } else { Vec::new() }
    }

    /// An address that a service has in its spec is its own, unless its status says otherwise or another's status says that it is that one's.
    fn observe_address(&mut self, key: &ObjectKey, service: &Service) {
        let Some(Ok(address)) = requested(service) else { return };
        let ready = service.status.as_ref().and_then(|status| condition::get(&status.conditions, condition::READY));
        match ready.map(|ready| (ready.status(), ready.reason.as_str())) {
            Some((ConditionStatus::True, _)) => self.claim(address, key, service, true),
            // It got its address since, and its status is about to say so.
            Some((ConditionStatus::False, RANGE_FULL)) => self.claim(address, key, service, false),
            Some((ConditionStatus::False, _)) => false,
            _ => self.claim(address, key, service, false),
        };
    }

    /// Decides on a service, and claims what it is to have.
    pub(super) fn decide(&mut self, service: &Service, range: &Range) -> Decision {
        let key = service.key();
        let decision = match requested(service) {
            None => self.choose(&key, service, range),
            Some(Ok(address)) if !range.contains(address) => out_of_range(&address.to_string()),
            Some(Ok(address)) if self.claim(address, &key, service, false) => Decision::Keep,
            Some(Ok(address)) => {
                let owner = &self.by_address[&address].service;
                let message = format!("the address {address} belongs to service {}/{}", owner.namespace(), owner.name());
                Decision::Refuse { reason: ADDRESS_TAKEN, message }
            }
            Some(Err(text)) => out_of_range(&text),
        };
        match decision {
            Decision::Refuse { .. } => self.refused.insert(key),
            _ => self.refused.remove(&key),
        };
        decision
    }

    fn choose(&mut self, key: &ObjectKey, service: &Service, range: &Range) -> Decision {
        // An earlier attempt may have been written although it failed.
        let address =
            self.by_service.get(key).copied().or_else(|| range.starting_at(key).find(|address| !self.by_address.contains_key(address)));
        match address {
            Some(address) => {
                self.claim(address, key, service, false);
                Decision::Assign(address)
            }
            None => Decision::Refuse { reason: RANGE_FULL, message: "every address of the service range is taken".into() },
        }
    }

    /// True if the service has the address now.
    fn claim(&mut self, address: Ipv4Addr, key: &ObjectKey, service: &Service, confirmed: bool) -> bool {
        if let Some(claim) = self.by_address.get_mut(&address) {
            if claim.service == *key {
                claim.confirmed |= confirmed;
                return true;
            }
            if claim.confirmed || !confirmed {
                return false;
            }
            self.by_service.remove(&claim.service);
        }
        if let Some(other) = self.by_service.insert(key.clone(), address).filter(|other| *other != address) {
            self.by_address.remove(&other);
        }
        self.by_address.insert(address, Claim { service: key.clone(), uid: service.meta().uid.clone(), confirmed });
        true
    }
}

/// The address in a service's spec, if any; as text if it is none.
fn requested(service: &Service) -> Option<Result<Ipv4Addr, String>> {
    let text = service.spec.as_ref().map(|spec| spec.cluster_ip.as_str()).filter(|text| !text.is_empty())?;
    Some(text.parse().map_err(|_| text.to_owned()))
}

fn out_of_range(address: &str) -> Decision {
    let message = format!("the address {address} is not one that a service of this cluster can have");
    Decision::Refuse { reason: OUT_OF_RANGE, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;
    use crate::api::v1::{ObjectMeta, ServiceSpec, ServiceStatus};

    fn refused_for(reason: &str, name: &str, cluster_ip: &str) -> Service {
        let mut service = service(name, cluster_ip, Some(ConditionStatus::False));
        service.status.get_or_insert_default().conditions[0].reason = reason.into();
        service
    }

    fn service(name: &str, cluster_ip: &str, ready: Option<ConditionStatus>) -> Service {
        let mut status = ServiceStatus::default();
        if let Some(ready) = ready {
            condition::set(&mut status.conditions, condition::READY, ready, "", "", Default::default());
        }
        let metadata = ObjectMeta { name: name.into(), uid: format!("uid-{name}"), ..Default::default() };
        let spec = ServiceSpec { cluster_ip: cluster_ip.into(), ..Default::default() };
        Service { metadata: Some(metadata), spec: Some(spec), status: Some(status) }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::Service, "", name)
    }

    fn range(cidr: &str) -> Range {
        Range::parse(cidr).expect("a range")
    }

    fn refusal(decision: Decision) -> &'static str {
        match decision {
            Decision::Refuse { reason, .. } => reason,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn a_range_leaves_out_the_network_the_lock_and_the_broadcast_address() {
        let range = range("10.0.0.0/29");
        let mut all: Vec<_> = range.starting_at(&key("web")).map(|address| address.octets()[3]).collect();
        all.sort();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        let last_octet = |octet| range.contains(Ipv4Addr::new(10, 0, 0, octet));
        assert!(!last_octet(0) && !last_octet(1) && last_octet(2) && last_octet(6) && !last_octet(7));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for cidr in ["", "127.96.0.0", "127.96.0.0/31", "127.96.0.0/x", "127.96.0.1/12", "fd00::/64", "0.0.0.0/0"] {
            assert!(Range::parse(cidr).is_err(), "{cidr}");
        }
        Range::parse("127.96.0.0/12").expect("the default");
    }

    #[test]
    fn every_service_gets_another_address_until_the_range_is_full() {
        let (mut claims, range) = (Claims::default(), range("10.0.0.0/29"));
        let mut given = BTreeSet::new();
        for index in 0..5 {
            match claims.decide(&service(&format!("s{index}"), "", None), &range) {
                Decision::Assign(address) => assert!(given.insert(address), "{address} was given twice"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(refusal(claims.decide(&service("s5", "", None), &range)), "RangeFull");
    }

    #[test]
    fn a_service_whose_assignment_is_tried_again_gets_the_same_address() {
        let (mut claims, range) = (Claims::default(), range("10.0.0.0/24"));
        let first = claims.decide(&service("web", "", None), &range);
        // The cache still shows it without an address.
        claims.observe(&key("web"), Some(&service("web", "", None)));
        assert_eq!(claims.decide(&service("web", "", None), &range), first);
    }

    #[test]
    fn a_service_that_is_made_again_gets_its_old_address() {
        let (mut claims, range) = (Claims::default(), range("127.96.0.0/12"));
        let first = claims.decide(&service("web", "", None), &range);
        assert!(claims.observe(&key("web"), None).is_empty());
        assert!(claims.by_address.is_empty() && claims.by_service.is_empty());
        assert_eq!(claims.decide(&service("web", "", None), &range), first);
    }

    #[test]
    fn an_address_that_was_asked_for_must_be_free_and_of_the_range() {
        let (mut claims, range) = (Claims::default(), range("10.0.0.0/24"));
        assert_eq!(claims.decide(&service("a", "10.0.0.9", None), &range), Decision::Keep);
        assert_eq!(refusal(claims.decide(&service("b", "10.0.0.9", None), &range)), "AddressTaken");
        assert_eq!(refusal(claims.decide(&service("c", "10.0.0.1", None), &range)), "OutOfRange");
        assert_eq!(refusal(claims.decide(&service("d", "10.0.1.9", None), &range)), "OutOfRange");
        assert_eq!(refusal(claims.decide(&service("e", "ten", None), &range)), "OutOfRange");
    }

    #[test]
    fn whoever_was_refused_is_looked_at_again_when_an_address_is_released() {
        let (mut claims, range) = (Claims::default(), range("10.0.0.0/30"));
        assert_eq!(claims.decide(&service("a", "10.0.0.2", None), &range), Decision::Keep);
        assert_eq!(refusal(claims.decide(&service("b", "10.0.0.2", None), &range)), "AddressTaken");
        assert_eq!(refusal(claims.decide(&service("c", "", None), &range)), "RangeFull");
        assert_eq!(claims.observe(&key("a"), None), [key("b"), key("c")]);
        assert_eq!(claims.decide(&service("b", "10.0.0.2", Some(ConditionStatus::False)), &range), Decision::Keep);
    }

    #[test]
    fn after_a_restart_the_status_tells_whose_a_contested_address_is() {
        let (mut claims, range) = (Claims::default(), range("10.0.0.0/24"));
        let (loser, owner) = (service("a", "10.0.0.9", None), service("b", "10.0.0.9", Some(ConditionStatus::True)));
        claims.observe(&key("a"), Some(&loser));
        claims.observe(&key("b"), Some(&owner));
        assert_eq!(claims.decide(&owner, &range), Decision::Keep);
        assert_eq!(refusal(claims.decide(&loser, &range)), "AddressTaken");
    }

    #[test]
    fn after_a_restart_an_address_that_was_given_but_not_reported_yet_is_not_given_again() {
        let (mut claims, range) = (Claims::default(), range("10.0.0.0/30"));
        claims.observe(&key("a"), Some(&refused_for(RANGE_FULL, "a", "10.0.0.2")));
        claims.observe(&key("b"), Some(&refused_for(ADDRESS_TAKEN, "b", "10.0.0.2")));
        assert_eq!(refusal(claims.decide(&service("c", "", None), &range)), RANGE_FULL);
        assert_eq!(claims.decide(&refused_for(RANGE_FULL, "a", "10.0.0.2"), &range), Decision::Keep);
    }

    #[test]
    fn another_service_of_the_same_name_does_not_inherit_the_claim() {
        let (mut claims, range) = (Claims::default(), range("10.0.0.0/30"));
        assert_eq!(claims.decide(&service("a", "10.0.0.2", None), &range), Decision::Keep);
        let mut again = service("a", "", None);
        again.meta_mut().uid = "another".into();
        claims.observe(&key("a"), Some(&again));
        assert_eq!(claims.decide(&service("b", "10.0.0.2", None), &range), Decision::Keep);
    }
}
