use proptest::prelude::*;

use super::*;
use crate::api::manifest;
use crate::api::v1::Object;

fn object(fields: &str) -> Object {
    let kind = if fields.contains("containers") { "Pod" } else { "Service" };
    let text = format!("apiVersion: v1\nkind: {kind}\n{fields}\n");
    manifest::parse(&text, "test").expect("a manifest").remove(0)
}

fn tree(fields: &str) -> Tree {
    Tree::of(&object(fields)).expect("an object of a kind")
}

fn set(text: &str) -> FieldSet {
    text.parse().expect("a set of fields")
}

#[test]
fn an_object_gives_labels_annotations_and_what_is_not_status() {
    for (fields, expected) in [
        ("metadata: {name: a, namespace: b, uid: c, finalizers: [x/y]}", ""),
        ("metadata: {labels: {app: web, x/y: ''}, annotations: {n: t}}", "metadata(annotations([n]),labels([app],[x/y]))"),
        ("spec: {clusterIP: 127.96.0.1}\nstatus: {conditions: [{type: A, status: 'True'}]}", "spec(cluster_ip)"),
        ("spec: {selector: {}, ports: []}", "spec"),
        ("spec: {ports: [{name: http, port: 80}, {port: 81, protocol: TCP}]}", "spec(ports([81](protocol),[http](port)))"),
        (
            "spec: {containers: [{name: a, command: [x, y], env: [{name: B, value: c}, {name: D}], resources: {limits: {cpu: 1}}}]}",
            "spec(containers([a](command,env([B](value),[D]),resources(limits([cpu])))))",
        ),
        ("spec: {containers: [{name: a}, {name: a, image: x}]}", "spec(containers([a],[a#2](image)))"),
    ] {
        let fields = tree(fields).fields();
        assert_eq!(fields.to_string(), expected);
        assert_eq!(set(expected), fields);
    }
}

#[test]
fn a_text_that_is_no_set_of_fields_is_refused() {
    for text in [",", "a,", "a(", "a()", "a)", "(a)", "[a", "a]", "[\"a]", "a(b))", "[\"a\"b]", "a b(c)d"] {
        assert_eq!(text.parse::<FieldSet>(), Err(text::Malformed), "{text}");
    }
}

#[test]
fn sets_are_joined_met_and_reduced() {
    let mut joined = set("a(b),c");
    joined.extend(&set("a(d),c"));
    assert_eq!(joined, set("a(b,d),c"));
    assert_eq!(joined.common(&set("a(b),e")), set("a(b)"));
    joined.remove(&[Step::Field("a".into()), Step::Field("b".into())]);
    assert_eq!(joined, set("a(d),c"));
    joined.remove(&[Step::Field("a".into()), Step::Field("d".into())]);
    assert_eq!(joined, set("c"));
    joined.remove(&[Step::Field("x".into()), Step::Field("d".into())]);
    joined.remove(&[Step::Field("c".into())]);
    assert!(joined.is_empty());
}

#[test]
fn what_differs_is_told_at_the_highest_field_that_one_of_the_two_has_not() {
    let left =
        tree("metadata: {labels: {a: x, b: y}}\nspec: {ports: [{name: http, port: 80}, {name: only, port: 81}], clusterIP: 127.96.0.1}");
    let right = tree("metadata: {labels: {a: z, c: y}}\nspec: {ports: [{name: http, port: 82}], clusterIP: 127.96.0.1}");
    let mut fields = left.fields();
    fields.extend(&right.fields());
    let told: Vec<_> = left.differing(&right, &fields).iter().map(ToString::to_string).collect();
    let expected = ["metadata.labels[a]", "metadata.labels[b]", "metadata.labels[c]", "spec.ports[http].port", "spec.ports[only]"];
    assert_eq!(told, expected);
    assert_eq!(left.differing(&right, &set("metadata(labels([a],[d])),spec(cluster_ip,unheard_of(of))")).len(), 1);
    assert!(left.differing(&left, &fields).is_empty());
}

