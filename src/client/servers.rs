//! The apiservers that a client may ask. One is used at a time, until it fails.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use super::endpoint::{Patience, apart, endpoint};
use crate::error::{Error, Result};

/// One apiserver. The connection is made when first needed, and made again after it broke.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) channel: Channel,
    /// For messages.
    pub(super) address: Arc<str>,
    connect: Connect,
    /// Of a connection that nobody else uses: it is cut when the last of those who use it is gone.
    _life: Option<Arc<DropGuard>>,
}

/// Makes another connection, all tasks of which end with a [`Life`].
pub(super) type Connect = Arc<dyn Fn(Life) -> Channel + Send + Sync>;

/// Runs what a connection consists of until it is cut. A stream that somebody gives up ends by that for certain: HTTP/2 alone would wait for room in the windows of
/// the other side, which nobody makes any more, and half of what was to be sent could look like all of it.
#[derive(Clone, Debug)]
pub(super) struct Life(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Life {
    #[allow(clippy::disallowed_methods, reason = "the connection owns it, and ends it by the token")]
    fn execute(&self, task: F) {
        let life = self.0.clone();
        tokio::spawn(async move { life.run_until_cancelled(task).await });
    }
}

/// Apiservers of one cluster, and which of them is used.
#[derive(Debug)]
pub(super) struct Servers {
    all: Box<[Server]>,
    /// How often the one that was used has failed: a place in an endless round of them.
    turn: AtomicUsize,
}

/// The server that something was asked of.
#[derive(Clone)]
pub(super) struct Used {
    servers: Arc<Servers>,
    turn: usize,
}

impl Server {
    pub(super) fn new(address: &str, channel: Channel, connect: Connect) -> Self {
        Self { channel, address: address.into(), connect, _life: None }
    }

    /// The same server over a connection that nobody else uses.
    pub(super) fn apart(&self) -> Self {
        let life = CancellationToken::new();
        let channel = (self.connect)(Life(life.clone()));
        Self { channel, _life: Some(Arc::new(life.drop_guard())), ..self.clone() }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Servers {
    /// The first one is used first. There must be one.
    pub(super) fn new(all: Vec<Server>) -> Arc<Self> {
        assert!(!all.is_empty(), "a client has a server");
        Arc::new(Self { all: all.into(), turn: AtomicUsize::new(0) })
    }

    /// # Errors
    /// Invalid for a list without an address, or with one that is none.
    pub(super) fn parse<'s>(addresses: impl IntoIterator<Item = &'s str>, patience: Patience) -> Result<Arc<Self>> {
        let connect = |address: &str| {
            let address = address.trim();
            let endpoint = endpoint(address, patience)?;
            let channel = endpoint.connect_lazy();
            let connect = move |life| apart(endpoint.clone()).executor(life).connect_lazy();
            Ok(Server::new(address, channel, Arc::new(connect)))
        };
        let all = addresses.into_iter().map(connect).collect::<Result<Vec<_>>>()?;
        match all.is_empty() {
            true => Err(Error::invalid("server", "there must be a server; write http://HOST:PORT or unix:/PATH")),
            false => Ok(Self::new(all)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The one that is used now.
    pub(super) fn now(&self) -> &Server {
        self.at(self.turn.load(Ordering::Relaxed))
    }

    /// Each of them on its own, the one that is used now first.
    pub(super) fn each(&self) -> impl Iterator<Item = Arc<Self>> {
        let turn = self.turn.load(Ordering::Relaxed);
        (0..self.len()).map(move |step| Self::new(vec![self.at(turn.wrapping_add(step)).clone()]))
    }

    fn at(&self, turn: usize) -> &Server {
        &self.all[turn % self.all.len()]
    }
}

impl Used {
    /// Takes the one that is used now.
    pub(super) fn new(servers: &Arc<Servers>) -> Self {
        Self { servers: servers.clone(), turn: servers.turn.load(Ordering::Relaxed) }
    }

    pub(super) fn server(&self) -> &Server {
        self.servers.at(self.turn)
    }

    /// It has failed: from now on the next one is used, unless somebody has moved on already.
    pub(super) fn failed(&self) {
        let next = self.turn.wrapping_add(1);
        let moved = self.servers.turn.compare_exchange(self.turn, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if moved && self.servers.len() > 1 {
            tracing::info!(failed = %self.server().address, next = %self.servers.at(next).address, "going on with the next apiserver");
        }
    }
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server().address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(addresses: &str) -> Arc<Servers> {
        Servers::parse(addresses.split(','), Patience::default()).expect("addresses")
    }

    #[tokio::test]
    async fn a_server_is_used_until_it_fails_and_the_failures_of_one_are_counted_once() {
        let servers = servers("a:1, b:2,c:3");
        let (one, other) = (Used::new(&servers), Used::new(&servers));
        assert_eq!(&*servers.now().address, "a:1");
        one.failed();
        other.failed();
        assert_eq!(&*servers.now().address, "b:2");
        let order: Vec<_> = servers.each().map(|one| one.now().address.to_string()).collect();
        assert_eq!(order, ["b:2", "c:3", "a:1"]);
        for next in ["c:3", "a:1", "b:2"] {
            Used::new(&servers).failed();
            assert_eq!(&*servers.now().address, next);
        }
    }

    #[tokio::test]
    async fn a_list_with_a_gap_is_refused() {
        for wrong in ["", ",", "a:1,", "a:1,,b:2", "a:1 b:2"] {
            assert!(matches!(Servers::parse(wrong.split(','), Patience::default()), Err(Error::Invalid(_))), "{wrong}");
        }
    }
}
