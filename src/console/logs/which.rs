//! Which logs a command line means.

use crate::api::Resource as _;
use crate::api::v1::container_state::State;
use crate::api::v1::{ContainerStatus, LogsRequest, Pod};
use crate::console::args;

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Which {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) container: String,
}

impl Which {
    /// As kubectl writes it before each line.
    pub(super) fn prefix(&self) -> String {
        format!("[pod/{}/{}] ", self.pod, self.container)
    }

    /// Asks for this log as `how` says.
    pub(super) fn request(&self, how: &LogsRequest) -> LogsRequest {
        let Self { namespace, pod, uid, container } = self.clone();
        LogsRequest { namespace, pod, pod_uid: uid, container, ..how.clone() }
    }
}

/// The logs of a pod that are asked for; or why it can't be told which those are.
pub(super) fn logs_of(pod: &Pod, args: &args::Logs) -> Result<Vec<Which>, String> {
    let name = &pod.meta().name;
    let spec = pod.spec.clone().unwrap_or_default();
    let names =
        |containers: &mut dyn Iterator<Item = &crate::api::v1::Container>| containers.map(|one| one.name.clone()).collect::<Vec<_>>();
    let all = names(&mut spec.all_containers());
    let containers = match (&args.container, names(&mut spec.containers.iter())) {
        _ if args.all_containers => all,
        (Some(container), _) if all.contains(container) => vec![container.clone()],
        (Some(container), _) => return Err(format!("pod/{name} has no container {container:?}; there are {}", all.join(", "))),
        (None, main) if main.len() == 1 => main,
        (None, main) => {
            return Err(format!("pod/{name} has several containers: name one of {} with -c, or use --all-containers", main.join(", ")));
        }
    };
    let (namespace, uid) = (&pod.meta().namespace, &pod.meta().uid);
    let which = |container| Which { namespace: namespace.clone(), pod: name.clone(), uid: uid.clone(), container };
    Ok(containers.into_iter().map(which).collect())
}

/// Whether a container was ever started, as far as is known: before that it has no log.
pub(super) fn has_begun(pod: &Pod, container: &str) -> bool {
    let has_begun = |status: &ContainerStatus| match status.state.as_ref().and_then(|state| state.state.as_ref()) {
        Some(State::Running(_) | State::Terminated(_)) => true,
        Some(State::Waiting(_)) | None => status.last_termination.is_some(),
    };
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses));
    statuses.filter(|status| status.name == container).any(has_begun)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::api::v1::{Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, PodSpec, PodStatus};
    use crate::console::args::{Cli, Command};

    fn args(line: &str) -> args::Logs {
        match Cli::parse_from(["bluebird", "logs"].into_iter().chain(line.split_whitespace())).command {
            Command::Logs(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn pod(init: &[&str], main: &[&str]) -> Pod {
        let containers =
            |names: &[&str]| names.iter().map(|name| Container { name: (*name).to_owned(), ..Default::default() }).collect::<Vec<_>>();
        let spec = PodSpec { init_containers: containers(init), containers: containers(main), ..Default::default() };
        let mut pod = Pod { spec: Some(spec), ..Default::default() };
        pod.meta_mut().name = "web".into();
        pod
    }

    #[track_caller]
    fn check(line: &str, init: &[&str], main: &[&str], expected: Result<&[&str], &str>) {
        let logs = logs_of(&pod(init, main), &args(line)).map(|logs| logs.into_iter().map(|log| log.container).collect::<Vec<_>>());
        match expected {
            Ok(names) => assert_eq!(logs.unwrap(), names),
            Err(hint) => assert!(logs.as_ref().is_err_and(|why| why.contains(hint)), "{logs:?}"),
        }
    }

    #[test]
    fn a_container_is_named_unless_there_is_only_one() {
        check("web", &["first"], &["main"], Ok(&["main"]));
        check("web", &[], &["a", "b"], Err("name one of a, b with -c, or use --all-containers"));
        check("web -c b", &[], &["a", "b"], Ok(&["b"]));
        check("web -c first", &["first"], &["a", "b"], Ok(&["first"]));
        check("web -c x", &["first"], &["a", "b"], Err("no container \"x\"; there are first, a, b"));
        check("-l app=web --all-containers", &["first"], &["a", "b"], Ok(&["first", "a", "b"]));
    }

    #[test]
    fn a_container_has_begun_once_it_ran() {
        let state = |state| ContainerStatus { name: "main".into(), state: Some(ContainerState { state }), ..Default::default() };
        let ended = ContainerStateTerminated::default();
        for (status, expected) in [
            (state(None), false),
            (state(Some(State::Running(ContainerStateRunning::default()))), true),
            (state(Some(State::Terminated(ended.clone()))), true),
            (state(Some(State::Waiting(Default::default()))), false),
            (ContainerStatus { last_termination: Some(ended), ..state(Some(State::Waiting(Default::default()))) }, true),
        ] {
            let mut pod = pod(&[], &["main"]);
            pod.status = Some(PodStatus { container_statuses: vec![status], ..Default::default() });
            assert_eq!((has_begun(&pod, "main"), has_begun(&pod, "other")), (expected, false));
        }
    }
}
