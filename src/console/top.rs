//! `top`: what nodes and pods use at the moment.

mod rows;

use std::collections::HashMap;
use std::time::Duration;

use self::rows::{Row, cells, headings};
use super::args::{HowToTop, Top};
use super::failure::{Failure, Result, describe};
use super::screen::Screen;
use super::{Console, get, table};
use crate::api::v1::{Node, Selector, TopRequest};
use crate::api::{Kind, Resource as _};
use crate::client::Client;
use crate::error::Error;

/// How often figures are shown anew: as often as nodes send them by default.
const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(console: &mut Console<'_>, args: &Top) -> Result<()> {
    let client = console.client()?;
    let (question, how) = Question::of(console, args)?;
    if how.watch {
        return watch(console, &client, &question, how).await;
    }
    let rows = question.ask(&client).await?;
    let text = table::lines(&question.lines(&rows, how));
    console.io.out.write_all(text.as_bytes())?;
    for (whose, why) in rows.iter().filter_map(Row::missing) {
        writeln!(console.io.err, "no figures of {whose}: {why}")?;
    }
    match (rows.is_empty(), rows.iter().any(Row::has_figures)) {
        (true, _) => Ok(writeln!(console.io.err, "No resources found")?),
        (false, true) => Ok(()),
        // It was said why.
        (false, false) => Err(Failure::Reported),
    }
}

/// Shows them again and again, on a terminal in the same place.
async fn watch(console: &mut Console<'_>, client: &Client, question: &Question, how: &HowToTop) -> Result<()> {
    let mut screen = Screen::default();
    let mut asked_to_end = (console.io.asked_to_end)();
    let mut times = tokio::time::interval(EVERY);
    loop {
        let rows = tokio::select! {
            asked = &mut asked_to_end => return Ok(asked?),
            rows = async { times.tick().await; question.ask(client).await } => rows,
        };
        let lines = match rows {
            Ok(rows) => question.lines(&rows, how),
            Err(error) if error.is_unavailable() => vec![vec![describe(&error).lines().next().unwrap_or_default().to_owned()]],
            Err(error) => return Err(error.into()),
        };
        let text = table::lines(&lines);
        let drawn = match (console.io.terminal)() {
            Some(size) => screen.draw(&text.lines().map(str::to_owned).collect::<Vec<_>>(), size),
            None => text,
        };
        console.io.out.write_all(drawn.as_bytes())?;
        console.io.out.flush()?;
    }
}

/// What is asked.
struct Question {
    selector: Selector,
    /// A line for each container.
    containers: bool,
    /// Begin with the namespace.
    namespaces: bool,
}

impl Question {
    fn of<'a>(console: &Console<'_>, args: &'a Top) -> Result<(Self, &'a HowToTop)> {
        let (kind, namespace, name, how) = match args {
            Top::Node(args) => (Kind::Node, "", &args.name, &args.how),
            Top::Pod(args) if args.all_namespaces => (Kind::Pod, "", &args.name, &args.how),
            Top::Pod(args) => (Kind::Pod, console.namespace(), &args.name, &args.how),
        };
        let mut selector = get::selector(kind, namespace, how.selector.as_deref())?;
        selector.name = name.clone().unwrap_or_default();
        let (containers, namespaces) = match args {
            Top::Node(_) => (false, false),
            Top::Pod(args) => (args.containers, args.all_namespaces),
        };
        Ok((Self { selector, containers, namespaces }, how))
    }

    fn is_of_nodes(&self) -> bool {
        self.selector.kind == Kind::Node.as_str()
    }

    async fn ask(&self, client: &Client) -> Result<Vec<Row>, Error> {
        let answer = client.top(TopRequest { selector: Some(self.selector.clone()) }).await?;
        if !self.is_of_nodes() {
            return Ok(answer.pods.iter().flat_map(|pod| rows::of_pod(pod, self.containers)).collect());
        }
        let objects = client.list_objects(self.selector.clone()).await?.objects;
        let capacity = |node: Node| (node.meta().name.clone(), node.status.unwrap_or_default().capacity);
        let capacities: HashMap<_, _> = objects.into_iter().filter_map(Node::from_object).map(capacity).collect();
        Ok(answer.nodes.iter().map(|node| rows::of_node(node, capacities.get(&node.name))).collect())
    }

    /// A table in the order that is wanted.
    fn lines(&self, rows: &[Row], how: &HowToTop) -> Vec<Vec<String>> {
        let mut sorted: Vec<&Row> = rows.iter().collect();
        if let Some(figure) = how.sort_by {
            sorted.sort_by_key(|row| std::cmp::Reverse(row.figure(figure)));
        }
        let headings = (!how.no_headers && !rows.is_empty()).then(|| headings(self.is_of_nodes(), self.containers, self.namespaces));
        headings.into_iter().chain(sorted.into_iter().map(|row| cells(row, self.namespaces))).collect()
    }
}
