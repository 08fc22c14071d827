//! Ends single runs while the others go on.

use std::io;
use std::time::{Duration, Instant};

use super::Shim;
use super::files::Stop;
use crate::kubelet::os::{Host, Os};

/// A run that was asked to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    attempt: u32,
    stop: Stop,
    since: Instant,
}

impl End {
    /// It has had its time.
    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        Duration::from_millis(self.stop.grace_ms).saturating_sub(self.since.elapsed())
    }
}

impl Shim {
    /// Asks each run to end that shall, once; after the grace period kills whatever is left of it.
    pub(super) fn end_runs(&mut self) -> io::Result<()> {
        let wanted: Vec<(String, u32, Stop)> =
            self.desired.runs.iter().filter_map(|run| Some((run.container.clone(), run.attempt, run.end?))).collect();
        let running: Vec<(String, i32)> = self.running().map(|(name, pid, _)| (name.to_owned(), pid)).collect();
        self.ends.retain(|name, _| running.iter().any(|(known, _)| known == name));
        for (name, attempt, stop) in wanted {
            let is_latest = self.state.get(&name).is_some_and(|known| known.attempt == attempt);
            let Some((_, pid)) = running.iter().find(|(known, _)| *known == name && is_latest) else { continue };
            match self.ends.get(&name).filter(|end| end.attempt == attempt) {
                None => {
                    self.ends.insert(name.clone(), End { attempt, stop, since: Instant::now() });
                    self.ask(&name, *pid);
                }
                Some(end) if end.left().is_zero() => {
                    self.give_up_asking(&name);
                    super::kill_fenced(self.fences.get(&name));
                    let tree = self.tree(&name, *pid)?;
                    self.kill(|pid| tree.contains(&pid))?;
                }
                Some(_) => self.ask(&name, *pid),
            }
        }
        Ok(())
    }

    /// Why the next run takes the place of the present one, if that is why it was asked to end.
    pub(super) fn superseded(&self, name: &str) -> Option<String> {
        let asked = self.ends.get(name)?;
        self.desired.runs.iter().find(|run| run.container == name && run.attempt == asked.attempt)?.superseded.clone()
    }

    /// The shortest time after which a run has to be looked at that was asked to end.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.ends.values().map(|end| end.left().max(self.retry())).min()
    }

    /// A container's main process with all that it has started and that can be told to be its own.
    fn tree(&self, name: &str, main: i32) -> io::Result<Vec<i32>> {
        let mut found = self.remains(name)?;
        found.push(main);
        for process in Host::descendants(std::process::id() as i32)? {
            if found.contains(&process.parent) && !found.contains(&process.pid) {
                found.push(process.pid);
            }
        }
        Ok(found)
    }
}
