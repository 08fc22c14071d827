//! Which backend gets the next connection of one route. Decides and counts; connects nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long a backend that refused a connection comes after all others, at first and, twice as long each time, at most: it may only just have started.
const AVOIDED_FOR: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How a backend did not take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It said so at once: to ask again costs next to nothing.
    Refused,
    /// It let the client wait, or is not to be reached.
    Silent,
}

/// The backends of one route with what is known of them.
///
/// The next connection goes to the backend with the fewest open ones, and among those to the one whose turn was longest ago: equal backends answer
/// in turn.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    backends: Vec<Backend>,
    turn: u64,
}

#[derive(Debug)]
struct Backend {
    address: SocketAddr,
    /// False: it gets no new connection and is only kept until its open ones have ended, so that they are counted if it comes back.
    routed: bool,
    open: usize,
    last_turn: u64,
    avoided: Option<Avoided>,
    /// Of each connection of which it may not have taken notice yet there is a token.
    fresh: TaskTracker,
}

/// It comes after all others.
#[derive(Clone, Copy, Debug)]
struct Avoided {
    duration: Duration,
    until: Instant,
}

impl Balancer {
    /// From now on only these get new connections. Of those that don't any more, gives what ends when they know of all that they were given.
    pub(super) fn set(&mut self, addresses: &[SocketAddr]) -> Vec<TaskTracker> {
        let mut left = Vec::new();
        for backend in &mut self.backends {
            let is_routed = addresses.contains(&backend.address);
            if backend.routed && !is_routed {
                backend.fresh.close();
                left.push(std::mem::take(&mut backend.fresh));
            }
            backend.routed = is_routed;
        }
        for address in addresses {
            if !self.backends.iter().any(|backend| backend.address == *address) {
                self.backends.push(Backend {
                    address: *address,
                    routed: true,
                    open: 0,
                    last_turn: 0,
                    avoided: None,
                    fresh: TaskTracker::new(),
                });
            }
        }
        self.backends.retain(|backend| backend.routed || backend.open > 0);
        left.retain(|fresh| !fresh.is_empty());
        left
    }

    /// Who is next, except those that were tried already. Its connection counts as open until [`Balancer::ended`].
    pub(super) fn pick(&mut self, tried: &[SocketAddr], now: Instant) -> Option<SocketAddr> {
        let candidates = self.backends.iter_mut().filter(|backend| backend.routed && !tried.contains(&backend.address));
        let next = candidates
            .min_by_key(|backend| (backend.avoided.is_some_and(|avoided| now < avoided.until), backend.open, backend.last_turn))?;
        self.turn += 1;
        next.last_turn = self.turn;
        next.open += 1;
        Some(next.address)
    }

    /// It took a connection, picked before. Gives its token; `None` if the connection may not be used any more.
    pub(super) fn answered(&mut self, address: SocketAddr) -> Option<TaskTrackerToken> {
        let backend = self.find(address).filter(|backend| backend.routed)?;
        backend.avoided = None;
        Some(backend.fresh.token())
    }

    /// It did not take a connection.
    pub(super) fn failed(&mut self, address: SocketAddr, failure: Failure, now: Instant) {
        let Some(backend) = self.find(address) else { return };
        let duration = match (failure, backend.avoided) {
            (Failure::Silent, _) => AVOIDED_FOR.1,
            (Failure::Refused, None) => AVOIDED_FOR.0,
            // Many connections at once tell no more than one.
            (Failure::Refused, Some(avoided)) if now < avoided.until => return,
            (Failure::Refused, Some(avoided)) => (avoided.duration * 2).min(AVOIDED_FOR.1),
        };
        backend.avoided = Some(Avoided { duration, until: now + duration });
    }

