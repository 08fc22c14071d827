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
mod killed;
pub(crate) mod launch;
mod lenient;
mod lines;
mod log;
pub(crate) mod log_files;
mod outputs;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, Instant};

use complaints::complain;
use files::{ABOUT_TO_START, Cause, ContainerState, Desired, Ended, PodFolder, Run, Stage, State};
use hooks::Hooks;
use killed::Killed;
use outputs::Outputs;

use crate::kubelet::os::fence::Fence;
use crate::kubelet::os::{Bell, Host, Os, Reaped};
use crate::kubelet::runtime::{is_locked, or_nothing};
use crate::time::{self, Clock, Steps};

/// Between two kills of a tree that doesn't get smaller fast enough.
const RETRY: Duration = Duration::from_millis(20);
/// Before what could not be killed is killed again, and a state that could not be written is written again.
const WRITE_RETRY: Duration = Duration::from_secs(1);
/// For how long a shim that was told to end everything tries to write how that went.
const LAST_TRY: Duration = Duration::from_secs(3);
/// How often a shim tries to get the lock of its pod, each [`RETRY`]: for two seconds.
const LOCK_TRIES: usize = 100;

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
            complaints::tell(&format!("the shim of {} ends: {error}", folder.path().display()));
            std::process::exit(1);
        }
    }
}

fn run(folder: PodFolder) -> io::Result<()> {
    Host::detach()?;
    let Some(lock) = lock(&folder)? else {
        // Whoever has it may not know yet what this one was started for.
        return Host::ring(&folder.bell(), "desired").map(drop);
    };
    complaints::begin(folder.shim_log());
    let bell = <Host as Os>::Bell::open(&folder.bell())?;
    Host::adopt_orphans()?;
    bell.ring_at_child_end()?;

    let Some(mut shim) = Shim::new(folder, lock, bell)? else { return Ok(()) };
    loop {
        let served = match shim.turn() {
            Ok(Turn::Finished) => return Ok(()),
            Ok(Turn::Wait(timeout)) => shim.outputs.serve(&shim.bell, timeout),
            Err(error) => Err(error),
        };
        // The machine may be short of something. With this process everything that it guards would end.
        if let Err(error) = served {
            complain(&format!("not everything could be looked at: {error}"));
            pause(RETRY);
        }
    }
}

