//! `logs`: what containers of one pod, or of many, wrote.

mod merge;
mod which;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prost_types::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::merge::Merge;
use self::which::{Which, has_begun, logs_of};
use super::failure::{Failure, Result, describe};
use super::{Console, args, get};
use crate::api::v1::{LogsRequest, LogsResponse, Pod};
use crate::api::{Kind, Resource as _, Revision};
use crate::client::{Cache, Client, Log, LogEvent};
use crate::error::Error;
use crate::tasks::Tasks;
use crate::time;

/// Events of logs that wait to be looked at: a piece of each log at most, and what else happens to it.
const EVENTS: usize = 64;
/// In turn, so that the eye finds the lines of a container.
const COLOURS: [u8; 5] = [36, 33, 35, 32, 34];

pub(super) async fn run(console: &mut Console<'_>, args: &args::Logs) -> Result<()> {
    let client = console.client()?;
    let since = args.since.map(|span| ago(&console.now(), span)).or(args.since_time);
    let how = LogsRequest {
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail,
        since_time: since,
        // Lines of several logs are put in order by them.
        timestamps: true,
        ..Default::default()
    };
    let tasks = Tasks::new(CancellationToken::new());
    let mut reading = Reading::new(console, args, client.clone(), how, &tasks);
    let done = match &args.selector {
        Some(labels) => reading.read_many(labels).await,
        None => reading.read_one().await,
    };
    tasks.abort().await;
    done
}

/// The logs that are read now.
struct Reading<'a, 'io> {
    console: &'a mut Console<'io>,
    args: &'a args::Logs,
    client: Client,
    how: LogsRequest,
    tasks: &'a Tasks,
    merge: Merge<OwnedSemaphorePermit>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    names: BTreeMap<u64, Which>,
    next_id: u64,
    has_failed: bool,
}

/// What happened to a log.
struct Event {
    id: u64,
    what: What,
}

enum What {
    Piece(LogsResponse, OwnedSemaphorePermit),
    Broken(Error),
    Over(Option<Error>),
}

/// Why something is to be done.
enum Wake {
    Event(Option<Event>),
    PodsChanged,
    Time,
}

