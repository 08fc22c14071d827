//! The apiservers that share a store, as far as their leases tell: decisions only.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::Revision;

/// How long one is remembered whose lease is gone.
const FORGET: Duration = Duration::from_secs(3600);

/// What an apiserver tells the others in its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// What all routers have applied whose nodes have their sessions with it; `None` if there is no router among them.
    pub(super) applied: Option<Revision>,
    /// The highest revision that one of its sessions waits for.
    pub(super) awaited: Option<Revision>,
}

/// What is known of all of them. An apiserver is judged by what this one has seen of its lease, by this one's own clock.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    /// `None`: there is no lease.
    lease: Option<(Revision, Told)>,
    /// Since when it has been seen like this.
    since: Instant,
}

impl Peers {
    /// Takes in all the leases that there are.
    pub(super) fn observe(&mut self, leases: Vec<(String, Revision, Told)>, now: Instant) {
        let mut present: HashMap<String, (Revision, Told)> = leases.into_iter().map(|(id, version, told)| (id, (version, told))).collect();
        for (id, seen) in &mut self.0 {
            let lease = present.remove(id);
            if lease.as_ref().map(|(version, _)| version) != seen.lease.as_ref().map(|(version, _)| version) {
                *seen = Seen { lease, since: now };
            }
        }
        self.0.extend(present.into_iter().map(|(id, lease)| (id, Seen { lease: Some(lease), since: now })));
        self.0.retain(|_, seen| seen.lease.is_some() || now.saturating_duration_since(seen.since) < FORGET);
    }

    /// Everybody who has a lease is taken for alive as of now: nothing could be seen of them for a while.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.0.values_mut().filter(|seen| seen.lease.is_some()).for_each(|seen| seen.since = now);
    }

    /// Since when an apiserver is known to be gone: it has given its lease back, or not renewed it for `lease`. `None` while it lives.
    pub(super) fn gone_since(&mut self, id: &str, lease: Duration, now: Instant) -> Option<Instant> {
        let seen = self.0.entry(id.to_owned()).or_insert(Seen { lease: None, since: now });
        match seen.lease {
            None => Some(seen.since),
            Some(_) => Some(seen.since + lease).filter(|since| *since <= now),
        }
    }

    /// Those whose lease nobody has renewed for this long, with its version.
    pub(super) fn unrenewed(&self, long: Duration, now: Instant) -> Vec<(String, Revision)> {
        let unrenewed = self.0.iter().filter(|(_, seen)| now.saturating_duration_since(seen.since) >= long);
        unrenewed.filter_map(|(id, seen)| Some((id.clone(), seen.lease.as_ref()?.0))).collect()
    }

    /// What those tell that live, but for `own`, all together.
    pub(super) fn others(&self, own: &str, lease: Duration, now: Instant) -> Told {
        let lives = |seen: &Seen| now.saturating_duration_since(seen.since) < lease;
        let told = self.0.iter().filter(|(id, seen)| *id != own && lives(seen)).filter_map(|(_, seen)| Some(&seen.lease.as_ref()?.1));
        told.fold(Told::default(), |all, one| Told {
            applied: all.applied.into_iter().chain(one.applied).min(),
            awaited: all.awaited.max(one.awaited),
        })
    }
}

