use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Files;
use super::batch::{Answer, Answers, Batch};
use super::record::LogRecord;
use crate::error::{Error, Result};
use crate::store::{Committed, Feed};

/// Where batches become durable, then visible, and are answered then; one after the other.
pub(super) struct Landing {
    files: Files,
    feed: Feed,
    /// Where those run that wait for answers.
    runtime: Option<Handle>,
    /// Of the last batch, for its memory.
    pub(super) record: LogRecord,
}

impl Landing {
    pub(super) fn new(files: Files, feed: Feed) -> Self {
        Self { files, feed, runtime: Handle::try_current().ok(), record: LogRecord::default() }
    }

    /// Whether a batch is large enough that the next one should be decided while it lands. Of a lone transaction there is no next one, and after a small
    /// batch deciding takes less time than two threads that wake each other.
    pub(super) fn is_worth_a_thread(&self, batch: &Batch) -> bool {
        batch.answers.len() > 1 && batch.bytes >= self.files.limits.beside_bytes
    }

    /// Lands a batch that was decided on top of what landed last. Blocks.
    ///
    /// # Errors
    /// As the files say, and then everybody who waits for this batch has been told so, and nothing of it is ever visible.
    pub(super) fn land(&mut self, batch: Batch) -> Result<()> {
        let Batch { state, commits, mut record, answers, .. } = batch;
        let appended = if commits.is_empty() { Ok(()) } else { self.append(&mut record, commits.len()) };
        self.record = record.emptied();
        if appended.is_ok() && !commits.is_empty() {
            self.feed.publish(state, commits);
        }
        self.tell(answers, appended.as_ref().err());
        self.files.compact(&self.feed.snapshot(), self.feed.oldest());
        appended
    }

    fn append(&mut self, record: &mut LogRecord, commits: usize) -> Result<()> {
        let begun = Instant::now();
        self.files.append(record)?;
        metrics::histogram!("bluebird_store_append_seconds").record(begun.elapsed());
        metrics::histogram!("bluebird_store_batch_commits").record(commits as f64);
        metrics::counter!("bluebird_store_commits_total").increment(commits as u64);
        Ok(())
    }

    /// Gives the answers, or an error instead to all of them. From within the runtime, where waking is cheap, and what goes to one connection is written at once.
    pub(super) fn tell(&self, answers: Vec<(Answer, Result<Committed>)>, error: Option<&Error>) {
        let answers =
            Answers(answers.into_iter().map(|(answer, outcome)| (answer, error.map_or(outcome, |error| Err(error.clone())))).collect());
        match &self.runtime {
            Some(runtime) if answers.0.len() > 1 => drop(runtime.spawn(async move { drop(answers) })),
            _ => drop(answers),
        }
    }

    /// Prepares a fast start.
    pub(super) fn close(&mut self) {
        self.files.close(&self.feed.snapshot());
    }
}

/// A thread on which a batch lands while the next one is decided. It has the landing meanwhile, so there is never more than one.
pub(super) struct Beside {
    /// `None` once it is to end.
    to: Option<mpsc::Sender<(Box<Landing>, Batch)>>,
    back: mpsc::Receiver<(Box<Landing>, Result<()>)>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    pub(super) fn start() -> io::Result<Self> {
        let (to, mut batches) = mpsc::channel::<(Box<Landing>, Batch)>(1);
        let (give_back, back) = mpsc::channel(1);
        let run = move || {
            while let Some((mut landing, batch)) = batches.blocking_recv() {
                let outcome = landing.land(batch);
                if give_back.blocking_send((landing, outcome)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("bluebird-land".to_owned()).spawn(run)?;
        Ok(Self { to: Some(to), back, thread: Some(thread) })
    }

    /// Begins to land a batch; [`Beside::landed`] gives the landing back.
    pub(super) fn land(&self, landing: Box<Landing>, batch: Batch) {
        let to = self.to.as_ref().expect("it has not ended");
        // It fails when the thread has panicked: then both are dropped, and `landed` tells.
        let _ = to.try_send((landing, batch));
    }

    /// What has become of the batch; `None` when landing it panicked.
    pub(super) async fn landed(&mut self) -> Option<(Box<Landing>, Result<()>)> {
        self.back.recv().await
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What is being written is finished: whoever comes next finds nobody writing.
        self.to = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("landing a batch panicked; the store takes no more writes");
        }
    }
}
