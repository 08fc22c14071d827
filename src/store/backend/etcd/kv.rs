//! The etcd client: a few calls, over one of several members.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::login::{Login, Token};
use super::rpc::kv_client::KvClient;
use super::rpc::watch_client::WatchClient;
use super::rpc::watch_request::RequestUnion;
use super::rpc::{
    CompactionRequest, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    WatchResponse,
};

/// How long one member may take for a read: longer than an election.
const READ: Duration = Duration::from_secs(3);
/// How long a transaction may take: longer than etcd itself waits for a majority.
const WRITE: Duration = Duration::from_secs(8);

/// One etcd, which may have several members. One of them is used at a time, until it fails.
#[derive(Debug)]
pub(super) struct Kv {
    members: Box<[Member]>,
    /// How often the one that was used has failed: a place in an endless round of them.
    turn: AtomicUsize,
    login: Option<Login>,
    /// Which etcd it is, learned with the first answer.
    cluster: OnceLock<u64>,
}

/// The connection is made when it is first needed, and made again after it broke.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) channel: Channel,
    /// For messages.
    pub(super) address: Arc<str>,
}

/// Why a call failed, as far as that changes what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing was done. Another member may be asked, or the same one later.
    NotDone(String),
    /// Nothing was done, since the two ends don't take each other's certificate, or one of them speaks no TLS. Another member may be asked.
    Handshake(String),
    /// It may have been done.
    Open(String),
    /// etcd has no space. It says the same whether it has refused a transaction or done it as the last one that fitted.
    NoSpace(String),
    /// Nothing was done, since etcd has too much to do.
    Busy(String),
    /// The revision is gone.
    Compacted,
    /// The token is not valid, or not any more.
    Login(String),
    /// Nothing was done, and asking again won't help as long as nobody changes something there.
    Refused(String),
    /// What is in etcd can't be what this cluster has put there. Going on would mislead everybody. Said of an answer: whatever was asked for may have
    /// been done there.
    Senseless(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotDone(why) | Fault::Open(why) | Fault::NoSpace(why) | Fault::Busy(why) => f.write_str(why),
            Fault::Handshake(why) | Fault::Login(why) | Fault::Refused(why) | Fault::Senseless(why) => f.write_str(why),
            Fault::Compacted => f.write_str("the revision has been compacted"),
        }
    }
}

impl Kv {
    pub(super) fn new(members: Vec<Member>, login: Option<Login>) -> Self {
        assert!(!members.is_empty(), "the flag's parser sees to it");
        Self { members: members.into(), turn: AtomicUsize::new(0), login, cluster: OnceLock::new() }
    }

    /// Reads keys, linearizably. Asks each member until one answers.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Fault> {
        let call = |member: Member, request| async move { client(&member).range(request).await };
        let response = self.until_answered(READ, true, request, call).await?;
        self.check(response.header.as_ref())?;
        Ok(response)
    }

    /// Does a transaction. It is sent again only when nothing of it can have been done.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Fault> {
        let call = |member: Member, request| async move { client(&member).txn(request).await };
        let response = self.until_answered(WRITE, false, request, call).await?;
        self.check(response.header.as_ref())?;
        Ok(response)
    }

    /// Forgets what was before a revision. [`Fault::Compacted`] when somebody has done so already.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Fault> {
        let call = |member: Member, request| async move { client(&member).compact(request).await };
        self.until_answered(WRITE, true, CompactionRequest { revision }, call).await.map(drop)
    }

    /// Begins to watch. The stream ends with an error when its member loses the others.
    pub(super) async fn watch(&self, create: WatchCreateRequest) -> Result<Changes<'_>, Fault> {
        let turn = self.turn.load(Ordering::Relaxed);
        let member = self.at(turn).clone();
        let address = member.address.clone();
        let call = |member: Member, request: Request<WatchCreateRequest>| async move {
            let (metadata, extensions, create) = request.into_parts();
            let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            // The watch lasts as long as this end of it.
            let requests = stream::iter([first]).chain(stream::pending());
            let mut client = WatchClient::new(member.channel).max_decoding_message_size(usize::MAX);
            client.watch(Request::from_parts(metadata, extensions, requests)).await
        };
        match self.authorized(READ, &member, create, &call).await {
            Ok(stream) => Ok(Changes { kv: self, turn, address, stream }),
            Err(fault) => {
                self.failed(turn);
                Err(fault)
            }
        }
    }

    async fn until_answered<Q: Clone, A, F>(
        &self,
        patience: Duration,
        repeatable: bool,
        ask: Q,
        call: impl Fn(Member, Request<Q>) -> F,
    ) -> Result<A, Fault>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut attempt = 1;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let fault = match self.authorized(patience, self.at(turn), ask.clone(), &call).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let another_may_answer = match &fault {
                Fault::NotDone(_) | Fault::Handshake(_) => true,
                Fault::Open(_) => repeatable,
                _ => return Err(fault),
            };
            self.failed(turn);
            if !another_may_answer || attempt == self.members.len() {
                return Err(fault);
            }
            attempt += 1;
        }
    }

    /// One call of one member; once more with a new token if the old one is not valid any more.
    async fn authorized<Q: Clone, A, F>(
        &self,
        patience: Duration,
        member: &Member,
        ask: Q,
        call: &impl Fn(Member, Request<Q>) -> F,
    ) -> Result<A, Fault>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let once = async |token: Option<&Token>| {
            let mut request = Request::new(ask.clone());
            // A member that has lost the others says so at once.
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            if let Some(token) = token {
                token.sign(&mut request);
            }
            match tokio::time::timeout(patience, call(member.clone(), request)).await {
                Ok(answered) => answered.map(Response::into_inner).map_err(|status| fault(&status, &member.address)),
                Err(_) => Err(Fault::Open(format!("{} did not answer within {} s", member.address, patience.as_secs()))),
            }
        };
        let Some(login) = &self.login else {
            return once(None).await.map_err(|fault| match fault {
                Fault::Login(why) => Fault::Refused(format!("{why}: it wants a user, see --etcd-username")),
                fault => fault,
            });
        };
        let token = login.token(member).await?;
        match once(Some(&token)).await {
            Err(Fault::Login(_)) => {
                login.forget(&token);
                once(Some(&login.token(member).await?)).await
            }
            answer => answer,
        }
    }

    /// Sees to it that all members belong to one etcd, and that it stays the same one.
    fn check(&self, header: Option<&ResponseHeader>) -> Result<(), Fault> {
        let found = header.map_or(0, |header| header.cluster_id);
        match *self.cluster.get_or_init(|| found) {
            known if known == found => Ok(()),
            known => Err(Fault::Senseless(format!(
                "this is etcd cluster {found:x}, and {known:x} answered before: all addresses must be of one etcd"
            ))),
        }
    }

    fn at(&self, turn: usize) -> &Member {
        &self.members[turn % self.members.len()]
    }

    /// The one that was used has failed: from now on the next one is, unless somebody has moved on already.
    pub(super) fn failed(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        let moved = self.turn.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if moved && self.members.len() > 1 {
            tracing::info!(failed = %self.at(turn).address, next = %self.at(next).address, "going on with the next member of etcd");
        }
    }
}

