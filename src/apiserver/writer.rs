//! Commits what [`writes`](super::writes) decides: reads, decides, and commits on the condition that nothing has changed in between.

use bytes::Bytes;
use prost::Message as _;

use super::writes::{self, Change};
use super::{mirrors, service_cidr};
use crate::api::v1::{DeleteRequest, Node, Object, ObjectRef, Pod};
use crate::api::{DEFAULT_NAMESPACE, Kind, ObjectKey, Resource as _, SYSTEM_NAMESPACE};
use crate::error::{Error, Result};
use crate::store::{Condition, Snapshot, Store, Stored, Transaction, Write};
use crate::time::Clock;

/// How often a write is decided anew when others keep changing the object in between.
pub(super) const ATTEMPTS: usize = 100;

/// Writes objects, one at a time.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) clock: Clock,
}

/// An object in an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// As it is stored.
    Stored(Stored),
    /// As it would be, after a dry run.
    Planned(Box<Object>),
}

impl Answer {
    /// The object.
    pub(super) fn into_object(self) -> Object {
        match self {
            Answer::Stored(stored) => stored.decode(),
            Answer::Planned(object) => *object,
        }
    }

    /// The encoded object.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Answer::Stored(stored) => stored.bytes,
            Answer::Planned(mut object) => {
                if let Some(meta) = object.meta_mut() {
                    meta.resource_version = 0;
                }
                object.encode_to_vec().into()
            }
        }
    }
}

