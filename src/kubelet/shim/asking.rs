//! How a container is asked to end: first its pre-stop command, then its stop method. Nobody waits for either beyond the grace period.

use super::files::{Cause, Run, Stage, StopMethod};
use super::{Shim, launch};
use crate::kubelet::os::{Host, Os};

/// How far a container is that was asked to end.
#[derive(Debug)]
pub(super) enum Asking {
    /// Its pre-stop command runs.
    PreStop(i32),
    /// Its stop command runs.
    Command(i32),
    /// What could be done was done.
    Done,
}

impl Asking {
    /// The command that runs for it.
    fn hook(&self) -> Option<i32> {
        match self {
            Asking::PreStop(hook) | Asking::Command(hook) => Some(*hook),
            Asking::Done => None,
        }
    }
}

impl Shim {
    /// The next step of asking a container that runs to end, if it is time for one. May be called at every turn.
    pub(super) fn ask(&mut self, name: &str, main: i32) {
        let Some(run) = self.desired.runs.iter().find(|run| run.container == name).cloned() else {
            return;
        };
        let next = match self.asked.get(name) {
            None => self.pre_stop(&run, main),
            Some(Asking::PreStop(hook)) if self.hooks.get(hook).is_none_or(Option::is_some) => self.stop_by_method(&run, main),
            Some(Asking::Command(hook)) => match self.hooks.get(hook) {
                Some(Some(Cause::Exited(0))) => Asking::Done,
                Some(None) => return,
                Some(Some(_)) | None => {
                    eprintln!("the stop command of container {name} has failed");
                    stop_as_ever(&run, main)
                }
            },
            Some(Asking::PreStop(_) | Asking::Done) => return,
        };
        self.asked.insert(name.to_owned(), next);
    }

    /// Takes note of a hook that has ended, and of a container that has: nobody needs its hook any more.
    pub(super) fn note_end(&mut self, pid: i32, cause: &Cause, container: Option<&str>) {
        if let Some(hook) = self.hooks.get_mut(&pid) {
            *hook = Some(cause.clone());
        }
        let Some(hook) = container.and_then(|name| self.asked.remove(name)).and_then(|asking| asking.hook()) else { return };
        if let Some(None) = self.hooks.remove(&hook)
            && let Err(error) = Host::kill(hook)
        {
            eprintln!("the command {hook} beside a container that has ended can't be killed: {error}");
        }
    }

    /// Whether a container's turn to end has come when the whole pod ends: sidecars end after the others, in reverse order.
    pub(super) fn is_due_to_end(&self, name: &str) -> bool {
        let place = |name: &str| self.desired.runs.iter().position(|run| run.container == name);
        let is_sidecar = |name: &str| self.desired.runs.iter().any(|run| run.container == name && run.is_sidecar);
        let mut others = self.state.containers.iter().filter(|other| matches!(other.stage, Stage::Running { .. }) && other.name != name);
        !is_sidecar(name) || others.all(|other| is_sidecar(&other.name) && place(&other.name) < place(name))
    }

    fn pre_stop(&mut self, run: &Run, main: i32) -> Asking {
        match run.pre_stop.as_ref().map(|words| launch::hook(run, words)) {
            Some(Ok(hook)) => {
                self.hooks.insert(hook, None);
                self.has_children = true;
                Asking::PreStop(hook)
            }
            Some(Err(cause)) => {
                eprintln!("the pre-stop command of container {} can't be run: {cause:?}", run.container);
                self.stop_by_method(run, main)
            }
            None => self.stop_by_method(run, main),
        }
    }

    fn stop_by_method(&mut self, run: &Run, main: i32) -> Asking {
        match &run.stop {
            None => stop_as_ever(run, main),
            Some(StopMethod::Signal(signal)) => {
                if let Err(error) = Host::ask_to_end_by(main, signal) {
                    eprintln!("container {} can't be asked to end by {signal}: {error}", run.container);
                }
                Asking::Done
            }
            Some(StopMethod::Command(words)) => match launch::hook(run, words) {
                Ok(hook) => {
                    self.hooks.insert(hook, None);
                    self.has_children = true;
                    Asking::Command(hook)
                }
                Err(cause) => {
                    eprintln!("the stop command of container {} can't be run: {cause:?}", run.container);
                    stop_as_ever(run, main)
                }
            },
        }
    }
}

fn stop_as_ever(run: &Run, main: i32) -> Asking {
    if let Err(error) = Host::ask_to_end(main) {
        eprintln!("container {} can't be asked to end: {error}", run.container);
    }
    Asking::Done
}
