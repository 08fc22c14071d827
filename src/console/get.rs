use super::args::{self, Output};
use super::failure::{Failure, Result, describe, short_name};
use super::rows::{headings, row};
use super::table::{self, Table};
use super::targets::{self, Targets};
use super::{Console, watch};
use crate::api::v1::{Object, Selector, object};
use crate::api::{Kind, ObjectKey, manifest, nearest, parse_label_selector};
use crate::client::Client;
use crate::error::Error;

pub(super) async fn run(console: &mut Console<'_>, args: &args::Get) -> Result<()> {
    let client = console.client()?;
    let namespace = if args.all_namespaces { "" } else { console.namespace() }.to_owned();
    let targets = targets::parse(&args.objects.words, console.namespace())?;
    if args.watch {
        return watch::run(console, &client, args, watched(&targets, &namespace, args)?).await;
    }
    let (mut objects, missing) = match &targets {
        Targets::Keys(keys) => by_keys(console, &client, keys, args.objects.selector.as_deref()).await?,
        Targets::Kinds(kinds) => (by_kinds(&client, kinds, &namespace, args.objects.selector.as_deref()).await?, false),
    };
    if objects.is_empty() && !missing && matches!(args.output, Output::Table | Output::Wide | Output::Name) {
        let kinds_in_namespaces = matches!(&targets, Targets::Kinds(kinds) if kinds.iter().any(|kind| kind.is_namespaced()));
        match namespace.as_str() {
            "" => writeln!(console.io.err, "No resources found")?,
            namespace if kinds_in_namespaces => {
                // A namespace that does not exist is a slip of the pen, not an empty one.
                client.get_object(&ObjectKey::new(Kind::Namespace, "", namespace)).await?;
                writeln!(console.io.err, "No resources found in {namespace} namespace.")?;
            }
            _ => writeln!(console.io.err, "No resources found")?,
        }
    }
    objects.iter_mut().for_each(|object| hide_owners(object, args));
    let is_single = matches!(&targets, Targets::Keys(keys) if keys.len() == 1);
    let text = print(console, &objects, args, is_single);
    console.io.out.write_all(text.as_bytes())?;
    if missing { Err(Failure::Reported) } else { Ok(()) }
}

/// Takes out who owns which fields, unless somebody wants to see it.
pub(super) fn hide_owners(object: &mut Object, args: &args::Get) {
    if !args.show_managed_fields
        && let Some(meta) = object.meta_mut()
    {
        meta.managed_fields.clear();
    }
}

/// Objects of a kind with these labels; an empty namespace means all.
pub(super) fn selector(kind: Kind, namespace: &str, labels: Option<&str>) -> Result<Selector> {
    let labels = labels.map(parse_label_selector).transpose().map_err(|error| Failure::Usage(describe(&error)))?;
    let namespace = if kind.is_namespaced() { namespace.to_owned() } else { String::new() };
    Ok(Selector { kind: kind.to_string(), namespace, labels, ..Default::default() })
}

fn watched(targets: &Targets, namespace: &str, args: &args::Get) -> Result<Vec<Selector>> {
    match targets {
        Targets::Kinds(kinds) => kinds.iter().map(|kind| selector(*kind, namespace, args.objects.selector.as_deref())).collect(),
        Targets::Keys(_) if args.objects.selector.is_some() => Err(Failure::Usage("give names or a selector, but not both".into())),
        Targets::Keys(keys) => {
            let by_name = |key: &ObjectKey| Selector { name: key.name().to_owned(), ..Default::default() };
            let by_key = |key: &ObjectKey| Selector { kind: key.kind().to_string(), namespace: key.namespace().to_owned(), ..by_name(key) };
            Ok(keys.iter().map(by_key).collect())
        }
    }
}

pub(super) async fn by_kinds(client: &Client, kinds: &[Kind], namespace: &str, labels: Option<&str>) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for kind in kinds {
        let mut listed = client.list_objects(selector(*kind, namespace, labels)?).await?.objects;
        if *kind == Kind::Event {
            listed.sort_by_key(last_seen);
        }
        objects.extend(listed);
    }
    Ok(objects)
}

/// When an event last happened, to have the latest at the end.
fn last_seen(object: &Object) -> i64 {
    match &object.kind {
        Some(object::Kind::Event(event)) => {
            let time = event.spec.as_ref().and_then(|spec| spec.last_time.as_ref()).or(object.meta().creation_time.as_ref());
            time.map_or(0, crate::time::millis)
        }
        _ => 0,
    }
}

