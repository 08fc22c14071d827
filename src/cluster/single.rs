//! A whole cluster of one node in one process.

use std::path::{Path, PathBuf};

use super::{ControlPlane, StartError};
use crate::api::v1::{ConditionStatus, Object, PodPhase, Selector, object};
use crate::api::{Kind, Resource as _, Revision, condition};
use crate::apiserver::{self, Listen};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::kubelet::{self, Kubelet};
use crate::time::Clock;

/// Where a [`Cluster`] is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The folder that holds everything. `None`: one in the user's data folder.
    pub data_dir: Option<PathBuf>,
    /// Where the apiserver listens: `ADDRESS:PORT` or `unix:/PATH`.
    pub listen: String,
    /// The range that services have their addresses from. `None`: the apiserver's default.
    pub service_cidr: Option<String>,
}

/// A control plane and the kubelet of its one node. The pods end with it.
#[derive(Debug)]
pub struct Cluster {
    control_plane: ControlPlane,
    kubelet: Kubelet,
    data_dir: PathBuf,
}

impl Cluster {
    /// Starts it, on what was there before.
    ///
    /// # Errors
    /// Says what is wrong; nothing runs then.
    pub async fn start(place: Place, clock: Clock) -> Result<Cluster, StartError> {
        let no_folder = || unusable("this user has no data folder; say where with --data-dir FOLDER");
        let data_dir = place.data_dir.or_else(default_data_dir).ok_or_else(no_folder)?;
        let listen: Listen = place.listen.parse().map_err(|error: String| unusable(error))?;
        let mut config = apiserver::Config::new(data_dir.join("apiserver"), listen);
        if let Some(service_cidr) = place.service_cidr {
            config.service_cidr = service_cidr;
        }
        let control_plane = ControlPlane::start(config, clock.clone()).await?;
        match start_kubelet(&control_plane.client(), data_dir.join("kubelet"), clock).await {
            Ok(kubelet) => Ok(Cluster { control_plane, kubelet, data_dir }),
            Err(error) => {
                control_plane.shutdown().await;
                Err(StartError::Kubelet(error))
            }
        }
    }

    /// A client without a network in between.
    pub fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// What clients are given to connect.
    pub fn url(&self) -> String {
        self.control_plane.url()
    }

    /// The folder that holds everything.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Waits until the kubelet can't go on, and says why.
    pub async fn refused(&self) -> Error {
        self.kubelet.refused().await
    }

    /// Waits until all routers have applied a revision.
    pub async fn routed(&self, revision: Revision) {
        self.kubelet.routed(revision).await;
    }

    /// Ends all pods, each within its grace period, and then everything else.
    pub async fn shutdown(self) {
        self.kubelet.shutdown_and_stop_pods().await;
        self.control_plane.shutdown().await;
    }
}

fn default_data_dir() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "bluebird").map(|folders| folders.data_local_dir().join("up"))
}

fn unusable(why: impl Into<String>) -> StartError {
    StartError::Kubelet(Error::Precondition(why.into()))
}

async fn start_kubelet(client: &Client, root_dir: PathBuf, clock: Clock) -> Result<Kubelet> {
    let config = kubelet::Config::new(kubelet::default_node_name(), root_dir);
    doubt_pods(client, &config.node_name, &clock).await?;
    kubelet::start(config, client.clone(), clock).await
}

/// What the last kubelet said of its pods may be long past, after a power cut for instance: they count as ready when the new one says so.
async fn doubt_pods(client: &Client, node_name: &str, clock: &Clock) -> Result<()> {
    let selector = Selector { kind: Kind::Pod.to_string(), node_name: node_name.to_owned(), ..Default::default() };
    let mut pods = client.list_objects(selector).await?.objects;
    pods.retain_mut(|pod| doubt(pod, clock));
    for pods in pods.chunks(MAX_STATUSES) {
        for result in client.update_status(pods.to_vec()).await? {
            match result {
                // It went meanwhile, or is another one of the same name: nothing to doubt.
                Ok(_) | Err(Error::NotFound(_) | Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The most statuses of one request: far from the largest request, whatever the pods.
const MAX_STATUSES: usize = 200;

/// Makes of a pod the status to send. False if there is nothing to doubt.
fn doubt(object: &mut Object, clock: &Clock) -> bool {
    let Some(object::Kind::Pod(pod)) = &mut object.kind else { return false };
    // Whoever changes it meanwhile shall not make this fail; only another pod of the name must not get it.
    pod.meta_mut().resource_version = 0;
    pod.spec = None;
    let Some(status) = &mut pod.status else { return false };
    let note = "the kubelet has not spoken of it since it started";
    let (unknown, conditions) = (ConditionStatus::Unknown, &mut status.conditions);
    let is_over = matches!(PodPhase::try_from(status.phase), Ok(PodPhase::Succeeded | PodPhase::Failed));
    !is_over
        && condition::is_true(conditions, condition::READY)
        && condition::set(conditions, condition::READY, unknown, "KubeletStarting", note, clock.now())
}
