//! Empties namespaces that are being deleted, and lets them go when they are empty.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Context;
use crate::api::v1::{Namespace, NamespacePhase, Object, Selector};
use crate::api::{CONTENTS_FINALIZER, Kind, ObjectKey, Resource};
use crate::client::DeleteOptions;
use crate::error::{Error, Result};
use crate::reconcile::{Outcome, Reconciler};

/// How many objects of a namespace are deleted at once.
const DELETES_AT_ONCE: usize = 16;
/// When to look again at a namespace whose objects take their time, should no change tell.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Empties namespaces; a key is a namespace's name.
pub(super) struct Namespaces(pub(super) Context);

/// What a namespace that is being deleted needs next.
#[derive(Debug, PartialEq)]
enum Decision {
    /// Ask for the deletion of these.
    Delete(Vec<(ObjectKey, String)>),
    /// What is left is being deleted.
    Wait,
    /// It is empty.
    LetGo,
}

impl Reconciler for Namespaces {
    type Key = String;
    const NAME: &'static str = "namespaces";

    fn affected(&self, changed: &ObjectKey) -> Vec<String> {
        let name = match changed.kind() {
            Kind::Namespace => changed.name(),
            _ => changed.namespace(),
        };
        let namespace = self.0.cache.get::<Namespace>("", name);
        namespace.filter(|namespace| is_leaving(namespace)).map(|_| name.to_owned()).into_iter().collect()
    }

    async fn reconcile(&self, name: String) -> Result<Outcome> {
        let Some(namespace) = self.0.cache.get::<Namespace>("", &name).filter(|namespace| is_leaving(namespace)) else {
            return Ok(Outcome::Done);
        };
        self.mark(&namespace).await?;
        // The list, not the cache: only what the apiserver says now proves that nothing is left.
        let selector = Selector { namespace: name, ..Default::default() };
        loop {
            match decide(&self.0.client.list_objects(selector.clone()).await?.objects) {
                Decision::Delete(objects) => self.delete(objects).await?,
                Decision::Wait => return Ok(Outcome::After(LOOK_AGAIN)),
                Decision::LetGo => return self.let_go(&namespace).await.map(|()| Outcome::Done),
            }
        }
    }
}

impl Namespaces {
    async fn mark(&self, namespace: &Namespace) -> Result<()> {
        let mut marked = namespace.clone();
        let status = marked.status.get_or_insert_default();
        if status.phase() == NamespacePhase::Terminating {
            return Ok(());
        }
        status.set_phase(NamespacePhase::Terminating);
        // Whatever its version: the deletion never goes back.
        marked.meta_mut().resource_version = 0;
        let results = self.0.client.update_status(vec![marked.into_object()]).await?;
        results.into_iter().try_for_each(|result| gone_is_fine(result.map(drop)))
    }

    async fn delete(&self, objects: Vec<(ObjectKey, String)>) -> Result<()> {
        let deletes = objects.into_iter().map(|(key, uid)| async move {
            let options = DeleteOptions { uid: Some(uid), ..Default::default() };
            gone_is_fine(self.0.client.delete_object(&key, options).await.map(drop))
        });
        stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect().await
    }

    async fn let_go(&self, namespace: &Namespace) -> Result<()> {
        let current = match self.0.client.get::<Namespace>("", &namespace.meta().name).await {
            Err(Error::NotFound(_)) => return Ok(()),
            answer => answer?,
        };
        if current.meta().uid != namespace.meta().uid {
            return Ok(());
        }
        let mut free = current;
        free.meta_mut().finalizers.retain(|finalizer| finalizer != CONTENTS_FINALIZER);
        match self.0.client.update(free).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_leaving(namespace: &Namespace) -> bool {
    let metadata = namespace.meta();
    metadata.deletion_time.is_some() && metadata.finalizers.iter().any(|finalizer| finalizer == CONTENTS_FINALIZER)
}

fn decide(contents: &[Object]) -> Decision {
    let undeleted = contents.iter().filter(|object| object.meta().deletion_time.is_none());
    let undeleted: Vec<_> = undeleted.filter_map(|object| Some((object.key()?, object.meta().uid.clone()))).collect();
    match (contents, undeleted) {
        ([], _) => Decision::LetGo,
        (_, undeleted) if undeleted.is_empty() => Decision::Wait,
        (_, undeleted) => Decision::Delete(undeleted),
    }
}

/// Somebody else deleted it first, or it is another one of the same name that the next look finds.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NotFound(_) | Error::Conflict { .. }) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{ObjectMeta, Pod};

    fn pod(name: &str, deleted: bool) -> Object {
        let deletion_time = deleted.then(Default::default);
        let metadata =
            ObjectMeta { name: name.into(), namespace: "ns".into(), uid: format!("uid-{name}"), deletion_time, ..Default::default() };
        Pod { metadata: Some(metadata), ..Default::default() }.into_object()
    }

    #[test]
    fn what_is_not_being_deleted_yet_is_deleted_then_waited_for_then_the_namespace_goes() {
        let key = ObjectKey::new(Kind::Pod, "ns", "b");
        assert_eq!(decide(&[pod("a", true), pod("b", false)]), Decision::Delete(vec![(key, "uid-b".into())]));
        assert_eq!(decide(&[pod("a", true), pod("b", true)]), Decision::Wait);
        assert_eq!(decide(&[]), Decision::LetGo);
    }

    #[test]
    fn a_namespace_is_leaving_from_its_deletion_until_its_finalizer_is_gone() {
        let namespace = |deleted: bool, finalizers: &[&str]| Namespace {
            metadata: Some(ObjectMeta {
                deletion_time: deleted.then(Default::default),
                finalizers: finalizers.iter().map(|&finalizer| finalizer.into()).collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(is_leaving(&namespace(true, &[CONTENTS_FINALIZER])));
        assert!(!is_leaving(&namespace(false, &[CONTENTS_FINALIZER])));
        assert!(!is_leaving(&namespace(true, &["somebody/else"])));
    }
}
