//! Which kubelets are connected, what their routers have applied, and which nodes have been silent for too long.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::peers::Told;
use crate::api::v1::{OpenTunnel, RoutesAppliedEverywhere, SessionResponse, Usage, WantUsage, session_response::Message};
use crate::api::{Kind, ObjectKey, Revision};
use crate::error::{Error, Result};

/// How many messages may wait for a kubelet to read them. A session that has more is ended: its kubelet does not read.
const OUTGOING_MESSAGES: usize = 256;
/// How many revisions a session may wait for at once: more than a node has pods.
const AWAITED_REVISIONS: usize = 4096;

/// For how long nodes tell what they use after somebody has asked: at least three quarters of this, since they are not told of each who asks.
const WANTED_FOR: Duration = Duration::from_secs(80);

/// The live node sessions, and the nodes that should have one.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    state: Mutex<State>,
    /// Rung when other apiservers may have to be told something of the routes here.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    live: HashMap<String, Session>,
    /// Nodes that count as ready and have no session, and since when.
    absent: HashMap<String, Instant>,
    /// Who has applied routes is known only together with what other apiservers tell.
    asks_others: bool,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    instance_id: String,
    heard: Instant,
    /// What its router has applied; `None` for a node that does not route.
    routes: Option<Revision>,
    awaited: BTreeSet<Revision>,
    outgoing: mpsc::Sender<Message>,
    /// What its node uses, while somebody wants to know; and when the node was last told that somebody does.
    figures: watch::Sender<Option<Figures>>,
    wanted: Option<Instant>,
    end: Option<oneshot::Sender<Error>>,
}

/// What a node uses, and since when that is known.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) usage: Arc<Usage>,
    pub(super) heard: Instant,
}

/// Tells a session from an earlier one of the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionId(u64);

/// The apiserver's end of a new session.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: SessionId,
    /// What the kubelet is to be sent.
    pub(super) outgoing: mpsc::Receiver<Message>,
    /// Why the session has to end, once it has to.
    pub(super) end: oneshot::Receiver<Error>,
}

/// A node that nobody has heard of for the grace period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Silent {
    pub(super) node: String,
    pub(super) reason: SilentReason,
}

/// How a node became silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SilentReason {
    /// It is connected, but sends nothing.
    NodeSilent,
    /// Its connection is gone.
    SessionLost,
}

impl Sessions {
    /// Those of one of several apiservers: routes have been applied everywhere when [`Sessions::answer`] is told so.
    pub(super) fn of_several() -> Self {
        Self { state: Mutex::new(State { asks_others: true, ..State::default() }), changed: Notify::new() }
    }

    /// Begins a session. An earlier one of the same kubelet ends.
    ///
    /// # Errors
    /// [`Error::Precondition`] when another kubelet has a live session for this node.
    pub(super) fn open(&self, node: &str, instance_id: &str, routes: bool, now: Instant) -> Result<Opened> {
        let mut state = self.lock();
        state.check_instance(node, instance_id)?;
        state.last_id += 1;
        let id = SessionId(state.last_id);
        let (outgoing, receive_outgoing) = mpsc::channel(OUTGOING_MESSAGES);
        let (end, receive_end) = oneshot::channel();
        let session = Session {
            id,
            instance_id: instance_id.to_owned(),
            heard: now,
            routes: routes.then_some(Revision::ZERO),
            awaited: BTreeSet::new(),
            outgoing,
            figures: watch::Sender::new(None),
            wanted: None,
            end: Some(end),
        };
        if let Some(mut replaced) = state.live.insert(node.to_owned(), session) {
            replaced.end(Error::Superseded(format!("the kubelet of node {node:?} has begun a newer session")));
        }
        state.absent.remove(node);
        self.changed.notify_one();
        Ok(Opened { id, outgoing: receive_outgoing, end: receive_end })
    }

    /// Makes sure that no other kubelet has a live session for this node.
    pub(super) fn check_instance(&self, node: &str, instance_id: &str) -> Result<()> {
        self.lock().check_instance(node, instance_id)
    }

    /// Notes a sign of life.
    pub(super) fn heard(&self, node: &str, id: SessionId, now: Instant) {
        if let Some(session) = self.lock().session(node, id) {
            session.heard = now;
        }
    }

    /// Notes what a node uses; without it, what is known is forgotten once nobody wants it any more.
    pub(super) fn used(&self, node: &str, id: SessionId, usage: Option<Usage>, now: Instant) {
        let mut state = self.lock();
        let Some(session) = state.session(node, id) else { return };
        let is_wanted = session.wanted.is_some_and(|wanted| now.saturating_duration_since(wanted) < WANTED_FOR);
        match usage {
            Some(usage) if is_wanted => {
                session.figures.send_replace(Some(Figures { usage: Arc::new(usage), heard: now }));
            }
            _ if !is_wanted => {
                session.figures.send_replace(None);
            }
            _ => {}
        }
    }

