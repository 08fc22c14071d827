//! The objects that a cache holds.

use std::collections::btree_map::Range;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use prost::Message as _;

use crate::api::v1::Object;
use crate::api::{Encoded, Kind, LabelView, ObjectKey};

/// How a cache keeps its objects. By default all are kept as they come, and decoded.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Kinds of which there may be very many. All but the two thousand objects of them that changed last are kept encoded, in a fifth of the
    /// memory, and decoded by each read of them; [`super::Cache::select`] reads only what is wanted.
    pub encoded: &'static [Kind],
    /// Takes away from each object what no reader of this cache looks at. Whoever writes an object that it read here must not have taken anything
    /// away from it.
    pub trim: fn(&mut Object),
}

impl Default for Keep {
    fn default() -> Self {
        Self { encoded: &[], trim: |_| {} }
    }
}

/// How many objects of the kinds that are kept encoded stay decoded: those that changed last, since whoever follows a cache reads what changed
/// right after it did.
const FRESH: usize = 2_048;

/// Objects by key, as of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    held: BTreeMap<ObjectKey, Held>,
    /// The kinds that are kept encoded.
    encoded: &'static [Kind],
    /// What changed last of these kinds, once for each change, the oldest first.
    fresh: VecDeque<ObjectKey>,
}

/// One object.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// As its readers want it: about five times as large as encoded.
    Decoded(Arc<Object>),
    /// Its version, and its bytes, which every read decodes.
    Encoded(u64, Box<[u8]>),
}

impl Objects {
    /// None yet, of which those of some kinds are kept encoded.
    pub(super) fn new(encoded: &'static [Kind]) -> Self {
        Self { encoded, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.held.get(key).map(Held::object)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.held.keys()
    }

    /// All from a key on, in order.
    pub(super) fn from(&self, key: ObjectKey) -> Range<'_, ObjectKey, Held> {
        self.held.range(key..)
    }

    /// Each key with its version.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&ObjectKey, u64)> {
        self.held.iter().map(|(key, held)| (key, held.version()))
    }

    pub(super) fn insert(&mut self, key: ObjectKey, object: Arc<Object>) {
        if self.encoded.contains(&key.kind()) {
            self.fresh.push_back(key.clone());
            if self.fresh.len() > FRESH {
                self.encode_oldest();
            }
        }
        self.held.insert(key, Held::Decoded(object));
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        self.held.remove(key);
    }

    /// Becomes `objects` and says which keys changed. An object that is the same stays the very one that readers may hold.
    pub(super) fn replace(&mut self, objects: Objects) -> Vec<ObjectKey> {
        let mut old = std::mem::replace(self, objects).held;
        let mut changed = Vec::new();
        for (key, held) in &mut self.held {
            match old.remove(key) {
                Some(before) if before == *held => held.stay(before),
                _ => changed.push(key.clone()),
            }
        }
        changed.extend(old.into_keys());
        changed
    }

    fn encode_oldest(&mut self) {
        if let Some(held) = self.fresh.pop_front().and_then(|key| self.held.get_mut(&key)) {
            held.encode();
        }
    }
}

/// By what they hold, however it is kept.
impl PartialEq for Objects {
    fn eq(&self, other: &Self) -> bool {
        self.held == other.held
    }
}

impl Held {
    pub(super) fn object(&self) -> Arc<Object> {
        match self {
            Held::Decoded(object) => object.clone(),
            Held::Encoded(_, bytes) => Arc::new(Object::decode(&**bytes).expect("it was encoded here")),
        }
    }

    /// What a selector can look at.
    pub(super) fn shows(&self, matches: impl FnOnce(&dyn LabelView) -> bool) -> bool {
        match self {
            Held::Decoded(object) => matches(&**object),
            Held::Encoded(_, bytes) => matches(&Encoded::new(bytes)),
        }
    }

    fn version(&self) -> u64 {
        match self {
            Held::Decoded(object) => object.meta().resource_version,
            Held::Encoded(version, _) => *version,
        }
    }

    fn encode(&mut self) {
        if let Held::Decoded(object) = self {
            *self = Held::Encoded(object.meta().resource_version, object.encode_to_vec().into());
        }
    }

