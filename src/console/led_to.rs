//! Which pods the services of a manifest lead to. Everything here is a function of what a cache holds.

use crate::api::v1::{Endpoint, EndpointSlice, Pod, PodPhase, Service};
use crate::api::{ObjectKey, Resource as _, Revision, condition};
use crate::client::Cache;

/// The revision as of which each of the services lists each of the pods that it selects and that is ready, as it is now; `None` if one is missing.
pub(super) fn listed_at(cache: &Cache, services: &[ObjectKey], pods: &[ObjectKey]) -> Option<Revision> {
    let at = services.iter().map(|key| {
        let service = cache.get::<Service>(key.namespace(), key.name())?;
        let slice = cache.get::<EndpointSlice>(key.namespace(), key.name());
        let here = pods.iter().filter(|pod| pod.namespace() == key.namespace());
        let known: Vec<_> = here.filter_map(|pod| cache.get::<Pod>(pod.namespace(), pod.name())).collect();
        lists_all(&service, slice.as_deref(), known.iter().map(|pod| &**pod))
    });
    at.collect::<Option<Vec<Revision>>>().map(|revisions| revisions.into_iter().max().unwrap_or_default())
}

fn lists_all<'a>(service: &Service, slice: Option<&EndpointSlice>, mut pods: impl Iterator<Item = &'a Pod>) -> Option<Revision> {
    let endpoints = slice.and_then(|slice| slice.spec.as_ref()).map_or(&[][..], |spec| &spec.endpoints);
    let is_listed = |pod: &Pod| endpoints.iter().any(|endpoint| is_of(endpoint, pod));
    pods.all(|pod| !takes_connections(service, pod) || is_listed(pod))
        .then(|| slice.map_or(Revision::ZERO, |slice| Revision(slice.meta().resource_version)))
}

fn takes_connections(service: &Service, pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&service.spec, &pod.status) else { return false };
    let is_selected = !spec.selector.is_empty() && spec.selector.iter().all(|(key, value)| pod.meta().labels.get(key) == Some(value));
    is_selected && status.phase() == PodPhase::Running && condition::is_true(&status.conditions, condition::READY)
}

/// Whether it is the pod's as it is now: an earlier start of it may have had other ports.
fn is_of(endpoint: &Endpoint, pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let has = |number: u32| status.ports.iter().any(|port| port.port == number);
    endpoint.pod_uid == pod.meta().uid && endpoint.address == status.host_ip && endpoint.ports.iter().all(|port| has(port.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::*;

    fn service() -> Service {
        let selector = [("app".to_owned(), "web".to_owned())].into();
        Service { spec: Some(ServiceSpec { selector, ..Default::default() }), ..Default::default() }
    }

    fn pod(uid: &str, app: &str, is_ready: bool) -> Pod {
        let labels = [("app".to_owned(), app.to_owned())].into();
        let status = if is_ready { ConditionStatus::True } else { ConditionStatus::False };
        let ready = Condition { r#type: condition::READY.to_owned(), status: status.into(), ..Default::default() };
        let ports = vec![AssignedPort { port: 20001, ..Default::default() }];
        let status = PodStatus {
            phase: PodPhase::Running.into(),
            conditions: vec![ready],
            host_ip: "127.0.0.1".into(),
            ports,
            ..Default::default()
        };
        Pod { metadata: Some(ObjectMeta { uid: uid.into(), labels, ..Default::default() }), spec: None, status: Some(status) }
    }

    fn slice(endpoints: &[(&str, u32)]) -> EndpointSlice {
        let endpoint = |(uid, port): &(&str, u32)| Endpoint {
            address: "127.0.0.1".into(),
            pod_uid: (*uid).to_owned(),
            ports: vec![EndpointPort { port: *port, ..Default::default() }],
            ..Default::default()
        };
        let spec = EndpointSliceSpec { endpoints: endpoints.iter().map(endpoint).collect() };
        EndpointSlice { metadata: Some(ObjectMeta { resource_version: 7, ..Default::default() }), spec: Some(spec) }
    }

    #[test]
    fn every_ready_pod_that_is_selected_has_to_be_listed_as_it_is_now() {
        let pods = [pod("a", "web", true), pod("b", "web", true), pod("c", "web", false), pod("d", "other", true)];
        let at = |slice: Option<EndpointSlice>| lists_all(&service(), slice.as_ref(), pods.iter());
        assert_eq!(at(None), None);
        assert_eq!(at(Some(slice(&[("a", 20001)]))), None, "one is missing");
        assert_eq!(at(Some(slice(&[("a", 20001), ("b", 20009)]))), None, "that port was its last start's");
        assert_eq!(at(Some(slice(&[("a", 20001), ("b", 20001)]))), Some(Revision(7)));
        assert_eq!(lists_all(&Service::default(), None, pods.iter()), Some(Revision::ZERO), "it selects none");
    }
}