    /// A connection that was picked is over.
    pub(super) fn ended(&mut self, address: SocketAddr) {
        if let Some(backend) = self.find(address) {
            backend.open -= 1;
        }
        self.backends.retain(|backend| backend.routed || backend.open > 0);
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Backend> {
        self.backends.iter_mut().find(|backend| backend.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn balancer(ports: &[u16]) -> Balancer {
        let mut balancer = Balancer::default();
        balancer.set(&ports.iter().copied().map(address).collect::<Vec<_>>());
        balancer
    }

    fn one_short_connection(balancer: &mut Balancer, now: Instant) -> u16 {
        let picked = balancer.pick(&[], now).expect("there are backends");
        assert!(balancer.answered(picked).is_some(), "it is routed");
        balancer.ended(picked);
        picked.port()
    }

    #[test]
    fn equal_backends_get_connections_in_turn() {
        let (mut balancer, now) = (balancer(&[1, 2, 3]), Instant::now());
        let picked: Vec<u16> = (0..6).map(|_| one_short_connection(&mut balancer, now)).collect();
        assert_eq!(picked, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn the_backend_with_the_fewest_open_connections_is_next() {
        let (mut balancer, now) = (balancer(&[1, 2]), Instant::now());
        let held = balancer.pick(&[], now).expect("there are backends");
        assert_eq!(held.port(), 1);
        assert_eq!([(); 3].map(|()| one_short_connection(&mut balancer, now)), [2, 2, 2]);
        balancer.ended(held);
        assert_eq!(one_short_connection(&mut balancer, now), 1);
    }

    #[test]
    fn a_backend_that_failed_comes_last_for_a_while() {
        let (mut balancer, now) = (balancer(&[1, 2]), Instant::now());
        let dead = balancer.pick(&[], now).expect("there are backends");
        balancer.failed(dead, Failure::Silent, now);
        balancer.ended(dead);
        assert_eq!([(); 2].map(|()| one_short_connection(&mut balancer, now)), [2, 2]);
        assert_eq!(balancer.pick(&[address(2)], now), Some(dead), "it is still tried when all others failed");
        balancer.ended(dead);
        let later = now + AVOIDED_FOR.1;
        assert_eq!(one_short_connection(&mut balancer, later), 2);
        assert_eq!(one_short_connection(&mut balancer, later), 1);
    }

    #[test]
    fn a_backend_that_has_only_just_started_gets_its_turn_soon_and_one_that_goes_on_refusing_ever_later() {
        let (mut balancer, mut now) = (balancer(&[1, 2]), Instant::now());
        // Many at once are refused each time.
        let refuse = |balancer: &mut Balancer, now| (0..10).for_each(|_| balancer.failed(address(1), Failure::Refused, now));
        let mut avoided = Vec::new();
        for _ in 0..8 {
            refuse(&mut balancer, now);
            let until = balancer.find(address(1)).and_then(|backend| backend.avoided).expect("it is avoided").until;
            avoided.push((until - now).as_millis());
            assert_eq!([(); 2].map(|()| one_short_connection(&mut balancer, now)), [2, 2]);
            now = until;
        }
        assert_eq!(avoided, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!([(); 2].map(|()| one_short_connection(&mut balancer, now)), [1, 2], "its turn was longest ago");
        refuse(&mut balancer, now);
        let again = now + AVOIDED_FOR.0;
        assert_eq!([(); 2].map(|()| one_short_connection(&mut balancer, again)), [1, 2], "what was before it answered is forgotten");
    }

    #[test]
    fn each_backend_is_tried_once() {
        let (mut balancer, now) = (balancer(&[1, 2]), Instant::now());
        assert_eq!(balancer.pick(&[address(1), address(2)], now), None);
    }

    #[test]
    fn a_backend_has_left_when_it_knows_of_all_that_it_was_given() {
        let (mut balancer, now) = (balancer(&[1, 2]), Instant::now());
        let [one, two] = [(); 2].map(|()| balancer.pick(&[], now).expect("there are backends"));
        let token = balancer.answered(one).expect("it is routed");
        drop(balancer.answered(two));
        let left = balancer.set(&[]);
        assert_eq!(left.iter().map(TaskTracker::len).collect::<Vec<_>>(), [1], "the other one has taken notice");
        // What it is given when it is back is another thing.
        assert!(balancer.set(&[one]).is_empty());
        let again = balancer.answered(one);
        drop(token);
        assert_eq!((left[0].len(), left[0].is_closed()), (0, true));
        drop(again);
        assert!(balancer.set(&[]).is_empty());
    }

    #[test]
    fn a_removed_backend_is_not_picked_and_its_open_connections_are_still_counted_when_it_comes_back() {
        let (mut balancer, now) = (balancer(&[1, 2]), Instant::now());
        let held = balancer.pick(&[], now).expect("there are backends");
        balancer.set(&[address(2)]);
        assert!(balancer.answered(held).is_none());
        assert_eq!([(); 2].map(|()| one_short_connection(&mut balancer, now)), [2, 2]);
        balancer.set(&[address(1), address(2)]);
        assert_eq!([(); 2].map(|()| one_short_connection(&mut balancer, now)), [2, 2]);
        balancer.set(&[address(2)]);
        balancer.ended(held);
        assert_eq!(balancer.backends.len(), 1, "nothing is kept of it");
    }
}
