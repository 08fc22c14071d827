//! What watchers are sent over all their connections, and whether it was right.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::api::Revision;
use crate::api::v1::{Selector, WatchRequest, WatchResponse};
use crate::client::{Backoff, Client};
use crate::error::{Error, Result};
use crate::tasks::Tasks;
use crate::watch::Start;
use crate::watch::checkers::{Recorded, Reference, Seen, Stream, Watched};

/// How long a watch may be silent: a bookmark's 10 s, and what a busy machine adds.
const SILENCE: Duration = Duration::from_secs(20);

/// Follows a cluster with one watch or more, from outside and over any number of faults, and can tell afterwards whether all of them were sent
/// exactly what they should have been.
///
/// Its watches never ask for the whole state after a fault: they resume where they were. A resume that is refused is a fault that it reports.
#[derive(Debug)]
pub struct Witness {
    begun: Instant,
    base: Vec<WatchResponse>,
    revision: Revision,
    recordings: Vec<Recording>,
}

impl Witness {
    /// Takes down the present state and follows everything from there, as the watch `everything`.
    ///
    /// # Errors
    /// What the watch says.
    pub async fn start(client: &Client, tasks: &Tasks) -> Result<Witness> {
        let base = initial_state(client).await?;
        let revision = Revision(base.last().map_or(0, |message| message.revision));
        let mut witness = Witness { begun: Instant::now(), base, revision, recordings: Vec::new() };
        witness.watch("everything", client.clone(), Vec::new(), tasks);
        Ok(witness)
    }

    /// Follows also what these selectors match, since the same revision.
    pub fn watch(&mut self, name: &str, client: Client, selectors: Vec<Selector>, tasks: &Tasks) {
        let (tell, progress) = watch::channel(Progress { revision: self.revision, refused: None });
        let watched = Watched { name: name.to_owned(), selectors, streams: Vec::new() };
        let recording = Recording { begun: self.begun, watched: Arc::new(Mutex::new(watched)), progress, resume: Arc::default() };
        let (recorder, token) = (recording.clone(), tasks.token());
        tasks.spawn("witness", async move {
            token.run_until_cancelled(recorder.run(client, tell)).await;
        });
        self.recordings.push(recording);
    }

    /// The revision of the state that was taken down first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How often a watch had to be resumed, all watches together.
    pub fn resumes(&self) -> usize {
        self.recordings.iter().map(|recording| recording.watched().streams.len().saturating_sub(1)).sum()
    }

    /// Waits until every watch has been sent everything up to now, and compares that with what one uninterrupted watch is sent, which it returns.
    ///
    /// # Errors
    /// A sentence for each guarantee that a watch broke.
    pub async fn verify(&self, client: &Client) -> std::result::Result<Vec<WatchResponse>, String> {
        let wrong = |error: Error| format!("the watches can't be compared: {error}");
        let now = client.list_objects(Selector { kind: "Namespace".into(), ..Default::default() }).await.map_err(wrong)?.revision;
        for recording in &self.recordings {
            recording.reached(now).await.map_err(|error| format!("watch {:?}: {error}", recording.watched().name))?;
        }
        let mut messages = self.base.clone();
        messages.extend(changes(client, self.revision, now).await.map_err(wrong)?);
        let recorded = Recorded {
            reference: Reference::from_watch(&messages),
            watches: self.recordings.iter().map(|recording| recording.watched().clone()).collect(),
        };
        let broken = recorded.check(SILENCE);
        match broken.is_empty() {
            true => Ok(messages),
            false => Err(broken.iter().map(|broken| format!("{broken}\n")).collect()),
        }
    }
}

/// One watch over all its resumes.
#[derive(Clone, Debug)]
struct Recording {
    begun: Instant,
    watched: Arc<Mutex<Watched>>,
    progress: watch::Receiver<Progress>,
    /// Rung to break the connection.
    resume: Arc<Notify>,
}

#[derive(Clone, Debug)]
struct Progress {
    revision: Revision,
    refused: Option<Error>,
}

impl Recording {
    /// Waits until everything up to a revision was sent. A resumed watch is told at once where it stands, a quiet one only after a while.
    async fn reached(&self, revision: Revision) -> Result<()> {
        let mut progress = self.progress.clone();
        if progress.borrow().revision < revision {
            self.resume.notify_one();
        }
        let reached = progress.wait_for(|progress| progress.revision >= revision || progress.refused.is_some()).await;
        match reached.map(|progress| progress.refused.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(refused)) => Err(refused),
            Err(_) => Err(Error::Cancelled),
        }
    }

    async fn run(&self, client: Client, progress: watch::Sender<Progress>) {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        loop {
            let error = self.connection(&client, &progress, &mut backoff).await;
            if !error.is_retryable() {
                progress.send_modify(|progress| progress.refused = Some(error));
                return;
            }
            tokio::time::sleep(backoff.delay_after(&error)).await;
        }
    }

    /// One stream, until it fails.
    async fn connection(&self, client: &Client, progress: &watch::Sender<Progress>, backoff: &mut Backoff) -> Error {
        let from = progress.borrow().revision;
        let selectors = self.watched().selectors.clone();
        let mut incoming = match client.watch(WatchRequest { selectors, from_revision: from.0, ..Default::default() }).await {
            Ok(incoming) => incoming,
            Err(error) => return error,
        };
        self.watched().streams.push(Stream { start: Start::After(from), messages: Vec::new() });
        loop {
            let received = tokio::select! {
                received = incoming.next() => received,
                () = self.resume.notified() => Err(Error::Cancelled),
            };
            match received {
                Ok(Some(message)) => {
                    backoff.reset();
                    let revision = Revision(message.revision);
                    let seen = Seen { at: self.begun.elapsed(), message };
                    self.watched().streams.last_mut().expect("pushed above").messages.push(seen);
                    progress.send_modify(|progress| progress.revision = revision);
                }
                Ok(None) => return Error::Unavailable("the server ended the watch".into()),
                Err(error) => return error,
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().expect("no panic while held")
    }
}

async fn initial_state(client: &Client) -> Result<Vec<WatchResponse>> {
    let mut incoming = client.watch(WatchRequest { send_initial: true, ..Default::default() }).await?;
    let mut messages = Vec::new();
    while let Some(message) = incoming.next().await? {
        let complete = message.synced;
        messages.push(message);
        if complete {
            return Ok(messages);
        }
    }
    Err(Error::Unavailable("the server ended the watch".into()))
}

/// What one uninterrupted watch of everything is sent.
async fn changes(client: &Client, from: Revision, up_to: Revision) -> Result<Vec<WatchResponse>> {
    let mut incoming = client.watch(WatchRequest { from_revision: from.0, ..Default::default() }).await?;
    let mut messages = Vec::new();
    let mut reached = from;
    while reached < up_to {
        let Some(message) = incoming.next().await? else {
            return Err(Error::Unavailable("the server ended the watch".into()));
        };
        reached = Revision(message.revision);
        messages.push(message);
    }
    Ok(messages)
}
