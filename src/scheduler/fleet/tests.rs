use proptest::prelude::*;

use super::*;
use crate::api::Kind;
use crate::api::v1::{Container, ContainerPort, ObjectMeta, PodPhase, PodSpec, PodStatus, ResourceRequirements};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::Pod, "", name)
}

fn pod(name: &str, node_name: &str) -> Pod {
    let resources = ResourceRequirements { requests: [("cpu".into(), "500m".into())].into(), ..Default::default() };
    let container = Container {
        ports: vec![ContainerPort { container_port: 80, ..Default::default() }],
        resources: Some(resources),
        ..Default::default()
    };
    let spec = PodSpec { containers: vec![container], node_name: node_name.into(), ..Default::default() };
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let metadata = ObjectMeta { name: name.into(), uid: format!("uid-{name}"), labels, ..Default::default() };
    Pod { metadata: Some(metadata), spec: Some(spec), status: None }
}

fn ended(mut pod: Pod) -> Pod {
    pod.status = Some(PodStatus { phase: PodPhase::Succeeded.into(), ..Default::default() });
    pod
}

fn pods_on(fleet: &Fleet, node_name: &str) -> u64 {
    fleet.nodes.get(node_name).map_or(0, |node| node.usage.pods)
}

#[test]
fn an_assumed_pod_counts_before_the_cache_shows_it_and_once_after() {
    let (mut fleet, web) = (Fleet::default(), pod("web", ""));
    fleet.assume(&key("web"), "uid-web", "n1", Needs::of(&web));
    assert_eq!(fleet.standing(&key("web"), "uid-web"), Standing::Assumed("n1".into()));
    // An older change arrives.
    fleet.observe_pod(&key("web"), Some(&web));
    assert_eq!(pods_on(&fleet, "n1"), 1);
    fleet.confirm(&key("web"));
    assert_eq!(fleet.standing(&key("web"), "uid-web"), Standing::Bound);
    fleet.observe_pod(&key("web"), Some(&pod("web", "n1")));
    assert_eq!(pods_on(&fleet, "n1"), 1);
}

#[test]
fn a_refused_decision_makes_room_for_others() {
    let mut fleet = Fleet::default();
    fleet.assume(&key("web"), "uid-web", "n1", Needs::of(&pod("web", "")));
    fleet.park(&key("waiting"));
    fleet.forget(&key("web"));
    assert_eq!(fleet.standing(&key("web"), "uid-web"), Standing::Free);
    assert_eq!(fleet.observe_pod(&key("web"), None), [key("waiting")]);
    assert!(fleet.nodes.is_empty() && fleet.needs.is_empty());
}

#[test]
fn a_pod_that_ends_or_goes_wakes_those_that_wait_for_room() {
    let mut fleet = Fleet::default();
    fleet.observe_pod(&key("a"), Some(&pod("a", "n1")));
    fleet.observe_pod(&key("b"), Some(&pod("b", "n1")));
    fleet.park(&key("waiting"));
    assert_eq!(fleet.observe_pod(&key("a"), Some(&ended(pod("a", "n1")))), [key("waiting")]);
    fleet.park(&key("waiting"));
    assert_eq!(fleet.observe_pod(&key("a"), None), [], "it took nothing any more");
    assert_eq!(fleet.observe_pod(&key("b"), None), [key("waiting")]);
}

#[test]
fn another_pod_of_the_same_name_takes_the_place_of_the_old_one() {
    let mut fleet = Fleet::default();
    fleet.observe_pod(&key("web"), Some(&pod("web", "n1")));
    let mut again = pod("web", "");
    again.meta_mut().uid = "another".into();
    fleet.observe_pod(&key("web"), Some(&again));
    assert_eq!(fleet.standing(&key("web"), "another"), Standing::Free);
    assert!(fleet.nodes.is_empty());
}

#[test]
fn what_pods_take_is_known_before_and_after_their_node_is() {
    let mut fleet = Fleet::default();
    fleet.observe_pod(&key("web"), Some(&pod("web", "n1")));
    assert_eq!(fleet.nodes().count(), 0);
    fleet.observe_node("n1", Some(&Node::default()));
    assert_eq!(fleet.nodes().map(|(_, node)| node.usage.pods).collect::<Vec<_>>(), [1]);
    fleet.observe_node("n1", None);
    assert_eq!((fleet.nodes().count(), pods_on(&fleet, "n1")), (0, 1));
}

proptest! {
    #[test]
    fn the_sums_are_those_of_a_fresh_count(happenings in prop::collection::vec((0..7u8, 0..5u8, 0..3u8), 0..120)) {
        let mut fleet = Fleet::default();
        let mut shown: BTreeMap<String, Pod> = BTreeMap::new();
        for (happening, name, node) in happenings {
            let (name, node) = (format!("p{name}"), format!("n{node}"));
            match happening {
                0 | 1 => drop(shown.insert(name.clone(), pod(&name, &node))),
                2 => drop(shown.insert(name.clone(), ended(pod(&name, &node)))),
                3 => drop(shown.remove(&name)),
                4 => if !shown.contains_key(&name) {
                    fleet.assume(&key(&name), &format!("uid-{name}"), &node, Needs::of(&pod(&name, "")));
                    fleet.forget(&key(&name));
                }
                5 => drop(fleet.observe_node(&node, Some(&Node::default()))),
                _ => drop(fleet.observe_node(&node, None)),
            }
            fleet.observe_pod(&key(&name), shown.get(&name));
        }
        let mut fresh = Fleet::default();
        for (name, pod) in &shown {
            fresh.observe_pod(&key(name), Some(pod));
        }
        let usage = |fleet: &Fleet| -> Vec<_> {
            let used = fleet.nodes.iter().filter(|(_, node)| node.usage.pods > 0);
            used.map(|(name, node)| format!("{name} {} {} {:?} {:?}", node.usage.pods, node.usage.cpu_millis, node.usage.ports, node.usage.groups)).collect()
        };
        prop_assert_eq!(usage(&fleet), usage(&fresh));
        prop_assert!(fleet.nodes.values().all(|node| node.known || node.usage.pods > 0));
        prop_assert_eq!(&fleet.needs, &fresh.needs);
    }
}