/// A watch's stream of changes.
pub(super) struct Changes<'a> {
    kv: &'a Kv,
    turn: usize,
    address: Arc<str>,
    stream: Streaming<WatchResponse>,
}

impl Changes<'_> {
    /// What comes next.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, Fault> {
        let received = match self.stream.message().await {
            Ok(Some(response)) => self.kv.check(response.header.as_ref()).map(|()| response),
            Ok(None) => Err(Fault::NotDone(format!("{} ended the watch", self.address))),
            Err(status) => Err(fault(&status, &self.address)),
        };
        received.inspect_err(|_| self.leave())
    }

    /// Has the next watch ask another member.
    pub(super) fn leave(&self) {
        self.kv.failed(self.turn);
    }
}

fn client(member: &Member) -> KvClient<Channel> {
    KvClient::new(member.channel.clone()).max_decoding_message_size(usize::MAX)
}

/// What a status means. etcd has its own codes only as texts (`api/v3rpc/rpctypes/error.go` there), where one gRPC code stands for several.
pub(super) fn fault(status: &Status, address: &str) -> Fault {
    let said = status.message();
    let why = format!("{address}: {said}");
    match status.code() {
        _ if never_sent(status) && is_handshake(status) => {
            Fault::Handshake(format!("can't speak TLS with {address}: {}", innermost(status)))
        }
        _ if never_sent(status) => Fault::NotDone(format!("can't reach {address}: {}", innermost(status))),
        // Said before anything is begun.
        Code::Unavailable if said.ends_with("no leader") => Fault::NotDone(why),
        Code::ResourceExhausted if said.contains("database space exceeded") => Fault::NoSpace(why),
        Code::ResourceExhausted if said.contains("too many requests") => Fault::Busy(why),
        Code::OutOfRange if said.contains("compacted") => Fault::Compacted,
        Code::Unauthenticated => Fault::Login(why),
        _ if said.contains("revision of auth store is old") => Fault::Login(why),
        Code::InvalidArgument if said.contains("user name is empty") => Fault::Login(why),
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented => Fault::Refused(why),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Fault::Open(format!("{address}: {}", innermost(status))),
    }
}

/// Whether it was the connection that failed, before anything was written to it.
fn never_sent(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>() || cause.downcast_ref().is_some_and(hyper::Error::is_canceled))
}

/// Whether what failed is the TLS, which is told as data that makes no sense: a connection that is refused or breaks has errors of its own.
fn is_handshake(status: &Status) -> bool {
    let is_nonsense = |cause: &io::Error| cause.kind() == io::ErrorKind::InvalidData;
    causes(status).any(|cause| cause.downcast_ref().is_some_and(is_nonsense))
}

/// The reason that says most.
fn innermost(status: &Status) -> String {
    causes(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
