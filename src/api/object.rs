//! What all kinds have in common, whatever the arm.

use super::v1::{ClusterEvent, ConfigMap, EndpointSlice, Lease, Namespace, Node, Object, ObjectMeta, Pod, Secret, Service, object};
use super::{Kind, ObjectKey};

/// A message that is one kind of object.
pub trait Resource: Clone + PartialEq + Send + Sync + 'static {
    /// Which kind.
    const KIND: Kind;
    /// The metadata; the default if there is none.
    fn meta(&self) -> &ObjectMeta;
    /// The metadata, made if there is none.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// The message as an object.
    fn into_object(self) -> Object;
    /// The message, if the object is of this kind.
    fn from_object(object: Object) -> Option<Self>;
    /// The message, if the object is of this kind.
    fn from_object_ref(object: &Object) -> Option<&Self>;

    /// Which object it is.
    fn key(&self) -> ObjectKey {
        ObjectKey::new(Self::KIND, &self.meta().namespace, &self.meta().name)
    }
}

static EMPTY_META: std::sync::LazyLock<ObjectMeta> = std::sync::LazyLock::new(ObjectMeta::default);

/// For every arm: the trait for its message, and one match for each question that can be asked of any object.
macro_rules! kinds {
    ($($arm:ident: $message:ident => $kind:ident),* $(,)?) => {
        $(impl Resource for $message {
            const KIND: Kind = Kind::$kind;
            fn meta(&self) -> &ObjectMeta {
                self.metadata.as_ref().unwrap_or(&EMPTY_META)
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                self.metadata.get_or_insert_default()
            }
            fn into_object(self) -> Object {
                Object { kind: Some(object::Kind::$arm(self)) }
            }
            fn from_object(object: Object) -> Option<Self> {
                match object.kind {
                    Some(object::Kind::$arm(message)) => Some(message),
                    _ => None,
                }
            }
            fn from_object_ref(object: &Object) -> Option<&Self> {
                match &object.kind {
                    Some(object::Kind::$arm(message)) => Some(message),
                    _ => None,
                }
            }
        })*

        impl Object {
            /// One of which nothing is known but which it is, and as of which revision.
            pub fn bare(key: &ObjectKey, resource_version: u64) -> Object {
                let metadata = Some(ObjectMeta {
                    name: key.name().to_owned(),
                    namespace: key.namespace().to_owned(),
                    resource_version,
                    ..Default::default()
                });
                match key.kind() { $(Kind::$kind => $message { metadata, ..Default::default() }.into_object(),)* }
            }

            /// Which kind it is; `None` when no arm is set.
            pub fn kind(&self) -> Option<Kind> {
                Some(match self.kind.as_ref()? { $(object::Kind::$arm(_) => Kind::$kind,)* })
            }

            /// The metadata; the default if there is none.
            pub fn meta(&self) -> &ObjectMeta {
                match &self.kind { $(Some(object::Kind::$arm(message)) => message.meta(),)* None => &EMPTY_META }
            }

            /// The metadata, made if there is none; `None` when no arm is set.
            pub fn meta_mut(&mut self) -> Option<&mut ObjectMeta> {
                Some(match self.kind.as_mut()? { $(object::Kind::$arm(message) => message.meta_mut(),)* })
            }
        }
    };
}

kinds! {
    Pod: Pod => Pod,
    Service: Service => Service,
    Node: Node => Node,
    EndpointSlice: EndpointSlice => EndpointSlice,
    Namespace: Namespace => Namespace,
    Event: ClusterEvent => Event,
    Lease: Lease => Lease,
    ConfigMap: ConfigMap => ConfigMap,
    Secret: Secret => Secret,
}

impl Object {
    /// Which object it is; `None` when no arm is set.
    pub fn key(&self) -> Option<ObjectKey> {
        let meta = self.meta();
        Some(ObjectKey::new(self.kind()?, &meta.namespace, &meta.name))
    }

    /// The node that a pod is bound to; empty for an unbound pod and for every other kind.
    pub fn node_name(&self) -> &str {
        match &self.kind {
            Some(object::Kind::Pod(pod)) => pod.spec.as_ref().map_or("", |spec| &spec.node_name),
            _ => "",
        }
    }
}
