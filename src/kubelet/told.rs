//! What the runs of containers were told of ConfigMaps and Secrets, kept with each run, so that any later kubelet notices that it holds no more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::configuration::{self, Configuration, Lacking, used_by_source, used_by_variable, used_by_volume};
use super::volumes;
use crate::api::v1::{Container, PodSpec};
use crate::api::{ObjectKey, Role};

/// Digests of what a container uses, by words that tell people what that is. Nothing secret can be read from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told(BTreeMap<String, String>);

impl Told {
    /// What a container is told if it starts now. A volume whose source is gone is left out: its files stay.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub(crate) fn of(container: &Container, spec: &PodSpec, namespace: &str, configuration: &Configuration) -> Result<Self, Lacking> {
        let mut pieces = Pieces::default();
        for from in &container.env_from {
            let Some(object) = used_by_source(from, namespace) else { continue };
            let variables = configuration::variables(from, namespace, configuration)?;
            pieces.add(words(&object), variables.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        }
        for variable in &container.env {
            let (Some(source), Some(object)) = (&variable.value_from, used_by_variable(variable, namespace)) else { continue };
            let value = configuration::value_of(source, namespace, configuration)?;
            pieces.add(words(&object), std::iter::once(variable.name.as_bytes()).chain(value.as_ref().map(String::as_bytes)));
        }
        for volume in &spec.volumes {
            let is_mounted = container.volume_mounts.iter().any(|mount| mount.name == volume.name);
            let Some(object) = used_by_volume(volume, namespace).filter(|_| is_mounted) else { continue };
            if let Ok(files) = volumes::files(volume, namespace, configuration) {
                let words = format!("{} in the volume {}", words(&object), volume.name);
                pieces.add(words, files.iter().flat_map(|(path, content)| [path.as_bytes(), content.as_slice()]));
            }
        }
        Ok(pieces.digest())
    }

    /// Takes over what was told before of volumes whose source is gone: their files are as they were, also if the source comes back.
    pub(crate) fn take_over(&mut self, before: &Self) {
        for (words, digest) in &before.0 {
            self.0.entry(words.clone()).or_insert_with(|| digest.clone());
        }
    }

    /// What is different now, as a sentence.
    pub(crate) fn changed(&self, now: &Self) -> Option<String> {
        let changed: Vec<&str> =
            now.0.iter().filter(|(words, digest)| self.0.get(*words) != Some(digest)).map(|(words, _)| words.as_str()).collect();
        (!changed.is_empty()).then(|| format!("what it uses has changed: {}", changed.join(", ")))
    }
}

/// What all containers that are started again at a change would be told now, by their names. Init containers run once, with what held then.
pub(crate) fn told_to_all(spec: &PodSpec, namespace: &str, configuration: &Configuration) -> BTreeMap<String, Result<Told, Lacking>> {
    let lasting = spec.roles().filter(|(_, role)| *role != Role::Init);
    lasting.map(|(container, _)| (container.name.clone(), Told::of(container, spec, namespace, configuration))).collect()
}

fn words(object: &ObjectKey) -> String {
    format!("{} {:?}", object.kind(), object.name())
}

/// What is used, before it is made short.
#[derive(Default)]
struct Pieces(BTreeMap<String, Vec<u8>>);

