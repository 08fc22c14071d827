//! How a container is asked to end: first what it wants done before, then by its stop method. Nobody waits for either beyond the grace period, and what goes
//! wrong is told in the state.

use super::Shim;
use super::complaints::complain;
use super::files::{Cause, EndStep, Failure, Hook, Run, Stage, StopMethod};
use crate::kubelet::os::{Host, Os};

/// How far a container is that was asked to end. Hooks are meant by their pids.
#[derive(Debug)]
pub(super) enum Asking {
    /// What is done before.
    PreStop(i32),
    /// What asks it.
    Stop(i32),
    /// What could be done was done.
    Done,
}

impl Asking {
    /// What runs for it.
    fn hook(&self) -> Option<(i32, EndStep)> {
        match self {
            Asking::PreStop(hook) => Some((*hook, EndStep::PreStop)),
            Asking::Stop(hook) => Some((*hook, EndStep::Stop)),
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
        let next = match self.asked.get(name).map(Asking::hook) {
            None => self.pre_stop(&run, main),
            Some(None) => return,
            Some(Some((hook, step))) => {
                let Some(outcome) = self.hooks.outcome(hook) else { return };
                let has_failed = outcome.map_err(|why| self.tell_failure(&run, step, why)).is_err();
                match step {
                    EndStep::PreStop => self.stop_by_method(&run, main),
                    EndStep::Stop if has_failed => self.stop_as_ever(&run, main),
                    EndStep::Stop => Asking::Done,
                }
            }
        };
        self.asked.insert(name.to_owned(), next);
    }

    /// The time of a container is over: what still runs for it has failed, and ends with it.
    pub(super) fn give_up_asking(&mut self, name: &str) {
        let Some((hook, step)) = self.asked.get(name).and_then(Asking::hook) else { return };
        let hanging = self.hooks.abandon(hook);
        self.asked.insert(name.to_owned(), Asking::Done);
        if let Some(run) = self.desired.runs.iter().find(|run| run.container == name).cloned()
            && let Some(hanging) = hanging
        {
            self.tell_failure(&run, step, format!("{hanging} had not ended when the grace period was over"));
        }
    }

    /// Takes note of a hook that has ended, and of a container that has: nobody needs its hook any more.
    pub(super) fn note_end(&mut self, pid: i32, cause: &Cause, container: Option<&str>) {
        self.hooks.note_end(pid, cause);
        let Some((hook, _)) = container.and_then(|name| self.asked.remove(name)).and_then(|asking| asking.hook()) else { return };
        if self.hooks.abandon(hook).is_some()
            && let Err(error) = Host::kill(hook)
        {
            complain(&format!("the process {hook} beside a container that has ended can't be killed: {error}"));
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
        let Some(hook) = &run.pre_stop else { return self.stop_by_method(run, main) };
        match self.start_hook(run, hook) {
            Ok(hook) => Asking::PreStop(hook),
            Err(why) => {
                self.tell_failure(run, EndStep::PreStop, why);
                self.stop_by_method(run, main)
            }
        }
    }

    fn stop_by_method(&mut self, run: &Run, main: i32) -> Asking {
        let started = match &run.stop {
            None => return self.stop_as_ever(run, main),
            Some(StopMethod::Signal(signal)) => {
                let asked = Host::ask_to_end_by(main, signal).map_err(|error| format!("it can't be asked to end by {signal}: {error}"));
                return self.asked_directly(run, asked);
            }
            Some(StopMethod::Break) => {
                let asked = Host::ask_to_end_by_break(main).map_err(|error| format!("it can't be asked to end by Ctrl-Break: {error}"));
                return self.asked_directly(run, asked);
            }
            Some(StopMethod::Command(words)) => self.start_hook(run, &Hook::Command(words.clone())),
            Some(StopMethod::Http(get)) => self.start_hook(run, &Hook::Http(get.clone())),
        };
        match started {
            Ok(hook) => Asking::Stop(hook),
            Err(why) => {
                self.tell_failure(run, EndStep::Stop, why);
                self.stop_as_ever(run, main)
            }
        }
    }

    fn stop_as_ever(&mut self, run: &Run, main: i32) -> Asking {
        let asked = Host::ask_to_end(main).map_err(|error| format!("it can't be asked to end: {error}"));
        self.asked_directly(run, asked)
    }

    fn asked_directly(&mut self, run: &Run, asked: Result<(), String>) -> Asking {
        if let Err(why) = asked {
            self.tell_failure(run, EndStep::Stop, why);
        }
        Asking::Done
    }

    fn start_hook(&mut self, run: &Run, hook: &Hook) -> Result<i32, String> {
        let pid = self.hooks.start(run, hook)?;
        self.has_children = true;
        Ok(pid)
    }

    fn tell_failure(&mut self, run: &Run, step: EndStep, why: String) {
        let failure = Failure { container: run.container.clone(), attempt: run.attempt, step, why };
        if !self.state.failures.contains(&failure) {
            self.state.failures.push(failure);
        }
    }
}