impl<'a, 'io> Reading<'a, 'io> {
    fn new(console: &'a mut Console<'io>, args: &'a args::Logs, client: Client, how: LogsRequest, tasks: &'a Tasks) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let (merge, names) = (Merge::new(args.timestamps), BTreeMap::new());
        Self { console, args, client, how, tasks, merge, events, sender, names, next_id: 0, has_failed: false }
    }

    async fn read_one(&mut self) -> Result<()> {
        let named = self.args.pod.as_deref().unwrap_or_default();
        let name = match named.split_once('/') {
            None => named,
            Some(("pod" | "pods" | "po", name)) => name,
            Some((kind, _)) => return Err(Failure::Usage(format!("{kind:?} has no logs; name a pod"))),
        };
        let pod = self.client.get::<Pod>(self.console.namespace(), name).await?;
        let logs = logs_of(&pod, self.args).map_err(Failure::Failed)?;
        for which in self.at_most(logs)? {
            self.add(which);
        }
        self.print(None).await
    }

    async fn read_many(&mut self, labels: &str) -> Result<()> {
        let selector = get::selector(Kind::Pod, self.console.namespace(), Some(labels))?;
        let pods = self.client.list_objects(selector.clone()).await?.objects;
        let pods: Vec<Pod> = pods.into_iter().filter_map(Pod::from_object).collect();
        if pods.is_empty() {
            writeln!(self.console.io.err, "No resources found")?;
        }
        let mut logs = Vec::new();
        for pod in &pods {
            logs.extend(logs_of(pod, self.args).map_err(Failure::Failed)?.into_iter().filter(|which| has_begun(pod, &which.container)));
        }
        let logs = self.at_most(logs)?;
        let known: BTreeSet<_> = logs.iter().cloned().collect();
        for which in logs {
            self.add(which);
        }
        if !self.args.follow {
            return self.print(None).await;
        }
        let cache = Cache::start(self.client.clone(), vec![selector], self.tasks);
        // What begins from now on is read from its beginning.
        (self.how.tail_lines, self.how.since_time) = (None, None);
        self.print(Some(Newcomers { revisions: cache.revisions(), cache, known, is_told_full: false })).await
    }

    fn at_most(&self, logs: Vec<Which>) -> Result<Vec<Which>> {
        let most = self.args.max_log_requests;
        if logs.len() > most as usize {
            let many = logs.len();
            let message =
                format!("these are {many} logs; at most {most} are read at a time: name fewer, or give a larger --max-log-requests");
            return Err(Failure::Failed(message));
        }
        Ok(logs)
    }

    /// Begins to read a log.
    fn add(&mut self, which: Which) {
        let id = self.next_id;
        self.next_id += 1;
        let mut prefix = if self.args.prefix { which.prefix() } else { String::new() };
        if self.args.prefix && (self.console.io.terminal)().is_some() {
            let colour = COLOURS[id as usize % COLOURS.len()];
            prefix = format!("\u{1b}[{colour}m{}\u{1b}[0m ", prefix.trim_end());
        }
        self.merge.add(id, prefix, Instant::now());
        self.tasks.spawn("log", read(self.client.clone(), which.request(&self.how), id, self.sender.clone()));
        self.names.insert(id, which);
    }

    /// Prints until all logs have ended, or for ever if others may come.
    async fn print(&mut self, mut newcomers: Option<Newcomers>) -> Result<()> {
        loop {
            let io = &mut self.console.io;
            let again = self.merge.write(Instant::now(), io.out, io.err)?;
            io.out.flush()?;
            if self.merge.is_empty() && newcomers.is_none() {
                return if self.has_failed { Err(Failure::Reported) } else { Ok(()) };
            }
            let wake = tokio::select! {
                event = self.events.recv() => Wake::Event(event),
                () = changed(newcomers.as_mut()) => Wake::PodsChanged,
                () = until(again) => Wake::Time,
            };
            match wake {
                Wake::Event(Some(event)) => self.take(event, newcomers.as_mut())?,
                Wake::PodsChanged => self.join(newcomers.as_mut())?,
                Wake::Event(None) | Wake::Time => {}
            }
        }
    }

    fn take(&mut self, Event { id, what }: Event, newcomers: Option<&mut Newcomers>) -> Result<()> {
        match what {
            What::Piece(piece, permit) => self.merge.piece(id, piece, permit, Instant::now()),
            What::Broken(error) => {
                self.merge.broken(id);
                writeln!(
                    self.console.io.err,
                    "{}the connection broke, and the log goes on when there is another one: {error}",
                    self.prefix(id)
                )?;
            }
            What::Over(error) => {
                self.merge.over(id);
                if let Some(error) = error {
                    self.has_failed = true;
                    writeln!(self.console.io.err, "{}error: {}", self.prefix(id), describe(&error))?;
                }
                self.names.remove(&id);
                return self.join(newcomers);
            }
        }
        Ok(())
    }

    /// What is said of one log among several begins with its name.
    fn prefix(&self, id: u64) -> String {
        match self.names.get(&id) {
            Some(which) if self.args.selector.is_some() || self.args.all_containers => which.prefix(),
            _ => String::new(),
        }
    }

    /// Begins to read the logs that were not there before, as many as may be read.
    fn join(&mut self, newcomers: Option<&mut Newcomers>) -> Result<()> {
        let Some(newcomers) = newcomers else { return Ok(()) };
        let pods = newcomers.cache.list::<Pod>();
        newcomers.known.retain(|which| pods.iter().any(|pod| pod.meta().uid == which.uid));
        for pod in pods {
            let logs = logs_of(&pod, self.args).unwrap_or_default();
            for which in logs.into_iter().filter(|which| has_begun(&pod, &which.container)) {
                if newcomers.known.contains(&which) {
                    continue;
                }
                if self.names.len() >= self.args.max_log_requests as usize {
                    return newcomers.tell_full(&which, self.args.max_log_requests, self.console);
                }
                newcomers.known.insert(which.clone());
                self.add(which);
            }
        }
        Ok(())
    }
}

/// Follows the pods that a selector matches.
struct Newcomers {
    cache: Cache,
    revisions: watch::Receiver<Option<Revision>>,
    /// What was begun to be read.
    known: BTreeSet<Which>,
    /// It was said that no more can be read.
    is_told_full: bool,
}

impl Newcomers {
    fn tell_full(&mut self, which: &Which, most: u32, console: &mut Console<'_>) -> Result<()> {
        if !std::mem::replace(&mut self.is_told_full, true) {
            let prefix = which.prefix();
            writeln!(console.io.err, "{prefix}waits until another log ends: {most} are read already; give a larger --max-log-requests")?;
        }
        Ok(())
    }
}

/// Reads a log to its end. There is one piece of it at a time: the next one waits until that is printed.
async fn read(client: Client, request: LogsRequest, id: u64, events: mpsc::Sender<Event>) {
    let room = Arc::new(Semaphore::new(1));
    let send = async |what| events.send(Event { id, what }).await.is_ok();
    let all = async {
        let mut log = Log::open(client, request).await?;
        while let Some(event) = log.next().await? {
            let is_heard = match (event, room.clone().acquire_owned().await) {
                (LogEvent::Piece(piece), Ok(permit)) => send(What::Piece(piece, permit)).await,
                (LogEvent::Broken(error), _) => send(What::Broken(error)).await,
                (LogEvent::Piece(_), Err(_)) => false,
            };
            if !is_heard {
                break;
            }
        }
        Ok(())
    };
    let error = all.await.err();
    // Nobody listens any more when this fails.
    let _gone = send(What::Over(error)).await;
}

/// Waits until other pods may match.
async fn changed(newcomers: Option<&mut Newcomers>) {
    let is_changed = match newcomers {
        Some(newcomers) => newcomers.revisions.changed().await.is_ok(),
        None => false,
    };
    if !is_changed {
        std::future::pending().await
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// So long before a time.
fn ago(now: &Timestamp, span: Duration) -> Timestamp {
    let then = time::to_system_time(now).checked_sub(span).unwrap_or(std::time::UNIX_EPOCH);
    time::to_timestamp(then)
}
