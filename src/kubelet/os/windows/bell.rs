//! Bells: a file that holds the name of a pipe. Whoever rings opens the pipe and may write a word.

use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};

use super::output::Output;
use super::pipe::{self, Listener};
use super::{children, process};
use crate::kubelet::os::{Heard, Host, Os};

/// Threads of a shim do nothing but wait, so a small stack is enough.
pub(super) const STACK_BYTES: usize = 64 * 1024;
/// How long a caller may take to say its word.
const WORD_TIME: Duration = Duration::from_secs(1);
/// The most that a caller may say.
const WORD_BYTES: u64 = 4096;

/// What the threads of a shim ring, of which one waits for a caller at the pipe.
#[derive(Debug)]
pub(crate) struct Bell(Arc<Signal>);

impl crate::kubelet::os::Bell for Bell {
    type Output = Output;

    fn open(path: &Path) -> io::Result<Self> {
        make(path)?;
        let name = name(path)?;
        let signal = Arc::<Signal>::default();
        let (first, rung) = (Listener::open(&name, true)?, signal.clone());
        thread("bell", move || {
            let mut listener = first;
            while listener.await_caller().is_ok() {
                // Before this one ends: at no moment there is nobody to be called.
                let Ok(next) = Listener::open(&name, false) else { break };
                listener = next;
                rung.ring();
            }
            eprintln!("this shim can't be rung any more");
        })?;
        Ok(Self(signal))
    }

    fn output(&self) -> io::Result<(Output, Stdio)> {
        Output::new(self.0.clone())
    }

    fn wait(&self, outputs: &[&Output], timeout: Option<Duration>) -> io::Result<Heard> {
        Ok(self.0.wait(outputs, timeout))
    }

    fn ring_at_child_end(&self) -> io::Result<()> {
        children::ring_at_end(self.0.clone())
    }
}

/// By which threads wake the one that acts.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    rang: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Something happened.
    pub(super) fn ring(&self) {
        *self.rang() = true;
        self.changed.notify_one();
    }

    /// Something came from an output.
    pub(super) fn ring_for_output(&self) {
        // Not between the look of whoever waits and his falling asleep.
        drop(self.rang());
        self.changed.notify_one();
    }

    fn rang(&self) -> MutexGuard<'_, bool> {
        self.rang.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, outputs: &[&Output], timeout: Option<Duration>) -> Heard {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut rang = self.rang();
        loop {
            let readable: Vec<usize> =
                outputs.iter().enumerate().filter_map(|(place, output)| output.is_readable().then_some(place)).collect();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if *rang || !readable.is_empty() || left.is_some_and(|left| left.is_zero()) {
                return Heard { rang: std::mem::take(&mut *rang), outputs: readable };
            }
            rang = match left {
                Some(left) => self.changed.wait_timeout(rang, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(rang).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The same bell in a program that runs on tokio.
#[derive(Debug)]
pub(crate) struct AsyncBell {
    name: String,
    /// At which the next caller is awaited.
    listener: tokio::sync::Mutex<NamedPipeServer>,
}

impl crate::kubelet::os::AsyncBell for AsyncBell {
    fn open(path: &Path) -> io::Result<Self> {
        make(path)?;
        let name = name(path)?;
        let listener = ServerOptions::new().access_outbound(false).first_pipe_instance(true).create(&name)?;
        Ok(Self { name, listener: tokio::sync::Mutex::new(listener) })
    }

    async fn heard(&self) -> io::Result<Vec<u8>> {
        let mut listener = self.listener.lock().await;
        loop {
            listener.connect().await?;
            let next = ServerOptions::new().access_outbound(false).create(&self.name)?;
            let caller = std::mem::replace(&mut *listener, next);
            let mut words = Vec::new();
            // What came before it broke off or fell silent counts.
            let _complete = tokio::time::timeout(WORD_TIME, caller.take(WORD_BYTES).read_to_end(&mut words)).await;
            if !words.is_empty() {
                return Ok(words);
            }
        }
    }
}

/// Gives the bell a name, unless it has one.
pub(super) fn make(path: &Path) -> io::Result<()> {
    match name(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Host::write_atomically(path, format!(r"\\.\pipe\bluebird-{}", uuid::Uuid::new_v4()).as_bytes())
        }
        other => other.map(drop),
    }
}

/// NotFound when it has none, also because the machine lost its power in that moment.
fn name(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path)? {
        name if name.starts_with(r"\\.\pipe\") => Ok(name),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

pub(super) fn ring(path: &Path, word: &str) -> io::Result<bool> {
    let Some(mut pipe) = call(path)? else { return Ok(false) };
    match pipe.write_all(format!("{word}\n").as_bytes()) {
        // It was heard, and its word did not matter.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(true),
    }
}

pub(super) async fn silence(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    let listener = tokio::task::spawn_blocking(move || match call(&path)? {
        Some(pipe) => process::open(pipe::listener(&pipe)?),
        None => Ok(None),
    });
    match listener.await.map_err(io::Error::other)?? {
        Some(process) => process::ended(process).await,
        None => Ok(()),
    }
}

fn call(path: &Path) -> io::Result<Option<std::fs::File>> {
    match name(path) {
        Ok(name) => pipe::call(&name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Starts a thread of a shim; it ends with the shim.
pub(super) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run).map(drop)
}
