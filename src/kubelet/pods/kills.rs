//! What has to be killed since it doesn't end: round by round, and none of them waits for what it has killed, so that nothing that can't be killed holds
//! up other pods.

use std::io;
use std::time::Duration;

use prost_types::Timestamp;

use super::Pods;
use crate::kubelet::plan::Backoff;
use crate::kubelet::runtime::Processes;
use crate::kubelet::uid::PodUid;
use crate::time;

/// Between two rounds. What is killed is gone in a moment, as a rule.
const ROUNDS: Backoff =
    Backoff { initial: Duration::from_millis(10), factor: 2.0, cap: Duration::from_secs(30), reset: Duration::from_secs(u64::MAX) };
/// After so many rounds, which take more than a second, it is told what doesn't end.
const PATIENCE: u32 = 8;

/// The rounds of one pod in a row.
#[derive(Debug, Default)]
pub(super) struct Kills {
    rounds: u32,
    /// What the last one has killed.
    last: Vec<i32>,
}

impl Kills {
    /// Takes note of a round. Why there is something that doesn't end, as a sentence; empty if that can't be told yet.
    fn note(&mut self, round: io::Result<Vec<i32>>) -> String {
        self.rounds = self.rounds.saturating_add(1);
        let found = match round {
            Ok(found) => found,
            Err(error) => return error.to_string(),
        };
        let before = std::mem::replace(&mut self.last, found);
        match self.last.iter().find(|pid| before.contains(pid)) {
            Some(pid) if self.rounds >= PATIENCE => format!("process {pid} was killed and does not end"),
            _ => String::new(),
        }
    }

    /// Until the next round.
    fn wait(&self) -> Duration {
        ROUNDS.wait(self.rounds)
    }
}

impl Pods {
    /// One round; true when there was nothing left to kill. Otherwise it is looked at again, ever later, and what stays is told.
    pub(super) fn kill(&mut self, uid: &PodUid, kill: impl Fn(&Processes, &PodUid) -> io::Result<Vec<i32>>, now: &Timestamp) -> bool {
        let round = kill(&self.links.processes, uid);
        let Some(entry) = self.entries.get_mut(uid) else { return true };
        let is_clear = matches!(&round, Ok(found) if found.is_empty());
        entry.look_again = Some(time::after(now, entry.kills.wait()));
        let why = entry.kills.note(round);
        if !is_clear {
            tracing::warn!(pod = %uid, killed = ?entry.kills.last, why, "what is left of the pod is killed");
        }
        if let Some(observed) = entry.observed.as_mut().filter(|observed| observed.unkillable.is_empty()) {
            observed.unkillable = why;
        }
        is_clear
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_told_after_some_rounds_that_come_ever_later() {
        let mut kills = Kills::default();
        let mut waits = Vec::new();
        for round in 1..=14 {
            waits.push(kills.wait().as_millis());
            let why = kills.note(Ok(vec![7, 8]));
            assert_eq!(why, if round < PATIENCE { "" } else { "process 7 was killed and does not end" }, "{round}");
        }
        assert_eq!(waits[..8], [10, 20, 40, 80, 160, 320, 640, 1280]);
        assert_eq!(waits[11..], [20_480, 30_000, 30_000]);
        assert_eq!(kills.note(Ok(vec![9])), "", "those have ended");
        assert_eq!(kills.note(Err(io::Error::other("process 9 can't be killed: no"))), "process 9 can't be killed: no");
        assert_eq!(kills.note(Ok(Vec::new())), "");
    }
}