/// The objects of these names; what is missing is told, with what may have been meant. True if something is.
pub(super) async fn by_keys(
    console: &mut Console<'_>,
    client: &Client,
    keys: &[ObjectKey],
    labels: Option<&str>,
) -> Result<(Vec<Object>, bool)> {
    if labels.is_some() {
        return Err(Failure::Usage("give names or a selector, but not both".into()));
    }
    let mut objects = Vec::new();
    let mut missing = false;
    for key in keys {
        match client.get_object(key).await {
            Ok(object) => objects.push(object),
            Err(error @ Error::NotFound(_)) => {
                missing = true;
                let hint = suggest(client, key).await?;
                writeln!(console.io.err, "error: {}{hint}", describe(&error))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((objects, missing))
}

/// What may have been meant by a name that doesn't exist.
async fn suggest(client: &Client, key: &ObjectKey) -> Result<String> {
    let same_name = Selector { kind: key.kind().to_string(), name: key.name().to_owned(), ..Default::default() };
    let elsewhere = client.list_objects(same_name).await?.objects;
    if let Some(object) = elsewhere.first() {
        return Ok(format!("; there is one in namespace {0}: add -n {0}", object.meta().namespace));
    }
    let neighbours = client.list_objects(selector(key.kind(), key.namespace(), None)?).await?.objects;
    let names: Vec<_> = neighbours.iter().map(|object| object.meta().name.as_str()).collect();
    Ok(nearest(key.name(), names.iter().copied()).map_or_else(String::new, |right| format!("; did you mean {right:?}?")))
}

fn print(console: &Console<'_>, objects: &[Object], args: &args::Get, is_single: bool) -> String {
    match (args.output, objects) {
        (Output::Yaml, [object]) if is_single => manifest::to_yaml(object),
        (Output::Yaml, objects) => manifest::list_to_yaml(objects),
        (Output::Json, [object]) if is_single => manifest::to_json(object),
        (Output::Json, objects) => manifest::list_to_json(objects),
        (Output::Name, objects) => objects.iter().filter_map(Object::key).map(|key| short_name(&key) + "\n").collect(),
        (Output::Table | Output::Wide, objects) => tables(console, objects, args),
    }
}

/// A table for each kind, with an empty line between.
fn tables(console: &Console<'_>, objects: &[Object], args: &args::Get) -> String {
    let by_kind = objects.chunk_by(|left, right| left.kind() == right.kind());
    let several = by_kind.clone().count() > 1;
    let tables = by_kind.filter_map(|objects| {
        let layout =
            Layout { kind: objects[0].kind()?, wide: args.output == Output::Wide, namespaces: args.all_namespaces, kinds: several };
        let rows = objects.iter().map(|object| layout.row(object, &console.now()));
        let headings = (!args.no_headers).then(|| layout.headings());
        Some(table::lines(&headings.into_iter().chain(rows).collect::<Vec<_>>()))
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// What the lines of a table show.
pub(super) struct Layout {
    pub(super) kind: Kind,
    pub(super) wide: bool,
    /// Begin with the namespace.
    pub(super) namespaces: bool,
    /// Names have their kind before them.
    pub(super) kinds: bool,
}

impl Layout {
    pub(super) fn headings(&self) -> Vec<String> {
        let namespace = (self.namespaces && self.kind.is_namespaced()).then(|| "NAMESPACE".to_owned());
        namespace.into_iter().chain(headings(self.kind, self.wide)).collect()
    }

    pub(super) fn row(&self, object: &Object, now: &prost_types::Timestamp) -> Vec<String> {
        let mut row = row(object, self.wide, now);
        if self.kinds
            && self.kind != Kind::Event
            && let Some(key) = object.key()
        {
            row[0] = short_name(&key);
        }
        let namespace = (self.namespaces && self.kind.is_namespaced()).then(|| object.meta().namespace.clone());
        namespace.into_iter().chain(row).collect()
    }

    /// Columns for these rows, and for the headings.
    pub(super) fn table(&self, rows: &[Vec<String>]) -> Table {
        Table::fitting(std::iter::once(self.headings().as_slice()).chain(rows.iter().map(Vec::as_slice)))
    }
}
