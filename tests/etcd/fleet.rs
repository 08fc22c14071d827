//! Apiservers on one etcd, each with a cable of its own to it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use bluebird::api::Resource;
use bluebird::api::v1::{Lease, LeaseSpec, Selector};
use bluebird::apiserver::{self, Apiserver, Config, EtcdOptions, Listen};
use bluebird::client::Client;
use bluebird::error::{Error, Result};
use bluebird::tasks::Tasks;
use bluebird::testing::{Cable, Etcd};
use bluebird::time::Clock;
use tokio_util::sync::CancellationToken;

use crate::DEADLINE;

/// One apiserver.
pub(crate) struct Server {
    pub(crate) apiserver: Apiserver,
    /// To etcd.
    pub(crate) cable: Cable,
    pub(crate) client: Client,
}

/// An etcd and its apiservers.
pub(crate) struct Fleet {
    pub(crate) servers: Vec<Server>,
    /// To the apiservers, for clients of all of them.
    pub(crate) relays: Vec<Cable>,
    pub(crate) tasks: Tasks,
    /// Ends last.
    pub(crate) etcd: Etcd,
}

impl Fleet {
    /// `None` where there is no etcd.
    pub(crate) async fn start(servers: usize, flags: &[&str]) -> Option<Fleet> {
        let etcd = Etcd::start(flags).await?;
        let mut fleet = Fleet { servers: Vec::new(), relays: Vec::new(), tasks: Tasks::new(CancellationToken::new()), etcd };
        for number in 0..servers {
            let server = fleet.server(clock(number), |_| {}).await;
            let Listen::Tcp(address) = *server.apiserver.listen() else { panic!("it listens on TCP") };
            fleet.relays.push(Cable::new(address).await.expect("a free port"));
            fleet.servers.push(server);
        }
        Some(fleet)
    }

    /// One more cable to the etcd.
    pub(crate) async fn cable(&self) -> Cable {
        Cable::new(self.etcd.addresses()[0]).await.expect("a free port")
    }

    /// One more apiserver.
    pub(crate) async fn server(&self, clock: Clock, configure: impl FnOnce(&mut Config)) -> Server {
        let cable = self.cable().await;
        let mut config = config(&cable);
        configure(&mut config);
        let apiserver = apiserver::start(config, clock).await.unwrap_or_else(|error| panic!("{error}"));
        let client = Client::new(&apiserver.url()).expect("a URL");
        Server { apiserver, cable, client }
    }

    pub(crate) fn client(&self, server: usize) -> &Client {
        &self.servers[server].client
    }

    /// A client that goes from one to the other.
    pub(crate) fn client_of_all(&self) -> Client {
        let urls: Vec<_> = self.relays.iter().map(Cable::url).collect();
        Client::new(&urls.join(",")).expect("URLs")
    }

    pub(crate) async fn end(self) {
        self.tasks.shutdown(Duration::from_secs(2)).await;
        for server in self.servers {
            server.apiserver.shutdown().await;
        }
    }
}

/// An apiserver whose etcd is at the other end of a cable.
pub(crate) fn config(cable: &Cable) -> Config {
    let mut config = Config::new("/nowhere/at/all", Listen::LOCAL);
    config.etcd = Some(EtcdOptions::new([address(cable).to_string()]));
    config
}

fn address(cable: &Cable) -> SocketAddr {
    cable.url().trim_start_matches("http://").parse().expect("its own address")
}

/// Clocks that are decades apart: nothing may depend on them.
fn clock(number: usize) -> Clock {
    let year = Duration::from_secs(365 * 24 * 3600);
    Clock::from_fn(move || UNIX_EPOCH + year * (20 + 40 * number as u32))
}

/// An object that says who wrote it.
pub(crate) fn lease(name: &str, holder: &str) -> Lease {
    let mut lease = Lease { spec: Some(LeaseSpec { lease_duration_seconds: 1, ..Default::default() }), ..Default::default() };
    lease.meta_mut().name = name.to_owned();
    lease.spec.get_or_insert_default().holder_identity = holder.to_owned();
    lease
}

pub(crate) fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().map_or("", |spec| &spec.holder_identity)
}

/// The objects of the tests. The apiservers' own leases are elsewhere, and renewed all the time.
pub(crate) fn leases() -> Selector {
    Selector { kind: "Lease".into(), namespace: "default".into(), ..Default::default() }
}

/// Tries until it succeeds; only what passes by itself may fail.
pub(crate) async fn soon<T, F: Future<Output = Result<T>>>(what: &str, attempt: impl Fn() -> F) -> T {
    let trying = async {
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, trying).await.unwrap_or_else(|_| panic!("{what}: in vain"))
}

/// That nothing was done and can't be now.
pub(crate) fn is_away(error: &Error) -> bool {
    matches!(error, Error::NotDone(_) | Error::Unavailable(_))
}