    /// What a node uses, from now on for a while, as it comes; `None` when it has no session.
    pub(super) fn want_usage(&self, node: &str, now: Instant) -> Option<watch::Receiver<Option<Figures>>> {
        let mut state = self.lock();
        let session = state.live.get_mut(node)?;
        let is_due = session.wanted.is_none_or(|wanted| now.saturating_duration_since(wanted) >= WANTED_FOR / 4);
        if is_due {
            session.wanted = Some(now);
            session.send(Message::WantUsage(WantUsage { duration: prost_types::Duration::try_from(WANTED_FOR).ok() }));
        }
        Some(session.figures.subscribe())
    }

    /// Notes what a node's router has applied, and tells whoever waits for it.
    pub(super) fn routes_applied(&self, node: &str, id: SessionId, revision: Revision) {
        let mut state = self.lock();
        if let Some(Session { routes: Some(applied), .. }) = state.session(node, id) {
            *applied = revision.max(*applied);
            state.answer_awaits();
            self.changed.notify_one();
        }
    }

    /// Ends the sessions of nodes that are not registered any more: their kubelets have to join again.
    pub(super) fn end_unregistered(&self, is_registered: impl Fn(&ObjectKey) -> bool) {
        for (node, session) in &mut self.lock().live {
            let key = ObjectKey::new(Kind::Node, "", node);
            if !is_registered(&key) {
                session.end(Error::not_found(&key));
            }
        }
    }

    /// Tells the session when all routers of live nodes have applied a revision; at once if they have.
    pub(super) fn await_routes(&self, node: &str, id: SessionId, revision: Revision) {
        let mut state = self.lock();
        if let Some(session) = state.session(node, id) {
            session.awaited.insert(revision);
            if session.awaited.len() > AWAITED_REVISIONS {
                session.end(exhausted(format!("a session may wait for {AWAITED_REVISIONS} revisions at once")));
            }
            state.answer_awaits();
            self.changed.notify_one();
        }
    }

    /// The session is over; the node has the grace period to come back.
    pub(super) fn close(&self, node: &str, id: SessionId, now: Instant) {
        let mut state = self.lock();
        if state.session(node, id).is_some() {
            state.live.remove(node);
            state.absent.insert(node.to_owned(), now);
            state.answer_awaits();
            self.changed.notify_one();
        }
    }

    /// Ends all of them.
    pub(super) fn end_all(&self, why: &Error) {
        self.lock().live.values_mut().for_each(|session| session.end(why.clone()));
    }

    /// The kubelet that has a live session for this node.
    pub(super) fn instance(&self, node: &str) -> Option<String> {
        self.lock().live.get(node).map(|session| session.instance_id.clone())
    }

    /// Every node counts as heard of now: this apiserver could not hear anybody for a while.
    pub(super) fn begin_anew(&self, now: Instant) {
        let mut state = self.lock();
        state.live.values_mut().for_each(|session| session.heard = now);
        state.absent.values_mut().for_each(|since| *since = now);
    }

    /// From now on this node, if it has no session, has the grace period to begin one.
    pub(super) fn expect(&self, node: &str, now: Instant) {
        let mut state = self.lock();
        if !state.live.contains_key(node) {
            state.absent.insert(node.to_owned(), now);
        }
    }

    /// This node, if it has no session, has the grace period to begin one, from a time on that is not later for being told again.
    pub(super) fn expect_since(&self, node: &str, since: Instant) {
        let mut state = self.lock();
        if !state.live.contains_key(node) && !state.absent.contains_key(node) {
            state.absent.insert(node.to_owned(), since);
        }
    }

    /// Another apiserver has the session of this node: nothing is expected of it here.
    pub(super) fn leave_to_others(&self, node: &str) {
        self.lock().absent.remove(node);
    }

    /// Waits until there may be something of the routes here that other apiservers have to be told.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What other apiservers are told of the routes here.
    pub(super) fn told(&self) -> Told {
        let state = self.lock();
        let awaited = state.live.values().filter_map(|session| session.awaited.last().copied()).max();
        Told { applied: state.applied(), awaited }
    }

    /// Answers those who wait for routes, knowing what the routers have applied whose nodes have their sessions with other apiservers; `None` without
    /// any.
    pub(super) fn answer(&self, elsewhere: Option<Revision>) {
        self.lock().answer(elsewhere);
    }

