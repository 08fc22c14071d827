//! `port-forward`: ports of pods and services, reachable on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, Result, describe};
use super::{Console, args, words};
use crate::api::v1::port_forward_request::Message as Said;
use crate::api::v1::port_forward_response::Message as Told;
use crate::api::v1::{ClosePort, EndpointSlice, Pod, PortForwardRequest, PortForwardResponse, PortForwardStart, Service};
use crate::client::{Client, Incoming};
use crate::error::{self, Error};
use crate::tasks::Tasks;

/// The most bytes that are passed on at once.
const PIECE: usize = 32 * 1024;
/// How many messages for people may wait.
const NOTES: usize = 16;
/// How long connections get to end when the program does.
const GRACE: Duration = Duration::from_secs(1);

/// What connections lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Pod(String),
    Service(String),
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Forward {
    local: u16,
    remote: String,
}

/// What there is to say of a connection.
enum Note {
    Failed(String),
    /// The pod is gone for good: no other connection can succeed.
    PodGone(String),
}

pub(super) async fn run(console: &mut Console<'_>, args: &args::PortForward) -> Result<()> {
    let target = target(&args.target)?;
    let forwards = args.ports.iter().map(|port| forward(port)).collect::<Result<Vec<_>>>()?;
    let way = Way { client: console.client()?, namespace: console.namespace().to_owned(), target };
    // What is wrong already is told before anybody connects.
    for forward in &forwards {
        way.find(&forward.remote).await?;
        if let Some(why) = way.check(&forward.remote).await? {
            return Err(Failure::Failed(why));
        }
    }
    let tasks = std::sync::Arc::new(Tasks::new(CancellationToken::new()));
    let (notes, mut noted) = mpsc::channel(NOTES);
    for forward in forwards {
        let listener = listen(forward.local).await?;
        let local = listener.local_addr()?;
        writeln!(console.io.out, "Forwarding from {local} -> {}", forward.remote)?;
        let (way, notes, connections) = (way.clone(), notes.clone(), tasks.clone());
        let token = tasks.token();
        tasks.spawn("listener", async move {
            token.run_until_cancelled(accept(listener, forward.remote, way, notes, connections)).await;
        });
    }
    console.io.out.flush()?;
    let mut asked_to_end = (console.io.asked_to_end)();
    let outcome = loop {
        tokio::select! {
            asked = &mut asked_to_end => break asked.map_err(Failure::from),
            Some(note) = noted.recv() => match note {
                Note::Failed(why) => writeln!(console.io.err, "error: {why}")?,
                Note::PodGone(why) => break Err(Failure::Failed(why)),
            },
        }
    };
    tasks.shutdown(GRACE).await;
    outcome
}

fn target(typed: &str) -> Result<Target> {
    match typed.split_once('/') {
        None => Ok(Target::Pod(typed.to_owned())),
        Some(("pod" | "pods" | "po", name)) => Ok(Target::Pod(name.to_owned())),
        Some(("service" | "services" | "svc", name)) => Ok(Target::Service(name.to_owned())),
        Some((kind, _)) => Err(Failure::Usage(format!("{kind:?} has no ports; name a pod, or write service/NAME"))),
    }
}

fn forward(typed: &str) -> Result<Forward> {
    let wrong = || Failure::Usage(format!("{typed:?} is no port; write PORT or LOCAL:PORT, as in 8080:80, 8080:http or :80"));
    let (local, remote) = match typed.split_once(':') {
        Some(("", remote)) => (0, remote),
        Some((local, remote)) => (local.parse().map_err(|_| wrong())?, remote),
        None => (typed.parse().unwrap_or(0), typed),
    };
    match remote.parse::<u32>() {
        Ok(1..=65_535) => {}
        Err(_) if !remote.is_empty() && !remote.contains(':') => {}
        _ => return Err(wrong()),
    }
    Ok(Forward { local, remote: remote.to_owned() })
}

async fn listen(port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| Failure::Failed(format!("cannot listen at {address}: {error}")))
}

/// Takes connections and leads each of them on.
async fn accept(listener: TcpListener, remote: String, way: Way, notes: mpsc::Sender<Note>, tasks: std::sync::Arc<Tasks>) {
    loop {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                // Nobody is there to be told when this fails.
                let _gone = notes.send(Note::Failed(format!("cannot accept a connection: {error}"))).await;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (way, remote, notes, token) = (way.clone(), remote.clone(), notes.clone(), tasks.token());
        tasks.spawn("connection", async move {
            match token.run_until_cancelled(way.lead(connection, &remote)).await {
                // Whoever connected here has gone away, and knows it.
                None | Some(Ok(()) | Err(Error::Cancelled)) => {}
                Some(Err(error)) => drop(notes.send(way.note(&remote, &error).await).await),
            }
        });
    }
}

