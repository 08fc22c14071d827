//! What the kubelet and a shim tell each other: two files in the pod's folder, each written by one of them and replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lenient;
use super::log_files::{LogFile, LogLimits};
use crate::kubelet::os::fence::Limits;
use crate::kubelet::os::{Host, Os};
use crate::kubelet::told::Told;

/// The kubelet's wishes: `desired.json`. It only grows and moves on: attempts go up, a stop stays. Only where it was damaged it is written anew without a
/// stop, which is then told again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Desired {
    /// The runs that shall have been started, at most one for each container, in the order in which they start.
    pub(crate) runs: Vec<Run>,
    /// Set: nothing is started any more, and what runs gets this long to end by itself.
    pub(crate) stop: Option<Stop>,
    /// What the shim rings when its state has changed.
    pub(crate) bell: PathBuf,
}

/// One run of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The container's name.
    pub(crate) container: String,
    /// From 0; a number that has been started once is never started again.
    pub(crate) attempt: u32,
    /// How many runs before this one ended without ten quiet minutes in between. The shim only keeps it.
    pub(crate) streak: u32,
    /// The program and its arguments; at least the program.
    pub(crate) command: Vec<String>,
    /// The program as people are told of it: the spec's word, since what stands in `command` for its variables may be secret. Absent: the word in `command`.
    #[serde(default)]
    pub(crate) program: Option<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// The folder to start in.
    pub(crate) working_dir: PathBuf,
    /// Where what it writes is logged, beside what other runs of the container wrote.
    pub(crate) log: PathBuf,
    /// How much is kept.
    #[serde(default)]
    pub(crate) log_limits: LogLimits,
    /// True: at the end of the pod it is asked to end only after all others that are none, and after those that were started after it.
    #[serde(default)]
    pub(crate) is_sidecar: bool,
    /// What is done, to its end, before it is asked to end.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub(crate) pre_stop: Option<Hook>,
    /// How it is asked to end. Absent: as the system does it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub(crate) stop: Option<StopMethod>,
    /// Whom its processes are: `USER` or `USER:GROUP`, names or numbers. Absent: whom the shim is.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// What its processes may use.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// The folders of the fence that enforces it, and by which its processes can be killed together. None where there is no such thing.
    #[serde(default)]
    pub(crate) fence: Vec<PathBuf>,
    /// Set: this run ends while the others go on; it gets this long to end by itself, from when the shim first sees that.
    #[serde(default)]
    pub(crate) end: Option<Stop>,
    /// Set with `end`: why the next run takes the place of this one, whatever the restart policy says; a sentence about the container.
    #[serde(default)]
    pub(crate) superseded: Option<String>,
    /// What it was told of ConfigMaps and Secrets, if changes of that matter. The shim only keeps it.
    #[serde(default)]
    pub(crate) told: Option<Told>,
}

impl Run {
    /// The same with other words for a command, in which no variable was replaced.
    pub(crate) fn with_command(self, words: &[String]) -> Self {
        Self { command: words.to_vec(), program: None, ..self }
    }
}

/// How a container is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StopMethod {
    /// By this signal.
    Signal(String),
    /// By Ctrl-Break.
    Break,
    /// By a command.
    Command(Vec<String>),
    /// By a request.
    Http(HttpGet),
}

/// What is done beside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Hook {
    /// A command.
    Command(Vec<String>),
    /// A request.
    Http(HttpGet),
}

/// A request by HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpGet {
    /// A name or an address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// The request to end everything, or one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    /// Milliseconds, from when the shim first sees a stop.
    pub(crate) grace_ms: u64,
}

impl Stop {
    pub(crate) fn within(grace: Duration) -> Self {
        Self { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// What the shim has seen: `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// One for each container that was started, or failed to.
    pub(crate) containers: Vec<ContainerState>,
    /// The time that the machine was up when this was written: no process id here means anything in another. Empty where nothing tells.
    #[serde(default)]
    pub(crate) boot_id: String,
    /// What went wrong when the latest runs were asked to end.
    #[serde(default, deserialize_with = "lenient::those_known")]
    pub(crate) failures: Vec<Failure>,
    /// A process that can't be killed although it shall be, and why: a sentence. Empty while there is none.
    #[serde(default)]
    pub(crate) unkillable: String,
}

/// Something that was to be done when a run was asked to end, and went wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) container: String,
    /// Of which run.
    pub(crate) attempt: u32,
    pub(crate) step: EndStep,
    /// A sentence about the container.
    pub(crate) why: String,
}

/// What is done when a run is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum EndStep {
    PreStop,
    Stop,
}

