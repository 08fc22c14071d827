use std::collections::HashSet;

use prost::Message as _;

use super::Console;
use super::args;
use super::failure::{self, Failure, Result};
use super::input;
use crate::api::manifest::Manifest;
use crate::api::v1::{ApplyOutcome, ApplyRequest, ApplyResponse, ApplyResult, FieldConflict, LabelSelector, Object, Selector};
use crate::api::{APPLY_SET_LABEL, Kind, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OBJECTS, ObjectKey};
use crate::client::Client;
use crate::error::{Error, Violation};

/// The most bytes of one request; the apiserver adds to what it stores, so it is less than a transaction may have.
const CHUNK_BYTES: usize = MAX_TRANSACTION_BYTES / 2;

pub(super) async fn run(console: &mut Console<'_>, args: &args::Apply) -> Result<()> {
    let manifest = input::read(console, &args.files)?;
    let client = console.client()?;
    apply(console, &client, &manifest, &args.how).await.map(drop)
}

/// Applies a manifest, all at one revision if it fits into one request, and prints what became of each object. What left the manifest goes last.
pub(super) async fn apply(console: &mut Console<'_>, client: &Client, manifest: &Manifest, how: &args::HowToApply) -> Result<Vec<Object>> {
    let mut chunks = chunks(manifest.objects());
    let Some(last) = chunks.pop() else { return Ok(Vec::new()) };
    if !chunks.is_empty() {
        let count = manifest.objects().len();
        writeln!(console.io.err, "{count} objects are more than one request takes; they go in {}, one after the other.", chunks.len() + 1)?;
    }
    let mut applied = Vec::new();
    for chunk in chunks {
        applied.extend(send(console, client, request(chunk, how), manifest).await?);
    }
    let plain = request(last, how);
    if !how.prune {
        applied.extend(send(console, client, plain, manifest).await?);
        return Ok(applied);
    }
    let keep = applied.iter().filter_map(Object::key).map(|key| key.to_ref()).collect();
    let request = ApplyRequest { prune: true, keep, ..plain.clone() };
    match client.apply_as(request.clone()).await {
        Err(Error::TransactionTooLarge { .. }) => {
            writeln!(console.io.err, "What is to go is more than fits into one request; it goes afterwards, in several.")?;
            applied.extend(send(console, client, plain, manifest).await?);
            prune(console, client, manifest, how).await?;
        }
        answer => applied.extend(tell(console, answer, &request, manifest)?),
    }
    Ok(applied)
}

/// Deletes what left the manifest, in as many requests as it takes.
async fn prune(console: &mut Console<'_>, client: &Client, manifest: &Manifest, how: &args::HowToApply) -> Result<()> {
    let request = request(Vec::new(), how);
    let labels = LabelSelector { match_labels: [(APPLY_SET_LABEL.to_owned(), request.apply_set.clone())].into(), ..Default::default() };
    let members = client.list_objects(Selector { labels: Some(labels), ..Default::default() }).await?.objects;
    let stays: HashSet<_> = manifest.objects().iter().filter_map(Object::key).collect();
    let surplus: Vec<_> = members.into_iter().filter(|object| object.key().is_some_and(|key| !stays.contains(&key))).collect();
    for chunk in chunks(&surplus) {
        let goes: HashSet<_> = chunk.iter().filter_map(Object::key).collect();
        let others = surplus.iter().filter_map(Object::key).filter(|key| !goes.contains(key));
        let keep = stays.iter().cloned().chain(others).map(|key| key.to_ref()).collect();
        send(console, client, ApplyRequest { prune: true, keep, ..request.clone() }, manifest).await?;
    }
    Ok(())
}

fn request(objects: Vec<Object>, how: &args::HowToApply) -> ApplyRequest {
    let args::HowToApply { field_manager, force, dry_run, apply_set, .. } = how.clone();
    ApplyRequest { objects, field_manager, dry_run, force, apply_set: apply_set.unwrap_or_default(), ..Default::default() }
}

async fn send(console: &mut Console<'_>, client: &Client, request: ApplyRequest, manifest: &Manifest) -> Result<Vec<Object>> {
    let answer = client.apply_as(request.clone()).await;
    tell(console, answer, &request, manifest)
}

/// Prints what became of the objects of a request, and gives them as they are now, without those that were pruned.
fn tell(
    console: &mut Console<'_>,
    answer: Result<ApplyResponse, Error>,
    request: &ApplyRequest,
    manifest: &Manifest,
) -> Result<Vec<Object>> {
    let mut applied = Vec::with_capacity(request.objects.len());
    for result in answer.map_err(|error| explain(error, &request.objects, manifest))?.results {
        writeln!(console.io.out, "{}", line(&result, request.dry_run))?;
        if result.outcome() != ApplyOutcome::Pruned {
            applied.extend(result.object);
        }
    }
    Ok(applied)
}