    /// Asks a node to open a tunnel.
    ///
    /// # Errors
    /// [`Error::NotDone`] when it has no session.
    pub(super) fn open_tunnel(&self, node: &str, request: OpenTunnel) -> Result<()> {
        let mut state = self.lock();
        let session = state.live.get_mut(node);
        let session = session.ok_or_else(|| Error::NotDone(format!("node {node:?} is not connected at the moment")))?;
        session.send(Message::OpenTunnel(request));
        Ok(())
    }

    /// Ends the sessions that have been silent for the grace period, and returns all nodes that have been. They stay silent until
    /// [`Sessions::settle`].
    pub(super) fn silent(&self, now: Instant, grace: Duration) -> Vec<Silent> {
        let mut state = self.lock();
        let State { live, absent, .. } = &mut *state;
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= grace;
        let mut silent: Vec<Silent> = Vec::new();
        for (node, session) in live.iter_mut().filter(|(_, session)| is_over(&session.heard)) {
            session.end(Error::Timeout(format!("node {node:?} has been silent for {} s", grace.as_secs_f64())));
            silent.push(Silent { node: node.clone(), reason: SilentReason::NodeSilent });
        }
        for (node, _) in absent.iter().filter(|(_, since)| is_over(since)) {
            silent.push(Silent { node: node.clone(), reason: SilentReason::SessionLost });
        }
        for Silent { node, .. } in silent.iter().filter(|silent| silent.reason == SilentReason::NodeSilent) {
            if let Some(session) = live.remove(node) {
                absent.insert(node.clone(), session.heard);
            }
        }
        state.answer_awaits();
        silent.sort();
        silent
    }

    /// Whether the node still has no session and has been silent for the grace period.
    pub(super) fn is_silent(&self, node: &str, now: Instant, grace: Duration) -> bool {
        self.lock().absent.get(node).is_some_and(|since| now.saturating_duration_since(*since) >= grace)
    }

    /// The silence of a node is on record: nothing more is expected of it until it comes back. Does nothing if it has by now.
    pub(super) fn settle(&self, node: &str, now: Instant, grace: Duration) {
        if self.is_silent(node, now, grace) {
            self.lock().absent.remove(node);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

impl State {
    fn session(&mut self, node: &str, id: SessionId) -> Option<&mut Session> {
        self.live.get_mut(node).filter(|session| session.id == id)
    }

    fn check_instance(&self, node: &str, instance_id: &str) -> Result<()> {
        match self.live.get(node) {
            Some(session) if session.instance_id != instance_id => Err(Error::Precondition(format!(
                "another kubelet is connected as node {node:?}; give this one another --node-name, or stop that one first"
            ))),
            _ => Ok(()),
        }
    }

    /// What all routers here have applied; `None` without any.
    fn applied(&self) -> Option<Revision> {
        self.live.values().filter_map(|session| session.routes).min()
    }

    /// Answers everybody who waits for a revision that all routers have applied by now.
    fn answer_awaits(&mut self) {
        if !self.asks_others {
            self.answer(None);
        }
    }

    fn answer(&mut self, elsewhere: Option<Revision>) {
        let everywhere = self.applied().into_iter().chain(elsewhere).min();
        for session in self.live.values_mut().filter(|session| !session.awaited.is_empty()) {
            // Without any router there is nobody to wait for.
            let rest = everywhere.map(|everywhere| session.awaited.split_off(&everywhere.next())).unwrap_or_default();
            if let Some(Revision(revision)) = std::mem::replace(&mut session.awaited, rest).pop_last() {
                session.send(Message::RoutesAppliedEverywhere(RoutesAppliedEverywhere { revision }));
            }
        }
    }
}

impl Session {
    fn send(&mut self, message: Message) {
        if self.outgoing.try_send(message).is_err() {
            self.end(exhausted(format!("the kubelet left {OUTGOING_MESSAGES} messages of its session unread")));
        }
    }

    fn end(&mut self, why: Error) {
        if let Some(end) = self.end.take() {
            // The other end is gone already when the connection is.
            let _ = end.send(why);
        }
    }
}

fn exhausted(message: String) -> Error {
    Error::Exhausted { message, retry_after: None }
}

/// The message as it is sent.
pub(super) fn response(message: Message) -> SessionResponse {
    SessionResponse { message: Some(message) }
}

impl SilentReason {
    /// The reason of the condition, as one word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            SilentReason::NodeSilent => "NodeSilent",
            SilentReason::SessionLost => "SessionLost",
        }
    }
}

#[cfg(test)]
mod tests;
