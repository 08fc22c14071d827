//! What several managers make of one object, step by step, and for any steps.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::api::manifest;
use crate::api::v1::object::Kind;
use crate::apiserver::writes::{self, Change};

/// An object to which one after the other does something.
#[derive(Default)]
struct World {
    object: Option<Object>,
    seconds: i64,
}

impl World {
    fn apply(&mut self, manager: &str, given: &str) -> Result<&'static str> {
        self.apply_object(manager, object(given), false)
    }

    fn force(&mut self, manager: &str, given: &str) -> Result<&'static str> {
        self.apply_object(manager, object(given), true)
    }

    fn apply_object(&mut self, manager: &str, given: Object, force: bool) -> Result<&'static str> {
        self.seconds += 1;
        let by = Applier { manager: manager.into(), force, now: Timestamp { seconds: self.seconds, nanos: 0 } };
        let (object, outcome) = match &self.object {
            None => (writes::apply_new(given, &by, "uid".into())?, "created"),
            Some(old) => match writes::apply(old, given, &by)? {
                Change::Nothing => return Ok("unchanged"),
                Change::Put(object) => (object, "configured"),
                Change::Remove => panic!("an apply removes nothing"),
            },
        };
        self.object = Some(object);
        Ok(outcome)
    }

    fn update(&mut self, change: impl FnOnce(&mut Object)) {
        let old = self.object.clone().expect("an object");
        let mut new = old.clone();
        change(&mut new);
        if let Change::Put(object) = writes::update(&old, new).expect("a right update") {
            self.object = Some(object);
        }
    }

    #[track_caller]
    fn check(&self, expected: &str) {
        let mut expected = object(expected);
        default_object(&mut expected);
        let stored = self.object.clone().expect("an object");
        assert_eq!(manifest::to_yaml(&plain(stored)), manifest::to_yaml(&plain(expected)));
    }

    /// Who owns what.
    fn owners(&self) -> Vec<String> {
        let meta = self.object.as_ref().expect("an object").meta();
        meta.managed_fields.iter().map(|entry| format!("{}: {}", entry.manager, entry.fields)).collect()
    }
}

/// What a manifest would say of an object: labels, annotations and spec.
fn plain(mut object: Object) -> Object {
    match &mut object.kind {
        Some(Kind::Service(service)) => service.status = None,
        Some(Kind::Pod(pod)) => pod.status = None,
        other => panic!("{other:?}"),
    }
    let meta = object.meta_mut().expect("a kind");
    let (labels, annotations) = (std::mem::take(&mut meta.labels), std::mem::take(&mut meta.annotations));
    *meta = ObjectMeta { name: meta.name.clone(), namespace: meta.namespace.clone(), labels, annotations, ..Default::default() };
    object
}

/// A service or, with containers, a pod.
fn object(fields: &str) -> Object {
    let kind = if fields.contains("containers") { "Pod" } else { "Service" };
    let mut object = manifest::parse(&format!("apiVersion: v1\nkind: {kind}\n{fields}\n"), "test").expect("a manifest").remove(0);
    object.meta_mut().expect("a kind").name = "web".into();
    object
}

#[track_caller]
fn conflicts(outcome: Result<&'static str>) -> Vec<String> {
    match outcome {
        Err(Error::ApplyConflict(conflicts)) => conflicts.iter().map(|found| format!("{} of {}", found.path, found.manager)).collect(),
        other => panic!("no conflict but {other:?}"),
    }
}

const HTTP: &str = "spec: {ports: [{name: http, port: 80}]}";

