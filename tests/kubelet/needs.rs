//! What a pod needs of its node, and what becomes of one that a node lacks something for.

use bluebird::api::v1::{ConditionStatus, Container, Node, PodPhase, PodSpec, ResourceRequirements};
use bluebird::api::{capability, condition};

use crate::machine::{FOREVER, Machine, phase, script, waits_for};

fn limited(limits: &[(&str, &str)]) -> Container {
    let limits = limits.iter().map(|(resource, amount)| ((*resource).to_owned(), (*amount).to_owned())).collect();
    let resources = Some(ResourceRequirements { limits, ..ResourceRequirements::default() });
    Container { resources, ..script("main", FOREVER) }
}

/// What the node says that it can do.
async fn capabilities(machine: &Machine) -> Vec<String> {
    machine.client.get::<Node>("", "n1").await.unwrap().status.unwrap().capabilities
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_with_limits_that_its_node_enforces_and_otherwise_says_what_is_missing() {
    let machine = Machine::new().await;
    let spec = PodSpec { containers: vec![limited(&[("pids", "1000")])], ..PodSpec::default() };
    machine.create_spec("limited", spec).await;
    let settled = |pod: &_| phase(pod) == PodPhase::Running || waits_for(pod, "MissingCapability");
    let pod = machine.until("limited", "settled", settled).await;
    let can = capabilities(&machine).await.iter().any(|capability| capability == capability::PIDS_LIMITS);
    let status = pod.status.unwrap();
    let expected = match can {
        true => (PodPhase::Running, ""),
        false => (PodPhase::Pending, "container main needs the capability pids-limits, which this node lacks"),
    };
    assert_eq!((status.phase(), status.message.as_str()), expected);
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_takes_limits_as_best_effort_runs_anywhere_and_says_which_are_not_enforced() {
    let machine = Machine::new().await;
    let containers = vec![limited(&[("cpu", "2"), ("memory", "256Mi"), ("pids", "1000")])];
    machine.create_spec("limited", PodSpec { containers, best_effort_limits: true, ..PodSpec::default() }).await;
    let (pod, _) = machine.running("limited").await;
    let spec = pod.spec.unwrap();
    let unenforced = capability::unenforced_limits(&spec, &capabilities(&machine).await);
    let told = condition::get(&pod.status.as_ref().unwrap().conditions, condition::LIMITS_ENFORCED).unwrap();
    let expected = if unenforced.is_empty() { ConditionStatus::True } else { ConditionStatus::False };
    assert_eq!(told.status(), expected);
    assert!(unenforced.iter().all(|limit| told.message.contains(limit)), "{unenforced:?}: {}", told.message);
    machine.finish().await;
}
