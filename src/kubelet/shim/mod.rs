//! The shim: a small supervisor, one for each pod, that outlives the kubelet.
//!
//! It starts the runs that `desired.json` asks for, keeps all their descendants, records their ends in `state.json` and kills whole trees.
//! It is single-threaded, without tokio, and reads nothing but files and the outputs of its containers, of which it writes the logs: the lock
//! on `lock` says that it lives, `bell` wakes it. It ends when nothing runs and nothing is to be started; the kubelet starts another one when that changes.

mod asking;
mod complaints;
mod ends;
pub(crate) mod files;
pub(crate) mod get;
mod hooks;
pub(crate) mod launch;
mod lines;
mod log;
pub(crate) mod log_files;
mod outputs;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use complaints::complain;
use files::{Cause, ContainerState, Desired, Ended, PodFolder, Stage, State};
use hooks::Hooks;
use outputs::Outputs;

use crate::kubelet::os::fence::Fence;
use crate::kubelet::os::{Bell, Host, Os, Reaped};
use crate::kubelet::runtime::or_nothing;
use crate::time::{self, Clock};

/// Between two kills of a tree that doesn't get smaller fast enough.
const RETRY: Duration = Duration::from_millis(20);
/// Before what could not be killed is killed again, and a state that could not be written is written again.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// Runs as the shim of the pod folder that the last argument names, until nothing is left to guard.
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> ! {
    let Some(folder) = arguments.into_iter().last() else {
        eprintln!("usage: shim POD-FOLDER");
        std::process::exit(2);
    };
    let folder = PodFolder::at(folder.into());
    match run(folder.clone()) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("the shim of {} ends: {error}", folder.path().display());
            std::process::exit(1);
        }
    }
}

fn run(folder: PodFolder) -> io::Result<()> {
    Host::detach()?;
    // Waits for a predecessor that is about to end. The lock ends with this process, whatever happens to it.
    let lock = Host::open_private_file(&folder.lock(), File::options().create(true).truncate(false).write(true))?;
    lock.lock()?;
    complaints::begin(folder.shim_log());
    let bell = <Host as Os>::Bell::open(&folder.bell())?;
    Host::adopt_orphans()?;
    bell.ring_at_child_end()?;

    let mut shim = Shim::new(folder, bell)?;
    loop {
        match shim.turn()? {
            Turn::Finished => return Ok(()),
            Turn::Wait(timeout) => shim.outputs.serve(&shim.bell, timeout)?,
        }
    }
}

/// What to do after a turn.
enum Turn {
    /// Until something happens, at most this long.
    Wait(Option<Duration>),
    /// Nothing runs, and nothing is to be started.
    Finished,
}

struct Shim {
    folder: PodFolder,
    bell: <Host as Os>::Bell,
    clock: Clock,
    outputs: Outputs,
    /// Of the containers that run.
    fences: BTreeMap<String, Fence>,
    desired: Desired,
    state: State,
    /// As it was last written.
    written: Option<State>,
    /// Runs whose main process has ended, while something that they started is left.
    ending: BTreeMap<String, Ended>,
    /// Runs that were asked to end by themselves, by the names of their containers.
    ends: BTreeMap<String, ends::End>,
    /// How far the containers are that were asked to end.
    asked: BTreeMap<String, asking::Asking>,
    /// What runs for that.
    hooks: Hooks,
    /// When a stop was first seen.
    stopping: Option<Instant>,
    /// False when the kernel has said that there are no children, and so no descendants.
    has_children: bool,
    /// The first process of this turn that could not be killed, with why.
    unkillable: String,
}

impl Shim {
    fn new(folder: PodFolder, bell: <Host as Os>::Bell) -> io::Result<Self> {
        let clock = Clock::system();
        let mut state = or_nothing(folder.read_state())?;
        state.mark_lost(time::millis(&clock.now()));
        state.boot_id = Host::boot_id();
        Ok(Self {
            folder,
            bell,
            outputs: Outputs::new(clock.clone()),
            fences: BTreeMap::new(),
            clock,
            desired: Desired::default(),
            state,
            written: None,
            ending: BTreeMap::new(),
            ends: BTreeMap::new(),
            asked: BTreeMap::new(),
            hooks: Hooks::default(),
            stopping: None,
            has_children: false,
            unkillable: String::new(),
        })
    }

