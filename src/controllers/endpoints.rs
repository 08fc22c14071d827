//! Writes the endpoint slice of every service that selects pods: the pods that are ready and not being deleted, and where their ports are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::Context;
use crate::api::v1::{
    AssignedPort, ContainerPort, Endpoint, EndpointPort, EndpointSlice, EndpointSliceSpec, ObjectMeta, OwnerReference, Pod, PodPhase,
    Protocol, Service, ServicePort,
};
use crate::api::{Kind, LabelView, ObjectKey, Resource, Revision, condition};
use crate::client::{Cached, DeleteOptions};
use crate::error::{Error, Result};
use crate::reconcile::{Outcome, Reconciler};

/// The most endpoints of a slice; further ready pods get no connections.
const MAX_ENDPOINTS: usize = 1_000;

/// Keeps endpoint slices; a key is a service, whether it exists or not.
pub(super) struct Endpoints {
    context: Context,
    members: Mutex<Members>,
}

impl Endpoints {
    pub(super) fn new(context: Context) -> Self {
        Self { context, members: Mutex::default() }
    }

    /// What the slice should hold. Reading the cache and remembering whose pods they are is one step for [`Reconciler::affected`], so that
    /// a pod that leaves right now is either not read or known to be a member.
    fn observe(&self, key: &ObjectKey, service: Option<&Service>) -> EndpointSliceSpec {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = service.map_or_else(Vec::new, |service| self.context.cache.select::<Pod>(key.namespace(), |pod| selects(service, pod)));
        let spec = service.map_or_else(EndpointSliceSpec::default, |service| slice_spec(service, pods.iter().map(|pod| &**pod)));
        let pods = spec.endpoints.iter().map(|endpoint| ObjectKey::new(Kind::Pod, key.namespace(), &endpoint.pod_name));
        members.set(key, pods.collect());
        spec
    }

    async fn write(&self, key: &ObjectKey, service: &Service, spec: EndpointSliceSpec) -> Result<()> {
        let owner = OwnerReference {
            kind: Kind::Service.to_string(),
            name: key.name().to_owned(),
            uid: service.meta().uid.clone(),
            controller: true,
        };
        let Context { client, cache, .. } = &self.context;
        let written = match cache.get::<EndpointSlice>(key.namespace(), key.name()) {
            Some(slice) if slice.spec.as_ref() == Some(&spec) && slice.meta().owner_references == [owner.clone()] => return Ok(()),
            Some(slice) => {
                let metadata = ObjectMeta { owner_references: vec![owner], ..slice.meta().clone() };
                client.update(EndpointSlice { metadata: Some(metadata), spec: Some(spec) }).await?
            }
            None => {
                let metadata = ObjectMeta {
                    name: key.name().to_owned(),
                    namespace: key.namespace().to_owned(),
                    owner_references: vec![owner],
                    ..Default::default()
                };
                match client.create(EndpointSlice { metadata: Some(metadata), spec: Some(spec) }).await {
                    // The namespace is gone or going, and the service with it.
                    Err(Error::Precondition(_) | Error::NotFound(_)) => return Ok(()),
                    answer => answer?,
                }
            }
        };
        self.context.seen(written.meta().resource_version).await;
        Ok(())
    }