/// Before accepting again when the system can't give us another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections go.
#[derive(Clone, Debug)]
struct Way {
    client: Client,
    namespace: String,
    target: Target,
}

impl Way {
    /// The pod and the port that the next connection goes to.
    async fn find(&self, remote: &str) -> error::Result<PortForwardStart> {
        let to = |pod: &str, pod_uid: &str, port: String| PortForwardStart {
            namespace: self.namespace.clone(),
            pod: pod.to_owned(),
            pod_uid: pod_uid.to_owned(),
            port,
        };
        let name = match &self.target {
            Target::Pod(pod) => return Ok(to(pod, "", remote.to_owned())),
            Target::Service(name) => name,
        };
        let service = self.client.get::<Service>(&self.namespace, name).await?;
        let ports = service.spec.unwrap_or_default().ports;
        let index = ports.iter().position(|port| port.name == remote || port.port.to_string() == remote);
        let port = &ports[index.ok_or_else(|| Error::invalid("", format!("service {name} has no port {remote}")))?];
        let nobody = || Error::Precondition(format!("service {name} has no ready pod"));
        let slice = match self.client.get::<EndpointSlice>(&self.namespace, name).await {
            Err(Error::NotFound(_)) => return Err(nobody()),
            slice => slice?,
        };
        let endpoints = slice.spec.unwrap_or_default().endpoints;
        let ways: Vec<_> = endpoints
            .iter()
            .filter_map(|endpoint| Some((endpoint, endpoint.ports.iter().find(|candidate| candidate.name == port.name)?.port)))
            .collect();
        let (endpoint, port) = fastrand::choice(ways).ok_or_else(nobody)?;
        Ok(to(&endpoint.pod_name, &endpoint.pod_uid, port.to_string()))
    }

    /// Leads one connection, until both sides have closed it or either is gone.
    async fn lead(&self, mut connection: TcpStream, remote: &str) -> error::Result<()> {
        connection.set_nodelay(true).map_err(cut)?;
        // However this ends, unless both sides have closed it, the program here gets a reset: what is cut off must not look complete.
        connection.set_zero_linger().map_err(cut)?;
        let start = self.find(remote).await?;
        let (to_pod, mut from_pod) = self.client.port_forward(start).await?;
        let (read, write) = connection.split();
        tokio::try_join!(send(read, to_pod), receive(&mut from_pod, write))?;
        #[allow(deprecated, reason = "it is the lingering that may block, and here it is taken back")]
        connection.set_linger(None).map_err(cut)
    }

    /// Why the pod can't be reached, now or ever; `None` when it can, as far as is known, or is a service's.
    async fn check(&self, remote: &str) -> error::Result<Option<String>> {
        let Target::Pod(name) = &self.target else { return Ok(None) };
        let pod = self.client.get::<Pod>(&self.namespace, name).await?;
        let status = pod.status.unwrap_or_default();
        let has_port = remote.parse::<u16>().is_ok() || status.ports.iter().any(|port| port.name == remote);
        // A pod that isn't placed yet has none, and will have those that it declares.
        let declared = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| &container.ports);
        let is_declared = declared.into_iter().any(|port| port.name == remote);
        Ok(match words::is_over(&status) {
            true => Some(format!("pod {name} has ended")),
            false if !has_port && !is_declared => Some(format!("pod {name} has no port {remote:?}")),
            false => None,
        })
    }

    async fn note(&self, remote: &str, error: &Error) -> Note {
        let why = format!("port {remote}: {}", describe(error));
        match (&self.target, error) {
            (Target::Pod(_), Error::NotFound(object)) if object.kind == "Pod" => Note::PodGone(why),
            (Target::Pod(_), Error::Precondition(_)) if matches!(self.check(remote).await, Ok(Some(_)) | Err(Error::NotFound(_))) => {
                Note::PodGone(why)
            }
            _ => Note::Failed(why),
        }
    }
}

/// The program on this machine has broken its connection: it knows why.
fn cut(_: std::io::Error) -> Error {
    Error::Cancelled
}

async fn send(mut read: ReadHalf<'_>, to_pod: mpsc::Sender<PortForwardRequest>) -> error::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = read.read(&mut buffer).await.map_err(cut)?;
        let said = if count == 0 { Said::Close(ClosePort {}) } else { Said::Data(buffer[..count].to_vec()) };
        // Fails when the stream has ended; the answers tell how.
        if to_pod.send(PortForwardRequest { message: Some(said) }).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}

async fn receive(from_pod: &mut Incoming<PortForwardResponse>, mut write: WriteHalf<'_>) -> error::Result<()> {
    while let Some(response) = from_pod.next().await? {
        match response.message {
            Some(Told::Data(data)) => write.write_all(&data).await.map_err(cut)?,
            Some(Told::Close(_)) => write.shutdown().await.map_err(cut)?,
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
