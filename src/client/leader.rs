//! One leader among several candidates, by a Lease that they share.
//!
//! Nobody compares the clocks of two machines, nor believes the times in the lease, which are for people. A candidate takes the lease when it has seen it unchanged
//! for as long as the lease says, by its own monotonic clock, and only in that very version. A leader counts from the moment in which it *sent* the request that
//! last renewed it, and stops early enough. So whenever somebody takes the lease, whoever had it has stopped, as long as monotonic clocks run at about the same speed and
//! a stop takes no longer than it may; a wall clock may jump as it likes.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Client;
use crate::api::v1::{Lease, LeaseSpec};
use crate::api::{Kind, ObjectKey, Resource as _};
use crate::error::{Error, Result};
use crate::time::{Backoff, Clock};

/// The longest pause after terms that ended by themselves, one after the other. The first one is as long as between two looks at the lease.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A term that lasted for so long did not end for how it began.
const STEADY: Duration = Duration::from_secs(60);

/// Which lease makes the leader, and who wants it.
#[derive(Clone, Debug)]
pub struct Election {
    /// The lease's namespace, which must exist.
    pub namespace: String,
    /// The lease's name.
    pub name: String,
    /// Who wants to lead. No two candidates may have the same, nor may one that is started again.
    pub candidate: String,
    /// How long everything may take.
    pub terms: Terms,
}

/// How long everything may take. `renew_deadline + stop` must be less than `lease_duration`, with something to spare for clocks that run at different speeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease must be seen unchanged before another candidate takes it. Whole seconds. Default: 15 s.
    pub lease_duration: Duration,
    /// How long a leader goes on without having renewed its lease. Default: 10 s.
    pub renew_deadline: Duration,
    /// How often a leader renews, and how often the others look. Default: 2 s.
    pub retry_period: Duration,
    /// How long a leader may take to stop leading. Default: 3 s.
    pub stop: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            stop: Duration::from_secs(3),
        }
    }
}

impl Election {
    /// Calls `lead` whenever this candidate leads, until the token is cancelled. `lead` has to return soon after the token that it is given is cancelled; after
    /// [`Terms::stop`] it is dropped where it is. When it returns by itself, the lease is given back, and this candidate tries again after
    /// a pause, which is longer each time. At the end the
    /// lease is given back, so that another candidate can lead at once.
    pub async fn run<F>(self, client: Client, clock: Clock, token: CancellationToken, lead: impl Fn(CancellationToken) -> F)
    where
        F: Future<Output = ()>,
    {
        let key = ObjectKey::new(Kind::Lease, &self.namespace, &self.name);
        let mut candidate = Candidate::new(key, self.candidate, self.terms);
        let mut backoff = Backoff::new(self.terms.retry_period, LONGEST_PAUSE);
        while token.run_until_cancelled(candidate.until_it_leads(&client, &clock)).await.is_some() {
            tracing::info!(lease = %candidate.key, candidate = candidate.identity, "leading");
            let began = Instant::now();
            if candidate.term(&client, &clock, &token, &lead).await {
                candidate.give_back(&client).await;
                if began.elapsed() >= STEADY {
                    backoff.reset();
                }
                // Unless nobody wants it any more, it has ended by itself.
                token.run_until_cancelled(sleep(backoff.next_delay())).await;
            }
            candidate.forget();
        }
    }
}

/// A candidate with what it knows. What it does next is decided apart from all IO.
#[derive(Clone, Debug)]
struct Candidate {
    key: ObjectKey,
    identity: String,
    terms: Terms,
    /// The lease as it was last seen; `None` before it was looked at.
    seen: Option<Seen>,
    /// When the request was sent that made it the leader or let it stay.
    claimed: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Seen {
    /// `None`: there is none.
    lease: Option<Lease>,
    /// Since when it has been seen like this.
    since: Instant,
}

impl Candidate {
    fn new(key: ObjectKey, identity: String, terms: Terms) -> Self {
        assert!(terms.renew_deadline + terms.stop < terms.lease_duration, "a leader must have stopped before another one begins");
        Self { key, identity, terms, seen: None, claimed: None }
    }

    /// The lease as it may be claimed now; `None` if it may not.
    fn claim(&self, now: Instant, clock: &Clock) -> Option<Lease> {
        let seen = self.seen.as_ref()?;
        let mut lease = seen.lease.clone().unwrap_or_default();
        let spec = lease.spec.get_or_insert_default();
        let is_ours = spec.holder_identity == self.identity;
        let duration = Duration::from_secs(spec.lease_duration_seconds.into());
        let is_free = seen.lease.is_none() || spec.holder_identity.is_empty() || now.saturating_duration_since(seen.since) >= duration;
        if !is_ours && !is_free {
            return None;
        }
        let time = clock.now();
        *spec = LeaseSpec {
            holder_identity: self.identity.clone(),
            lease_duration_seconds: u32::try_from(self.terms.lease_duration.as_secs()).unwrap_or(u32::MAX).max(1),
            acquire_time: if is_ours { spec.acquire_time } else { Some(time) },
            renew_time: Some(time),
            lease_transitions: spec.lease_transitions + u32::from(!is_ours && seen.lease.is_some()),
        };
        self.key.name().clone_into(&mut lease.meta_mut().name);
        self.key.namespace().clone_into(&mut lease.meta_mut().namespace);
        Some(lease)
    }

