//! A client of a real apiserver that sees every change.

use bluebird::api::Resource;
use bluebird::api::v1::{Container, Pod, PodPhase, PodSpec, RestartPolicy, container_state::State};
use bluebird::client::{Cache, Client};
use bluebird::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use super::program::DEADLINE;

/// A client, and a cache of everything. Dropping it ends both.
pub(crate) struct Follower {
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) tasks: Tasks,
}

impl Follower {
    /// Waits until an apiserver answers there.
    pub(crate) async fn connect(url: &str) -> Follower {
        let client = Client::new(url).expect("a URL");
        let tasks = Tasks::new(CancellationToken::new());
        let cache = Cache::start(client.clone(), Vec::new(), &tasks);
        let synced = tokio::time::timeout(DEADLINE, cache.synced()).await;
        assert!(synced.unwrap_or_else(|_| panic!("no apiserver answers at {url}")));
        Follower { client, cache, tasks }
    }

    /// Waits until `look` finds what it looks for in the cluster.
    pub(crate) async fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Cache) -> Option<T>) -> T {
        let mut revisions = self.cache.revisions();
        let search = async {
            loop {
                revisions.mark_unchanged();
                if let Some(found) = look(&self.cache) {
                    return found;
                }
                revisions.changed().await.expect("the cache lives as long as the test");
            }
        };
        tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// Creates a pod that runs a shell script and gets no time to stop; returns its process once that runs.
    pub(crate) async fn run(&self, name: &str, script: &str, policy: RestartPolicy) -> i32 {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let containers = vec![Container { name: "main".into(), command, ..Default::default() }];
        let mut spec = PodSpec { containers, termination_grace_period_seconds: Some(0), ..Default::default() };
        spec.set_restart_policy(policy);
        let mut pod = Pod { spec: Some(spec), ..Default::default() };
        pod.meta_mut().name = name.into();
        self.client.create(pod).await.expect("a valid pod");
        self.wait_for("the pod to run", |cache| {
            cache.get::<Pod>("", name).filter(|pod| phase(pod) == PodPhase::Running).and_then(|pod| pid(&pod))
        })
        .await
    }
}

pub(crate) fn phase(pod: &Pod) -> PodPhase {
    pod.status.as_ref().map_or(PodPhase::Unspecified, |status| status.phase())
}

pub(crate) fn pid(pod: &Pod) -> Option<i32> {
    match state(pod)? {
        State::Running(running) => i32::try_from(running.pid).ok(),
        _ => None,
    }
}

/// What the pod's only container does.
pub(crate) fn state(pod: &Pod) -> Option<&State> {
    pod.status.as_ref()?.container_statuses.first()?.state.as_ref()?.state.as_ref()
}
