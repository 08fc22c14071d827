//! How far the pods of a manifest are. Everything here is a function of the pods and the time.

use prost_types::Timestamp;

use super::failure::short_name;
use super::rows::{headings, row};
use super::{table, words};
use crate::api::v1::{ConditionStatus, ContainerStatus, Pod, PodPhase, container_state};
use crate::api::{Kind, ObjectKey, Resource as _, condition};

/// The pods of a manifest, in its order, as they are now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Progress {
    pods: Vec<(ObjectKey, Stage)>,
    rows: Vec<Vec<String>>,
}

/// How far a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It runs with all its containers, or has done what it had to do.
    Ready,
    /// Not yet, and why.
    Coming(String),
    /// It never will, and why.
    Failed(String),
}

impl Progress {
    /// Looks at each pod once.
    pub(super) fn of<'p>(keys: &[ObjectKey], pod: impl Fn(&ObjectKey) -> Option<&'p Pod>, now: &Timestamp) -> Self {
        let (mut pods, mut rows) = (Vec::new(), vec![headings(Kind::Pod, false)]);
        for key in keys {
            let (stage, cells) = match pod(key) {
                Some(pod) => (stage(pod), row(&pod.clone().into_object(), false, now)),
                None => (Stage::Failed("it was deleted".to_owned()), vec![key.name().to_owned(), String::new(), "Deleted".to_owned()]),
            };
            pods.push((key.clone(), stage));
            rows.push(cells);
        }
        Self { pods, rows }
    }

    /// Whether all pods are ready.
    pub(super) fn is_ready(&self) -> bool {
        self.pods.iter().all(|(_, stage)| *stage == Stage::Ready)
    }

    /// Whether some pod never will be.
    pub(super) fn has_failed(&self) -> bool {
        self.pods.iter().any(|(_, stage)| matches!(stage, Stage::Failed(_)))
    }

    /// The pods as a table.
    pub(super) fn table(&self) -> Vec<String> {
        table::lines(&self.rows).lines().map(str::to_owned).collect()
    }

    /// A line for each pod that is not what it was before.
    pub(super) fn news(&self, before: Option<&Progress>) -> Vec<String> {
        let cells = |row: &[String]| [1, 2].map(|cell| row.get(cell).cloned().unwrap_or_default());
        let rows = self.rows.iter().enumerate().skip(1);
        let changed =
            rows.filter(|(index, row)| before.is_none_or(|before| before.rows.get(*index).map(|old| cells(old)) != Some(cells(row))));
        changed.map(|(index, row)| format!("{} {} {}", short_name(&self.pods[index - 1].0), row[2], row[1]).trim_end().to_owned()).collect()
    }

    /// A line with the reason for each pod that is not ready.
    pub(super) fn reasons(&self) -> Vec<String> {
        let reason = |(key, stage): &(ObjectKey, Stage)| match stage {
            Stage::Ready => None,
            Stage::Coming(why) | Stage::Failed(why) => Some(format!("{}: {why}", short_name(key))),
        };
        self.pods.iter().filter_map(reason).collect()
    }
}

fn stage(pod: &Pod) -> Stage {
    let status = pod.status.clone().unwrap_or_default();
    let is_leaving = pod.metadata.as_ref().is_some_and(|meta| meta.deletion_time.is_some());
    match status.phase() {
        _ if is_leaving => Stage::Failed("it is being deleted".to_owned()),
        PodPhase::Succeeded => Stage::Ready,
        PodPhase::Failed => Stage::Failed(why(pod)),
        PodPhase::Running if condition::is_true(&status.conditions, condition::READY) => Stage::Ready,
        PodPhase::Running | PodPhase::Pending | PodPhase::Unspecified => Stage::Coming(why(pod)),
    }
}

/// What keeps a pod from being ready: its state in one word, and what is known besides.
fn why(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let mut parts = vec![words::pod_status(pod)];
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    parts.extend(containers.filter(|container| !container.ready).filter_map(container_trouble));
    if parts.len() == 1 {
        let unmet = status.conditions.iter().find(|condition| condition.status() != ConditionStatus::True && !condition.message.is_empty());
        parts.extend(Some(status.message).filter(|message| !message.is_empty()).or(unmet.map(|condition| condition.message.clone())));
    }
    parts.join(": ")
}