    /// Takes what was seen of the lease. An answer that was sent before another one is seen later, but never as unchanged for longer than it was.
    fn saw(&mut self, lease: Option<Lease>, now: Instant) {
        let version = |lease: &Option<Lease>| lease.as_ref().map(|lease| lease.meta().resource_version);
        match &self.seen {
            Some(seen) if version(&seen.lease) == version(&lease) => {}
            _ => self.seen = Some(Seen { lease, since: now }),
        }
        if !self.holds() {
            self.claimed = None;
        }
    }

    /// A claim that was sent at some time has succeeded.
    fn claimed(&mut self, lease: Lease, sent: Instant, now: Instant) {
        self.saw(Some(lease), now);
        self.claimed = Some(sent);
    }

    fn holds(&self) -> bool {
        let lease = self.seen.as_ref().and_then(|seen| seen.lease.as_ref());
        lease.and_then(|lease| lease.spec.as_ref()).is_some_and(|spec| spec.holder_identity == self.identity)
    }

    /// Until when it may lead without another renewal.
    fn leads_until(&self) -> Option<Instant> {
        Some(self.claimed? + self.terms.renew_deadline)
    }

    /// The lease as nobody's, if it is this one's.
    fn given_back(&self) -> Option<Lease> {
        let mut lease = self.seen.as_ref()?.lease.clone()?;
        let spec = lease.spec.as_mut().filter(|spec| spec.holder_identity == self.identity)?;
        spec.holder_identity.clear();
        Some(lease)
    }

    /// Looks anew before the next claim.
    fn forget(&mut self) {
        self.seen = None;
        self.claimed = None;
    }

    async fn until_it_leads(&mut self, client: &Client, clock: &Clock) {
        loop {
            match self.attempt(client, clock).await {
                Ok(()) if self.claimed.is_some() => return,
                Ok(()) => sleep(self.pause()).await,
                Err(error) => {
                    tracing::debug!(lease = %self.key, %error, "no leader could be made");
                    sleep(self.pause().max(error.retry_after().unwrap_or_default().min(self.terms.lease_duration))).await;
                }
            }
        }
    }

    /// Leads until that is lost, `lead` ends, or nobody wants it any more. Whether the lease is still this one's.
    async fn term<F>(&mut self, client: &Client, clock: &Clock, token: &CancellationToken, lead: impl Fn(CancellationToken) -> F) -> bool
    where
        F: Future<Output = ()>,
    {
        let stop = self.terms.stop;
        let ends = CancellationToken::new();
        let mut leading = std::pin::pin!(lead(ends.clone()));
        let is_still_ours = tokio::select! {
            () = self.until_lost(client, clock) => false,
            () = token.cancelled() => true,
            () = &mut leading => return true,
        };
        if !is_still_ours {
            tracing::warn!(lease = %self.key, candidate = self.identity, "leading no more");
        }
        ends.cancel();
        if timeout(stop, leading).await.is_err() {
            tracing::error!(lease = %self.key, ?stop, "what only a leader may do did not end in time");
        }
        is_still_ours
    }

    async fn until_lost(&mut self, client: &Client, clock: &Clock) {
        let mut hint = Duration::ZERO;
        while let Some(deadline) = self.leads_until() {
            // However long it would rather not be asked: what is not renewed is lost.
            let pause = self.pause().max(hint.min(self.terms.renew_deadline / 4));
            let renewal = async {
                sleep(pause).await;
                self.attempt(client, clock).await
            };
            match timeout_at(deadline, renewal).await {
                Ok(Ok(())) => hint = Duration::ZERO,
                Ok(Err(error)) => {
                    hint = error.retry_after().unwrap_or_default();
                    tracing::warn!(lease = %self.key, %error, "a lease can't be renewed");
                }
                Err(_) => return,
            }
        }
    }

    /// Looks at the lease if need be, and claims it if that is right.
    async fn attempt(&mut self, client: &Client, clock: &Clock) -> Result<()> {
        if !self.holds() {
            self.look(client).await?;
        }
        let sent = Instant::now();
        let Some(lease) = self.claim(sent, clock) else { return Ok(()) };
        let claim = if lease.meta().resource_version == 0 { client.create(lease).await } else { client.update(lease).await };
        match claim {
            Ok(lease) => self.claimed(lease, sent, Instant::now()),
            // Somebody was faster; or an own attempt was done of which nobody knew.
            Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) => self.look(client).await?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Lets another candidate lead at once, instead of when the lease has run out.
    async fn give_back(&self, client: &Client) {
        let Some(free) = self.given_back() else { return };
        match timeout(self.terms.stop, client.update(free)).await {
            Ok(Ok(_)) => tracing::info!(lease = %self.key, "a lease was given back"),
            Ok(Err(error)) => tracing::info!(lease = %self.key, %error, "a lease can't be given back and has to run out"),
            Err(_) => tracing::info!(lease = %self.key, "a lease can't be given back in time and has to run out"),
        }
    }

    async fn look(&mut self, client: &Client) -> Result<()> {
        let lease = match client.get::<Lease>(self.key.namespace(), self.key.name()).await {
            Ok(lease) => Some(lease),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        self.saw(lease, Instant::now());
        Ok(())
    }

    /// Not all at the same moment.
    fn pause(&self) -> Duration {
        self.terms.retry_period.mul_f64(0.8 + fastrand::f64() * 0.4)
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
