//! `store check|dump|stats`: looks into a store's folder or a backup, without an apiserver.

use std::collections::BTreeMap;
use std::path::Path;

use super::Console;
use super::args::{self, StoreCommand};
use super::failure::{Failure, Result, short_name};
use super::table;
use crate::api::v1::Object;
use crate::api::{Kind, Revision, manifest};
use crate::store::{self, Commit, Inspected, Stored};

pub(super) fn run(console: &mut Console<'_>, command: &StoreCommand) -> Result<()> {
    let inspect = |path: &Path| store::inspect(path).map_err(|error| Failure::Failed(error.to_string()));
    match command {
        StoreCommand::Check(store) => check(console, &inspect(&store.path)?),
        StoreCommand::Dump(args) if args.log => dump_log(console, &inspect(&args.store.path)?),
        StoreCommand::Dump(args) => dump(console, &inspect(&args.store.path)?, args.output),
        StoreCommand::Stats(store) => stats(console, &inspect(&store.path)?),
    }
}

/// Reading has checked the files; this checks what is in them.
fn check(console: &mut Console<'_>, inspected: &Inspected) -> Result<()> {
    let Inspected { state, commits, .. } = inspected;
    let in_state = state.iter().filter_map(|stored| fault(stored, state.revision()));
    let in_log = commits.iter().flat_map(|commit| {
        commit.events.iter().filter_map(|event| {
            let stored = Stored { key: event.key().clone(), revision: commit.revision, bytes: event.object() };
            fault(&stored, commit.revision).map(|fault| format!("commit {}: {fault}", commit.revision))
        })
    });
    let faults: Vec<_> = in_state.chain(in_log).collect();
    if !faults.is_empty() {
        return Err(Failure::Failed(faults.join("\n")));
    }
    writeln!(console.io.out, "sound: {} objects at revision {}, {}", state.len(), state.revision(), span(commits))?;
    Ok(())
}

/// What of an object contradicts what the store says of it.
fn fault(stored: &Stored, newest: Revision) -> Option<String> {
    let key = &stored.key;
    let Ok(object) = <Object as prost::Message>::decode(stored.bytes.clone()) else { return Some(format!("{key} can't be decoded")) };
    match (object.key(), object.meta().resource_version) {
        (found, _) if found.as_ref() != Some(key) => {
            Some(format!("{key} is {} by what is in it", found.map_or_else(String::new, |found| found.to_string())))
        }
        (_, version) if version != stored.revision.0 => Some(format!("{key} is of revision {} and says {version}", stored.revision)),
        _ if stored.revision > newest => Some(format!("{key} is of revision {}, after {newest}", stored.revision)),
        _ => None,
    }
}

fn span(commits: &[std::sync::Arc<Commit>]) -> String {
    let time = |commit: &Commit| commit.time.to_string();
    match commits {
        [] => "no history".to_owned(),
        [first, .., last] => {
            format!("history of {} commits, {} ({}) to {} ({})", commits.len(), first.revision, time(first), last.revision, time(last))
        }
        [only] => format!("history of one commit, {} ({})", only.revision, time(only)),
    }
}

fn dump(console: &mut Console<'_>, inspected: &Inspected, output: args::DumpOutput) -> Result<()> {
    for stored in inspected.state.iter() {
        let object = stored.decode();
        match output {
            args::DumpOutput::Yaml => write!(console.io.out, "---\n{}", manifest::to_yaml(&object))?,
            args::DumpOutput::Json => writeln!(console.io.out, "{}", manifest::to_value(&object))?,
        }
    }
    Ok(())
}

/// A line of JSON for each commit.
fn dump_log(console: &mut Console<'_>, inspected: &Inspected) -> Result<()> {
    for commit in &inspected.commits {
        let events: Vec<_> = commit
            .events
            .iter()
            .map(|event| {
                let object = <Object as prost::Message>::decode(event.object())
                    .map_or(serde_json::Value::Null, |object| manifest::to_value(&object));
                serde_json::json!({"type": event.kind().as_str_name().trim_start_matches("TYPE_"), "key": event.key().to_string(), "object": object})
            })
            .collect();
        let line = serde_json::json!({"revision": commit.revision.0, "time": commit.time.to_string(), "events": events});
        writeln!(console.io.out, "{line}")?;
    }
    Ok(())
}

/// Objects and bytes of one kind.
#[derive(Default)]
struct Sum {
    objects: usize,
    bytes: usize,
    largest: usize,
    largest_name: String,
}

fn stats(console: &mut Console<'_>, inspected: &Inspected) -> Result<()> {
    let Inspected { cluster_id, state, commits, files } = inspected;
    let mut kinds: BTreeMap<Kind, Sum> = BTreeMap::new();
    for stored in state.iter() {
        let (sum, bytes) = (kinds.entry(stored.key.kind()).or_default(), stored.bytes.len());
        sum.objects += 1;
        sum.bytes += bytes;
        if bytes > sum.largest {
            (sum.largest, sum.largest_name) = (bytes, short_name(&stored.key));
        }
    }
    writeln!(console.io.out, "cluster {cluster_id} at revision {}, {}\n", state.revision(), span(commits))?;
    let row = |name: String, sum: &Sum| {
        vec![name, sum.objects.to_string(), sum.bytes.to_string(), sum.largest.to_string(), sum.largest_name.clone()]
    };
    let total = Sum { objects: state.len(), bytes: state.bytes(), ..Sum::default() };
    let mut rows = vec![["KIND", "OBJECTS", "BYTES", "LARGEST", "NAME"].map(str::to_owned).to_vec()];
    rows.extend(kinds.iter().map(|(kind, sum)| row(kind.to_string(), sum)));
    rows.push(vec!["all".to_owned(), total.objects.to_string(), total.bytes.to_string()]);
    writeln!(console.io.out, "{}", table::lines(&rows))?;
    let names = files.iter().map(|(path, size)| {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        vec![name, size.to_string()]
    });
    let rows: Vec<_> = std::iter::once(["FILE", "BYTES"].map(str::to_owned).to_vec()).chain(names).collect();
    write!(console.io.out, "{}", table::lines(&rows))?;
    Ok(())
}