/// The objects in as few requests as possible. Only when there are several do namespaces go before what may be in them.
fn chunks(objects: &[Object]) -> Vec<Vec<Object>> {
    let mut chunks: Vec<Vec<Object>> = Vec::new();
    let mut bytes = 0;
    let fits_into_one = objects.len() <= MAX_TRANSACTION_OBJECTS && objects.iter().map(Object::encoded_len).sum::<usize>() <= CHUNK_BYTES;
    let (first, rest): (Vec<_>, Vec<_>) = objects.iter().partition(|object| fits_into_one || object.kind() == Some(Kind::Namespace));
    for object in first.into_iter().chain(rest) {
        let size = object.encoded_len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < MAX_TRANSACTION_OBJECTS && bytes + size <= CHUNK_BYTES => {
                chunk.push(object.clone());
                bytes += size;
            }
            _ => {
                chunks.push(vec![object.clone()]);
                bytes = size;
            }
        }
    }
    chunks
}

fn line(result: &ApplyResult, dry_run: bool) -> String {
    let name = result.object.as_ref().and_then(Object::key).map_or_else(|| "object".to_owned(), |key| failure::short_name(&key));
    let outcome = match result.outcome() {
        ApplyOutcome::Created => "created",
        ApplyOutcome::Configured => "configured",
        ApplyOutcome::Unchanged => "unchanged",
        ApplyOutcome::Pruned => "pruned",
        ApplyOutcome::Unspecified => "applied",
    };
    format!("{name} {outcome}{}", if dry_run { " (dry run)" } else { "" })
}

/// An error of Apply with the place of each object in its manifest.
fn explain(error: Error, chunk: &[Object], manifest: &Manifest) -> Failure {
    let told: Vec<_> = match &error {
        Error::Invalid(violations) => violations.iter().map(|violation| explain_violation(violation, chunk, manifest)).collect(),
        Error::ApplyConflict(conflicts) => {
            let told = conflicts.iter().map(|conflict| explain_conflict(conflict, manifest));
            told.chain(["Leave these fields out, or take them over with --force.".to_owned()]).collect()
        }
        _ => return error.into(),
    };
    Failure::Failed(told.join("\n"))
}

fn explain_conflict(conflict: &FieldConflict, manifest: &Manifest) -> String {
    let FieldConflict { r#ref, path, manager } = conflict;
    let object = r#ref.clone().unwrap_or_default();
    let key = Kind::from_name(&object.kind).map(|kind| ObjectKey::new(kind, &object.namespace, &object.name));
    let place = key.map_or(object.name, |key| placed(&key, manifest));
    format!("{place}: {}: is owned by {manager:?}, with another value", failure::manifest_path(path))
}

/// An object with its place in the manifest.
fn placed(key: &ObjectKey, manifest: &Manifest) -> String {
    manifest.place(key).map_or_else(|| key.to_string(), |place| format!("{place}: {}", failure::short_name(key)))
}

fn explain_violation(violation: &Violation, chunk: &[Object], manifest: &Manifest) -> String {
    let Some((index, path)) = split_index(&violation.path) else { return failure::violation(violation) };
    let Some(key) = chunk.get(index).and_then(Object::key) else { return failure::violation(violation) };
    format!("{}: {}", placed(&key, manifest), failure::violation(&Violation::new(path, &violation.message)))
}

/// `objects[3].pod.spec` → `(3, "pod.spec")`
fn split_index(path: &str) -> Option<(usize, &str)> {
    let (index, rest) = path.strip_prefix("objects[")?.split_once(']')?;
    Some((index.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Resource as _;
    use crate::api::manifest;
    use crate::api::v1::{Namespace, ObjectMeta, Pod};

    fn pod(name: &str, bytes: usize) -> Object {
        let annotations = [("a".into(), "x".repeat(bytes))].into();
        Pod { metadata: Some(ObjectMeta { name: name.into(), annotations, ..Default::default() }), ..Default::default() }.into_object()
    }

    #[test]
    fn what_fits_into_one_request_keeps_its_order() {
        let namespace = Namespace { metadata: Some(ObjectMeta { name: "a".into(), ..Default::default() }), ..Default::default() };
        let objects = [pod("a", 1), namespace.into_object()];
        assert_eq!(chunks(&objects), [objects.to_vec()]);
    }

    #[test]
    fn too_many_objects_go_in_several_requests_with_namespaces_first() {
        let namespace = Namespace { metadata: Some(ObjectMeta { name: "a".into(), ..Default::default() }), ..Default::default() };
        let mut objects: Vec<_> = (0..250).map(|index| pod(&index.to_string(), 1)).collect();
        objects.push(namespace.into_object());
        let chunks = chunks(&objects);
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 51]);
        assert_eq!(chunks[0][0].kind(), Some(Kind::Namespace));
    }

    #[test]
    fn large_objects_go_in_several_requests() {
        let objects: Vec<_> = (0..4).map(|index| pod(&index.to_string(), 300_000)).collect();
        assert_eq!(chunks(&objects).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_fault_found_by_the_apiserver_has_the_place_in_the_manifest() {
        let mut manifest = Manifest::new("default");
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: B}\n";
        manifest.read(text, "in.yaml").expect("two pods");
        let error = Error::invalid("objects[1].pod.spec.containers[0].working_dir", "is wrong");
        let Failure::Failed(told) = explain(error, manifest.objects(), &manifest) else { panic!("a failure") };
        assert_eq!(told, "in.yaml:5 (document 2): pod/B: spec.containers[0].workingDir: is wrong");
        assert!(manifest::parse(text, "").is_ok());
    }
}