#[test]
fn what_a_manager_gives_no_more_goes_and_what_it_never_gave_stays() {
    let mut world = World::default();
    world.apply("ann", &format!("metadata: {{labels: {{a: x, b: x}}}}\n{HTTP}")).unwrap();
    world.update(|object| drop(object.meta_mut().expect("a kind").labels.insert("by-hand".into(), "x".into())));
    assert_eq!(world.apply("ann", &format!("metadata: {{labels: {{b: y}}}}\n{HTTP}")), Ok("configured"));
    world.check(&format!("metadata: {{labels: {{b: y, by-hand: x}}}}\n{HTTP}"));
    assert_eq!(world.owners(), ["ann: metadata(labels([b])),spec(ports([http](port)))"]);
    assert_eq!(world.apply("ann", &format!("metadata: {{labels: {{b: y}}}}\n{HTTP}")), Ok("unchanged"));
}

#[test]
fn each_manager_keeps_what_the_other_does_not_give() {
    let mut world = World::default();
    world.apply("ann", &format!("metadata: {{labels: {{a: x}}}}\n{HTTP}")).unwrap();
    world
        .apply(
            "bob",
            "metadata: {labels: {b: x}}\nspec: {selector: {app: web}, ports: [{name: http, targetPort: t}, {name: admin, port: 90}]}",
        )
        .unwrap();
    let all = "metadata: {labels: {a: x, b: x}}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: t}, {name: admin, port: 90}]}";
    world.check(all);
    assert_eq!(world.apply("ann", &format!("metadata: {{labels: {{a: x}}}}\n{HTTP}")), Ok("unchanged"));
    world.apply("ann", HTTP).unwrap();
    world.check(&all.replace("a: x, ", ""));
    world.apply("bob", "spec: {ports: [{name: admin, port: 91}]}").unwrap();
    world.check("spec: {ports: [{name: http, port: 80}, {name: admin, port: 91}]}");
    assert_eq!(world.owners(), ["ann: spec(ports([http](port)))", "bob: spec(ports([admin](port)))"]);
}

#[test]
fn a_field_of_another_with_another_value_is_a_conflict_and_all_are_told() {
    let mut world = World::default();
    world.apply("ann", &format!("metadata: {{labels: {{a: x, b: x}}}}\n{HTTP}")).unwrap();
    world.apply("bob", "metadata: {labels: {b: x}}").unwrap();
    let before = world.object.clone();
    let given = "metadata: {labels: {b: y, c: x}}\nspec: {ports: [{name: http, port: 81}]}";
    let expected = ["service.metadata.labels[b] of ann", "service.spec.ports[http].port of ann", "service.metadata.labels[b] of bob"];
    assert_eq!(conflicts(world.apply("cia", given)), expected);
    assert_eq!(world.object, before);
}

#[test]
fn force_takes_over_what_conflicts_and_nothing_else() {
    let mut world = World::default();
    world.apply("ann", &format!("metadata: {{labels: {{a: x, b: x}}}}\n{HTTP}")).unwrap();
    world.force("bob", "metadata: {labels: {a: x, b: y}}").unwrap();
    world.check(&format!("metadata: {{labels: {{a: x, b: y}}}}\n{HTTP}"));
    assert_eq!(world.owners(), ["ann: metadata(labels([a])),spec(ports([http](port)))", "bob: metadata(labels([a],[b]))"]);
    // What was taken is not removed by whoever had it, and what is shared stays until both let go.
    world.apply("ann", HTTP).unwrap();
    world.check(&format!("metadata: {{labels: {{a: x, b: y}}}}\n{HTTP}"));
    world.apply("bob", "spec: {}").unwrap();
    world.check(HTTP);
}

#[test]
fn what_was_not_given_but_filled_in_conflicts_with_nobody() {
    let mut world = World::default();
    let pod = |resources: &str| format!("spec: {{containers: [{{name: main, command: [x], resources: {resources}}}]}}");
    world.apply("ann", &pod("{limits: {cpu: 2}}")).unwrap();
    assert_eq!(world.apply("bob", &pod("{requests: {cpu: 2}}")), Ok("configured"));
    // Somebody owns it now: it no longer follows the limit.
    let refused = world.apply("bob", &pod("{requests: {cpu: 1}}"));
    assert!(matches!(refused, Err(Error::Invalid(_))), "a pod can't change: {refused:?}");
}

