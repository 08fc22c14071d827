//! What a pod needs of its node, and what becomes of one that a node lacks something for.

use bluebird::api::v1::container_state::State;
use bluebird::api::v1::{ConditionStatus, Container, Node, Pod, PodPhase, PodSpec, ResourceRequirements, RestartPolicy};
use bluebird::api::{capability, condition};

use crate::init::{pid_of, quickly};
use crate::machine::{FOREVER, Machine, phase, script, state, waits_for};
use crate::processes::eventually;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_working_folder_is_missing_says_so_and_starts_when_it_is_there_while_its_neighbour_goes_on() {
    let machine = Machine::new().await;
    let home = machine.folder.path().join("home");
    let main = script("main", "echo here > proof; exec sleep 1000");
    let main = quickly(Container { working_dir: home.display().to_string(), ..main });
    machine.create("homeless", RestartPolicy::Always, vec![main, script("side", FOREVER)]).await;
    let says = |pod: &Pod, why: &str| {
        let text = format!("the working folder {} {why}", home.display());
        matches!(state(pod), Some(State::Waiting(waiting)) if waiting.reason == "StartError" && waiting.message == text)
    };
    let is_homeless = |pod: &Pod| says(pod, "does not exist") && pid_of(pod, "side").is_some();
    let first = machine.until("homeless", "without a folder", is_homeless).await;
    std::fs::write(&home, "").unwrap();
    machine.until("homeless", "in a file", |pod| says(pod, "is not a folder")).await;
    std::fs::remove_file(&home).unwrap();
    std::fs::create_dir(&home).unwrap();
    let (pod, _) = machine.running("homeless").await;
    eventually("what it wrote there", || (std::fs::read_to_string(home.join("proof")).ok()? == "here\n").then_some(())).await;
    assert_eq!(pid_of(&pod, "side"), pid_of(&first, "side"));
    machine.finish().await;
}