/// The lock of the pod, which ends with this process, whatever happens to it; `None` when another shim has it that doesn't end.
fn lock(folder: &PodFolder) -> io::Result<Option<File>> {
    let lock = Host::open_private_file(&folder.lock(), File::options().create(true).truncate(false).write(true))?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            // A predecessor that is about to end.
            Err(TryLockError::WouldBlock) => pause(RETRY),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

#[allow(clippy::disallowed_methods, reason = "nothing tells when a lock becomes free or a machine has room again")]
fn pause(time: Duration) {
    std::thread::sleep(time);
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
    lock: File,
    bell: <Host as Os>::Bell,
    clock: Clock,
    outputs: Outputs,
    /// Of the containers that run.
    fences: BTreeMap<String, Fence>,
    desired: Desired,
    state: State,
    /// As it was last written.
    written: Vec<u8>,
    /// What of it is safe from a loss of power.
    durable: Vec<(String, u32, bool)>,
    /// Runs whose main process has ended, while something that they started is left.
    ending: BTreeMap<String, Ended>,
    /// When runs began, by both clocks.
    begun: BTreeMap<String, Steps>,
    /// Runs that were asked to end by themselves, by the names of their containers.
    ends: BTreeMap<String, ends::End>,
    /// How far the containers are that were asked to end.
    asked: BTreeMap<String, asking::Asking>,
    /// What runs for that.
    hooks: Hooks,
    /// When a stop was first seen.
    stopping: Option<Instant>,
    /// Since when nothing runs, and that can't be written.
    untold: Option<Instant>,
    /// False when the kernel has said that there are no children, and so no descendants.
    has_children: bool,
    /// A process of this turn that could not be killed, with why: as before, or the first.
    unkillable: String,
    killed: Killed,
}

impl Shim {
    /// `None` when the pod's last shim has left something that the kubelet has to clear first.
    fn new(folder: PodFolder, lock: File, bell: <Host as Os>::Bell) -> io::Result<Option<Self>> {
        let clock = Clock::system();
        let (mut state, boot_id) = (or_nothing(folder.read_state())?, Host::boot_id());
        if state.is_of_earlier_boot(&boot_id) {
            state.mark_lost(time::millis(&clock.now()));
        } else if state.containers.iter().any(|container| matches!(container.stage, Stage::Running { .. })) {
            complaints::tell("what an earlier shim has left of the pod may still run; nothing is started beside it");
            return Ok(None);
        }
        state.boot_id = boot_id;
        Ok(Some(Self {
            folder,
            lock,
            bell,
            outputs: Outputs::new(clock.clone()),
            fences: BTreeMap::new(),
            clock,
            desired: Desired::default(),
            state,
            written: Vec::new(),
            durable: Vec::new(),
            ending: BTreeMap::new(),
            begun: BTreeMap::new(),
            ends: BTreeMap::new(),
            asked: BTreeMap::new(),
            hooks: Hooks::default(),
            stopping: None,
            untold: None,
            has_children: false,
            unkillable: String::new(),
            killed: Killed::default(),
        }))
    }

    /// Sees what has happened, does what is to be done now, and says so.
    fn turn(&mut self) -> io::Result<Turn> {
        self.unkillable.clear();
        self.reap()?;
        // Where that can't be told, nothing is known against it.
        if let Ok(true) = self.is_cut_off() {
            return self.give_up();
        }
        self.fences.values_mut().for_each(|fence| fence.look(Instant::now()));
        match self.folder.read_desired() {
            Ok(Some(desired)) => self.desired = desired,
            // What runs must not suffer from it: the last wishes hold.
            Ok(None) => complain("there is nothing that says what the kubelet wants"),
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
        if is_idle && (is_written || self.is_told_long_enough()) {
            return Ok(Turn::Finished);
        }
        Ok(Turn::Wait(self.next_turn(is_written)))
    }

    /// An end that can't be written would be lost with the shim. Of what was told to end nobody may want to know how; but it may as well have ended with
    /// its kubelet, which starts it again unless it knows that it is done.
    fn is_told_long_enough(&mut self) -> bool {
        let since = *self.untold.get_or_insert_with(Instant::now);
        self.desired.stop.is_some() && since.elapsed() >= LAST_TRY
    }

    /// Whether nobody can ask this shim for anything any more: its lock was removed, or there is another one, which somebody else has. One that is
    /// merely not there was moved with a folder above it, or its disk unmounted, and may come back.
    fn is_cut_off(&self) -> io::Result<bool> {
        if Host::is_at(&self.lock, &self.folder.lock())? {
            return Ok(false);
        }
        complain("the pod's folder is not where it was");
        Ok(Host::is_removed(&self.lock)? || is_locked(&self.folder)?)
    }

    /// The pod's folder is gone, or another shim's by now. This one ends with all that it guards.
    fn give_up(&mut self) -> io::Result<Turn> {
        complain("the pod's folder is gone");
        if self.has_children {
            self.kill_all()?;
        }
        Ok(if self.has_children { Turn::Wait(Some(self.retry())) } else { Turn::Finished })
    }

    fn running(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.state.containers.iter().filter_map(|container| match container.stage {
            Stage::Running { pid, started_at, .. } if !self.ending.contains_key(&container.name) => {
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
                let (started_at, finished_at) = self.span(&name, started_at);
                self.ending.insert(name, Ended { cause, started_at, finished_at, superseded });
            }
        }
    }

    /// When a run that ends now began and ended, both by the clock as it is now: a run whose clock was set back did not end before it began.
    fn span(&mut self, name: &str, started_at: i64) -> (i64, i64) {
        let now = self.clock.now();
        let set_by = self.begun.remove(name).map_or(0, |mut begun| begun.look(now, Instant::now()));
        (started_at.saturating_add(set_by.min(0)), time::millis(&now))
    }

    /// Whether a main process ended since its container had reached its limit of memory. What was killed by us was not.
    fn is_starved(&mut self, name: &str, cause: &Cause) -> bool {
        let is_ours = self.grace_left().is_some_and(|left| left.is_zero()) || self.ends.get(name).is_some_and(ends::End::is_over);
        let was_killed = *cause == Cause::Signaled(files::OOM_KILLED - 128) && !is_ours;
        was_killed && self.fences.get_mut(name).is_some_and(|fence| fence.is_starved(Instant::now()))
    }

    /// Starts the runs that are wanted and have not been started. That they are is on the disk before: after a loss of power they are known, as lost, and
    /// nothing is started twice under one number.
    fn start_new(&mut self) {
        let new: Vec<Run> = self.desired.runs.iter().filter(|run| self.is_new(run)).cloned().collect();
        if new.is_empty() {
            return;
        }
        let started_at = time::millis(&self.clock.now());
        for Run { container, attempt, streak, .. } in &new {
            let previous = self.state.get(container).and_then(|before| match &before.stage {
                Stage::Ended(ended) => Some(ended.clone()),
                Stage::Running { .. } => None,
            });
            let stage = Stage::Running { pid: ABOUT_TO_START, started_at, start_time: None };
            self.state.set(ContainerState { name: container.clone(), attempt: *attempt, streak: *streak, stage, previous });
        }
        // On a full disk they start nevertheless.
        self.save();
        for run in new {
            let stage = self.start(&run);
            if let Some(container) = self.state.containers.iter_mut().find(|container| container.name == run.container) {
                container.stage = stage;
            }
        }
    }

    fn is_new(&self, run: &Run) -> bool {
        self.state.get(&run.container).is_none_or(|known| known.attempt < run.attempt && matches!(known.stage, Stage::Ended(_)))
    }

    fn start(&mut self, run: &Run) -> Stage {
        let started_at = time::millis(&self.clock.now());
        let raised = Fence::raise(&run.fence, &run.limits);
        match raised.map_err(|error| launch::unlimited(&error)).and_then(|fence| {
            self.fences.insert(run.container.clone(), fence);
            launch::launch(run, self.outputs.open(run, &self.bell))
        }) {
            Ok(pid) => {
                self.has_children = true;
                self.begun.insert(run.container.clone(), Steps::since(self.clock.now(), Instant::now()));
                Stage::Running { pid, started_at, start_time: Host::start_time(pid) }
            }
            Err(cause) => {
                self.outputs.close(&run.container);
                self.fences.remove(&run.container).unwrap_or_default().lower();
                Stage::Ended(Ended { cause, started_at, finished_at: started_at, superseded: None })
            }
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

    /// What is left of a container whose main process has ended: the orphans that carry its name or are in its control group, and all their
    /// descendants. Where there is none, an orphan that hides its environment is counted to no container while others run, and is killed when none does.
    fn remains(&self, name: &str) -> io::Result<Vec<i32>> {
        let me = std::process::id() as i32;
        let mains: Vec<i32> = self.running().map(|(_, pid, _)| pid).collect();
        let fenced = self.fences.get(name).map(Fence::pids).transpose()?.unwrap_or_default();
        let mut found = Vec::new();
        for process in Host::descendants(me)? {
            let is_orphan = process.parent == me && !mains.contains(&process.pid);
            let is_known = || fenced.contains(&process.pid) || Host::variable_of(process.pid, CONTAINER_VARIABLE).as_deref() == Some(name);
            let is_ours = is_orphan && (mains.is_empty() || is_known());
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
        let there = Host::descendants(std::process::id() as i32)?;
        self.killed.keep(|pid| there.iter().any(|process| process.pid == pid));
        for process in there.into_iter().filter(|process| is_doomed(process.pid)) {
            let why = match Host::kill(process.pid) {
                Ok(()) => self.killed.note(process.pid, Instant::now()),
                Err(error) => Some(format!("process {} can't be killed: {error}", process.pid)),
            };
            if let Some(why) = why {
                complain(&why);
                if self.unkillable.is_empty() || why == self.state.unkillable {
                    self.unkillable = why;
                }
            }
        }
        self.reap()
    }

    /// Writes the state if it is new and rings the kubelet; false if it could not be written.
    fn publish(&mut self) -> bool {
        let content = self.state.to_bytes();
        // Somebody may have damaged the file.
        if self.written == content && std::fs::read(self.folder.state()).is_ok_and(|found| found == content) {
            return true;
        }
        if !self.save() {
            return false;
        }
        let pod = self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Err(error) = Host::ring(&self.desired.bell, &pod) {
            complain(&format!("the kubelet can't be woken: {error}"));
        }
        true
    }

    /// Writes the state; false if that could not be done. What has begun or ended is on the disk then.
    fn save(&mut self) -> bool {
        let ends = self.state.ends();
        let written =
            if self.durable == ends { self.folder.write_state(&self.state) } else { self.folder.write_state_durably(&self.state) };
        if let Err(error) = written {
            complain(&format!("the state can't be written: {error}"));
            return false;
        }
        (self.written, self.durable) = (self.state.to_bytes(), ends);
        true
    }

    /// When to look again even if nothing happens.
    fn next_turn(&self, is_written: bool) -> Option<Duration> {
        let in_grace = self.grace_left().filter(|left| !left.is_zero());
        let is_killing = in_grace.is_none()
            && self.has_children
            && (self.stopping.is_some() || !self.ending.is_empty() || self.running().next().is_none());
        let rewrite = (!is_written).then_some(WRITE_RETRY);
        [in_grace, is_killing.then_some(self.retry()), rewrite, self.next_end()].into_iter().flatten().min()
    }

    /// When what shall be dead is killed again.
    fn retry(&self) -> Duration {
        if self.unkillable.is_empty() { RETRY } else { WRITE_RETRY }
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
/// The pod's folder, in the environment of its shim, and of what that runs to send requests.
pub(crate) const SHIM_VARIABLE: &str = "BLUEBIRD_SHIM_OF";
/// The kubelet's root folder, in the environment of every process of its pods: two kubelets of a machine never touch each other's.
pub(crate) const ROOT_VARIABLE: &str = "BLUEBIRD_ROOT";