#[test]
fn a_pods_node_and_a_services_address_stay_when_they_are_not_given() {
    let mut world = World::default();
    let pod = "spec: {containers: [{name: main, command: [x]}]}";
    world.apply("ann", pod).unwrap();
    let bind = |object: &mut Object| match &mut object.kind {
        Some(Kind::Pod(pod)) => pod.spec.get_or_insert_default().node_name = "n1".into(),
        other => panic!("{other:?}"),
    };
    world.update(bind);
    assert_eq!(world.apply("ann", pod), Ok("unchanged"));
    world.check(&pod.replace("spec: {", "spec: {nodeName: n1, "));
    let mut world = World::default();
    world.apply("ann", "spec: {clusterIP: 127.96.0.9, ports: [{port: 80}]}").unwrap();
    world.apply("ann", "spec: {ports: [{port: 80}]}").unwrap();
    world.check("spec: {clusterIP: 127.96.0.9, ports: [{port: 80}]}");
}

#[test]
fn what_an_update_changes_is_owned_by_nobody() {
    let mut world = World::default();
    world.apply("ann", &format!("metadata: {{labels: {{a: x, b: x}}}}\n{HTTP}")).unwrap();
    world.update(|object| {
        let meta = object.meta_mut().expect("a kind");
        meta.labels.insert("a".into(), "y".into());
        meta.managed_fields.clear();
    });
    assert_eq!(world.owners(), ["ann: metadata(labels([b])),spec(ports([http](port)))"]);
    assert_eq!(world.apply("bob", "metadata: {labels: {a: z}}"), Ok("configured"));
    assert_eq!(world.apply("ann", HTTP), Ok("configured"));
    world.check(&format!("metadata: {{labels: {{a: z}}}}\n{HTTP}"));
}

#[test]
fn an_object_that_was_created_is_owned_by_whoever_applies_it() {
    let mut created = object(&format!("metadata: {{labels: {{a: x}}}}\n{HTTP}"));
    created.meta_mut().expect("a kind").managed_fields.push(ManagedFields { manager: "forged".into(), ..Default::default() });
    let mut world = World { object: Some(writes::create(created, Timestamp::default(), "uid".into()).unwrap()), seconds: 0 };
    assert_eq!(world.owners(), [""; 0]);
    let given = format!("metadata: {{labels: {{a: x}}}}\n{HTTP}");
    assert_eq!((world.apply("ann", &given), world.apply("ann", &given)), (Ok("configured"), Ok("unchanged")));
    world.apply("ann", HTTP).unwrap();
    world.check(HTTP);
}

#[test]
fn the_time_of_an_owner_is_when_its_fields_last_changed() {
    let mut world = World::default();
    let time = |world: &World| world.object.as_ref().and_then(|object| object.meta().managed_fields[0].time).map(|time| time.seconds);
    world.apply("ann", HTTP).unwrap();
    world.apply("ann", &HTTP.replace("80", "81")).unwrap();
    assert_eq!(time(&world), Some(1));
    world.apply("ann", &HTTP.replace("80", "81, targetPort: t")).unwrap();
    assert_eq!(time(&world), Some(3));
}

#[test]
fn an_object_has_a_bounded_number_of_managers() {
    let mut world = World::default();
    for index in 0..MAX_MANAGERS {
        world.apply(&format!("run-{index}"), HTTP).unwrap();
    }
    assert!(matches!(world.apply("one-more", HTTP), Err(Error::Exhausted { retry_after: None, .. })));
    assert_eq!(world.apply("run-3", HTTP), Ok("unchanged"));
}

