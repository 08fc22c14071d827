//! Deletes events an hour after they last happened.

use std::time::Duration;

use prost_types::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::api::v1::{ClusterEvent, ListRequest, Selector};
use crate::api::{Kind, Resource, Revision};
use crate::client::{Client, DeleteOptions};
use crate::error::{Error, Result};
use crate::tasks::Tasks;
use crate::time::{Clock, elapsed};

/// How long an event is kept after it last happened.
const KEPT: Duration = Duration::from_secs(3600);
/// How often old events are looked for. Nothing follows events: that would keep all of them in memory once more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Starts to look for old events, now and then on a period.
pub(super) fn start(client: Client, clock: Clock, tasks: &Tasks) {
    let token = tasks.token();
    tasks.spawn("events", async move {
        let sweeps = async {
            let mut interval = tokio::time::interval(SWEEP_INTERVAL);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                match sweep(&client, clock.now()).await {
                    Ok(0) => {}
                    Ok(deleted) => tracing::debug!(deleted, "old events were deleted"),
                    Err(error) => tracing::warn!(%error, "old events could not be deleted; trying again later"),
                }
            }
        };
        token.run_until_cancelled(sweeps).await;
    });
}

async fn sweep(client: &Client, now: Timestamp) -> Result<usize> {
    let selector = Selector { kind: Kind::Event.to_string(), ..Default::default() };
    let mut request = ListRequest { selector: Some(selector), ..Default::default() };
    let mut deleted = 0;
    loop {
        let page = client.list_page(request.clone()).await?;
        for event in page.objects.into_iter().filter_map(ClusterEvent::from_object).filter(|event| is_old(event, &now)) {
            // One that has happened again meanwhile stays.
            let version = Some(Revision(event.meta().resource_version));
            match client.delete_object(&event.key(), DeleteOptions { resource_version: version, ..Default::default() }).await {
                Ok(_) => deleted += 1,
                Err(Error::NotFound(_) | Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if page.continue_token.is_empty() {
            return Ok(deleted);
        }
        request.continue_token = page.continue_token;
    }
}

/// An event that tells no time is as old as its object.
fn is_old(event: &ClusterEvent, now: &Timestamp) -> bool {
    let told = event.spec.as_ref().and_then(|spec| spec.last_time.as_ref());
    let last = told.or(event.meta().creation_time.as_ref());
    last.is_some_and(|last| elapsed(last, now) >= KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{ClusterEventSpec, ObjectMeta};

    fn check(created: i64, last: Option<i64>, now: i64, expected: bool) {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let event = ClusterEvent {
            metadata: Some(ObjectMeta { creation_time: Some(at(created)), ..Default::default() }),
            spec: Some(ClusterEventSpec { last_time: last.map(at), ..Default::default() }),
        };
        assert_eq!(is_old(&event, &at(now)), expected, "created {created}, last {last:?}, now {now}");
    }

    #[test]
    fn an_event_is_old_an_hour_after_it_last_happened() {
        check(0, Some(1000), 4599, false);
        check(0, Some(1000), 4600, true);
        check(1000, None, 4599, false);
        check(1000, None, 4600, true);
        check(9000, Some(9000), 5, false);
    }
}