    /// Sees what has happened, does what is to be done now, and says so.
    fn turn(&mut self) -> io::Result<Turn> {
        self.unkillable.clear();
        self.reap()?;
        self.fences.values_mut().for_each(|fence| fence.look(Instant::now()));
        match self.folder.read_desired() {
            Ok(desired) => self.desired = desired,
            // What runs must not suffer from it: the last wishes hold.
            Err(error) => complain(&format!("the kubelet's wishes can't be read: {error}")),
        }
        match self.desired.stop {
            Some(_) => self.stop()?,
            None => {
                self.start_new();
                self.end_runs()?;
            }
        }
        self.clear_remains()?;
        if self.desired.stop.is_some() {
            // What has ended by now may have been what a sidecar waited for.
            self.stop()?;
        }

        let is_idle = !self.has_children && self.ending.is_empty() && self.running().next().is_none();
        self.state.unkillable.clone_from(&self.unkillable);
        let is_written = self.publish();
        if is_idle {
            // A state that can't be written is lost with the shim; the kubelet then says Lost, which is true.
            return Ok(Turn::Finished);
        }
        Ok(Turn::Wait(self.next_turn(is_written)))
    }

    fn running(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.state.containers.iter().filter_map(|container| match container.stage {
            Stage::Running { pid, started_at } if !self.ending.contains_key(&container.name) => {
                Some((container.name.as_str(), pid, started_at))
            }
            _ => None,
        })
    }