    /// Removes the slice of a service that is gone, unless somebody else made it.
    async fn remove(&self, key: &ObjectKey) -> Result<()> {
        let Some(slice) = self.context.cache.get::<EndpointSlice>(key.namespace(), key.name()) else { return Ok(()) };
        if !slice.meta().owner_references.iter().any(|owner| owner.controller && owner.kind == Kind::Service.as_str()) {
            return Ok(());
        }
        // At this version: whoever has changed it meanwhile knew better.
        let (uid, version) = (slice.meta().uid.clone(), Revision(slice.meta().resource_version));
        let options = DeleteOptions { uid: Some(uid), resource_version: Some(version), ..Default::default() };
        match self.context.client.delete_object(&slice.key(), options).await {
            Ok(_) | Err(Error::NotFound(_) | Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Reconciler for Endpoints {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoints";

    fn affected(&self, changed: &ObjectKey) -> Vec<ObjectKey> {
        let (namespace, name) = (changed.namespace(), changed.name());
        match changed.kind() {
            Kind::Service | Kind::EndpointSlice => vec![ObjectKey::new(Kind::Service, namespace, name)],
            Kind::Pod => {
                let mut affected = self.members.lock().unwrap_or_else(PoisonError::into_inner).services_of(changed);
                if let Some(pod) = self.context.cache.get::<Pod>(namespace, name) {
                    let services = self.context.cache.list_in::<Service>(namespace);
                    affected.extend(services.iter().filter(|service| selects(service, &pod.meta().labels)).map(|service| service.key()));
                }
                affected.into_iter().collect()
            }
            Kind::Node | Kind::Namespace | Kind::Event | Kind::Lease | Kind::ConfigMap | Kind::Secret => Vec::new(),
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome> {
        let service: Option<Cached<Service>> = self.context.cache.get(key.namespace(), key.name());
        let spec = self.observe(&key, service.as_deref());
        match service {
            Some(service) if has_selector(&service) => self.write(&key, &service, spec).await?,
            // A slice that somebody else wrote stays.
            _ => self.remove(&key).await?,
        }
        Ok(Outcome::Done)
    }
}

/// Which pods are in which service's slice, both ways.
#[derive(Default)]
struct Members {
    pods: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Members {
    fn set(&mut self, service: &ObjectKey, pods: BTreeSet<ObjectKey>) {
        let before = match pods.is_empty() {
            true => self.pods.remove(service).unwrap_or_default(),
            false => self.pods.insert(service.clone(), pods.clone()).unwrap_or_default(),
        };
        for gone in before.difference(&pods) {
            if let Some(services) = self.services.get_mut(gone) {
                services.remove(service);
                if services.is_empty() {
                    self.services.remove(gone);
                }
            }
        }
        for new in pods.difference(&before) {
            self.services.entry(new.clone()).or_default().insert(service.clone());
        }
    }

    fn services_of(&self, pod: &ObjectKey) -> BTreeSet<ObjectKey> {
        self.services.get(pod).cloned().unwrap_or_default()
    }
}

/// The endpoints of a service among the pods of its namespace, which come in the order of their names.
fn slice_spec<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod>) -> EndpointSliceSpec {
    let ports = service.spec.as_ref().map_or(&[][..], |spec| &spec.ports);
    let ready = pods.filter(|pod| selects(service, &pod.meta().labels) && takes_connections(pod));
    EndpointSliceSpec { endpoints: ready.take(MAX_ENDPOINTS).map(|pod| endpoint(pod, ports)).collect() }
}

fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| !spec.selector.is_empty())
}

fn selects(service: &Service, pod: &dyn LabelView) -> bool {
    let Some(spec) = &service.spec else { return false };
    !spec.selector.is_empty() && spec.selector.iter().all(|(key, value)| pod.label(key) == Some(value))
}

fn takes_connections(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ended = matches!(status.phase(), PodPhase::Succeeded | PodPhase::Failed);
    let ready = condition::is_true(&status.conditions, condition::READY);
    pod.meta().deletion_time.is_none() && ready && !ended && !status.host_ip.is_empty()
}

fn endpoint(pod: &Pod, ports: &[ServicePort]) -> Endpoint {
    let status = pod.status.clone().unwrap_or_default();
    let pod_ports = pod_ports(pod, &status.ports);
    let ports = ports.iter().filter_map(|port| {
        let target = target(port, &pod_ports)?;
        Some(EndpointPort { name: port.name.clone(), port: target.port, protocol: or_tcp(port.protocol()).into() })
    });
    Endpoint {
        address: status.host_ip,
        ports: ports.collect(),
        pod_name: pod.meta().name.clone(),
        pod_uid: pod.meta().uid.clone(),
        node_name: pod.spec.as_ref().map(|spec| spec.node_name.clone()).unwrap_or_default(),
    }
}

/// A port as declared, and as it really is.
type PodPort<'a> = (&'a ContainerPort, &'a AssignedPort);

fn pod_ports<'a>(pod: &'a Pod, assigned: &'a [AssignedPort]) -> Vec<PodPort<'a>> {
    let containers = pod.spec.iter().flat_map(|spec| spec.all_containers());
    let declared = containers.flat_map(|container| container.ports.iter().map(move |port| (container, port)));
    let real = declared.filter_map(|(container, port)| {
        let real = assigned.iter().find(|real| real.container == container.name && real.name == port.name)?;
        Some((port, real))
    });
    real.collect()
}

/// Where a service's port leads on a pod, see `ServicePort.target_port`.
fn target<'a>(port: &ServicePort, pod_ports: &[PodPort<'a>]) -> Option<&'a AssignedPort> {
    let candidates: Vec<_> =
        pod_ports.iter().filter(|(declared, _)| or_tcp(declared.protocol()) == or_tcp(port.protocol())).copied().collect();
    let named = |name: &str| candidates.iter().find(|(declared, _)| !name.is_empty() && declared.name == name).copied();
    let numbered = |number: u32| candidates.iter().find(|(declared, _)| number != 0 && declared.container_port == number).copied();
    let only = || <[PodPort<'a>; 1]>::try_from(candidates.clone()).ok().map(|[only]| only);
    let (_, assigned) = match port.target_port.as_str() {
        "" => named(&port.name).or_else(|| numbered(port.port)).or_else(only),
        target => match target.parse() {
            Ok(number) => numbered(number),
            Err(_) => named(target),
        },
    }?;
    Some(assigned)
}

fn or_tcp(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Unspecified => Protocol::Tcp,
        protocol => protocol,
    }
}

#[cfg(test)]
mod tests;
