//! Whether acknowledged writes are in the history that a watch tells.

use std::collections::BTreeMap;

use bluebird::api::Resource;
use bluebird::api::v1::{Lease, WatchResponse, event};

use crate::clients::{held, name};
use crate::history::Group;
use crate::model::{Asked, Value};

/// What became of which lease at which revision: the value that it was given, or `None` for its end.
pub(crate) struct Changes(BTreeMap<(String, u64), Option<Value>>);

impl Changes {
    /// What a watch was sent.
    pub(crate) fn of(messages: &[WatchResponse]) -> Changes {
        let mut changes = BTreeMap::new();
        for event in messages.iter().flat_map(|message| &message.events) {
            let lease = event.object.as_ref().and_then(Lease::from_object_ref);
            let Some(lease) = lease.filter(|lease| lease.meta().labels.contains_key("group")) else { continue };
            let value = (event.r#type() != event::Type::Deleted).then(|| held(lease).value);
            changes.insert((lease.meta().name.clone(), lease.meta().resource_version), value);
        }
        Changes(changes)
    }

    /// Looks for every write of a group that was acknowledged, and returns how many these are.
    ///
    /// # Errors
    /// A sentence, when one is not there as it was acknowledged.
    pub(crate) fn check(&self, group: &Group) -> Result<usize, String> {
        let acknowledged = group.acknowledged();
        for (asked, revision) in &acknowledged {
            let (keys, value) = match *asked {
                Asked::Create { key, value } | Asked::Update { key, value, .. } => (vec![key], Some(value)),
                Asked::Apply { keys, value } => (keys.to_vec(), Some(value)),
                Asked::Delete { key, .. } => (vec![key], None),
                Asked::Get { .. } | Asked::List => (Vec::new(), None),
            };
            for key in keys {
                let found = self.0.get(&(name(&group.name, key), *revision));
                if found != Some(&value) {
                    return Err(format!("{asked:?} of {} was acknowledged at revision {revision}; there is {found:?}", group.name));
                }
            }
        }
        Ok(acknowledged.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bluebird::api::Revision;
    use bluebird::api::v1::Event;
    use bluebird::watch::Start;
    use bluebird::watch::checkers::{Guarantee, Recorded, Reference, Seen, Stream, Watched};

    use super::*;
    use crate::clients::lease;
    use crate::model::Answered;

    /// What a watch was sent of three writes: two creates, and a change of the first.
    fn sent() -> Vec<WatchResponse> {
        let message = |revision, kind: event::Type, key, value| {
            let mut lease = lease("g", key, value);
            lease.meta_mut().resource_version = revision;
            let event = Event { r#type: kind.into(), object: Some(lease.into_object()) };
            WatchResponse { events: vec![event], revision, ..Default::default() }
        };
        let synced = WatchResponse { revision: 1, synced: true, ..Default::default() };
        let (added, modified) = (event::Type::Added, event::Type::Modified);
        vec![synced, message(2, added, 0, 1), message(3, added, 1, 2), message(4, modified, 0, 3)]
    }

    #[test]
    fn an_acknowledged_write_that_no_watch_tells_of_is_found() {
        let group = Group::new("g".to_owned());
        let writes =
            [Asked::Create { key: 0, value: 1 }, Asked::Create { key: 1, value: 2 }, Asked::Update { key: 0, value: 3, expected: 2 }];
        for (asked, revision) in writes.into_iter().zip(2..) {
            let number = group.call(asked);
            group.answered(number, Answered::Written(revision));
        }
        assert_eq!(Changes::of(&sent()).check(&group), Ok(3));
        for lost in 1..4 {
            let mut rest = sent();
            rest.remove(lost);
            assert!(Changes::of(&rest).check(&group).is_err(), "without message {lost}");
        }
    }

    #[test]
    fn a_watch_that_loses_repeats_or_invents_a_change_is_found() {
        let broken = |break_it: fn(&mut Vec<WatchResponse>)| {
            let mut messages = sent().split_off(1);
            break_it(&mut messages);
            let messages = messages.into_iter().map(|message| Seen { at: Duration::ZERO, message }).collect();
            let streams = vec![Stream { start: Start::After(Revision(1)), messages }];
            let watches = vec![Watched { name: "all".to_owned(), selectors: Vec::new(), streams }];
            let recorded = Recorded { reference: Reference::from_watch(&sent()), watches };
            recorded.check(Duration::from_secs(10)).into_iter().map(|broken| broken.guarantee).collect::<Vec<_>>()
        };
        assert_eq!(broken(|_| {}), []);
        assert!(broken(|messages| drop(messages.remove(1))).contains(&Guarantee::Reliable));
        assert!(broken(|messages| messages.insert(1, messages[0].clone())).contains(&Guarantee::Unique));
        assert!(broken(|messages| messages.swap(0, 1)).contains(&Guarantee::Ordered));
        assert!(broken(|messages| messages[2].events[0].set_type(event::Type::Added)).contains(&Guarantee::Filtered));
    }
}
