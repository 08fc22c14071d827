//! `get -w`: what there is, then every change, without a gap over broken connections.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Console;
use super::args::{self, Output};
use super::failure::{Result, short_name};
use super::get::{Layout, hide_owners};
use super::table::Table;
use crate::api::v1::{Object, Selector, WatchRequest, WatchResponse, event};
use crate::api::{Kind, ObjectKey, Revision, manifest};
use crate::client::{Backoff, Client, known_objects};
use crate::error::Error;

/// The longest wait before the first new connection.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait before any new connection.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Prints until the watch can't go on or nobody reads any more.
pub(super) async fn run(console: &mut Console<'_>, client: &Client, args: &args::Get, selectors: Vec<Selector>) -> Result<()> {
    let mut printer = Printer::new(args, selectors.len() > 1);
    let mut seen = Seen::default();
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let request = seen.request(&selectors);
        let error = match follow(console, client, request, &mut printer, &mut seen, &mut backoff).await? {
            None => return Ok(()),
            Some(error) => error,
        };
        let delay = backoff.delay_after(&error);
        match error {
            Error::Compacted { .. } => seen.revision = Revision::ZERO,
            // Another cluster, or a past that is lost.
            Error::Future { .. } => (seen.revision, seen.versions) = (Revision::ZERO, HashMap::new()),
            Error::Unavailable(_) | Error::NotDone(_) | Error::Timeout(_) | Error::Cancelled if seen.anything => {}
            Error::Exhausted { retry_after: Some(_), .. } if seen.anything => {}
            other => return Err(other.into()),
        }
        tokio::time::sleep(delay).await;
    }
}

/// What was printed already.
#[derive(Default)]
pub(super) struct Seen {
    anything: bool,
    revision: Revision,
    /// The version of each object, so that a state that is sent anew prints only what is new.
    versions: HashMap<ObjectKey, u64>,
    /// While all of a state is being sent, whatever was printed: the objects that it has so far.
    anew: Option<HashSet<ObjectKey>>,
}

impl Seen {
    /// What to ask for. Where no revision can be resumed from, only what differs from what was printed, unless that is too much to tell.
    pub(super) fn request(&mut self, selectors: &[Selector]) -> WatchRequest {
        let send_initial = self.revision == Revision::ZERO;
        let known = match send_initial {
            true => known_objects(self.versions.iter().map(|(key, version)| (key, *version))),
            false => Some(Vec::new()),
        };
        self.anew = known.is_none().then(HashSet::new);
        let known = known.unwrap_or_default();
        WatchRequest { selectors: selectors.to_vec(), from_revision: self.revision.0, send_initial, known }
    }

    /// What of a message was not printed yet.
    fn news(&mut self, message: WatchResponse, mut hide: impl FnMut(&mut Object)) -> Vec<Line> {
        let mut lines = Vec::new();
        for event in message.events {
            let is_deletion = event.r#type() == event::Type::Deleted;
            let Some((mut object, key)) = event.object.and_then(|object| object.key().map(|key| (object, key))) else { continue };
            hide(&mut object);
            let version = object.meta().resource_version;
            if is_deletion {
                lines.extend(self.versions.remove(&key).map(|_| Line::Deleted(key, object)));
                continue;
            }
            if let Some(shown) = &mut self.anew {
                shown.insert(key.clone());
            }
            if self.versions.insert(key, version) != Some(version) {
                lines.push(Line::Present(object));
            }
        }
        if message.synced
            && let Some(shown) = self.anew.take()
        {
            let gone = self.versions.extract_if(|key, _| !shown.contains(key));
            lines.extend(gone.map(|(key, _)| (Object::bare(&key, message.revision), key)).map(|(object, key)| Line::Deleted(key, object)));
        }
        if message.revision > 0 {
            self.revision = Revision(message.revision);
        }
        lines
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
    let next = async || {
        let message = stream.next_within(client.patience().silence).await;
        if let Ok(Some(_)) = &message {
            backoff.reset();
        }
        message
    };
    take(console, next, is_initial, printer, seen).await
}

/// Prints what comes, an initial state at once when it is complete. One that breaks off is printed as far as it came: it is not sent again.
pub(super) async fn take(
    console: &mut Console<'_>,
    mut next: impl AsyncFnMut() -> std::result::Result<Option<WatchResponse>, Error>,
    is_initial: bool,
    printer: &mut Printer<'_>,
    seen: &mut Seen,
) -> Result<Option<Error>> {
    let mut initial = is_initial.then(Vec::new);
    loop {
        let message = match next().await {
            Ok(Some(message)) => message,
            end => {
                printer.print(console, &initial.unwrap_or_default())?;
                return Ok(end.err());
            }
        };
        seen.anything = true;
        let synced = message.synced;
        let mut news = seen.news(message, |object| hide_owners(object, printer.args));
        match &mut initial {
            Some(lines) => lines.append(&mut news),
            None => printer.print(console, &news)?,
        }
        if synced {
            printer.print(console, &initial.take().unwrap_or_default())?;
        }
    }
}

/// What there is to say of an object.
#[derive(Debug)]
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

pub(super) struct Printer<'a> {
    args: &'a args::Get,
    several: bool,
    /// The columns of each kind, as wide as they were when its first objects came.
    tables: HashMap<Kind, Table>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(args: &'a args::Get, several: bool) -> Self {
        Self { args, several, tables: HashMap::new() }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::Event;

    /// So long that some hundred thousand of them are more than a request may tell.
    fn key(index: usize) -> ObjectKey {
        ObjectKey::new(Kind::Pod, "default", &format!("{}-{index:07}", "x".repeat(240)))
    }

    fn state(indexes: impl Iterator<Item = usize>, revision: u64) -> WatchResponse {
        let event = |index| Event { r#type: event::Type::Added.into(), object: Some(Object::bare(&key(index), index as u64 + 1)) };
        WatchResponse { events: indexes.map(event).collect(), revision, synced: true }
    }

    #[test]
    fn more_than_can_be_told_is_sent_anew_and_only_what_differs_is_printed() {
        const MANY: usize = 130_000;
        let mut seen = Seen::default();
        assert!(seen.request(&[]).send_initial);
        assert_eq!(seen.news(state(0..MANY, 1_000_000), |_| {}).len(), MANY);
        assert_eq!(seen.request(&[]).from_revision, 1_000_000);
        // As after the history is gone.
        seen.revision = Revision::ZERO;
        let request = seen.request(&[]);
        assert!(request.send_initial && request.known.is_empty());
        let news = seen.news(state((0..=MANY).filter(|index| *index != 7), 2_000_000), |_| {});
        assert!(
            matches!(&news[..], [Line::Present(new), Line::Deleted(gone, _)] if new.key() == Some(key(MANY)) && *gone == key(7)),
            "{news:?}"
        );
        assert!(seen.request(&[]).from_revision == 2_000_000 && seen.anew.is_none());
    }

    #[test]
    fn what_was_printed_is_told_if_it_can_be() {
        let mut seen = Seen::default();
        seen.news(state(0..3, 10), |_| {});
        seen.revision = Revision::ZERO;
        let request = seen.request(&[]);
        assert_eq!((request.send_initial, request.known.len()), (true, 3));
        assert!(seen.news(state(3..4, 11), |_| {}).len() == 1, "the others are as they were");
    }
}
