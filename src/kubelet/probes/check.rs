//! One try of a probe.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::api::v1::{AssignedPort, Probe, probe};
use crate::kubelet::ports;
use crate::kubelet::runtime::{ExecError, Execs};
use crate::kubelet::uid::PodUid;

/// How many probes run a command at the same time, as long as none is [`SLOW`]: each is a process or more.
const COMMANDS_AT_ONCE: usize = 8;
/// How many probes talk to their container at the same time, likewise.
const CONNECTIONS_AT_ONCE: usize = 256;
/// After so long a try hangs, as far as others are concerned: they don't wait for it any longer. Of those that hang there is at most one for each probe.
const SLOW: Duration = Duration::from_secs(1);
/// How much of what a failing command wrote is told.
const TOLD: usize = 200;

/// How a try came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// Why not, as a sentence.
    Failed(String),
    /// The container is not there any more, or this machine could not try: it says nothing.
    Unknown(String),
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Command(Vec<String>),
    Http { at: Address, path: String },
    Tcp(Address),
    Grpc { at: Address, service: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
}

impl Check {
    /// What a probe of a container tries; `None` when it names a port that the container doesn't have.
    pub(super) fn of(probe: &Probe, container: &str, ports: &[AssignedPort], host_ip: IpAddr) -> Option<Self> {
        let at = |host: &str, port: &str| {
            let host = if host.is_empty() { host_ip.to_string() } else { host.to_owned() };
            Some(Address { host, port: ports::number_of(port, container, ports)? })
        };
        match probe.handler.as_ref()? {
            probe::Handler::Exec(action) => Some(Self::Command(action.command.clone())),
            probe::Handler::HttpGet(action) => Some(Self::Http { at: at(&action.host, &action.port)?, path: action.path.clone() }),
            probe::Handler::TcpSocket(action) => Some(Self::Tcp(at(&action.host, &action.port)?)),
            probe::Handler::Grpc(action) => Some(Self::Grpc { at: at("", &action.port)?, service: action.service.clone() }),
        }
    }
}

/// Tries probes, not too many at once.
#[derive(Debug)]
pub(crate) struct Checker {
    execs: Arc<Execs>,
    commands: Semaphore,
    connections: Semaphore,
}

impl Checker {
    pub(crate) fn new(execs: Arc<Execs>) -> Self {
        Self { execs, commands: Semaphore::new(COMMANDS_AT_ONCE), connections: Semaphore::new(CONNECTIONS_AT_ONCE) }
    }

    /// Tries once. What hangs ends at the timeout, and nothing of it is left; waiting for others is not counted.
    pub(super) async fn check(&self, uid: &PodUid, container: &str, check: &Check, timeout: Duration) -> Outcome {
        let places = if matches!(check, Check::Command(_)) { &self.commands } else { &self.connections };
        let Ok(place) = places.acquire().await else { return Outcome::Unknown("the kubelet ends".to_owned()) };
        let mut tried = std::pin::pin!(self.try_once(uid, container, check, timeout));
        match tokio::time::timeout(SLOW, &mut tried).await {
            Ok(outcome) => outcome,
            Err(_) => {
                drop(place);
                tried.await
            }
        }
    }

    async fn try_once(&self, uid: &PodUid, container: &str, check: &Check, timeout: Duration) -> Outcome {
        if let Check::Command(command) = check {
            return self.run(uid, container, command, timeout).await;
        }
        let tried = async {
            match check {
                Check::Http { at, path } => http(at, path).await,
                Check::Grpc { at, service } => grpc(at, service).await,
                Check::Tcp(at) => connect(at).await.map(drop),
                Check::Command(_) => Ok(()),
            }
        };
        match tokio::time::timeout(timeout, tried).await {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(message)) => Outcome::Failed(message),
            Err(_) => Outcome::Failed(too_long(timeout)),
        }
    }

    async fn run(&self, uid: &PodUid, container: &str, command: &[String], timeout: Duration) -> Outcome {
        match self.execs.output(uid, container, command, timeout).await {
            Ok(output) if output.end.code == 0 => Outcome::Passed,
            Ok(output) => {
                let said = if output.end.message.is_empty() { said(&output.text) } else { output.end.message };
                let colon = if said.is_empty() { "" } else { ": " };
                Outcome::Failed(format!("exit code {}{colon}{said}", output.end.code))
            }
            Err(ExecError::TimedOut) => Outcome::Failed(too_long(timeout)),
            Err(ExecError::ContainerEnded) => Outcome::Unknown("the container has ended".to_owned()),
            Err(ExecError::NotRunning(message)) => Outcome::Unknown(message),
            Err(ExecError::Failed(error)) => Outcome::Unknown(format!("the command can't be run: {error}")),
        }
    }
}

fn too_long(timeout: Duration) -> String {
    format!("no answer within {} s", timeout.as_secs())
}

/// The first line of what a command wrote, shortened.
fn said(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}

async fn connect(at: &Address) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((at.host.as_str(), at.port)).await.map_err(|error| format!("{at}: {error}"))?;
    // A connection to a port of the machine's own that nobody listens on may come to meet itself.
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) if local != peer => Ok(stream),
        _ => Err(format!("{at}: nobody listens")),
    }
}

/// A status below 400 passes.
async fn http(at: &Address, path: &str) -> Result<(), String> {
    let stream = TokioIo::new(connect(at).await?);
    let failed = |error: hyper::Error| format!("{at}: {}", root_cause(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(failed)?;
    let request = hyper::Request::get(path)
        .header(HOST, at.to_string())
        .header(USER_AGENT, concat!("bluebird-kubelet/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|error| format!("{path:?} can't be asked for: {error}"))?;
    let exchange = std::pin::pin!(sender.send_request(request));
    let response = match futures_util::future::select(exchange, connection).await {
        Either::Left((response, _)) => response,
        // The connection is closed; the answer came before that or never will.
        Either::Right((_, exchange)) => exchange.await,
    };
    match response.map_err(failed)?.status().as_u16() {
        200..=399 => Ok(()),
        status => Err(format!("HTTP status {status}")),
    }
}

async fn grpc(at: &Address, service: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{at}")).map_err(|error| format!("{at} can't be asked: {error}"))?;
    let channel = endpoint.connect().await.map_err(|error| format!("{at}: {}", root_cause(&error)))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let response = HealthClient::new(channel).check(request).await.map_err(|status| format!("{}: {}", status.code(), status.message()))?;
    match response.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("it says {}", other.as_str_name())),
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests;