#[test]
fn a_pod_of_a_kibibyte_grows_by_little() {
    let env: Vec<_> = (0..8).map(|index| format!("{{name: VARIABLE_{index}, value: {}}}", "v".repeat(80))).collect();
    let fields = "metadata: {labels: {app: web, tier: front}}\nspec: {containers: [{name: main, command: [serve, --fast], ports: [{name: http}], env: [ENV]}]}";
    let mut world = World::default();
    world.apply("bluebird-cli", &fields.replace("ENV", &env.join(", "))).unwrap();
    let object = world.object.expect("a pod");
    let mut plain = object.clone();
    plain.meta_mut().expect("a kind").managed_fields.clear();
    let (with, without) = (prost::Message::encoded_len(&object), prost::Message::encoded_len(&plain));
    assert!(without > 850 && with < without + 300, "{without} bytes became {with}");
}

/// Who applies, what, and by force; what is given is part of a small world, so that managers meet.
type Steps = Vec<(&'static str, Object, bool)>;

/// A service that gives some of these labels and ports, each with one of two values, in any order.
fn any_service(keys: &'static [&'static str]) -> impl Strategy<Value = Object> {
    let some = || subsequence(keys, 0..=keys.len()).prop_shuffle();
    let value = || select(vec!["1", "2"]);
    (some(), value(), some(), value(), select(vec!["port", "targetPort"])).prop_map(|(labels, label, ports, number, field)| {
        let labels: Vec<_> = labels.iter().map(|key| format!("{key}: '{label}'")).collect();
        let ports: Vec<_> = ports.iter().map(|key| format!("{{name: {key}, {field}: {number}}}")).collect();
        object(&format!("metadata: {{labels: {{{}}}}}\nspec: {{ports: [{}]}}", labels.join(", "), ports.join(", ")))
    })
}

/// A pod of these containers, with limits that requests are filled in by.
fn any_pod(keys: &'static [&'static str]) -> impl Strategy<Value = Object> {
    let some = || subsequence(keys, 0..=keys.len()).prop_shuffle();
    let amounts = || (subsequence(vec!["cpu", "memory"], 0..=2), select(vec!["1", "2"]));
    (some(), some(), amounts(), amounts()).prop_map(|(containers, env, limits, requests)| {
        let amounts =
            |(names, amount): (Vec<&str>, &str)| names.iter().map(|name| format!("{name}: {amount}")).collect::<Vec<_>>().join(", ");
        let env: Vec<_> = env.iter().map(|key| format!("{{name: {key}, value: x}}")).collect();
        let rest =
            format!("env: [{}], resources: {{limits: {{{}}}, requests: {{{}}}}}", env.join(", "), amounts(limits), amounts(requests));
        let containers: Vec<_> = containers.iter().map(|key| format!("{{name: {key}, {rest}}}")).collect();
        object(&format!("spec: {{containers: [{}]}}", containers.join(", ")))
    })
}

fn any_steps(managers: Vec<&'static str>, given: impl Strategy<Value = Object>) -> impl Strategy<Value = Steps> {
    prop::collection::vec((select(managers), given, any::<bool>()), 1..8)
}

/// What an object becomes without anybody checking it.
fn merged(old: Option<&Object>, (manager, given, force): &(&str, Object, bool)) -> Result<Object> {
    let by = Applier { manager: (*manager).to_owned(), force: *force, now: Timestamp::default() };
    let mut object = match old {
        Some(old) => merge(old, given.clone(), &by)?,
        None => {
            let mut object = given.clone();
            object.meta_mut().expect("a kind").managed_fields = of_new(given, &by);
            object
        }
    };
    default_object(&mut object);
    Ok(object)
}

/// The object after all steps; those that conflict do nothing.
fn after(steps: &Steps) -> Option<Object> {
    steps.iter().fold(None, |object, step| merged(object.as_ref(), step).ok().or(object))
}

fn without_owners(mut object: Object) -> Object {
    object.meta_mut().expect("a kind").managed_fields.clear();
    object
}

