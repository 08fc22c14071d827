//! `get -w`: what there is, then every change, without a gap over broken connections.

use std::collections::HashMap;
use std::time::Duration;

use super::Console;
use super::args::{self, Output};
use super::failure::{Result, short_name};
use super::get::{Layout, hide_owners};
use super::table::Table;
use crate::api::v1::{KnownObject, Object, Selector, WatchRequest, event};
use crate::api::{Kind, ObjectKey, Revision, manifest};
use crate::client::{Backoff, Client};
use crate::error::Error;

/// The longest wait before the first new connection.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait before any new connection.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Prints until the watch can't go on or nobody reads any more.
pub(super) async fn run(console: &mut Console<'_>, client: &Client, args: &args::Get, selectors: Vec<Selector>) -> Result<()> {
    let mut printer = Printer { args, several: selectors.len() > 1, tables: HashMap::new() };
    let mut seen = Seen::default();
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let request = WatchRequest {
            selectors: selectors.clone(),
            from_revision: seen.revision.0,
            send_initial: seen.revision == Revision::ZERO,
            known: if seen.revision == Revision::ZERO { seen.known() } else { Vec::new() },
        };
        let error = match follow(console, client, request, &mut printer, &mut seen, &mut backoff).await? {
            None => return Ok(()),
            Some(error) => error,
        };
        match error {
            Error::Compacted { .. } => seen.revision = Revision::ZERO,
            // Another cluster, or a past that is lost.
            Error::Future { .. } => (seen.revision, seen.versions) = (Revision::ZERO, HashMap::new()),
            Error::Unavailable(_) | Error::NotDone(_) | Error::Timeout(_) | Error::Cancelled if seen.anything => {}
            other => return Err(other.into()),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// What was printed already.
#[derive(Default)]
struct Seen {
    anything: bool,
    revision: Revision,
    /// The version of each object, so that a state that is sent anew prints only what is new.
    versions: HashMap<ObjectKey, u64>,
}

impl Seen {
    /// What was printed, so that only what differs is sent anew.
    fn known(&self) -> Vec<KnownObject> {
        let known = |(key, version): (&ObjectKey, &u64)| KnownObject { r#ref: Some(key.to_ref()), resource_version: *version };
        self.versions.iter().map(known).collect()
    }
}

/// One connection. Ends with what ended it, or with nothing if the server ended it in good order.
async fn follow(
    console: &mut Console<'_>,
    client: &Client,
    request: WatchRequest,
    printer: &mut Printer<'_>,
    seen: &mut Seen,
    backoff: &mut Backoff,
) -> Result<Option<Error>> {
    let is_initial = request.send_initial;
    let mut stream = match client.watch(request).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Some(error)),
    };
    let mut initial = is_initial.then(Vec::new);
    loop {
        let message = match stream.next_within(client.patience().silence).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        };
        backoff.reset();
        seen.anything = true;
        let mut changed = Vec::new();
        for event in message.events {
            let is_deletion = event.r#type() == event::Type::Deleted;
            let Some((mut object, key)) = event.object.and_then(|object| object.key().map(|key| (object, key))) else { continue };
            hide_owners(&mut object, printer.args);
            let version = object.meta().resource_version;
            let is_new = if is_deletion {
                seen.versions.remove(&key).is_some()
            } else {
                seen.versions.insert(key.clone(), version) != Some(version)
            };
            if is_new {
                changed.push(if is_deletion { Line::Deleted(key, object) } else { Line::Present(object) });
            }
        }
        match &mut initial {
            Some(objects) => objects.append(&mut changed),
            None => printer.print(console, &changed)?,
        }
        if message.synced {
            printer.print(console, &initial.take().unwrap_or_default())?;
        }
        if message.revision > 0 {
            seen.revision = Revision(message.revision);
        }
    }
}

/// What there is to say of an object.
enum Line {
    Present(Object),
    /// It is gone; its last state, or no more of that than its metadata.
    Deleted(ObjectKey, Object),
}

impl Line {
    fn is_deletion(&self) -> bool {
        matches!(self, Line::Deleted(..))
    }

    fn object(&self) -> &Object {
        match self {
            Line::Present(object) | Line::Deleted(_, object) => object,
        }
    }

    /// A row would look as if it was still there.
    fn print_deletion(&self, console: &mut Console<'_>, with_namespace: bool) -> Result<()> {
        let Line::Deleted(key, _) = self else { return Ok(()) };
        match (with_namespace, key.namespace()) {
            (false, _) | (true, "") => writeln!(console.io.out, "{} deleted", short_name(key))?,
            (true, namespace) => writeln!(console.io.out, "{} deleted in namespace {namespace}", short_name(key))?,
        }
        Ok(())
    }
}

struct Printer<'a> {
    args: &'a args::Get,
    several: bool,
    /// The columns of each kind, as wide as they were when its first objects came.
    tables: HashMap<Kind, Table>,
}

impl Printer<'_> {
    fn print(&mut self, console: &mut Console<'_>, lines: &[Line]) -> Result<()> {
        for lines in lines.chunk_by(|left, right| left.is_deletion() == right.is_deletion()) {
            let objects: Vec<_> = lines.iter().map(|line| line.object().clone()).collect();
            match (self.args.output, &lines[0]) {
                (Output::Table | Output::Wide | Output::Name, Line::Deleted(..)) => {
                    for line in lines {
                        line.print_deletion(console, self.args.all_namespaces)?;
                    }
                }
                _ => self.print_objects(console, &objects)?,
            }
        }
        Ok(console.io.out.flush()?)
    }

    fn print_objects(&mut self, console: &mut Console<'_>, objects: &[Object]) -> Result<()> {
        for objects in objects.chunk_by(|left, right| left.kind() == right.kind()) {
            let text = match self.args.output {
                Output::Yaml => objects.iter().map(|object| format!("---\n{}", manifest::to_yaml(object))).collect(),
                Output::Json => objects.iter().map(manifest::to_json).collect(),
                Output::Name => objects.iter().filter_map(Object::key).map(|key| short_name(&key) + "\n").collect(),
                Output::Table | Output::Wide => self.lines(console, objects),
            };
            console.io.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    fn lines(&mut self, console: &Console<'_>, objects: &[Object]) -> String {
        let Some(kind) = objects.first().and_then(Object::kind) else { return String::new() };
        let layout = Layout { kind, wide: self.args.output == Output::Wide, namespaces: self.args.all_namespaces, kinds: self.several };
        let rows: Vec<_> = objects.iter().map(|object| layout.row(object, &console.now())).collect();
        let mut text = String::new();
        let table = self.tables.entry(kind).or_insert_with(|| {
            let table = layout.table(&rows);
            if !self.args.no_headers {
                text = table.line(&layout.headings()) + "\n";
            }
            table
        });
        text.extend(rows.iter().map(|row| table.line(row) + "\n"));
        text
    }
}
