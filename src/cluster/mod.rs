//! The parts put together: what `apiserver` runs, and what `bluebird up` and the tests run in one process.

mod loops;
mod single;

use std::fmt;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::apiserver::{self, Apiserver, Listen};
use crate::client::{Client, Terms};
use crate::controllers;
use crate::error::Error;
use crate::tasks::Tasks;
use crate::time::Clock;

pub use single::{Cluster, Place};

use loops::Loops;

/// How long the controllers and the scheduler get to end, and a leader to give its lease back.
const LOOPS_GRACE: Duration = Duration::from_secs(2 * loops::GRACE.as_secs());

/// An apiserver with the controllers and the scheduler, which speak with it through the same API as everybody else.
#[derive(Debug)]
pub struct ControlPlane {
    apiserver: Apiserver,
    client: Client,
    loops: Tasks,
}

impl ControlPlane {
    /// Starts them; returns once the apiserver accepts connections.
    ///
    /// # Errors
    /// Says what is wrong; nothing runs then.
    pub async fn start(config: apiserver::Config, clock: Clock) -> Result<ControlPlane, StartError> {
        let controllers = controllers::Config { service_cidr: config.service_cidr.clone() };
        // Before it is on record.
        controllers.check().map_err(StartError::Controllers)?;
        let apiserver = apiserver::start(config, clock.clone()).await.map_err(StartError::Apiserver)?;
        Self::over(apiserver, controllers, Terms::default(), clock).await
    }

    /// Where several apiservers share a store, one of them at a time has controllers and a scheduler that work.
    async fn over(apiserver: Apiserver, controllers: controllers::Config, terms: Terms, clock: Clock) -> Result<ControlPlane, StartError> {
        let client = Client::from_channels(apiserver.channels());
        let (loops, tasks) = (Loops { client: client.clone(), controllers, clock }, Tasks::new(CancellationToken::new()));
        let started = match apiserver.is_shared() {
            true => loops.start_when_leading(apiserver.id(), terms, &tasks),
            false => loops.start(&tasks),
        };
        match started {
            Ok(()) => Ok(ControlPlane { apiserver, client, loops: tasks }),
            Err(error) => {
                tasks.abort().await;
                apiserver.shutdown().await;
                Err(StartError::Controllers(error))
            }
        }
    }

    /// A client without a network in between.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where it listens, with the port that was really bound.
    pub fn listen(&self) -> &Listen {
        self.apiserver.listen()
    }

    /// What clients are given to connect: `http://…` or `unix:…`.
    pub fn url(&self) -> String {
        self.apiserver.url()
    }

    /// Returns why the apiserver can't go on, when its store ends by itself.
    pub async fn lost_its_store(&self) -> String {
        self.apiserver.lost_its_store().await
    }

    /// Ends in the order in which nobody misses anybody: first who asks, then who answers. Each within its own deadline.
    pub async fn shutdown(self) {
        self.loops.shutdown(LOOPS_GRACE).await;
        self.apiserver.shutdown().await;
    }

    /// Ends at once and unprepared, as far as a part of a process can.
    pub async fn kill(self) {
        self.loops.abort().await;
        self.apiserver.kill().await;
    }
}

/// Why a control plane did not start.
#[derive(Debug)]
pub enum StartError {
    /// The apiserver says why.
    Apiserver(apiserver::StartError),
    /// The controllers can't work with this configuration.
    Controllers(Error),
    /// The kubelet of a [`Cluster`] can't work here.
    Kubelet(Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Apiserver(error) => error.fmt(f),
            StartError::Controllers(error) | StartError::Kubelet(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests;