impl Pieces {
    fn add<'a>(&mut self, words: String, parts: impl Iterator<Item = &'a [u8]>) {
        let bytes = self.0.entry(words).or_default();
        for part in parts {
            // With its length: two parts are not one.
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
    }

    fn digest(self) -> Told {
        Told(self.0.into_iter().map(|(words, bytes)| (words, Uuid::new_v5(&Uuid::nil(), &bytes).to_string())).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::Resource as _;
    use crate::api::manifest;
    use crate::api::v1::{ConfigMap, Object, Secret, object};
    use crate::kubelet::configuration::{config_map, secret};

    /// Its container uses a key of the ConfigMap web, all of the Secret db, and a file of the ConfigMap page.
    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartOnConfigChange: true,
        volumes: [{name: v, configMap: {name: page, items: [{key: index, path: index.html}]}}],
        containers: [{name: main, command: [x], env: [{name: C, valueFrom: {configMapKeyRef: {name: web, key: colour}}}],
            envFrom: [{secretRef: {name: db, optional: true}}], volumeMounts: [{name: v, mountPath: v}]}]}}";

    fn map(data: &[(&str, &str)]) -> Option<Arc<Object>> {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        Some(Arc::new(ConfigMap { data, ..ConfigMap::default() }.into_object()))
    }

    fn password(text: &str) -> Option<Arc<Object>> {
        let data = [("PASSWORD".to_owned(), text.as_bytes().to_vec())].into();
        Some(Arc::new(Secret { data, ..Secret::default() }.into_object()))
    }

    fn known() -> Configuration {
        let mut configuration = Configuration::default();
        configuration.learn(&config_map("", "web"), map(&[("colour", "blue"), ("size", "large")]));
        configuration.learn(&config_map("", "page"), map(&[("index", "hello"), ("other", "x")]));
        configuration.learn(&secret("", "db"), password("hunter2"));
        configuration
    }

    fn told(configuration: &Configuration) -> Result<Told, Lacking> {
        let objects = manifest::parse(POD, "test").unwrap();
        let Some(object::Kind::Pod(pod)) = &objects[0].kind else { panic!("{objects:?}") };
        told_to_all(pod.spec.as_ref().unwrap(), "", configuration).remove("main").unwrap()
    }

    /// What a change of one object means to a container that was told what is known at first.
    fn check(key: &ObjectKey, object: Option<Arc<Object>>, expected: Option<&str>) {
        let mut configuration = known();
        let before = told(&configuration).unwrap();
        configuration.learn(key, object);
        assert_eq!(before.changed(&told(&configuration).unwrap()).as_deref(), expected);
    }

    #[test]
    fn only_what_a_container_uses_of_an_object_matters_to_it() {
        check(&config_map("", "web"), map(&[("colour", "red")]), Some("what it uses has changed: ConfigMap \"web\""));
        check(&config_map("", "web"), map(&[("colour", "blue"), ("size", "small")]), None);
        check(&config_map("", "page"), map(&[("index", "bye")]), Some("what it uses has changed: ConfigMap \"page\" in the volume v"));
        check(&config_map("", "page"), map(&[("index", "hello"), ("other", "y")]), None);
        check(&secret("", "db"), password("correct horse"), Some("what it uses has changed: Secret \"db\""));
        check(&secret("", "db"), None, Some("what it uses has changed: Secret \"db\""));
        check(&secret("", "another"), password("x"), None);
    }

    #[test]
    fn what_a_container_could_not_be_started_with_is_no_change() {
        let mut configuration = known();
        configuration.learn(&config_map("", "web"), map(&[("size", "large")]));
        assert_eq!(told(&configuration), Err(Lacking::Missing("the ConfigMap \"web\" has no key \"colour\"".to_owned())));
        // The files of a volume stay.
        check(&config_map("", "page"), None, None);
        assert_eq!(told(&Configuration::default()), Err(Lacking::Unknown));
    }

    #[test]
    fn a_source_that_went_and_came_back_as_it_was_is_no_change_also_for_what_was_started_in_between() {
        let page = |text| map(&[("index", text)]);
        let mut configuration = known();
        let before = told(&configuration).unwrap();
        configuration.learn(&config_map("", "page"), None);
        let mut between = told(&configuration).unwrap();
        between.take_over(&before);
        let mut later = |object| {
            configuration.learn(&config_map("", "page"), object);
            between.changed(&told(&configuration).unwrap())
        };
        assert_eq!(later(None), None);
        assert_eq!(later(page("hello")), None);
        assert_eq!(later(page("bye")).as_deref(), Some("what it uses has changed: ConfigMap \"page\" in the volume v"));
        // What is told now is not what was told before.
        let mut now = told(&configuration).unwrap();
        now.take_over(&before);
        assert_eq!(now, told(&configuration).unwrap());
    }

    #[test]
    fn what_was_told_is_read_again_as_it_was_and_shows_nothing_secret() {
        let before = told(&known()).unwrap();
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), before);
        assert!(!text.contains("hunter2"), "{text}");
        // A newer kubelet finds the same, or it would start everything again.
        let digests = [
            ("ConfigMap \"page\" in the volume v", "3bd5cc70-a729-50bb-bc15-8871ab195c77"),
            ("ConfigMap \"web\"", "6851ff98-d6cb-558c-9d84-6d0944d5a18e"),
            ("Secret \"db\"", "a45d7584-b759-57e5-be45-45ce47ca1a55"),
        ];
        let found: Vec<_> = before.0.iter().map(|(words, digest)| (words.as_str(), digest.as_str())).collect();
        assert_eq!(found, digests);
    }
}