impl Writer {
    /// Makes sure that the namespaces exist that always do. A new cluster has its services' addresses from this range.
    pub(super) async fn create_own_namespaces(&self, is_shared: bool, service_cidr: &str) -> Result<()> {
        let mut default = namespace(DEFAULT_NAMESPACE);
        service_cidr::record(&mut default, service_cidr);
        for namespace in [Some(default), is_shared.then(|| namespace(SYSTEM_NAMESPACE))].into_iter().flatten() {
            match self.create(namespace, false).await {
                Ok(_) | Err(Error::AlreadyExists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Creates an object.
    pub(super) async fn create(&self, object: Object, dry_run: bool) -> Result<Answer> {
        let object = writes::create(object, self.clock.now(), new_uid())?;
        self.insert(object, dry_run).await
    }

    async fn insert(&self, object: Object, dry_run: bool) -> Result<Answer> {
        let key = key_of(&object)?;
        let snapshot = self.store.current().await?;
        let namespace = require_namespace(&snapshot, &key)?;
        if dry_run {
            return match snapshot.get(&key) {
                Some(_) => Err(Error::AlreadyExists(key.to_ref())),
                None => Ok(Answer::Planned(Box::new(object))),
            };
        }
        let mut writes = vec![Write::Put { object, condition: Condition::Absent }];
        writes.extend(namespace);
        match self.commit(writes).await {
            // Not the new object but its namespace has changed meanwhile. Nearly always because it is being deleted.
            Err(Error::Conflict { .. }) => {
                require_namespace(&self.store.current().await?, &key)?;
                Err(contended(&key))
            }
            outcome => outcome,
        }
    }

    /// Replaces spec and metadata of an object.
    pub(super) async fn update(&self, new: Object, dry_run: bool) -> Result<Answer> {
        let key = key_of(&new)?;
        self.change(&key, dry_run, |old| {
            writes::check_condition(&key, old.meta(), &new.meta().uid, new.meta().resource_version)?;
            writes::update(&old, new.clone())
        })
        .await
    }

    /// Replaces the status of an object.
    pub(super) async fn update_status(&self, given: Object) -> Result<Answer> {
        let key = key_of(&given)?;
        self.change(&key, false, |old| {
            writes::check_condition(&key, old.meta(), &given.meta().uid, given.meta().resource_version)?;
            writes::update_status(old, given.clone())
        })
        .await
    }

    /// Deletes an object, or marks it.
    pub(super) async fn delete(&self, request: &DeleteRequest) -> Result<Answer> {
        let key = key_of_ref(request.r#ref.as_ref())?;
        writes::check_delete(&key, request)?;
        self.change(&key, false, |old| {
            writes::check_condition(&key, old.meta(), &request.uid, request.resource_version)?;
            match mirrors::is_mirror(&old) {
                true => mirrors::delete(&old, &self.store.snapshot()),
                false => writes::delete(&old, request, self.clock.now()),
            }
        })
        .await
    }

    /// Creates the mirror of a static pod, makes it what it should be, or puts it into the place of one of another content.
    pub(super) async fn put_mirror(&self, mirror: Pod) -> Result<()> {
        let mirror = mirror.into_object();
        let key = key_of(&mirror)?;
        for _ in 0..ATTEMPTS {
            let known = self.store.current().await?.get(&key).map(Stored::decode);
            let outcome = match known {
                None => self.insert(writes::create_marked(mirror.clone(), self.clock.now(), mirror.meta().uid.clone())?, false).await,
                Some(_) => self.change(&key, false, |old| mirrors::put(&old, &mirror)).await,
            };
            let is_free_now = || self.store.snapshot().get(&key).is_none_or(|found| mirrors::is_of(&found.decode(), &mirror));
            match outcome.map(|answer| answer.into_object().meta().uid == mirror.meta().uid) {
                Ok(true) => return Ok(()),
                // Another one's place, which is free now.
                Ok(false) => {}
                Err(Error::AlreadyExists(_)) if is_free_now() => {}
                Err(Error::NotFound(missing)) if missing == key.to_ref() => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended(&key))
    }

    /// Removes the mirror of this uid, if it is there and a node's.
    pub(super) async fn remove_mirror(&self, key: &ObjectKey, node: &str, uid: &str) -> Result<()> {
        match self.change(key, false, |old| Ok(mirrors::remove(&old, node, uid))).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Registers a node, or renews its registration.
    pub(super) async fn join(&self, node: Node) -> Result<Answer> {
        let object = node.into_object();
        let key = key_of(&object)?;
        for _ in 0..ATTEMPTS {
            let outcome = match self.store.current().await?.get(&key) {
                Some(_) => self.change(&key, false, |old| writes::join_known(&old, object.clone())).await,
                None => self.insert(writes::join_new(object.clone(), self.clock.now(), new_uid())?, false).await,
            };
            match outcome {
                Err(Error::AlreadyExists(_) | Error::NotFound(_)) => {}
                outcome => return outcome,
            }
        }
        Err(contended(&key))
    }

    /// Changes an object that exists, as `decide` says.
    pub(super) async fn change(&self, key: &ObjectKey, dry_run: bool, decide: impl Fn(Object) -> Result<Change>) -> Result<Answer> {
        for _ in 0..ATTEMPTS {
            let stored = self.store.current().await?.get(key).cloned().ok_or_else(|| Error::not_found(key))?;
            let condition = Condition::At(stored.revision);
            let write = match decide(stored.decode())? {
                Change::Nothing => return Ok(Answer::Stored(stored)),
                Change::Put(object) if dry_run => return Ok(Answer::Planned(Box::new(object))),
                Change::Remove if dry_run => return Ok(Answer::Planned(Box::new(stored.decode()))),
                Change::Put(object) => Write::Put { object, condition },
                Change::Remove => Write::Delete { key: key.clone(), condition },
            };
            match self.commit(vec![write]).await {
                // Somebody else was faster. If the request has conditions, deciding anew judges them by what is there now.
                Err(Error::Conflict { .. } | Error::NotFound(_)) => {}
                outcome => return outcome,
            }
        }
        Err(contended(key))
    }

    /// Commits writes of which the first one's object is the answer.
    async fn commit(&self, writes: Vec<Write>) -> Result<Answer> {
        let committed = self.store.commit(Transaction { writes }).await?;
        let first = committed.objects.into_iter().next().flatten();
        first.map(Answer::Stored).ok_or_else(|| Error::internal("the store answered a write without its object"))
    }
}

/// Makes sure that a new object of this key can be created in its namespace, and that this still holds when it is committed: whoever empties
/// a namespace that is being deleted must not miss an object.
pub(super) fn require_namespace(snapshot: &Snapshot, key: &ObjectKey) -> Result<Option<Write>> {
    if !key.kind().is_namespaced() {
        return Ok(None);
    }
    let namespace = ObjectKey::new(Kind::Namespace, "", key.namespace());
    let stored = snapshot.get(&namespace).ok_or_else(|| Error::not_found(&namespace))?;
    writes::check_namespace(&stored.decode())?;
    Ok(Some(Write::Require { key: namespace, condition: Condition::At(stored.revision) }))
}

/// Which object a request is about.
///
/// # Errors
/// [`Error::Invalid`] when it has no kind or no name.
pub(super) fn key_of(object: &Object) -> Result<ObjectKey> {
    let Some(key) = object.key() else { return Err(Error::Invalid(crate::api::validate(object))) };
    match key.name() {
        "" => Err(Error::invalid(format!("{}.metadata.name", key.kind().arm_name()), "must not be empty")),
        _ => Ok(key),
    }
}

/// Which object a reference names.
///
/// # Errors
/// [`Error::Invalid`] with the path of what is wrong with it.
pub(super) fn key_of_ref(reference: Option<&ObjectRef>) -> Result<ObjectKey> {
    let reference = reference.ok_or_else(|| Error::invalid("ref", "must be set"))?;
    let kind = Kind::from_name(&reference.kind).ok_or_else(|| {
        let kinds = Kind::ALL.map(Kind::as_str).join(", ");
        Error::invalid("ref.kind", format!("unknown kind {:?}; there are {kinds}", reference.kind))
    })?;
    if !kind.is_namespaced() && !reference.namespace.is_empty() {
        return Err(Error::invalid("ref.namespace", format!("must be empty, since a {kind} lives in no namespace")));
    }
    if reference.name.is_empty() {
        return Err(Error::invalid("ref.name", "must not be empty"));
    }
    Ok(ObjectKey::new(kind, &reference.namespace, &reference.name))
}

/// A namespace that always exists, as it is first stored.
fn namespace(name: &str) -> Object {
    let mut namespace = crate::api::v1::Namespace::default();
    namespace.meta_mut().name = name.to_owned();
    namespace.into_object()
}

pub(super) fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(super) fn contended(key: &ObjectKey) -> Error {
    Error::NotDone(format!("{key} is changed by others all the time; try again"))
}
