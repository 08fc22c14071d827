//! The node session: one function, one lifetime. Any failure ends it; then it is begun again, from Join on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost_types::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::drain::Drains;
use super::root::Root;
use super::routes::{Keeper, Routes};
use super::tunnel::Tunnels;
use super::usage::{Usages, Wish};
use super::wakes::Wakes;
use super::{Config, node};
use crate::api::Revision;
use crate::api::v1::{
    AwaitRoutes, Heartbeat, Hello, JoinRequest, JoinResponse, RoutesApplied, SessionRequest, SessionResponse, WantUsage, session_request,
    session_response,
};
use crate::client::{Backoff, Cache, Client, Incoming};
use crate::error::{Error, Result};
use crate::tasks::Tasks;
use crate::time::Clock;

/// The longest wait before the first and before any new session.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// For an apiserver that does not say how often it wants a heartbeat.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages to the apiserver that wait; heartbeats and acknowledgements are few, and a full queue means a dead connection.
const OUTGOING: usize = 16;

/// The longest that figures are measured for one wish.
const LONGEST_WISH: Duration = Duration::from_secs(600);

/// What sessions need, one after the other.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: Config,
    pub(crate) host_ip: std::net::IpAddr,
    pub(crate) capabilities: Vec<String>,
    pub(crate) instance_id: String,
    pub(crate) started: Timestamp,
    pub(crate) root: Arc<Root>,
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) drains: Arc<Drains>,
    pub(crate) tunnels: Tunnels,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) usages: Usages,
    pub(crate) has_joined: Arc<AtomicBool>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Arc<Tasks>,
    /// From the first Join on, if this node routes; before, if some are kept.
    pub(crate) routes: Option<Routes>,
    pub(crate) kept_routes: Keeper,
    /// Why this kubelet must not go on.
    pub(crate) refusal: watch::Sender<Option<Error>>,
}

/// Why a session does something.
enum Wake {
    Heartbeat,
    Measured,
    Received(Result<Option<SessionResponse>>),
    RoutesApplied,
    RoutesWanted,
}

