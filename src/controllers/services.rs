//! Gives every service its address from the cluster's range, and says in its status when it can't have one.

mod claims;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use claims::Range;
use claims::{Claims, Decision};

use super::Context;
use crate::api::v1::{ConditionStatus, EventType, Service};
use crate::api::{Kind, ObjectKey, Resource, condition};
use crate::client::subject;
use crate::error::{Error, Result};
use crate::reconcile::{Outcome, Reconciler};

/// Hands out service addresses; a key is a service.
pub(super) struct Services {
    context: Context,
    range: Range,
    claims: Mutex<Claims>,
}

impl Services {
    pub(super) fn new(context: Context, range: Range) -> Self {
        Self { context, range, claims: Mutex::default() }
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn report(&self, service: &Service, status: ConditionStatus, reason: &str, message: &str) -> Result<()> {
        let mut reported = service.clone();
        let conditions = &mut reported.status.get_or_insert_default().conditions;
        if !condition::set(conditions, condition::READY, status, reason, message, self.context.clock.now()) {
            return Ok(());
        }
        for result in self.context.client.update_status(vec![reported.into_object()]).await? {
            let written = match result {
                Err(Error::NotFound(_)) => return Ok(()),
                result => result?,
            };
            if status == ConditionStatus::False {
                self.context.recorder.event(subject(service), EventType::Warning, reason, message);
            }
            self.context.seen(written.meta().resource_version).await;
        }
        Ok(())
    }
}

impl Reconciler for Services {
    type Key = ObjectKey;
    const NAME: &'static str = "services";

    fn affected(&self, changed: &ObjectKey) -> Vec<ObjectKey> {
        if changed.kind() != Kind::Service {
            return Vec::new();
        }
        let service = self.context.cache.get::<Service>(changed.namespace(), changed.name());
        let mut affected = self.claims().observe(changed, service.as_deref());
        affected.push(changed.clone());
        affected
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome> {
        let Some(service) = self.context.cache.get::<Service>(key.namespace(), key.name()) else { return Ok(Outcome::Done) };
        if service.meta().deletion_time.is_some() {
            return Ok(Outcome::Done);
        }
        let decision = self.claims().decide(&service, &self.range);
        match decision {
            Decision::Assign(address) => {
                let mut assigned = Service::clone(&service);
                assigned.spec.get_or_insert_default().cluster_ip = address.to_string();
                match self.context.client.update(assigned).await {
                    Ok(assigned) => self.report(&assigned, ConditionStatus::True, "AddressAssigned", "").await?,
                    Err(Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Decision::Keep => self.report(&service, ConditionStatus::True, "AddressAssigned", "").await?,
            Decision::Refuse { reason, message } => self.report(&service, ConditionStatus::False, reason, &message).await?,
        }
        Ok(Outcome::Done)
    }
}