    /// Takes note of every child that has ended: main processes of containers, and orphans that became ours.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (ended, cause) = match Host::reap()? {
                Reaped::Exited { pid, code } => (pid, Cause::Exited(code)),
                Reaped::Signaled { pid, signal } => (pid, Cause::Signaled(signal)),
                Reaped::OutOfMemory { pid } => (pid, Cause::OomKilled),
                Reaped::AllAlive => {
                    self.has_children = true;
                    return Ok(());
                }
                Reaped::NoChildren => {
                    self.has_children = false;
                    return Ok(());
                }
            };
            let main = self.running().find(|(_, pid, _)| *pid == ended).map(|(name, _, started_at)| (name.to_owned(), started_at));
            self.note_end(ended, &cause, main.as_ref().map(|(name, _)| name.as_str()));
            if let Some((name, started_at)) = main {
                let cause = if self.is_starved(&name, &cause) { Cause::OomKilled } else { cause };
                let superseded = self.superseded(&name);
                self.ending.insert(name, Ended { cause, started_at, finished_at: self.now(), superseded });
            }
        }
    }

    /// Whether a main process ended since its container had reached its limit of memory. What was killed by us was not.
    fn is_starved(&mut self, name: &str, cause: &Cause) -> bool {
        let is_ours = self.grace_left().is_some_and(|left| left.is_zero()) || self.ends.get(name).is_some_and(ends::End::is_over);
        let was_killed = *cause == Cause::Signaled(files::OOM_KILLED - 128) && !is_ours;
        was_killed && self.fences.get_mut(name).is_some_and(|fence| fence.is_starved(Instant::now()))
    }

    /// Starts the runs that are wanted and have not been started.
    fn start_new(&mut self) {
        for run in &self.desired.runs {
            let known = self.state.get(&run.container);
            let previous = match known {
                Some(known) if known.attempt >= run.attempt => continue,
                Some(ContainerState { stage: Stage::Running { .. }, .. }) => continue,
                Some(ContainerState { stage: Stage::Ended(ended), .. }) => Some(ended.clone()),
                None => None,
            };
            let started_at = time::millis(&self.clock.now());
            let raised = Fence::raise(&run.fence, &run.limits);
            let stage = match raised.map_err(|error| launch::unlimited(&error)).and_then(|fence| {
                self.fences.insert(run.container.clone(), fence);
                launch::launch(run, self.outputs.open(run, &self.bell))
            }) {
                Ok(pid) => {
                    self.has_children = true;
                    Stage::Running { pid, started_at }
                }
                Err(cause) => {
                    self.outputs.close(&run.container);
                    self.fences.remove(&run.container).unwrap_or_default().lower();
                    Stage::Ended(Ended { cause, started_at, finished_at: started_at, superseded: None })
                }
            };
            let (name, attempt, streak) = (run.container.clone(), run.attempt, run.streak);
            self.state.set(ContainerState { name, attempt, streak, stage, previous });
        }
    }

    /// Asks everything to end, sidecars last; after the grace period kills whatever is there.
    fn stop(&mut self) -> io::Result<()> {
        self.stopping.get_or_insert_with(Instant::now);
        let due = self.running().filter(|(name, ..)| self.is_due_to_end(name));
        for (name, pid) in due.map(|(name, pid, _)| (name.to_owned(), pid)).collect::<Vec<_>>() {
            self.ask(&name, pid);
        }
        if self.has_children && self.grace_left().is_some_and(|left| left.is_zero()) {
            self.asked.keys().cloned().collect::<Vec<_>>().iter().for_each(|name| self.give_up_asking(name));
            self.kill_all()?;
        }
        Ok(())
    }

    /// How long what runs may still take to end; `None` when no stop was asked for.
    fn grace_left(&self) -> Option<Duration> {
        let grace = Duration::from_millis(self.desired.stop?.grace_ms);
        Some(grace.saturating_sub(self.stopping?.elapsed()))
    }

    /// A run is over when everything that its main process started is gone. Outside of a stop nothing survives the main process.
    fn clear_remains(&mut self) -> io::Result<()> {
        let in_grace = self.grace_left().is_some_and(|left| !left.is_zero());
        let nothing_runs = self.running().next().is_none();
        if self.has_children && nothing_runs && !in_grace {
            // Whatever is left, whosever it was.
            self.kill_all()?;
        }
        for name in self.ending.keys().cloned().collect::<Vec<_>>() {
            let remains = match self.has_children {
                true => self.remains(&name)?,
                false => Vec::new(),
            };
            if remains.is_empty() {
                self.close(&name);
            } else if !in_grace {
                kill_fenced(self.fences.get(&name));
                self.kill(|pid| remains.contains(&pid))?;
            }
        }
        Ok(())
    }

    fn close(&mut self, name: &str) {
        let Some(ended) = self.ending.remove(name) else { return };
        self.outputs.close(name);
        self.fences.remove(name).unwrap_or_default().lower();
        if let Some(container) = self.state.containers.iter_mut().find(|container| container.name == name) {
            container.stage = Stage::Ended(ended);
        }
    }

    /// What is left of a container whose main process has ended: the orphans that carry its name, and all their descendants. An orphan
    /// that hides its environment is counted to no container while others run, and is killed when none does.
    fn remains(&self, name: &str) -> io::Result<Vec<i32>> {
        let me = std::process::id() as i32;
        let mains: Vec<i32> = self.running().map(|(_, pid, _)| pid).collect();
        let mut found = Vec::new();
        for process in Host::descendants(me)? {
            let is_orphan = process.parent == me && !mains.contains(&process.pid);
            let is_ours = is_orphan && (mains.is_empty() || Host::variable_of(process.pid, CONTAINER_VARIABLE).as_deref() == Some(name));
            if is_ours || found.contains(&process.parent) {
                found.push(process.pid);
            }
        }
        Ok(found)
    }

    fn kill_all(&mut self) -> io::Result<()> {
        self.fences.values().for_each(|fence| kill_fenced(Some(fence)));
        self.kill(|_| true)
    }

    /// Kills those descendants, and takes note of it at once if that was quick.
    fn kill(&mut self, is_doomed: impl Fn(i32) -> bool) -> io::Result<()> {
        for process in Host::descendants(std::process::id() as i32)? {
            if is_doomed(process.pid)
                && let Err(error) = Host::kill(process.pid)
            {
                let why = format!("process {} can't be killed: {error}", process.pid);
                complain(&why);
                if self.unkillable.is_empty() {
                    self.unkillable = why;
                }
            }
        }
        self.reap()
    }

    /// Writes the state if it is new and rings the kubelet; false if it could not be written.
    fn publish(&mut self) -> bool {
        if self.written.as_ref() == Some(&self.state) {
            return true;
        }
        if let Err(error) = self.folder.write_state(&self.state) {
            complain(&format!("the state can't be written: {error}"));
            return false;
        }
        self.written = Some(self.state.clone());
        let pod = self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Err(error) = Host::ring(&self.desired.bell, &pod) {
            complain(&format!("the kubelet can't be woken: {error}"));
        }
        true
    }

    /// When to look again even if nothing happens.
    fn next_turn(&self, is_written: bool) -> Option<Duration> {
        let in_grace = self.grace_left().filter(|left| !left.is_zero());
        let is_killing = in_grace.is_none() && (self.stopping.is_some() || !self.ending.is_empty() || self.running().next().is_none());
        let rewrite = (!is_written).then_some(WRITE_RETRY);
        [in_grace, is_killing.then_some(self.retry()), rewrite, self.next_end()].into_iter().flatten().min()
    }

    /// When what shall be dead is killed again.
    fn retry(&self) -> Duration {
        if self.unkillable.is_empty() { RETRY } else { WRITE_RETRY }
    }

    fn now(&self) -> i64 {
        time::millis(&self.clock.now())
    }
}

/// At once, where the system can do that: what starts others faster than they are found can't get away so.
fn kill_fenced(fence: Option<&Fence>) {
    if let Some(Err(error)) = fence.map(Fence::kill) {
        complain(&format!("what is in a control group can't be killed at once: {error}"));
    }
}

/// Tells whose process it is: in the environment of every process of a container.
pub(crate) const CONTAINER_VARIABLE: &str = "BLUEBIRD_CONTAINER";
/// The pod's uid, in the environment of every process of a pod.
pub(crate) const POD_VARIABLE: &str = "BLUEBIRD_POD_UID";
/// The kubelet's root folder, in the environment of every process of its pods: two kubelets of a machine never touch each other's.
pub(crate) const ROOT_VARIABLE: &str = "BLUEBIRD_ROOT";