    /// Stays what it was before, as far as anybody can see the difference.
    fn stay(&mut self, before: Held) {
        if let (Held::Decoded(_), Held::Decoded(_)) = (&*self, &before) {
            *self = before;
        }
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Held::Encoded(_, one), Held::Encoded(_, other)) if one == other => true,
            // The same object has many encodings: maps come in any order.
            _ => self.version() == other.version() && self.object() == other.object(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Resource as _;
    use crate::api::v1::{ObjectMeta, Pod, PodSpec, Service};

    const PODS: &[Kind] = &[Kind::Pod];

    impl FromIterator<(ObjectKey, Arc<Object>)> for Objects {
        fn from_iter<T: IntoIterator<Item = (ObjectKey, Arc<Object>)>>(objects: T) -> Self {
            let mut collected = Objects::default();
            objects.into_iter().for_each(|(key, object)| collected.insert(key, object));
            collected
        }
    }

    fn pod(index: usize) -> Arc<Object> {
        let labels = ["app", "tier", "zone"].map(|key| (key.to_owned(), format!("{key}-{}", index % 10))).into();
        let metadata = ObjectMeta { name: format!("p{index:05}"), resource_version: index as u64 + 1, labels, ..Default::default() };
        let spec = PodSpec { node_name: format!("node-{}", index % 7), ..Default::default() };
        Arc::new(Pod { metadata: Some(metadata), spec: Some(spec), status: None }.into_object())
    }

    fn of_pods(encoded: &'static [Kind], indexes: impl Iterator<Item = usize>) -> Objects {
        let mut objects = Objects::new(encoded);
        indexes.map(pod).for_each(|pod| objects.insert(pod.key().expect("a pod"), pod));
        objects
    }

    fn count_encoded(objects: &Objects) -> usize {
        objects.held.values().filter(|held| matches!(held, Held::Encoded(..))).count()
    }

    #[test]
    fn of_a_kind_that_is_kept_encoded_only_what_changed_last_is_decoded() {
        let mut objects = of_pods(PODS, 0..FRESH + 10);
        assert_eq!(count_encoded(&objects), 10);
        let service = Service { metadata: Some(ObjectMeta { name: "web".into(), ..Default::default() }), ..Default::default() };
        objects.insert(service.key(), Arc::new(service.into_object()));
        (0..FRESH).for_each(|_| objects.insert(pod(1).key().expect("a pod"), pod(1)));
        assert_eq!(count_encoded(&objects), FRESH + 10 - 1, "all but the pod that changed so often and the service");
        assert_eq!(objects.fresh.len(), FRESH);
    }

    #[test]
    fn however_objects_are_kept_readers_see_the_same() {
        let (encoded, decoded) = (of_pods(PODS, 0..FRESH + 50), of_pods(&[], 0..FRESH + 50));
        assert_eq!(count_encoded(&decoded), 0);
        assert_eq!(encoded, decoded);
        assert!(encoded.keys().all(|key| encoded.get(key) == decoded.get(key)));
        assert!(encoded.versions().eq(decoded.versions()));
        let shown = |objects: &Objects| -> Vec<ObjectKey> {
            let matches = |view: &dyn LabelView| view.label("app") == Some("app-3") && view.node_name() == "node-3";
            objects
                .from(ObjectKey::lower_bound(Kind::Pod, ""))
                .filter(|(_, held)| held.shows(matches))
                .map(|(key, _)| key.clone())
                .collect()
        };
        assert_eq!(shown(&encoded), shown(&decoded));
        assert_eq!(shown(&encoded).len(), (0..FRESH + 50).filter(|index| index % 10 == 3 && index % 7 == 3).count());
    }

    #[test]
    fn a_new_state_changes_only_what_differs_however_it_is_kept() {
        let mut objects = of_pods(PODS, 0..FRESH + 50);
        let last = pod(FRESH + 49).key().expect("a pod");
        let (before, gone) = (objects.get(&last).expect("the last pod"), pod(3).key().expect("a pod"));
        let mut other = of_pods(PODS, (0..FRESH + 50).filter(|index| *index != 3));
        let mut changed = (*pod(5)).clone();
        changed.meta_mut().expect("a pod").uid = "another".into();
        other.insert(changed.key().expect("a pod"), Arc::new(changed));
        assert_eq!(objects.replace(other), [pod(5).key().expect("a pod"), gone]);
        assert!(Arc::ptr_eq(&before, &objects.get(&last).expect("the last pod")));
    }
}