impl Session {
    /// Keeps a session up until the token is cancelled, or the apiserver refuses this kubelet for good.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let Some(Err(error)) = token.run_until_cancelled(self.connect(&mut backoff)).await else { return };
            if is_final(&error) {
                tracing::error!(%error, "this kubelet can't go on");
                self.refusal.send_replace(Some(error));
                return;
            }
            tracing::info!(%error, server = self.client.server(), "no session with the apiserver; trying again");
            if token.run_until_cancelled(tokio::time::sleep(self.client.reconnect_delay(&mut backoff, &error))).await.is_none() {
                return;
            }
        }
    }

    /// One session, to its end.
    async fn connect(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible> {
        self.join().await?;
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let hello =
            Hello { node_name: self.config.node_name.clone(), instance_id: self.instance_id.clone(), routes: self.routes.is_some() };
        send(&requests, session_request::Message::Hello(hello)).await?;
        let mut incoming = self.client.session(ReceiverStream::new(outgoing)).await?;
        let every = self.welcome(&mut incoming).await?;
        tracing::info!(node = %self.config.node_name, server = self.client.server(), "in session with the apiserver");
        backoff.reset();
        self.serve(&requests, &mut incoming, every).await
    }

    async fn join(&mut self) -> Result<()> {
        let node = node::node(&self.config, self.host_ip, &self.capabilities, self.started, self.clock.now())?;
        let joined = self.client.join(JoinRequest { node: Some(node), instance_id: self.instance_id.clone() }).await?;
        self.root.belongs_to(&joined.cluster_id)?;
        if self.config.routes && !self.has_joined.load(Ordering::Acquire) {
            self.route(&joined)?;
        }
        let is_first = !self.has_joined.swap(true, Ordering::AcqRel);
        if is_first {
            self.wakes.all();
        }
        Ok(())
    }

    /// What the apiserver knows replaces what was kept.
    fn route(&mut self, joined: &JoinResponse) -> Result<()> {
        let routes = match self.routes.take() {
            Some(routes) => routes.for_range(&joined.service_cidr, &joined.cluster_id, &self.tasks)?,
            None => Routes::start(&joined.service_cidr, &joined.cluster_id, &self.tasks)?,
        };
        routes.follow(self.cache.clone(), self.kept_routes.clone(), joined, &self.tasks);
        self.routes = Some(routes);
        Ok(())
    }

    async fn welcome(&self, incoming: &mut Incoming<SessionResponse>) -> Result<Duration> {
        match incoming.next().await?.and_then(|response| response.message) {
            Some(session_response::Message::Welcome(welcome)) => {
                let every = welcome.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
                Ok(every.filter(|every| !every.is_zero()).unwrap_or(DEFAULT_HEARTBEAT))
            }
            _ => Err(Error::Unavailable("the apiserver began a session without a welcome".to_owned())),
        }
    }

    async fn serve(
        &mut self,
        requests: &mpsc::Sender<SessionRequest>,
        incoming: &mut Incoming<SessionResponse>,
        every: Duration,
    ) -> Result<std::convert::Infallible> {
        let mut heartbeat = tokio::time::interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut applied = self.routes.as_ref().map(Routes::applied);
        if let Some(applied) = &mut applied {
            applied.mark_changed();
        }
        let mut wanted = self.drains.acknowledgements().wanted.subscribe();
        wanted.mark_changed();
        // Who asked for figures was another one.
        self.usages.want(None);
        let mut measured = self.usages.measured();
        loop {
            let wake = tokio::select! {
                _ = heartbeat.tick() => Wake::Heartbeat,
                () = changed(Some(&mut measured)) => Wake::Measured,
                received = incoming.next() => Wake::Received(received),
                () = changed(applied.as_mut()) => Wake::RoutesApplied,
                () = changed(Some(&mut wanted)) => Wake::RoutesWanted,
            };
            match wake {
                Wake::Heartbeat => send(requests, session_request::Message::Heartbeat(Heartbeat::default())).await?,
                Wake::Measured => {
                    let usage = measured.borrow_and_update().as_deref().cloned();
                    if usage.is_some() {
                        // It is the heartbeat that is due.
                        heartbeat.reset();
                        send(requests, session_request::Message::Heartbeat(Heartbeat { usage })).await?;
                    }
                }
                Wake::Received(response) => match response? {
                    Some(response) => self.receive(response, incoming, every),
                    None => return Err(Error::Unavailable("the apiserver ended the session".to_owned())),
                },
                Wake::RoutesApplied => {
                    let revision = applied.as_mut().map_or(Revision::ZERO, |applied| *applied.borrow_and_update());
                    if revision > Revision::ZERO {
                        send(requests, session_request::Message::RoutesApplied(RoutesApplied { revision: revision.0 })).await?;
                    }
                }
                Wake::RoutesWanted => {
                    let revision = *wanted.borrow_and_update();
                    if revision > *self.drains.acknowledgements().everywhere.borrow() {
                        send(requests, session_request::Message::AwaitRoutes(AwaitRoutes { revision: revision.0 })).await?;
                    }
                }
            }
        }
    }

    fn receive(&self, response: SessionResponse, incoming: &Incoming<SessionResponse>, every: Duration) {
        match response.message {
            Some(session_response::Message::OpenTunnel(tunnel)) => {
                let (tunnels, token, client) = (self.tunnels.clone(), self.tasks.token(), self.client.beside_stream(incoming));
                self.tasks.spawn("tunnel", async move {
                    token.run_until_cancelled(tunnels.serve(tunnel, client)).await;
                });
            }
            Some(session_response::Message::RoutesAppliedEverywhere(applied)) => {
                let everywhere = &self.drains.acknowledgements().everywhere;
                everywhere.send_modify(|known| *known = Revision(applied.revision).max(*known));
            }
            Some(session_response::Message::WantUsage(WantUsage { duration })) => {
                let duration = duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default();
                self.usages.want(Some(Wish { until: Instant::now() + duration.min(LONGEST_WISH), every }));
            }
            Some(session_response::Message::Welcome(_)) | None => {}
        }
    }
}

/// A second kubelet of this node, another cluster's apiserver, or an introduction that it will never take.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Precondition(_) | Error::Invalid(_))
}

async fn send(requests: &mpsc::Sender<SessionRequest>, message: session_request::Message) -> Result<()> {
    let ended = |_| Error::Unavailable("the session has ended".to_owned());
    requests.send(SessionRequest { message: Some(message) }).await.map_err(ended)
}

/// Waits for a newer value; for ever when there can be none.
async fn changed<T>(value: Option<&mut watch::Receiver<T>>) {
    let is_newer = match value {
        Some(value) => value.changed().await.is_ok(),
        None => false,
    };
    if !is_newer {
        std::future::pending().await
    }
}
