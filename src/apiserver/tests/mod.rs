//! One apiserver over an in-process connection and a temporary folder.

mod apply;
mod backup;
mod config;
mod create;
mod delete;
mod exec;
mod follow;
mod lifecycle;
mod limits;
mod list;
mod logs;
mod mirrors;
mod node;
mod prune;
mod shared;
mod top;
mod update;
mod watch;

use std::time::Duration;

use tempfile::TempDir;

use super::{Apiserver, Config, Listen, start};
use crate::api::Resource as _;
use crate::api::v1::{Container, Namespace, Object, Pod, PodSpec, PodStatus, Service, ServicePort, ServiceSpec};
use crate::client::Client;
use crate::error::Error;
use crate::time::Clock;

/// How long anything that should happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    apiserver: Apiserver,
    client: Client,
    folder: TempDir,
}

fn config(folder: &TempDir) -> Config {
    Config::new(folder.path().join("data"), Listen::LOCAL)
}

async fn running() -> Running {
    running_as(|_| {}).await
}

async fn running_as(change: impl FnOnce(&mut Config)) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    change(&mut config);
    let apiserver = start(config, Clock::system()).await.unwrap();
    Running { client: Client::from_channels(apiserver.channels()), apiserver, folder }
}

impl Running {
    /// A client with a connection of its own.
    fn another_client(&self) -> Client {
        Client::from_channels(self.apiserver.channels())
    }

    /// Stops in order and starts again on the same folder.
    async fn restarted(self) -> Running {
        self.apiserver.shutdown().await;
        let apiserver = start(config(&self.folder), Clock::system()).await.unwrap();
        Running { client: Client::from_channel(apiserver.channel()), apiserver, folder: self.folder }
    }
}

fn pod(name: &str) -> Pod {
    let mut pod = Pod { spec: Some(PodSpec::default()), ..Default::default() };
    pod.meta_mut().name = name.into();
    let container = Container { name: "main".into(), command: vec!["sleep".into(), "60".into()], ..Default::default() };
    pod.spec.get_or_insert_default().containers.push(container);
    pod
}

fn bound_pod(name: &str, node: &str) -> Pod {
    let mut pod = pod(name);
    pod.spec.get_or_insert_default().node_name = node.into();
    pod
}

fn with_label(mut pod: Pod, key: &str, value: &str) -> Pod {
    pod.meta_mut().labels.insert(key.into(), value.into());
    pod
}

fn with_status(mut pod: Pod, status: PodStatus) -> Pod {
    pod.status = Some(status);
    pod
}

fn service(name: &str) -> Service {
    let ports = vec![ServicePort { port: 80, ..Default::default() }];
    let mut service = Service { spec: Some(ServiceSpec { ports, ..Default::default() }), ..Default::default() };
    service.meta_mut().name = name.into();
    service
}

fn namespace(name: &str) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.meta_mut().name = name.into();
    namespace
}

fn in_namespace(mut pod: Pod, namespace: &str) -> Pod {
    pod.meta_mut().namespace = namespace.into();
    pod
}

fn typed<R: crate::api::Resource>(object: Object) -> R {
    R::from_object(object).expect("an object of the kind that was asked for")
}

/// The paths of the faults of a refused request.
#[track_caller]
fn paths<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Vec<String> {
    match outcome {
        Err(Error::Invalid(violations)) => violations.into_iter().map(|violation| violation.path).collect(),
        other => panic!("not refused as invalid, but {other:?}"),
    }
}

/// Calls what the client has no method for.
async fn unary<Q, R>(channel: tonic::transport::Channel, method: &str, request: Q) -> Result<R, Error>
where
    Q: prost::Message + 'static,
    R: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Error::Unavailable(error.to_string()))?;
    let path = format!("/{}{method}", if method.contains('.') { "" } else { "bluebird.v1." });
    let codec = tonic_prost::ProstCodec::<Q, R>::default();
    Ok(grpc.unary(tonic::Request::new(request), path.parse().unwrap(), codec).await?.into_inner())
}