/// The latest run of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    /// The container's name.
    pub(crate) name: String,
    /// As in [`Run`].
    pub(crate) attempt: u32,
    /// As in [`Run`].
    pub(crate) streak: u32,
    /// What became of it. What a newer shim says that this kubelet doesn't know counts as running for as long as that shim lives.
    #[serde(deserialize_with = "lenient::or_default")]
    pub(crate) stage: Stage,
    /// How the run before it ended.
    pub(crate) previous: Option<Ended>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Its main process runs, unless the shim is dead.
    Running {
        /// The main process; [`ABOUT_TO_START`] shortly before there is one, and [`UNKNOWN`] where it is told in unknown words.
        pid: i32,
        /// Milliseconds since 1970.
        started_at: i64,
        /// By which the process is told from another one that has its pid later: see [`Os::start_time`]. Absent where nobody can tell.
        #[serde(default)]
        start_time: Option<u64>,
    },
    /// It is gone, and so is everything that it had started.
    Ended(Ended),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// How.
    #[serde(deserialize_with = "lenient::or_default")]
    pub(crate) cause: Cause,
    /// Milliseconds since 1970. Not later than `finished_at`: earlier than was told while it ran if the clock was set back meanwhile.
    pub(crate) started_at: i64,
    /// Milliseconds since 1970.
    pub(crate) finished_at: i64,
    /// As in [`Run`], if it had been asked to end when it did.
    #[serde(default)]
    pub(crate) superseded: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// The main process returned this.
    Exited(i32),
    /// This signal ended the main process.
    Signaled(i32),
    /// The system killed the main process since its container had reached its limit of memory.
    OomKilled,
    /// It never began.
    StartFailed {
        /// As shells say it: 127 when there is no such program, 126 when it can't be executed.
        code: i32,
        /// For people.
        message: String,
    },
    /// Its shim was gone before it, so that nobody saw how it ended; or a newer shim tells it in words that this kubelet doesn't know.
    #[default]
    Lost,
    /// Of an init container: it had returned 0, and what it had done is gone with the pod's folder. No shim sees that.
    Undone,
}

/// Instead of the pid of a main process that is about to start. Whoever finds it when the shim is gone can't know whether it did.
pub(crate) const ABOUT_TO_START: i32 = 0;

/// Instead of the pid of a main process of which is only known that there may be one. It is nobody's, and is never signalled.
pub(crate) const UNKNOWN: i32 = -1;

/// One that is told in unknown words.
impl Default for Stage {
    fn default() -> Self {
        Self::Running { pid: UNKNOWN, started_at: 0, start_time: None }
    }
}

/// The exit code of a container that was killed at its limit of memory: that of a kill.
pub(crate) const OOM_KILLED: i32 = 137;

impl State {
    /// A container's latest run.
    pub(crate) fn get(&self, container: &str) -> Option<&ContainerState> {
        self.containers.iter().find(|state| state.name == container)
    }

    /// Replaces a container's latest run.
    pub(crate) fn set(&mut self, state: ContainerState) {
        self.failures.retain(|failure| failure.container != state.name);
        match self.containers.iter_mut().find(|known| known.name == state.name) {
            Some(known) => *known = state,
            None => self.containers.push(state),
        }
    }

    /// The last run of each container, and whether it has ended: what must be known also after a loss of power.
    pub(crate) fn ends(&self) -> Vec<(String, u32, bool)> {
        let end = |of: &ContainerState| (of.name.clone(), of.attempt, matches!(of.stage, Stage::Ended(_)));
        self.containers.iter().map(end).collect()
    }

    /// As it is written.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has no keys but texts")
    }

    /// The main processes that run and are still those that were started.
    pub(crate) fn mains(&self) -> impl Iterator<Item = i32> {
        self.containers.iter().filter_map(|container| match container.stage {
            Stage::Running { pid, start_time, .. } if start_time.is_some() && Host::start_time(pid) == start_time => Some(pid),
            _ => None,
        })
    }

    /// Whether the machine was started again since this was written: nothing of it can be left.
    pub(crate) fn is_of_earlier_boot(&self, boot_id: &str) -> bool {
        !self.boot_id.is_empty() && !boot_id.is_empty() && self.boot_id != boot_id
    }

    /// For whoever finds the state of a shim that is dead: what ran then is lost. True if something was.
    pub(crate) fn mark_lost(&mut self, now: i64) -> bool {
        let mut any = false;
        for container in &mut self.containers {
            if let Stage::Running { started_at, .. } = container.stage {
                // By a clock that was set back meanwhile, if it is later.
                let started_at = started_at.min(now);
                container.stage = Stage::Ended(Ended { cause: Cause::Lost, started_at, finished_at: now, superseded: None });
                any = true;
            }
        }
        any
    }
}

/// Where things are in a pod's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFolder(PathBuf);

impl PodFolder {
    /// The folder at this path, which need not exist.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Locked by the shim for as long as it lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// What the kubelet rings when its wishes have changed.
    pub(crate) fn bell(&self) -> PathBuf {
        self.0.join("bell")
    }

    /// Where the shim complains.
    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// The pod as it was when the kubelet took it up, encoded.
    pub(crate) fn pod(&self) -> PathBuf {
        self.0.join("pod.binpb")
    }

    /// What probes said of its containers.
    pub(crate) fn health(&self) -> PathBuf {
        self.0.join("health.json")
    }

    /// The ports that the pod has, as an encoded status.
    pub(crate) fn ports(&self) -> PathBuf {
        self.0.join("ports.binpb")
    }

