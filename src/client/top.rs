//! What is used, put together from the answers of several apiservers. Everything here is a function of the answers.

use std::collections::HashMap;

use crate::api::v1::{TopMissing, TopNode, TopPod, TopResponse};

/// Whether some figures are with another apiserver.
pub(super) fn is_elsewhere(response: &TopResponse) -> bool {
    let missing = response.nodes.iter().map(|node| &node.missing).chain(response.pods.iter().map(|pod| &pod.missing));
    missing.into_iter().flatten().any(|missing| !missing.apiserver.is_empty())
}

/// Takes from another apiserver's answer what is missing in the first.
pub(super) fn complete(response: &mut TopResponse, more: TopResponse) {
    let is_wanted = |missing: &Option<TopMissing>| missing.as_ref().is_some_and(|missing| !missing.apiserver.is_empty());
    for node in response.nodes.iter_mut().filter(|node| is_wanted(&node.missing)) {
        let is_it = |other: &&TopNode| other.name == node.name && !is_wanted(&other.missing);
        if let Some(found) = more.nodes.iter().find(is_it) {
            *node = found.clone();
        }
    }
    let key = |pod: &TopPod| (pod.namespace.clone(), pod.name.clone());
    let mut others: HashMap<_, _> = more.pods.into_iter().filter(|pod| !is_wanted(&pod.missing)).map(|pod| (key(&pod), pod)).collect();
    for pod in response.pods.iter_mut().filter(|pod| is_wanted(&pod.missing)) {
        if let Some(found) = others.remove(&key(pod)) {
            *pod = found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{NodeUsage, PodUsage};

    fn elsewhere() -> Option<TopMissing> {
        Some(TopMissing { message: "with b".into(), apiserver: "b".into() })
    }

    #[test]
    fn what_one_apiserver_lacks_is_taken_from_the_other_and_nothing_else() {
        let node = |name: &str, cpu_millis, missing| {
            let usage = NodeUsage { cpu_millis, ..Default::default() };
            TopNode { name: name.into(), usage: cpu_millis.map(|_| usage), missing, ..Default::default() }
        };
        let pod = |name: &str, disk_bytes: Option<u64>, missing| TopPod {
            namespace: "default".into(),
            name: name.into(),
            usage: disk_bytes.map(|_| PodUsage { disk_bytes, ..Default::default() }),
            missing,
            ..Default::default()
        };
        let silent = Some(TopMissing { message: "not connected".into(), ..Default::default() });
        let mut all = TopResponse {
            nodes: vec![
                node("a", Some(1), None),
                node("b", None, elsewhere()),
                node("c", None, elsewhere()),
                node("d", None, silent.clone()),
            ],
            pods: vec![pod("x", Some(1), None), pod("y", None, elsewhere()), pod("z", None, elsewhere())],
        };
        assert!(is_elsewhere(&all));
        let more = TopResponse {
            nodes: vec![node("a", None, elsewhere()), node("b", Some(2), None), node("c", None, silent.clone()), node("d", Some(9), None)],
            pods: vec![pod("x", None, elsewhere()), pod("y", Some(2), None)],
        };
        complete(&mut all, more);
        let nodes = vec![node("a", Some(1), None), node("b", Some(2), None), node("c", None, silent.clone()), node("d", None, silent)];
        let pods = vec![pod("x", Some(1), None), pod("y", Some(2), None), pod("z", None, elsewhere())];
        assert_eq!(all, TopResponse { nodes, pods });
        assert!(is_elsewhere(&all));
    }
}
