//! The controllers and the scheduler, which run where they should.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::api::{Kind, SYSTEM_NAMESPACE};
use crate::client::{Cache, Client, Election, Keep, Terms, all_of};
use crate::error::Result;
use crate::tasks::Tasks;
use crate::time::{Backoff, Clock};
use crate::{controllers, scheduler};

/// How long they get to end.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// The lease of whoever runs them where several apiservers share a store.
const LEASE: &str = "controllers";

/// How their cache keeps objects: of pods there may be very many.
const KEEP: Keep = Keep { encoded: &[Kind::Pod], trim: scheduler::trim };
/// How long it takes until they are started again when one of them has broken, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What ran for so long did not break for how it was started.
const STEADY: Duration = Duration::from_secs(60);

/// What they need.
#[derive(Clone, Debug)]
pub(super) struct Loops {
    pub(super) client: Client,
    pub(super) controllers: controllers::Config,
    pub(super) clock: Clock,
}

impl Loops {
    /// Runs them, and again when one of them has broken.
    ///
    /// # Errors
    /// Invalid for a configuration that controllers can't work with.
    pub(super) fn start(self, tasks: &Tasks) -> Result<()> {
        self.controllers.check()?;
        tasks.spawn("controllers and scheduler", again(tasks.token(), move |term| self.clone().run(term)));
        Ok(())
    }

    fn begin(self, tasks: &Tasks) -> Result<()> {
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
        match self.begin(&tasks) {
            Ok(()) => tasks.token().cancelled().await,
            Err(error) => tracing::error!(%error, "the controllers can't be started"),
        }
        tasks.shutdown(GRACE).await;
    }
}

/// Runs something until the token is cancelled, and again when it ends by itself, after a pause that is longer each time.
async fn again<F: Future<Output = ()>>(token: CancellationToken, run: impl Fn(CancellationToken) -> F) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let began = Instant::now();
        run(token.child_token()).await;
        if token.is_cancelled() {
            return;
        }
        if began.elapsed() >= STEADY {
            backoff.reset();
        }
        let pause = backoff.next_delay();
        tracing::error!(?pause, "the controllers have ended by themselves and are started again");
        token.run_until_cancelled(sleep(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn controllers_that_break_are_started_again_and_do_not_spin() {
        let (began, token) = (Instant::now(), CancellationToken::new());
        let starts = Mutex::new(Vec::new());
        let run = |term: CancellationToken| {
            let number = {
                let mut starts = starts.lock().unwrap();
                starts.push(began.elapsed());
                starts.len()
            };
            let owner = token.clone();
            async move {
                let tasks = Tasks::new(term.clone());
                match number {
                    10 => owner.cancel(),
                    _ => tasks.spawn("breaks", async { panic!("as a controller may") }),
                }
                term.cancelled().await;
            }
        };
        again(token.clone(), run).await;
        let starts = starts.into_inner().unwrap();
        assert_eq!(starts.len(), 10);
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= FIRST_PAUSE / 2), "{starts:?}");
        assert!(starts[9] - starts[8] >= LONGEST_PAUSE / 2, "{starts:?}");
    }
}