#[test]
fn what_is_cleared_leaves_nothing_empty_behind() {
    for (object, fields, kept, expected) in [
        ("metadata: {labels: {a: x, b: y}}", "metadata(labels([a],[b]))", "metadata(labels([b]))", "metadata: {labels: {b: y}}"),
        ("metadata: {labels: {a: x}}\nspec: {clusterIP: 127.96.0.1}", "metadata(labels([a])),spec(cluster_ip)", "", ""),
        // An item goes as a whole, unless somebody else keeps a part of it.
        ("spec: {ports: [{name: a, port: 1, targetPort: x}]}", "spec(ports([a](port)))", "spec", "spec: {}"),
        (
            "spec: {ports: [{name: a, port: 1, targetPort: x}]}",
            "spec(ports([a](port)))",
            "spec(ports([a]))",
            "spec: {ports: [{name: a, targetPort: x}]}",
        ),
        (
            "spec: {containers: [{name: a, resources: {limits: {cpu: 1}, requests: {cpu: 1}}}]}",
            "spec(containers([a](resources(limits([cpu]),requests([cpu])))))",
            "spec(containers([a]))",
            "spec: {containers: [{name: a}]}",
        ),
    ] {
        let mut cleared = tree(object);
        cleared.clear(&set(fields), &set(kept));
        assert_eq!(cleared, tree(expected), "{object} without {fields}");
    }
}

#[test]
fn items_keep_their_order_and_others_keep_their_places_among_them() {
    let names = |names: &[&str]| {
        let ports: Vec<_> = names.iter().map(|name| format!("{{name: {name}}}")).collect();
        tree(&format!("spec: {{ports: [{}]}}", ports.join(", ")))
    };
    for (before, given, after) in [
        (&["a", "b"][..], &["a", "b"][..], &["a", "b"][..]),
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["a", "x", "b"], &["b", "a"], &["b", "x", "a"]),
        (&["a", "x"], &["a", "b"], &["a", "x", "b"]),
        (&["a", "x", "b"], &["a", "c", "b"], &["a", "x", "c", "b"]),
        (&["x", "a"], &["c", "a", "d"], &["x", "c", "a", "d"]),
        (&[], &["b", "a"], &["b", "a"]),
        (&["x"], &["a"], &["x", "a"]),
    ] {
        let mut merged = names(before);
        let given = names(given);
        merged.overlay(&given, &given.fields());
        assert_eq!(merged, names(after), "{before:?}");
        merged.overlay(&given, &given.fields());
        assert_eq!(merged, names(after), "{before:?} again");
    }
}

#[test]
fn only_the_fields_that_are_asked_for_are_laid_over() {
    let mut merged = tree("metadata: {labels: {a: x, b: y}}\nspec: {ports: [{name: http, port: 80}]}");
    let given = tree(
        "metadata: {labels: {a: z, c: z}}\nspec: {clusterIP: 127.96.0.1, ports: [{name: http, port: 81, targetPort: t}, {name: new, port: 9}]}",
    );
    merged.overlay(&given, &set("metadata(labels([c])),spec(ports([http](target_port),[new](port)))"));
    let expected = "metadata: {labels: {a: x, b: y, c: z}}\nspec: {ports: [{name: http, port: 80, targetPort: t}, {name: new, port: 9}]}";
    assert_eq!(merged, tree(expected));
}

#[test]
fn what_a_long_list_costs_grows_with_its_length_and_not_with_its_square() {
    let list = |value: &str| {
        let items: Vec<_> = (0..20_000).map(|index| format!("{{name: V{index}, value: {value}}}")).collect();
        tree(&format!("spec: {{containers: [{{name: a, env: [{}]}}]}}", items.join(",")))
    };
    let (mut before, after) = (list("a"), list("b"));
    let fields = before.fields();
    let began = std::time::Instant::now();
    assert_eq!(before.differing(&after, &fields).len(), 20_000);
    before.overlay(&after, &fields);
    assert_eq!(before, after);
    // A second, or many minutes if each item was looked for among all.
    assert!(began.elapsed() < std::time::Duration::from_secs(60));
}

fn any_set() -> impl Strategy<Value = FieldSet> {
    let step = prop_oneof!["[a-z_]{1,3}".prop_map(Step::Field), ".{0,4}".prop_map(Step::Key)];
    let leaf = Just(FieldSet::default());
    leaf.prop_recursive(3, 20, 4, move |inner| prop::collection::btree_map(step.clone(), inner, 0..4).prop_map(FieldSet))
}

proptest! {
    #[test]
    fn a_set_survives_the_way_through_its_text(fields in any_set()) {
        prop_assert_eq!(fields.to_string().parse(), Ok(fields));
    }

    #[test]
    fn any_text_is_read_or_refused_and_never_more(text in "[a-c(),\\[\\]\"\\\\]{0,24}") {
        if let Ok(fields) = text.parse::<FieldSet>() {
            prop_assert_eq!(fields.to_string().parse(), Ok(fields));
        }
    }
}