fn container_trouble(container: &ContainerStatus) -> Option<String> {
    let message = match container.state.as_ref()?.state.as_ref()? {
        container_state::State::Waiting(waiting) => waiting.message.clone(),
        container_state::State::Terminated(ended) => ended.message.clone(),
        container_state::State::Running(_) => String::new(),
    };
    let last = container.last_termination.as_ref().map(|last| format!("last exit code {}", last.exit_code));
    let known: Vec<_> = [Some(message).filter(|message| !message.is_empty()), last].into_iter().flatten().collect();
    (!known.is_empty()).then(|| format!("container {}: {}", container.name, known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::*;

    const NOW: Timestamp = Timestamp { seconds: 0, nanos: 0 };

    fn pod(phase: PodPhase, ready: ConditionStatus) -> Pod {
        let condition = Condition { r#type: "Ready".into(), status: ready.into(), ..Default::default() };
        let status = PodStatus { phase: phase.into(), conditions: vec![condition], ..Default::default() };
        Pod { metadata: Some(ObjectMeta { name: "web".into(), ..Default::default() }), spec: None, status: Some(status) }
    }

    fn of(pod: Option<&Pod>) -> Progress {
        Progress::of(&[ObjectKey::new(Kind::Pod, "", "web")], |_| pod, &NOW)
    }

    #[track_caller]
    fn check(pod: Option<&Pod>, is_ready: bool, has_failed: bool, reason: &str) {
        let progress = of(pod);
        assert_eq!((progress.is_ready(), progress.has_failed()), (is_ready, has_failed));
        assert_eq!(progress.reasons().join("\n"), reason);
    }

    #[test]
    fn a_pod_is_ready_when_it_runs_and_is_or_when_it_has_succeeded() {
        check(Some(&pod(PodPhase::Running, ConditionStatus::True)), true, false, "");
        check(Some(&pod(PodPhase::Succeeded, ConditionStatus::False)), true, false, "");
        check(Some(&pod(PodPhase::Pending, ConditionStatus::True)), false, false, "pod/web: Pending");
        check(Some(&pod(PodPhase::Running, ConditionStatus::Unknown)), false, false, "pod/web: Unknown");
        check(None, false, true, "pod/web: it was deleted");
    }

    #[test]
    fn a_pod_that_ended_in_failure_never_becomes_ready() {
        let mut failed = pod(PodPhase::Failed, ConditionStatus::False);
        let ended = ContainerStateTerminated { exit_code: 3, reason: "Error".into(), message: "exit code 3".into(), ..Default::default() };
        failed.status.get_or_insert_default().container_statuses = vec![ContainerStatus {
            name: "main".into(),
            state: Some(ContainerState { state: Some(container_state::State::Terminated(ended)) }),
            ..Default::default()
        }];
        check(Some(&failed), false, true, "pod/web: Error: container main: exit code 3");
    }

    #[test]
    fn a_pod_that_nobody_can_place_says_why() {
        let mut waiting = pod(PodPhase::Pending, ConditionStatus::False);
        let message = "0/1 nodes fit: 1 lacks capability memory-limits".to_owned();
        waiting.status.get_or_insert_default().conditions.push(Condition {
            r#type: "PodScheduled".into(),
            status: ConditionStatus::False.into(),
            message: message.clone(),
            ..Default::default()
        });
        check(Some(&waiting), false, false, &format!("pod/web: Pending: {message}"));
    }

    #[test]
    fn only_what_changed_is_news() {
        let (pending, running) = (pod(PodPhase::Pending, ConditionStatus::False), pod(PodPhase::Running, ConditionStatus::True));
        let (before, after) = (of(Some(&pending)), of(Some(&running)));
        assert_eq!(before.news(None), ["pod/web Pending 0/0"]);
        assert_eq!(before.news(Some(&before)), Vec::<String>::new());
        assert_eq!(after.news(Some(&before)), ["pod/web Running 0/0"]);
    }
}
