//! The apiservers that a client may ask. One is used at a time, until it fails.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::transport::Channel;

use super::endpoint::{Patience, endpoint};
use crate::error::{Error, Result};

/// One apiserver. The connection is made when first needed, and made again after it broke.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) channel: Channel,
    /// For messages.
    pub(super) address: Arc<str>,
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
            Ok(Server { channel: endpoint(address, patience)?.connect_lazy(), address: address.into() })
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
