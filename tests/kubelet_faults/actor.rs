//! The pods of a run: what each does, and what must be seen of it in the end.

use std::path::{Path, PathBuf};

use bluebird::api::Resource as _;
use bluebird::api::v1::{Container, Pod, PodSpec, RestartBackoff, RestartPolicy};

/// What a pod's only process does. It keeps a journal of its starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Says its lines and stays.
    Steady,
    /// Ignores requests to end, and so does a process that it starts and leaves.
    Deaf,
    /// Has children, and they have some.
    Parent,
    /// Says its lines a little at a time, and ends.
    Mortal { code: i32 },
    /// Fails so many times, and stays then.
    Crasher { crashes: u32, code: i32 },
    /// Fails so many times, and ends well then.
    Striver { crashes: u32, code: i32 },
}

/// A pod, and how it plays its part.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) part: Part,
    /// Of each of its runs.
    pub(crate) lines: u64,
    /// Of each of its runs, in a second; 0 for all at once.
    pub(crate) pace: u64,
    pub(crate) grace: i64,
    /// Its processes know nothing of the environment that the kubelet gave them.
    pub(crate) is_bare: bool,
    pub(crate) journal: PathBuf,
}

impl Actor {
    /// Chooses a part.
    pub(crate) fn random(rng: &mut fastrand::Rng, number: usize, folder: &Path) -> Actor {
        let code = rng.i32(1..256);
        let crashes = rng.u32(1..4);
        let part = match rng.u8(0..10) {
            0 | 1 => Part::Steady,
            2 => Part::Deaf,
            3 => Part::Parent,
            4..=6 => Part::Mortal { code: rng.i32(0..256) },
            7 | 8 => Part::Crasher { crashes, code },
            _ => Part::Striver { crashes, code },
        };
        let lines = if rng.u8(0..8) == 0 { rng.u64(5_000..20_000) } else { rng.u64(0..300) };
        let pace = if lines > 1_000 || rng.bool() { 0 } else { rng.u64(200..2_000) };
        let name = format!("actor-{number}");
        let (grace, is_bare) = (rng.i64(0..3), rng.u8(0..4) == 0);
        Actor { uid: String::new(), part, lines, pace, grace, is_bare, journal: folder.join(&name), name }
    }

    /// The pod, bound to its node.
    pub(crate) fn pod(&self, node: &str, testapp: &str) -> Pod {
        let command = if self.is_bare { vec!["/usr/bin/env", "-i", testapp] } else { vec![testapp] };
        let container = Container {
            name: "main".to_owned(),
            command: command.into_iter().map(str::to_owned).collect(),
            args: self.words(),
            // Soon, but not so soon that what happens is always summed up in one status.
            restart_backoff: Some(RestartBackoff {
                initial: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
                factor: 1.0,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut spec = PodSpec {
            containers: vec![container],
            node_name: node.to_owned(),
            termination_grace_period_seconds: Some(self.grace),
            ..Default::default()
        };
        spec.set_restart_policy(match self.part {
            Part::Mortal { .. } => RestartPolicy::Never,
            Part::Striver { .. } => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        });
        let mut pod = Pod { spec: Some(spec), ..Default::default() };
        pod.meta_mut().name.clone_from(&self.name);
        pod
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec!["journal".to_owned(), self.journal.display().to_string()];
        words.extend(["lines".to_owned(), self.lines.to_string(), self.pace.to_string()]);
        let runs = |crashes: u32, code: i32| ["runs".to_owned(), "runs".to_owned(), crashes.to_string(), code.to_string()];
        let text = |more: &[&str]| more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self.part {
            Part::Steady => words.extend(text(&["forever"])),
            Part::Deaf => words.extend(text(&["ignore-stop", "detach", "forever"])),
            Part::Parent => words.extend(text(&["tree", "2", "2", "forever"])),
            Part::Mortal { code } => words.extend(["exit".to_owned(), code.to_string()]),
            Part::Crasher { crashes, code } => words.extend(runs(crashes, code).into_iter().chain(text(&["forever"]))),
            Part::Striver { crashes, code } => words.extend(runs(crashes, code).into_iter().chain(text(&["exit", "0"]))),
        }
        words
    }

    /// How often it is started in all.
    pub(crate) fn starts(&self) -> usize {
        match self.part {
            Part::Crasher { crashes, .. } | Part::Striver { crashes, .. } => crashes as usize + 1,
            _ => 1,
        }
    }

    /// What its runs return, of those that end by themselves.
    pub(crate) fn ends(&self) -> Vec<i32> {
        match self.part {
            Part::Steady | Part::Deaf | Part::Parent => Vec::new(),
            Part::Mortal { code } => vec![code],
            Part::Crasher { crashes, code } => vec![code; crashes as usize],
            Part::Striver { crashes, code } => [vec![code; crashes as usize], vec![0]].concat(),
        }
    }

    /// Whether its last run stays.
    pub(crate) fn stays(&self) -> bool {
        self.ends().len() < self.starts()
    }
}
