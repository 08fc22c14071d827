//! What runs beside a container while it is asked to end: commands, and requests, each in a process of its own.

use std::collections::BTreeMap;
use std::io::{PipeReader, Read as _};

use super::files::{Cause, Hook, Run};
use super::{get, launch};

/// How much is told of why a request failed.
const TOLD: u64 = 400;

/// Those that run, or have ended and nobody has asked how, by their pids.
#[derive(Debug, Default)]
pub(super) struct Hooks(BTreeMap<i32, Running>);

#[derive(Debug)]
struct Running {
    /// For people.
    name: String,
    /// How it ended.
    end: Option<Cause>,
    /// What a request says of itself.
    said: Option<PipeReader>,
}

impl Hooks {
    /// Starts one beside a run; gives its pid, or why that can't be.
    pub(super) fn start(&mut self, run: &Run, hook: &Hook) -> Result<i32, String> {
        let (name, started) = match hook {
            Hook::Command(words) => {
                let name = format!("the command {:?}", words.join(" "));
                let started = launch::hook(run, words).map_err(|cause| match cause {
                    Cause::StartFailed { message, .. } => message,
                    other => format!("{other:?}"),
                });
                (name, started.map(|pid| (pid, None)))
            }
            Hook::Http(get) => {
                let name = format!("the request for {}", get.path);
                let started = std::io::pipe().and_then(|(said, pen)| Ok((get::start(get, run, pen.into())?, Some(said))));
                (name, started.map_err(|error| error.to_string()))
            }
        };
        let (pid, said) = started.map_err(|why| format!("{name} can't be made: {why}"))?;
        self.0.insert(pid, Running { name, end: None, said });
        Ok(pid)
    }

    /// Takes note of the end of a process, if it is one of these.
    pub(super) fn note_end(&mut self, pid: i32, cause: &Cause) {
        if let Some(hook) = self.0.get_mut(&pid) {
            hook.end = Some(cause.clone());
        }
    }

    /// How one has come out, which is told once; `None` while it runs.
    pub(super) fn outcome(&mut self, pid: i32) -> Option<Result<(), String>> {
        self.0.get(&pid)?.end.as_ref()?;
        let Running { name, end, said } = self.0.remove(&pid)?;
        let why = match end? {
            Cause::Exited(0) => return Some(Ok(())),
            Cause::Exited(code) => said.and_then(words).unwrap_or_else(|| format!("exit code {code}")),
            Cause::Signaled(signal) => format!("signal {signal} ended it"),
            other => format!("{other:?}"),
        };
        Some(Err(format!("{name} failed: {why}")))
    }

    /// Nobody waits for it any more. Its name, if it still runs.
    pub(super) fn abandon(&mut self, pid: i32) -> Option<String> {
        let hook = self.0.remove(&pid)?;
        hook.end.is_none().then_some(hook.name)
    }
}

/// What a process has written that has ended.
fn words(said: PipeReader) -> Option<String> {
    let mut text = Vec::new();
    said.take(TOLD).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
