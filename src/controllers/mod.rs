//! Loops that make what is observed match what is wanted, one file for each concern. Each is a pure decision and a little IO around it, uses
//! nothing but the client, and is woken by the changes of one shared cache.

mod endpoints;
mod events;
mod namespaces;
mod nodes;
mod services;

use crate::api::Kind;
use crate::client::{Cache, Client, Recorder};
use crate::error::Result;
use crate::reconcile::{self, Options};
use crate::tasks::Tasks;
use crate::time::Clock;

/// What controllers need to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The range that services get their addresses from, in CIDR notation, such as `127.96.0.0/12`.
    pub service_cidr: String,
}

impl Config {
    /// Whether controllers can work with it.
    ///
    /// # Errors
    /// [`crate::error::Error::Invalid`] when `service_cidr` is no range of IPv4 addresses with room for a service.
    pub fn check(&self) -> Result<()> {
        services::Range::parse(&self.service_cidr).map(drop)
    }
}

/// What the cache that controllers work from has to hold.
pub const KINDS: [Kind; 5] = [Kind::Pod, Kind::Service, Kind::Node, Kind::EndpointSlice, Kind::Namespace];

/// Starts all controllers on a cache of at least [`KINDS`].
///
/// # Errors
/// [`crate::error::Error::Invalid`] when `service_cidr` is no range of IPv4 addresses with room for a service.
pub fn start(client: Client, cache: Cache, config: Config, clock: Clock, tasks: &Tasks) -> Result<()> {
    let range = services::Range::parse(&config.service_cidr)?;
    let recorder = Recorder::new(client.clone(), "controllers", clock.clone(), tasks);
    let context = Context { client, cache: cache.clone(), recorder, clock };

    let options = Options::default();
    reconcile::start(endpoints::Endpoints::new(context.clone()), cache.clone(), options, tasks);
    reconcile::start(services::Services::new(context.clone(), range), cache.clone(), options, tasks);
    reconcile::start(nodes::Nodes(context.clone()), cache.clone(), options, tasks);
    reconcile::start(namespaces::Namespaces(context.clone()), cache, options, tasks);
    events::start(context.client, context.clock, tasks);
    Ok(())
}

/// What every controller works with.
#[derive(Clone)]
struct Context {
    client: Client,
    cache: Cache,
    recorder: Recorder,
    clock: Clock,
}

impl Context {
    /// Waits until the cache shows what was written: the next run then decides on it, instead of losing a race against its own past.
    async fn seen(&self, written: u64) {
        self.cache.reached(crate::api::Revision(written)).await;
    }
}

#[cfg(test)]
mod tests;
