use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::look::{Found, look, or_nothing, whole};
use super::remains;
use crate::kubelet::os::fence::Places;
use crate::kubelet::os::{Host, Os, briefly_until_none_is_left};
use crate::kubelet::root::Root;
use crate::kubelet::shim::SHIM_VARIABLE;
use crate::kubelet::shim::files::{Desired, PodFolder, Run, State, Stop};
use crate::kubelet::uid::PodUid;
use crate::time::{self, Clock};

/// Runs containers as plain processes. The folders are the truth; this keeps nothing.
///
/// Guarantees: every verb may be repeated, and what is so already is a success. No two verbs may be used on one pod at the same time.
#[derive(Debug)]
pub(crate) struct Processes {
    root: Arc<Root>,
    shim_program: PathBuf,
    places: Places,
    clock: Clock,
}

impl Processes {
    pub(crate) fn new(root: Arc<Root>, shim_program: PathBuf, clock: Clock) -> Self {
        let places = Host::places(root.path());
        Self { root, shim_program, places, clock }
    }

    /// Where the limits of its containers are enforced.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Every pod that has left a trace here.
    pub(crate) fn list(&self) -> io::Result<Vec<PodUid>> {
        self.root.pods()
    }

    /// Looks at a pod; `None` when there is no trace of it.
    ///
    /// # Errors
    /// When it can't be told: its folder can't be reached, or is not there since all of the root folder isn't.
    pub(crate) fn look(&self, uid: &PodUid) -> io::Result<Option<Found>> {
        let found = look(&self.root.pod(uid))?;
        if found.is_none() {
            self.root.check_place()?;
        }
        Ok(found)
    }

    /// Makes the pod's folder.
    pub(crate) fn prepare(&self, uid: &PodUid) -> io::Result<()> {
        let folder = self.root.pod(uid);
        Host::make_private_folder(&folder.work())?;
        Host::make_bell(&folder.bell())
    }

