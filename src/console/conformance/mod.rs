//! `bluebird conformance`: every promise that the spec of a pod makes, shown by a live node, or not.
//!
//! A case is data ([`case`]): steps of what is done and what must be seen, through the public API only. The files in `cases/` hold them, an area each. [`scene`]
//! plays a case; [`outcome`] says what became of it; [`document`] keeps docs/conformance.md.

mod case;
mod cases;
mod document;
mod look;
mod outcome;
mod scene;

#[cfg(test)]
mod tests;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use self::case::Case;
use self::outcome::{Outcome, Played};
use self::scene::{LABEL, Scene, Stage, told};
use super::args;
use super::failure::{Failure, Result};
use super::{Console, table};
use crate::api::condition;
use crate::api::v1::{LabelSelector, Namespace, Node, Selector};
use crate::api::{Kind, Resource as _};
use crate::client::{Client, DeleteOptions};

/// The program as a node finds it: beside its kubelet's executable, with whose folder a container's PATH begins.
const TESTAPP: &str = "testapp";

pub(super) async fn run(console: &mut Console<'_>, args: &args::Conformance) -> Result<()> {
    let cases: Vec<&Case> = cases::all().filter(|case| args.filter.as_ref().is_none_or(|text| case.name.contains(text.as_str()))).collect();
    if cases.is_empty() {
        return Err(Failure::Usage(format!("no case has {:?} in its name", args.filter.as_deref().unwrap_or_default())));
    }
    if args.list {
        let rows: Vec<_> = cases.iter().map(|case| vec![case.name.to_owned(), case.promise.to_owned()]).collect();
        return Ok(console.io.out.write_all(table::lines(&rows).as_bytes())?);
    }
    let client = console.client()?;
    let node = find_node(&client, args.node.as_deref()).await?;
    let status = node.status.clone().unwrap_or_default();
    let stage = Stage {
        client,
        run: format!("conformance-{:06x}", fastrand::u32(..0x100_0000)),
        node: node.meta().name.clone(),
        os: status.info.unwrap_or_default().os,
        capabilities: status.capabilities,
        testapp: args.testapp.clone().unwrap_or_else(|| TESTAPP.to_owned()),
        timeout: args.timeout,
    };
    // From now on Ctrl-C doesn't end the process at once: what was made is removed before.
    let asked_to_end = (console.io.asked_to_end)();
    let outcome = tokio::select! {
        outcome = play_all(console, &stage, args, &cases) => outcome,
        asked = asked_to_end => Err(asked.map_or_else(Failure::from, |()| Failure::Failed("interrupted".to_owned()))),
    };
    if !args.keep {
        remove_leftovers(&stage).await?;
    }
    outcome
}

/// The node that was named, or the only one that is ready.
async fn find_node(client: &Client, name: Option<&str>) -> Result<Node> {
    if let Some(name) = name {
        return Ok(client.get::<Node>("", name).await?);
    }
    let is_ready = |node: &Node| node.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, condition::READY));
    let mut ready: Vec<Node> = client.list::<Node>("").await?.into_iter().filter(is_ready).collect();
    match ready.len() {
        0 => Err(Failure::Failed("no node is ready".to_owned())),
        1 => Ok(ready.remove(0)),
        _ => {
            let names: Vec<_> = ready.iter().map(|node| node.meta().name.as_str()).collect();
            Err(Failure::Usage(format!("say which node with --node; ready are {}", names.join(", "))))
        }
    }
}

