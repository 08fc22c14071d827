use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Console;
use super::args;
use super::failure::{Failure, Result, describe, short_name};
use super::targets::{self, Targets};
use super::{get, input};
use crate::api::ObjectKey;
use crate::api::v1::{Object, Selector};
use crate::client::{Cache, Client, DeleteOptions};
use crate::error::Error;
use crate::tasks::Tasks;

pub(super) async fn run(console: &mut Console<'_>, args: &args::Delete) -> Result<()> {
    let client = console.client()?;
    let keys = keys(console, &client, args).await?;
    if args.force {
        writeln!(console.io.err, "Warning: with --force nobody waits until the processes have really ended.")?;
    }
    // Zero would remove the object before its processes have ended; only --force asks for that. The shortest wait stands in, as in kubectl.
    let grace_period_seconds = if args.force { Some(0) } else { args.grace_period.map(|seconds| seconds.max(1)) };
    let options = DeleteOptions { grace_period_seconds, ..Default::default() };
    let mut waiting = BTreeMap::new();
    let mut failed = false;
    for key in keys {
        match client.delete_object(&key, options.clone()).await {
            Ok(object) if is_gone(&object, args) => writeln!(console.io.out, "{} deleted", short_name(&key))?,
            Ok(object) => {
                let out: &mut dyn Write = if args.wait { console.io.err } else { console.io.out };
                writeln!(out, "{} is being deleted", short_name(&key))?;
                waiting.insert(key, object.meta().uid.clone());
            }
            Err(Error::NotFound(_)) if args.ignore_not_found => {}
            Err(error) if error.is_unavailable() => return Err(error.into()),
            Err(error) => {
                failed = true;
                writeln!(console.io.err, "error: {}", describe(&error))?;
            }
        }
    }
    console.io.out.flush()?;
    if args.wait {
        wait_until_gone(console, &client, waiting, args.timeout).await?;
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

/// Whether nothing is left to wait for: a pod waits for its kubelet, and anything with finalizers for whoever owns them.
fn is_gone(last: &Object, args: &args::Delete) -> bool {
    // What was being deleted before, and is removed by force, keeps the time of its deletion in its last state.
    last.meta().deletion_time.is_none() || (args.force && last.meta().finalizers.is_empty())
}

/// Which objects are to be deleted.
async fn keys(console: &mut Console<'_>, client: &Client, args: &args::Delete) -> Result<Vec<ObjectKey>> {
    if !args.files.files.is_empty() {
        if !args.objects.words.is_empty() || args.objects.selector.is_some() {
            return Err(Failure::Usage("name objects, or manifests with -f, but not both".into()));
        }
        return Ok(input::read(console, &args.files)?.objects().iter().filter_map(Object::key).collect());
    }
    match (targets::parse(&args.objects.words, console.namespace())?, &args.objects.selector) {
        (Targets::Keys(keys), None) => Ok(keys),
        (Targets::Keys(_), Some(_)) => Err(Failure::Usage("give names or a selector, but not both".into())),
        (Targets::Kinds(_), None) => Err(Failure::Usage("say which: names, or a selector with -l".into())),
        (Targets::Kinds(kinds), Some(selector)) => {
            let mut keys = Vec::new();
            for kind in kinds {
                let selector = get::selector(kind, console.namespace(), Some(selector))?;
                keys.extend(client.list_objects(selector).await?.objects.iter().filter_map(Object::key));
            }
            if keys.is_empty() {
                writeln!(console.io.err, "No resources found")?;
            }
            Ok(keys)
        }
    }
}

/// Waits until none of the objects is there any more, or another one has its name, and tells of each when it is so.
async fn wait_until_gone(
    console: &mut Console<'_>,
    client: &Client,
    mut waiting: BTreeMap<ObjectKey, String>,
    timeout: Duration,
) -> Result<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    let tasks = Tasks::new(CancellationToken::new());
    let cache = Cache::start(client.clone(), selectors(waiting.keys()), &tasks);
    let mut changes = cache.subscribe();
    let gone = async {
        if !cache.synced().await {
            return Ok(());
        }
        loop {
            let is_there = |key: &ObjectKey, uid: &mut String| cache.get_object(key).is_some_and(|object| object.meta().uid == *uid);
            for (key, _) in waiting.extract_if(.., |key, uid| !is_there(key, uid)) {
                writeln!(console.io.out, "{} deleted", short_name(&key))?;
            }
            console.io.out.flush()?;
            if waiting.is_empty() || changes.next().await.is_none() {
                return Ok(());
            }
        }
    };
    let outcome = tokio::time::timeout(timeout, gone).await;
    tasks.shutdown(Duration::from_secs(1)).await;
    match outcome {
        Ok(told) => told,
        Err(_) => {
            let names: Vec<_> = waiting.keys().map(short_name).collect();
            Err(Failure::Failed(format!("still there after {}: {}", super::age::short(timeout), names.join(", "))))
        }
    }
}

/// The most selectors of one watch.
const MAX_SELECTORS: usize = 64;

/// Selects the objects by name, or all of their kinds when there are too many names for one watch.
fn selectors<'k>(keys: impl ExactSizeIterator<Item = &'k ObjectKey>) -> Vec<Selector> {
    let by_name = keys.len() <= MAX_SELECTORS;
    let mut selectors: Vec<Selector> = Vec::new();
    for key in keys {
        let kind = key.kind().to_string();
        let selector = if by_name {
            Selector { kind, namespace: key.namespace().to_owned(), name: key.name().to_owned(), ..Default::default() }
        } else {
            Selector { kind, ..Default::default() }
        };
        if !selectors.contains(&selector) {
            selectors.push(selector);
        }
    }
    selectors
}