    /// The ConfigMaps and Secrets that the pod uses, encoded.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.0.join("configuration.binpb")
    }

    /// The folder of the pod's volumes.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// A volume of the pod's own.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// The folder that containers start in.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// The folder of a container's logs.
    pub(crate) fn logs(&self, container: &str) -> PathBuf {
        self.0.join("logs").join(container)
    }

    /// The log of one run.
    pub(crate) fn log(&self, container: &str, attempt: u32) -> PathBuf {
        LogFile::present(attempt).path(&self.logs(container))
    }

    /// What the kubelet wants; `None` when there is no such file.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged.
    pub(crate) fn read_desired(&self) -> io::Result<Option<Desired>> {
        read(&self.0.join("desired.json"))
    }

    /// Says what the kubelet wants.
    pub(crate) fn write_desired(&self, desired: &Desired) -> io::Result<()> {
        Host::write_whatever_it_takes(&self.0.join("desired.json"), &serde_json::to_vec(desired)?, Host::write_atomically)
    }

    /// Forgets what the kubelet wanted. That there is nothing is no error.
    pub(crate) fn remove_desired(&self) -> io::Result<()> {
        match std::fs::remove_file(self.0.join("desired.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file of what the shim has seen.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// What the shim has seen; `None` when there is no such file.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged.
    pub(crate) fn read_state(&self) -> io::Result<Option<State>> {
        read(&self.state())
    }

    /// Says what the shim has seen. After a loss of power there is this, or what was written before.
    pub(crate) fn write_state(&self, state: &State) -> io::Result<()> {
        Host::write_whatever_it_takes(&self.state(), &state.to_bytes(), Host::write_synced)
    }

    /// The same; and after a loss of power there is this.
    pub(crate) fn write_state_durably(&self, state: &State) -> io::Result<()> {
        Host::write_whatever_it_takes(&self.state(), &state.to_bytes(), Host::write_durably)
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{} can't be read: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_newer_shim_or_kubelet_are_taken_for_the_nearest_ones_and_harm_nothing_beside_them() {
        let state = r#"{"boot_id":"b","failures":[{"container":"c","attempt":1,"step":"Dance","why":"x"},{"container":"c","attempt":1,"step":"Stop","why":"y"}],
            "containers":[{"name":"c","attempt":1,"streak":0,"stage":{"Ended":{"cause":{"Vanished":{"into":"air"}},"started_at":1,"finished_at":2}},
            "previous":{"cause":"Evicted","started_at":1,"finished_at":2}},{"name":"d","attempt":3,"streak":2,"stage":{"Paused":{"pid":7}},"previous":null}]}"#;
        let state: State = serde_json::from_str(state).unwrap();
        let lost = Ended { cause: Cause::Lost, started_at: 1, finished_at: 2, superseded: None };
        let [c, d] = ["c", "d"].map(|name| state.get(name).unwrap());
        assert_eq!((&c.stage, &c.previous, c.attempt), (&Stage::Ended(lost.clone()), &Some(lost), 1));
        assert_eq!((&d.stage, d.attempt, state.mains().count()), (&Stage::default(), 3, 0));
        assert_eq!(state.failures.iter().map(|failure| failure.why.as_str()).collect::<Vec<_>>(), ["y"]);

        let run = r#"{"container":"main","attempt":1,"streak":0,"command":["x"],"env":[],"working_dir":"/","log":"/l","pre_stop":{"wasm":1},"stop":{"Ask":"politely"}}"#;
        let run: Run = serde_json::from_str(run).unwrap();
        assert_eq!((run.pre_stop, run.stop, run.attempt), (None, None, 1));
        assert!(serde_json::from_str::<State>(r#"{"containers":[{"name":"c""#).is_err(), "what is cut short is damaged");
    }

    #[test]
    fn what_an_earlier_kubelet_or_shim_has_written_is_understood() {
        let run = r#"{"container":"main","attempt":1,"streak":0,"command":["x"],"env":[],"working_dir":"/","log":"/l","pre_stop":["drain","now"]}"#;
        let run: Run = serde_json::from_str(run).unwrap();
        assert_eq!(run.pre_stop, Some(Hook::Command(vec!["drain".into(), "now".into()])));
        let state: State = serde_json::from_str(r#"{"containers":[]}"#).unwrap();
        assert_eq!(state, State::default());
        let hook = Hook::Http(HttpGet { host: "::1".into(), port: 80, path: "/".into() });
        assert_eq!(serde_json::from_str::<Hook>(&serde_json::to_string(&hook).unwrap()).unwrap(), hook);
    }

    #[test]
    fn only_processes_that_are_still_those_that_were_started_are_main_ones() {
        let me = std::process::id() as i32;
        let started = Host::start_time(me);
        let mains = |start_time| {
            let stage = Stage::Running { pid: me, started_at: 1, start_time };
            let state = ContainerState { name: "main".into(), attempt: 0, streak: 0, stage, previous: None };
            State { containers: vec![state], ..State::default() }.mains().count()
        };
        assert_eq!(mains(started), usize::from(started.is_some()));
        assert_eq!([mains(None), mains(Some(started.unwrap_or_default() + 1))], [0, 0]);
    }
}
