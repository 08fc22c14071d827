//! Every status that the apiserver ever had of a pod, and which ends it told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bluebird::api::v1::{ContainerStateTerminated, ContainerStatus, Pod, Selector, WatchRequest, container_state::State, object};
use bluebird::client::Client;
use bluebird::tasks::Tasks;

/// An end that was told: of which run, and how.
type End = (u32, i32, String);

/// What was told of each pod, by uid.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<BTreeMap<String, BTreeSet<End>>>>);

impl History {
    /// Follows all pods from the beginning. The apiserver is not what breaks here: a watch that ends is a fault.
    pub(crate) fn follow(client: &Client, tasks: &Tasks) -> History {
        let history = History::default();
        let (told, client, token) = (history.clone(), client.clone(), tasks.token());
        tasks.spawn("history", async move {
            let selectors = vec![Selector { kind: "Pod".to_owned(), ..Default::default() }];
            let request = WatchRequest { selectors, send_initial: true, ..Default::default() };
            let mut watch = client.watch(request).await.expect("the apiserver answers");
            while let Some(message) = token.run_until_cancelled(watch.next()).await {
                let Some(message) = message.expect("the apiserver lives") else { return };
                let objects = message.events.into_iter().filter_map(|event| event.object?.kind);
                for kind in objects {
                    if let object::Kind::Pod(pod) = kind {
                        told.note(&pod);
                    }
                }
            }
        });
        history
    }

    fn note(&self, pod: &Pod) {
        let uid = pod.metadata.as_ref().map(|meta| meta.uid.clone()).unwrap_or_default();
        let containers = pod.status.iter().flat_map(|status| &status.container_statuses);
        let mut told = self.0.lock().expect("no panic while held");
        told.entry(uid).or_default().extend(containers.flat_map(ends));
    }

    /// The ends that were told of a pod.
    pub(crate) fn of(&self, uid: &str) -> BTreeSet<End> {
        self.0.lock().expect("no panic while held").get(uid).cloned().unwrap_or_default()
    }
}

/// The ends in one status.
fn ends(container: &ContainerStatus) -> Vec<End> {
    let end = |run: u32, end: &ContainerStateTerminated| (run, end.exit_code, end.reason.clone());
    let last = |run: Option<u32>| run.zip(container.last_termination.as_ref()).map(|(run, last)| end(run, last));
    let count = container.restart_count;
    match container.state.as_ref().and_then(|state| state.state.as_ref()) {
        Some(State::Terminated(now)) => vec![end(count, now)],
        // Waits to be started again: the count is still that of the run that has ended.
        Some(State::Waiting(waiting)) if waiting.reason == "CrashLoopBackOff" => last(Some(count)).into_iter().collect(),
        _ => last(count.checked_sub(1)).into_iter().collect(),
    }
}
