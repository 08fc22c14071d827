use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// Keys that want to be looked at, each once, at the earliest time that was asked for. A key that is being looked at is not handed out again
/// before that has finished.
#[derive(Debug)]
pub(super) struct Queue<K> {
    due: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
    /// Each with the time that was asked for meanwhile.
    running: BTreeMap<K, Option<Instant>>,
}

impl<K: Ord + Clone> Queue<K> {
    pub(super) fn new() -> Self {
        Self { due: BTreeMap::new(), order: BTreeSet::new(), running: BTreeMap::new() }
    }

    /// Asks for a key to be looked at, not before `due`. An earlier request stays; a later one is moved forward.
    pub(super) fn push(&mut self, key: K, due: Instant) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = Some(again.map_or(due, |asked| asked.min(due)));
            return;
        }
        match self.due.get(&key) {
            Some(asked) if *asked <= due => return,
            Some(asked) => self.order.remove(&(*asked, key.clone())),
            None => false,
        };
        self.due.insert(key.clone(), due);
        self.order.insert((due, key));
    }

    /// Hands out the key that has been due for longest, if any is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<K> {
        if self.order.first().is_none_or(|(due, _)| *due > now) {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.due.remove(&key);
        self.running.insert(key.clone(), None);
        Some(key)
    }

    /// A key that was handed out has been looked at.
    pub(super) fn finish(&mut self, key: &K) {
        if let Some(Some(due)) = self.running.remove(key) {
            self.push(key.clone(), due);
        }
    }

    /// When the next key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// How many keys wait.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// How many keys are being looked at.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_earliest_request_for_a_key_wins() {
        let now = Instant::now();
        let mut queue = Queue::new();
        for seconds in [5, 2, 9] {
            queue.push("a", now + Duration::from_secs(seconds));
        }
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop(now + Duration::from_secs(1)), None);
        assert_eq!(queue.pop(now + Duration::from_secs(2)), Some("a"));
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_key_that_is_being_looked_at_waits_until_that_has_finished() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.push("a", now);
        assert_eq!(queue.pop(now), Some("a"));
        queue.push("a", now);
        queue.push("b", now);
        assert_eq!(queue.pop(now), Some("b"));
        assert_eq!(queue.pop(now), None);
        queue.finish(&"a");
        assert_eq!(queue.pop(now), Some("a"));
        queue.finish(&"a");
        assert_eq!(queue.pop(now), None);
    }

    #[test]
    fn keys_come_in_the_order_in_which_they_were_due() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.push("late", now + Duration::from_millis(2));
        queue.push("z", now);
        queue.push("early", now + Duration::from_millis(1));
        let later = now + Duration::from_secs(1);
        assert_eq!([queue.pop(later), queue.pop(later), queue.pop(later)], [Some("z"), Some("early"), Some("late")]);
    }

    proptest! {
        #[test]
        fn no_request_is_lost_and_no_key_runs_twice_at_once(actions in prop::collection::vec((0..3u8, 0..4u8, 0..20u64), 0..200)) {
            let begin = Instant::now();
            let (mut queue, mut clock) = (Queue::new(), begin);
            let (mut wanted, mut running) = (BTreeSet::new(), BTreeSet::new());
            for (action, key, millis) in actions {
                match action {
                    0 => {
                        queue.push(key, clock + Duration::from_millis(millis));
                        wanted.insert(key);
                    }
                    1 => {
                        clock += Duration::from_millis(millis);
                        if let Some(key) = queue.pop(clock) {
                            prop_assert!(running.insert(key), "{key} runs twice");
                            prop_assert!(wanted.remove(&key), "nobody asked for {key}");
                        }
                    }
                    _ => if running.remove(&key) {
                        queue.finish(&key);
                    }
                }
            }
            running.iter().for_each(|key| queue.finish(key));
            while let Some(key) = queue.pop(clock + Duration::from_secs(60)) {
                prop_assert!(wanted.remove(&key), "nobody asked for {key}");
            }
            prop_assert!(wanted.is_empty(), "lost: {wanted:?}");
        }
    }
}
