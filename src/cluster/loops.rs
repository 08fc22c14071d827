//! The controllers and the scheduler, which run where they should.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::{Kind, SYSTEM_NAMESPACE};
use crate::client::{Cache, Client, Election, Keep, Terms, all_of};
use crate::error::Result;
use crate::tasks::Tasks;
use crate::time::Clock;
use crate::{controllers, scheduler};

/// How long they get to end.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// The lease of whoever runs them where several apiservers share a store.
const LEASE: &str = "controllers";

/// How their cache keeps objects: of pods there may be very many.
const KEEP: Keep = Keep { encoded: &[Kind::Pod], trim: scheduler::trim };

/// What they need.
#[derive(Clone, Debug)]
pub(super) struct Loops {
    pub(super) client: Client,
    pub(super) controllers: controllers::Config,
    pub(super) clock: Clock,
}

impl Loops {
    /// Starts them.
    ///
    /// # Errors
    /// Invalid for a configuration that controllers can't work with.
    pub(super) fn start(self, tasks: &Tasks) -> Result<()> {
        let Loops { client, controllers, clock } = self;
        // One for all of them. It holds what the scheduler needs, too.
        let cache = Cache::start_keeping(client.clone(), all_of(&controllers::KINDS), KEEP, tasks);
        controllers::start(client.clone(), cache.clone(), controllers, clock.clone(), tasks)?;
        scheduler::start(client, cache, clock, tasks);
        Ok(())
    }

    /// Runs them while `candidate` leads.
    ///
    /// # Errors
    /// As [`Loops::start`].
    pub(super) fn start_when_leading(self, candidate: &str, terms: Terms, tasks: &Tasks) -> Result<()> {
        self.controllers.check()?;
        let election = Election { namespace: SYSTEM_NAMESPACE.to_owned(), name: LEASE.to_owned(), candidate: candidate.to_owned(), terms };
        let (client, clock, token) = (self.client.clone(), self.clock.clone(), tasks.token());
        let lead = move |term| self.clone().run(term);
        tasks.spawn("election", async move { election.run(client, clock, token, lead).await });
        Ok(())
    }

    /// Runs them until the term is over, or one of them breaks.
    async fn run(self, term: CancellationToken) {
        let tasks = Tasks::new(term);
        match self.start(&tasks) {
            Ok(()) => tasks.token().cancelled().await,
            Err(error) => tracing::error!(%error, "the controllers can't be started"),
        }
        tasks.shutdown(GRACE).await;
    }
}