/// An object in which nothing depends on the order in which two managers came.
fn sorted(mut object: Object) -> Object {
    if let Some(Kind::Service(service)) = &mut object.kind {
        service.spec.get_or_insert_default().ports.sort_by(|left, right| left.name.cmp(&right.name));
    }
    object
}

/// Every manager owns only what it gave last, and has it as it gave it.
fn check_owners(object: &Object, steps: &Steps) {
    let stored = Tree::of(object).expect("a kind");
    for owned in read(object.meta()).expect("owners that can be read") {
        let manager = owned.entry.manager.as_str();
        let found = steps.iter().rev().filter(|(name, ..)| *name == manager).any(|(_, given, _)| {
            let mut given = given.clone();
            let fields = Tree::of(&given).expect("a kind").fields();
            default_object(&mut given);
            let given = Tree::of(&given).expect("a kind");
            owned.fields.common(&fields) == owned.fields && stored.differing(&given, &owned.fields).is_empty()
        });
        assert!(found, "{manager} never gave {}", owned.fields);
    }
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing_more(
        steps in prop_oneof![any_steps(vec!["ann", "bob"], any_service(&["a", "b"])), any_steps(vec!["ann", "bob"], any_pod(&["a", "b"]))],
    ) {
        let (manager, given, _) = steps.last().cloned().expect("a step");
        let once = merged(after(&steps).as_ref(), &(manager, given.clone(), true)).expect("no conflict by force");
        prop_assert_eq!(&merged(Some(&once), &(manager, given, false)).expect("no conflict"), &once);
    }

    #[test]
    fn of_one_manager_exactly_the_last_is_left(
        steps in prop_oneof![any_steps(vec!["ann"], any_service(&["a", "b", "c"])), any_steps(vec!["ann"], any_pod(&["a", "b", "c"]))],
    ) {
        let last = merged(None, steps.last().expect("a step")).expect("no conflict");
        prop_assert_eq!(after(&steps), Some(last));
    }

    #[test]
    fn managers_with_fields_of_their_own_lose_nothing_of_each_other(
        steps in prop::collection::vec(
            prop_oneof![
                any_service(&["a", "b"]).prop_map(|given| ("ann", given, false)),
                any_service(&["c", "d"]).prop_map(|given| ("bob", given, false)),
            ],
            1..8,
        ),
    ) {
        let last = ["ann", "bob"].map(|name| steps.iter().rfind(|(manager, ..)| *manager == name).cloned());
        let expected = after(&last.into_iter().flatten().collect()).map(sorted);
        prop_assert_eq!(after(&steps).map(sorted), expected);
    }

    #[test]
    fn whoever_owns_a_field_gave_it_so_and_what_is_given_is_so(
        steps in prop_oneof![
            any_steps(vec!["ann", "bob", "cia"], any_service(&["a", "b"])),
            any_steps(vec!["ann", "bob", "cia"], any_pod(&["a", "b"])),
        ],
    ) {
        let mut object: Option<Object> = None;
        for (index, step) in steps.iter().enumerate() {
            let before = object.clone();
            match merged(before.as_ref(), step) {
                Ok(next) => {
                    let fresh = Tree::of(&merged(None, step).expect("no conflict")).expect("a kind");
                    let fields = Tree::of(&step.1).expect("a kind").fields();
                    prop_assert!(Tree::of(&next).expect("a kind").differing(&fresh, &fields).is_empty());
                    check_owners(&next, &steps[..=index].to_vec());
                    object = Some(next);
                }
                Err(error) => {
                    prop_assert!(matches!(error, Error::ApplyConflict(_)) && !step.2, "{error:?}");
                    // By force it goes, and only owners and what was given change.
                    let forced = merged(before.as_ref(), &(step.0, step.1.clone(), true)).expect("no conflict by force");
                    prop_assert_ne!(Some(without_owners(forced)), before.map(without_owners));
                }
            }
        }
    }
}
