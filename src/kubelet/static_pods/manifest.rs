//! What a file says: text in, static pods out.

use uuid::Uuid;

use crate::api::manifest::{self, Manifest};
use crate::api::v1::{Object, ObjectMeta, Pod};
use crate::api::{Resource, STATIC_POD_ANNOTATION, STATIC_POD_FILE_ANNOTATION, default_object, validate};

/// The space of the uids of static pods: a UUID of its own, made once.
const SPACE: Uuid = Uuid::from_u128(0x6f0d_3a52_5c1e_4b8e_9c47_2d90_b1f0_5a11);

/// The pods of a file as they run on a node, or what is wrong with it, with its place.
///
/// A pod is named `<name>-<node>`, as its mirror. Its uid stands for node, namespace, name and content: the same content is the same pod, whatever file it is
/// in and however that is written; another content is another pod.
pub(super) fn read(file: &str, text: &str, node: &str) -> Result<Vec<Pod>, String> {
    let mut manifest = Manifest::new("");
    manifest.read(text, file).map_err(|faults| faults.to_string())?;
    if manifest.objects().is_empty() {
        return Err(format!("{file}: there is no pod in it"));
    }
    let read = manifest.objects().iter().map(|object| {
        let place = object.key().and_then(|key| Some(manifest.place(&key)?.to_string())).unwrap_or_else(|| file.to_owned());
        static_pod(object, file, node).map_err(|what| format!("{place}: {what}"))
    });
    let (pods, faults): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
    match faults.is_empty() {
        true => Ok(pods.into_iter().flatten().collect()),
        false => Err(faults.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("\n")),
    }
}

fn static_pod(object: &Object, file: &str, node: &str) -> Result<Pod, String> {
    let Some(given) = Pod::from_object_ref(object) else {
        return Err(format!(
            "a {} can't be run by a kubelet alone; only pods can",
            object.kind().map_or("thing", crate::api::Kind::as_str)
        ));
    };
    let mut pod = Pod { metadata: Some(own_metadata(given.meta())?), spec: given.spec.clone(), status: None };
    let spec = pod.spec.get_or_insert_default();
    if !spec.node_name.is_empty() && spec.node_name != node {
        return Err(format!("spec.nodeName: is {:?}, but this is node {node:?}", spec.node_name));
    }
    spec.node_name.clear();

    // As it was given, so that a kubelet that knows more fields and other defaults takes it for the same.
    let content = manifest::to_value(&pod.clone().into_object()).to_string();
    let meta = pod.meta_mut();
    if meta.namespace.is_empty() {
        meta.namespace = crate::api::DEFAULT_NAMESPACE.to_owned();
    }
    let identity = [node, &meta.namespace, &meta.name, &content].join("\0");
    let uid = Uuid::new_v5(&SPACE, identity.as_bytes());
    meta.uid = uid.to_string();
    meta.name = format!("{}-{node}", meta.name);
    meta.annotations.insert(STATIC_POD_ANNOTATION.to_owned(), uid.simple().to_string());
    meta.annotations.insert(STATIC_POD_FILE_ANNOTATION.to_owned(), file.to_owned());
    pod.spec.get_or_insert_default().node_name = node.to_owned();

    let mut object = pod.into_object();
    default_object(&mut object);
    let faults: Vec<_> = validate(&object).into_iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
    match (faults.is_empty(), Pod::from_object(object)) {
        (true, Some(pod)) => Ok(pod),
        _ => Err(faults.join("; ")),
    }
}