    /// Takes from others what an earlier kubelet has let them read: whoever can open a lock can hold it.
    pub(crate) fn keep_private(&self, uid: &PodUid) -> io::Result<()> {
        let folder = self.root.pod(uid);
        [folder.lock(), folder.shim_log()].iter().try_for_each(|file| match Host::open_private_file(file, File::options().append(true)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Of a pod without a shim: removes what the last one was asked for, if a loss of power has damaged it, and what may be left of that.
    pub(crate) fn forget_damaged_wishes(&self, uid: &PodUid) -> io::Result<()> {
        let folder = self.root.pod(uid);
        if matches!(folder.read_desired(), Err(error) if error.kind() == io::ErrorKind::InvalidData) {
            self.clear(uid)?;
            folder.remove_desired()?;
        }
        Ok(())
    }

    /// Asks for runs. Unless the pod is guarded, a new shim is started, which the caller has to await.
    pub(crate) fn start(&self, uid: &PodUid, runs: Vec<Run>, is_guarded: bool) -> io::Result<Option<Child>> {
        let folder = self.root.pod(uid);
        let asked = folder.read_desired();
        let is_damaged = matches!(&asked, Err(error) if error.kind() == io::ErrorKind::InvalidData);
        let mut desired = or_nothing(asked)?;
        // A shim that was asked before may have started something without having had the time to say so.
        let is_repeated =
            runs.iter().any(|run| desired.runs.iter().any(|asked| asked.container == run.container && asked.attempt == run.attempt));
        if (is_repeated || is_damaged) && !is_guarded {
            self.clear(uid)?;
        }
        if !is_guarded {
            forget_stop(&mut desired, &or_nothing(folder.read_state())?);
        }
        for mut run in runs {
            self.hand_over(&folder, &run)?;
            // In its place: the order in which they were first started tells the order in which they end.
            match desired.runs.iter_mut().find(|asked| asked.container == run.container) {
                Some(asked) => {
                    // An earlier kubelet may have known more than this one can.
                    if let (Some(told), Some(before)) = (&mut run.told, &asked.told) {
                        told.take_over(before);
                    }
                    *asked = run;
                }
                None => desired.runs.push(run),
            }
        }
        desired.stop = None;
        desired.bell = self.root.bell();
        folder.write_desired(&desired)?;
        if is_guarded {
            Host::ring(&folder.bell(), "desired")?;
            return Ok(None);
        }
        self.start_shim(&folder).map(Some)
    }

    /// Asks one run of a guarded pod to end, while the others go on. It has ended when the state says so. If the next run is to take its place, this
    /// is why.
    pub(crate) fn end(&self, uid: &PodUid, container: &str, attempt: u32, grace: Duration, superseded: Option<&String>) -> io::Result<()> {
        let folder = self.root.pod(uid);
        let mut desired = or_nothing(folder.read_desired())?;
        let run = desired.runs.iter_mut().find(|run| run.container == container && run.attempt == attempt);
        if let Some(run) = run.filter(|run| run.end.is_none()) {
            (run.end, run.superseded) = (Some(Stop::within(grace)), superseded.cloned());
            desired.bell = self.root.bell();
            folder.write_desired(&desired)?;
        }
        Host::ring(&folder.bell(), "desired").map(drop)
    }

    /// Asks all processes of a guarded pod to end. They are gone when the pod is no longer guarded.
    pub(crate) fn stop(&self, uid: &PodUid, grace: Duration) -> io::Result<()> {
        let folder = self.root.pod(uid);
        let mut desired = or_nothing(folder.read_desired())?;
        let stop = Stop::within(grace);
        if desired.stop != Some(stop) {
            desired.stop = Some(stop);
            desired.bell = self.root.bell();
            folder.write_desired(&desired)?;
        }
        Host::ring(&folder.bell(), "desired").map(drop)
    }

    /// Says anew what a guarded pod's shim was asked for, whose wishes were damaged.
    pub(crate) fn ask_again(&self, uid: &PodUid, runs: Vec<Run>) -> io::Result<()> {
        let folder = self.root.pod(uid);
        folder.write_desired(&Desired { runs, stop: None, bell: self.root.bell() })?;
        Host::ring(&folder.bell(), "desired").map(drop)
    }

    /// Asks the main processes of a pod to end whose shim can't be told to; gives how many there are.
    pub(crate) fn ask_mains_to_end(&self, uid: &PodUid) -> io::Result<usize> {
        let state = or_nothing(self.root.pod(uid).read_state())?;
        state.mains().try_for_each(Host::ask_to_end)?;
        Ok(state.mains().count())
    }

    /// Lets a pod's shim read again what is wanted of it.
    pub(crate) fn ring(&self, uid: &PodUid) -> io::Result<()> {
        Host::ring(&self.root.pod(uid).bell(), "desired").map(drop)
    }

    /// Makes sure that nothing is left of a pod that no shim answers for any more. An error when something doesn't end soon.
    fn clear(&self, uid: &PodUid) -> io::Result<()> {
        briefly_until_none_is_left(|| Ok(self.kill_lost(uid)?.len())).map(drop)
    }

    /// Kills what is left of a pod that no shim answers for any more, without waiting for its end: nothing is left if there was nothing to kill. Its shim
    /// comes first, so that it doesn't see the others end; if it can't be killed, they are nevertheless.
    pub(crate) fn kill_lost(&self, uid: &PodUid) -> io::Result<Vec<i32>> {
        let shim = remains::kill_shim(self.root.path(), uid);
        let contained = remains::kill_contained(self.root.path(), &self.places, uid);
        Ok([shim?, contained?].concat())
    }

    /// Kills what runs of a pod that doesn't end although its shim was told to end it, in the same way. Its shim comes last: while it lives, it records ends.
    pub(crate) fn kill_stuck(&self, uid: &PodUid) -> io::Result<Vec<i32>> {
        let contained = remains::kill_contained(self.root.path(), &self.places, uid)?;
        if contained.is_empty() { remains::kill_shim(self.root.path(), uid) } else { Ok(contained) }
    }

    /// Whether the machine was started again since the pod ran: nothing of it can be left.
    pub(crate) fn is_of_earlier_boot(&self, uid: &PodUid) -> bool {
        let state = self.root.pod(uid).read_state().ok().flatten().unwrap_or_default();
        state.is_of_earlier_boot(&Host::boot_id())
    }

    /// Records that nobody saw the end of what ran, in a new folder if there is none.
    pub(crate) fn record_lost(&self, uid: &PodUid, known: State) -> io::Result<()> {
        let folder = self.root.pod(uid);
        let state = whole(folder.read_state())?;
        let is_damaged = state.is_none();
        let mut state = state.unwrap_or(known);
        if state.mark_lost(time::millis(&self.clock.now())) || is_damaged {
            Host::make_private_folder(folder.path())?;
            folder.write_state(&state)?;
        }
        Ok(())
    }

    /// Removes all traces of a pod of which nothing runs.
    ///
    /// # Errors
    /// Also when all of the root folder is elsewhere: what is not there now may come back, and hold what is secret.
    pub(crate) fn remove(&self, uid: &PodUid) -> io::Result<()> {
        self.root.check_place()?;
        if let Err(error) = self.places.remove(uid.as_str()) {
            // It costs little, and the next kubelet tries again.
            tracing::warn!(pod = %uid, %error, "a control group of the pod can't be removed");
        }
        Host::remove_folder(self.root.pod(uid).path())
    }

    /// Kills what carries this kubelet's mark and belongs to a pod that is not `known`. All of it is tried; the first error is given.
    pub(crate) fn sweep(&self, known: impl Fn(&str) -> bool) -> io::Result<usize> {
        let (killed, places) = (remains::kill_unknown(self.root.path(), &known), self.places.sweep(known));
        places.and(killed)
    }

    /// Lets a run that is somebody else's use the folder that it starts in.
    fn hand_over(&self, folder: &PodFolder, run: &Run) -> io::Result<()> {
        let Some(user) = run.user.as_deref() else { return Ok(()) };
        // The shim says why that can't be, as the end of this run alone.
        if Host::known(user).is_err() {
            return Ok(());
        }
        let pods = folder.path().parent().unwrap_or(folder.path());
        let volumes = folder.volumes();
        let has_volumes = std::fs::symlink_metadata(&volumes).is_ok_and(|found| found.is_dir());
        let above = [self.root.path(), pods, folder.path(), &volumes];
        Host::hand_over(&folder.work(), if has_volumes { &above } else { &above[..3] }, user)
    }

    fn start_shim(&self, folder: &PodFolder) -> io::Result<Child> {
        let complaints = Host::open_private_file(&folder.shim_log(), File::options().create(true).append(true))?;
        let mut command = Command::new(&self.shim_program);
        command.arg("shim").arg(folder.path()).env_clear().env(SHIM_VARIABLE, folder.path()).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
        Host::spawn_shim(&mut command)
            .map_err(|error| io::Error::new(error.kind(), format!("the shim {} can't be started: {error}", self.shim_program.display())))
    }
}

/// For a new shim: what was asked for and never began is asked for anew when its turn comes; and what ended since everything was told to, was told to end.
fn forget_stop(desired: &mut Desired, state: &State) {
    desired.runs.retain(|asked| state.get(&asked.container).is_some_and(|known| known.attempt >= asked.attempt));
    for run in &mut desired.runs {
        run.end = run.end.or(desired.stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::shim::files::{ContainerState, Stage};

    #[test]
    fn a_new_shim_is_told_what_was_asked_to_end_and_nothing_that_never_began() {
        let run = |container: &str, attempt| Run { container: container.into(), attempt, ..Run::default() };
        let stage = Stage::Running { pid: 1, started_at: 0, start_time: None };
        let state = ContainerState { name: "main".into(), attempt: 2, streak: 0, stage, previous: None };
        let stop = Some(Stop::within(Duration::from_secs(3)));
        let mut desired = Desired { runs: vec![run("main", 2), run("late", 0)], stop, ..Desired::default() };
        forget_stop(&mut desired, &State { containers: vec![state.clone()], ..State::default() });
        assert_eq!(desired.runs, [Run { end: stop, ..run("main", 2) }]);

        let mut ahead = Desired { runs: vec![run("main", 3)], ..Desired::default() };
        forget_stop(&mut ahead, &State { containers: vec![state], ..State::default() });
        assert_eq!(ahead.runs, []);
    }
}