async fn play_all(console: &mut Console<'_>, stage: &Stage, args: &args::Conformance, cases: &[&'static Case]) -> Result<()> {
    let found = column(stage, args.keep).await.map_err(Failure::Failed)?;
    let column = args.column.clone().unwrap_or(found);
    writeln!(console.io.out, "Node {} is {column}; {} cases, {} at once", stage.node, cases.len(), args.parallel)?;
    let mut played = Vec::new();
    let numbered = cases.iter().enumerate().map(|(number, case)| play(stage, number, case, args.keep));
    let mut playing = futures_util::stream::iter(numbered).buffer_unordered(args.parallel.max(1));
    while let Some(one) = playing.next().await {
        writeln!(console.io.out, "{one}")?;
        console.io.out.flush()?;
        played.push(one);
    }
    played.sort_by_key(|one| one.case.name);
    writeln!(console.io.out, "{}", outcome::sum(&played))?;
    if let Some(file) = &args.output {
        write(file, outcome::to_json(&column, &played) + "\n")?;
    }
    if let Some(file) = &args.write {
        let before = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| Failure::Failed(format!("cannot read {}: {error}", file.display())))?,
        };
        let all: Vec<&Case> = cases::all().collect();
        write(file, document::merge(&before, &all, &column, &played))?;
    }
    if played.iter().any(|one| matches!(one.outcome, Outcome::Failed(_))) { Err(Failure::Reported) } else { Ok(()) }
}

fn write(file: &std::path::Path, text: String) -> Result<()> {
    std::fs::write(file, text).map_err(|error| Failure::Failed(format!("cannot write {}: {error}", file.display())))
}

/// Which column of the table a node's results belong to: its system, and who runs its pods. Shows, too, that there is a testapp.
async fn column(stage: &Stage, keep: bool) -> Result<String, String> {
    let mut scene = Scene::open(stage, 0).await?;
    let asked = async {
        scene.play(&case::Step::Once("about", &["about"])).await?;
        let seen = scene.until("about", "ended", look::is_over).await?;
        if !look::ended(&seen, 0, "Completed") {
            let hint = "the program testapp has to be beside the node's kubelet, or be named with --testapp";
            return Err(format!("testapp can't be run on node {}: {}\n{hint}", stage.node, look::describe(&seen)));
        }
        scene.log(&scene.request("about")).await
    };
    let about = asked.await;
    if keep {
        scene.leave().await
    } else {
        scene.close().await?
    }
    let about = about?;
    let of = |name: &str| about.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap_or("unknown").to_owned();
    Ok(outcome::column(&of("os="), &of("user=")))
}

/// Plays one case from its namespace's beginning to its end.
async fn play(stage: &Stage, number: usize, case: &'static Case, keep: bool) -> Played {
    let began = Instant::now();
    let missing = case.needs.iter().find(|need| !stage.capabilities.iter().any(|has| has == *need));
    let outcome = match missing {
        Some(missing) => Outcome::NotHere(missing),
        None => match play_steps(stage, number + 1, case, keep).await {
            Ok(()) => Outcome::Kept,
            Err(why) => Outcome::Failed(why),
        },
    };
    Played { case, outcome, took: began.elapsed() }
}

async fn play_steps(stage: &Stage, number: usize, case: &Case, keep: bool) -> Result<(), String> {
    let mut scene = Scene::open(stage, number).await?;
    let mut outcome = Ok(());
    for (index, step) in (1..).zip(case.steps) {
        outcome = scene.play(step).await.map_err(|why| format!("step {index}: {why}"));
        if outcome.is_err() {
            break;
        }
    }
    if keep {
        let namespace = scene.namespace.clone();
        scene.leave().await;
        return outcome.map_err(|why| format!("{why} (kept in namespace {namespace})"));
    }
    // The first reason counts.
    let closed = scene.close().await;
    outcome.and(closed)
}

/// Removes what an interrupted run left.
async fn remove_leftovers(stage: &Stage) -> Result<()> {
    let labels = LabelSelector { match_labels: [(LABEL.to_owned(), stage.run.clone())].into(), ..Default::default() };
    let selector = Selector { kind: Kind::Namespace.to_string(), labels: Some(labels), ..Default::default() };
    for namespace in stage.client.list_objects(selector).await?.objects {
        let name = namespace.meta().name.clone();
        stage.client.delete::<Namespace>("", &name, DeleteOptions::default()).await.map_err(|error| Failure::Failed(told(error)))?;
    }
    Ok(())
}