impl Told {
    /// Whether the others have to be told now what is so `now`, after they were told this: somebody of ours waits for more; there is a router that
    /// is further behind; or somebody of theirs waits for what has been applied since.
    pub(super) fn is_outdated(&self, now: &Told, others: &Told) -> bool {
        let awaits_more = now.awaited > self.awaited;
        let fell_back = match (self.applied, now.applied) {
            (Some(before), Some(after)) => after < before,
            (None, after) => after.is_some(),
            (Some(_), None) => false,
        };
        let is_waited_for = self.applied.is_some_and(|applied| others.awaited > Some(applied));
        awaits_more || fell_back || (is_waited_for && now.applied != self.applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn lease(id: &str, version: u64) -> (String, Revision, Told) {
        (id.to_owned(), Revision(version), Told::default())
    }

    fn told(applied: Option<u64>, awaited: Option<u64>) -> Told {
        Told { applied: applied.map(Revision), awaited: awaited.map(Revision) }
    }

    #[test]
    fn an_apiserver_is_gone_when_its_lease_was_seen_unchanged_for_long_enough_by_this_ones_clock() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        peers.observe(vec![lease("a", 1)], start);
        assert_eq!(peers.gone_since("a", LEASE, start + LEASE / 2), None);
        peers.observe(vec![lease("a", 2)], start + LEASE / 2);
        peers.observe(vec![lease("a", 2)], start + LEASE);
        assert_eq!(peers.gone_since("a", LEASE, start + LEASE), None, "it was renewed in between");
        assert_eq!(peers.gone_since("a", LEASE, start + LEASE * 2), Some(start + LEASE * 3 / 2));
        peers.observe(vec![lease("a", 3)], start + LEASE * 2);
        assert_eq!(peers.gone_since("a", LEASE, start + LEASE * 2), None, "it was only late");
    }

    #[test]
    fn an_apiserver_that_has_given_its_lease_back_or_never_had_one_is_gone_at_once() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        peers.observe(vec![lease("a", 1)], start);
        peers.observe(Vec::new(), start + LEASE / 10);
        assert_eq!(peers.gone_since("a", LEASE, start + LEASE), Some(start + LEASE / 10));
        assert_eq!(peers.gone_since("b", LEASE, start + LEASE), Some(start + LEASE));
        assert_eq!(peers.gone_since("b", LEASE, start + LEASE * 2), Some(start + LEASE), "since it was first heard of");
    }

    #[test]
    fn a_lease_that_nobody_renews_is_found() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        peers.observe(vec![lease("a", 1), lease("b", 2)], start);
        peers.observe(vec![lease("a", 1), lease("b", 3)], start + LEASE);
        assert_eq!(peers.unrenewed(LEASE, start + LEASE), [("a".to_owned(), Revision(1))]);
    }

    #[test]
    fn the_others_are_as_far_as_the_last_of_them_that_lives() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        let leases = |version| {
            vec![
                ("own".to_owned(), Revision(1), told(Some(1), Some(99))),
                ("a".to_owned(), Revision(version), told(Some(7), Some(8))),
                ("b".to_owned(), Revision(version), told(None, Some(9))),
                ("dead".to_owned(), Revision(1), told(Some(2), Some(50))),
            ]
        };
        peers.observe(leases(1), start);
        peers.observe(leases(2), start + LEASE / 2);
        assert_eq!(peers.others("own", LEASE, start + LEASE), told(Some(7), Some(9)));
    }

    #[test]
    fn the_others_are_told_at_once_only_what_somebody_waits_for() {
        let check = |before: Told, now: Told, others: Told, expected: bool| {
            assert_eq!(before.is_outdated(&now, &others), expected, "{before:?} → {now:?}, {others:?}");
        };
        check(told(Some(1), None), told(Some(5), None), told(None, None), false);
        check(told(Some(1), None), told(Some(5), None), told(None, Some(1)), false);
        check(told(Some(1), None), told(Some(5), None), told(None, Some(4)), true);
        check(told(Some(4), None), told(Some(4), None), told(None, Some(9)), false);
        check(told(Some(1), None), told(Some(1), Some(3)), told(None, None), true);
        check(told(Some(1), Some(3)), told(Some(1), None), told(None, None), false);
        check(told(Some(5), None), told(Some(0), None), told(None, None), true);
        check(told(None, None), told(Some(0), None), told(None, None), true);
        check(told(Some(5), None), told(None, None), told(None, None), false);
        check(told(Some(5), None), told(None, None), told(None, Some(6)), true);
    }
}