/// What a user says of a pod; what the apiserver had added to it elsewhere goes.
fn own_metadata(given: &ObjectMeta) -> Result<ObjectMeta, String> {
    if !given.owner_references.is_empty() || !given.finalizers.is_empty() {
        return Err("metadata: a static pod has neither owners nor finalizers".to_owned());
    }
    if let Some(reserved) = [STATIC_POD_ANNOTATION, STATIC_POD_FILE_ANNOTATION].iter().find(|name| given.annotations.contains_key(**name)) {
        return Err(format!("metadata.annotations[{reserved}]: is set by the kubelet; leave it out"));
    }
    Ok(ObjectMeta {
        name: given.name.clone(),
        namespace: given.namespace.clone(),
        labels: given.labels.clone(),
        annotations: given.annotations.clone(),
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web, tier: front}}\nspec: {containers: [{name: main, command: [sleep, '60']}]}\n";

    fn uid(file: &str, text: &str, node: &str) -> String {
        read(file, text, node).unwrap()[0].meta().uid.clone()
    }

    #[test]
    fn a_pod_is_who_it_is_by_what_is_said_and_not_by_how_and_where() {
        let web = uid("web.yaml", WEB, "n1");
        assert_eq!(uid("other.yml", WEB, "n1"), web);
        let same = "# A comment.\n---\nkind: Pod\napiVersion: v1\nspec:\n  containers:\n  - command: [\"sleep\", \"60\"]\n    name: main\nmetadata:\n  labels: {tier: front, app: web}\n  name: web\n";
        assert_eq!(uid("web.yaml", same, "n1"), web);
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"app":"web","tier":"front"}},"spec":{"containers":[{"name":"main","command":["sleep","60"]}]}}"#;
        assert_eq!(uid("web.json", json, "n1"), web);
        for other in [WEB.replace("'60'", "'61'"), WEB.replace("name: web", "name: web2"), WEB.replace("front", "back")] {
            assert_ne!(uid("web.yaml", &other, "n1"), web, "{other}");
        }
        assert_ne!(uid("web.yaml", WEB, "n2"), web);
        assert_eq!(uid("web.yaml", &WEB.replace("spec: {", "spec: {nodeName: n1, "), "n1"), web, "that it says where it runs anyway");
    }

    #[test]
    fn a_pod_is_complete_named_after_its_node_and_tells_its_file() {
        let pod = read("web.yaml", WEB, "n1").unwrap().remove(0);
        let meta = pod.meta();
        assert_eq!((meta.name.as_str(), meta.namespace.as_str()), ("web-n1", "default"));
        assert_eq!(meta.annotations[STATIC_POD_FILE_ANNOTATION], "web.yaml");
        let spec = pod.spec.unwrap();
        assert_eq!((spec.node_name.as_str(), spec.termination_grace_period_seconds), ("n1", Some(30)));
    }

    #[test]
    fn a_file_may_hold_several_pods_and_nothing_else() {
        let two = format!("{WEB}---\n{}", WEB.replace("name: web", "name: db"));
        let names: Vec<_> = read("all.yaml", &two, "n1").unwrap().iter().map(|pod| pod.meta().name.clone()).collect();
        assert_eq!(names, ["web-n1", "db-n1"]);
        let service = format!("{WEB}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n");
        assert_eq!(
            read("all.yaml", &service, "n1").unwrap_err(),
            "all.yaml:6 (document 2): a Service can't be run by a kubelet alone; only pods can"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            (String::new(), "web.yaml: there is no pod in it"),
            ("# nothing\n".to_owned(), "web.yaml: there is no pod in it"),
            (
                WEB.replace("command", "comand"),
                "web.yaml:4 (document 1): spec.containers[0].comand: there is no such field; did you mean \"command\"?",
            ),
            (WEB.replace("command: [sleep, '60']", ""), "pod.spec.containers[0].command: must name the program to run"),
            (WEB.replace("name: web", "name: Web"), "pod.metadata.name: "),
            (WEB.replace("spec: {", "spec: {nodeName: n2, "), "spec.nodeName: is \"n2\", but this is node \"n1\""),
            (WEB.replace("labels:", "finalizers: [a/b], labels:"), "metadata: a static pod has neither owners nor finalizers"),
            (
                WEB.replace("labels:", "annotations: {bluebird/static-pod: x}, labels:"),
                "metadata.annotations[bluebird/static-pod]: is set by the kubelet",
            ),
            ("kind: [".to_owned(), "web.yaml:"),
        ] {
            let fault = read("web.yaml", &text, "n1").unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
