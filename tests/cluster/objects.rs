//! The objects that the tests make, and what they look for in them.

use std::collections::HashMap;

use bluebird::api::Resource;
use bluebird::api::v1::{
    Condition, Container, ContainerPort, ContainerStatus, Node, Pod, PodPhase, PodSpec, RestartPolicy, Service, ServicePort, ServiceSpec,
    container_state,
};

/// A pod of one container that runs a shell script, in which `$` has no meaning to the kubelet.
pub(crate) fn pod(name: &str, script: &str) -> Pod {
    let command = ["/bin/sh", "-c", &script.replace('$', "$$")].map(str::to_owned).to_vec();
    let container = Container { name: "main".into(), command, ..Default::default() };
    let mut pod = Pod { spec: Some(PodSpec { containers: vec![container], ..Default::default() }), ..Default::default() };
    pod.meta_mut().name = name.into();
    pod
}

/// A pod that answers HTTP with what it is, behind the label `app`.
pub(crate) fn web(name: &str, app: &str) -> Pod {
    let mut pod = pod(name, "");
    let container = &mut spec_mut(&mut pod).containers[0];
    container.command = [env!("CARGO_BIN_EXE_bluebird"), "echo", "--name", name, "--port", "$(PORT)"].map(str::to_owned).to_vec();
    container.ports = vec![ContainerPort { name: "http".into(), ..Default::default() }];
    pod.meta_mut().labels = labels(app);
    pod
}

/// A service for the pods of an app.
pub(crate) fn service(name: &str, app: &str) -> Service {
    let ports = vec![ServicePort { port: 80, target_port: "http".into(), ..Default::default() }];
    let mut service = Service { spec: Some(ServiceSpec { selector: labels(app), ports, ..Default::default() }), ..Default::default() };
    service.meta_mut().name = name.into();
    service
}

fn labels(app: &str) -> HashMap<String, String> {
    HashMap::from([("app".to_owned(), app.to_owned())])
}

/// Changes to a pod, one after the other.
pub(crate) trait PodExt {
    /// When it is started again.
    fn restart(self, policy: RestartPolicy) -> Self;
    /// How long it gets to stop, in seconds.
    fn grace(self, seconds: i64) -> Self;
    /// On which node it runs.
    fn on(self, node: &str) -> Self;
    /// In which namespace it is.
    fn in_namespace(self, namespace: &str) -> Self;
    /// The label that its node must have.
    fn where_label(self, key: &str, value: &str) -> Self;
}

impl PodExt for Pod {
    fn restart(mut self, policy: RestartPolicy) -> Self {
        spec_mut(&mut self).set_restart_policy(policy);
        self
    }

    fn grace(mut self, seconds: i64) -> Self {
        spec_mut(&mut self).termination_grace_period_seconds = Some(seconds);
        self
    }

    fn on(mut self, node: &str) -> Self {
        spec_mut(&mut self).node_name = node.into();
        self
    }

    fn in_namespace(mut self, namespace: &str) -> Self {
        self.meta_mut().namespace = namespace.into();
        self
    }

    fn where_label(mut self, key: &str, value: &str) -> Self {
        spec_mut(&mut self).node_selector.insert(key.into(), value.into());
        self
    }
}

fn spec_mut(pod: &mut Pod) -> &mut PodSpec {
    pod.spec.as_mut().expect("a pod has a spec")
}

pub(crate) fn phase(pod: &Pod) -> PodPhase {
    pod.status.as_ref().map_or(PodPhase::Unspecified, |status| status.phase())
}

pub(crate) fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.first()
}

/// The process of a pod's container, while it runs.
pub(crate) fn pid(pod: &Pod) -> Option<i32> {
    match container(pod)?.state.as_ref()?.state.as_ref()? {
        container_state::State::Running(running) => i32::try_from(running.pid).ok(),
        _ => None,
    }
}

pub(crate) fn condition<'a>(conditions: &'a [Condition], r#type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == r#type)
}

pub(crate) fn pod_condition<'a>(pod: &'a Pod, r#type: &str) -> Option<&'a Condition> {
    condition(&pod.status.as_ref()?.conditions, r#type)
}

pub(crate) fn node_condition<'a>(node: &'a Node, r#type: &str) -> Option<&'a Condition> {
    condition(&node.status.as_ref()?.conditions, r#type)
}
