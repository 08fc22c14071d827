//! Elections over a fake that keeps one lease: in simulated time, decision by decision, and as they run.

use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::fake::{COME_BACK, FakeLease, Network, Table};
use super::*;
use crate::tasks::Tasks;

/// Longer than anything here takes; only a test that fails waits so long.
const BOUND: Duration = Duration::from_secs(600);

fn clock() -> Clock {
    Clock::from_fn(|| UNIX_EPOCH)
}

fn key() -> ObjectKey {
    ObjectKey::new(Kind::Lease, "default", "controllers")
}

/// What may happen to three candidates. Each has at most one request under way.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// It sends what it wants to send now, which is done and answered at once.
    Exchange(usize),
    /// It sends what it wants to send now.
    Send(usize),
    /// Its request arrives and is done.
    Arrive(usize),
    /// The answer arrives, or the news that nothing has.
    Answer(usize),
    /// It loses what is under way, without ever knowing whether it was done.
    Lose(usize),
    /// It ends its loops and gives the lease back.
    GiveBack(usize),
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0..3usize).prop_map(Happening::Exchange),
        4 => (0..3usize).prop_map(Happening::Send),
        4 => (0..3usize).prop_map(Happening::Arrive),
        4 => (0..3usize).prop_map(Happening::Answer),
        1 => (0..3usize).prop_map(Happening::Lose),
        1 => (0..3usize).prop_map(Happening::GiveBack),
        4 => (1..4_000u64).prop_map(Happening::Pass),
        2 => (8_000..16_000u64).prop_map(Happening::Pass),
    ]
}

/// A candidate, what it has under way, and until when what it started may act.
struct Player {
    candidate: Candidate,
    under_way: Option<UnderWay>,
    acts_until: Instant,
}

struct UnderWay {
    sent: Instant,
    claim: Option<Lease>,
    outcome: Option<Outcome>,
}

enum Outcome {
    Seen(Option<Lease>),
    Claimed(Lease),
    Refused,
}

/// With next to nothing to spare, so that every mistake shows.
const TIGHT: Terms = Terms {
    lease_duration: Duration::from_secs(15),
    renew_deadline: Duration::from_millis(12_900),
    retry_period: Duration::from_secs(2),
    stop: Duration::from_secs(2),
};

struct Game {
    now: Instant,
    table: Table,
    players: Vec<Player>,
    terms_begun: usize,
}

impl Game {
    fn new(now: Instant) -> Self {
        let player = |number| Player { candidate: Candidate::new(key(), format!("c{number}"), TIGHT), under_way: None, acts_until: now };
        Self { now, table: Table::default(), players: (0..3).map(player).collect(), terms_begun: 0 }
    }

    fn play(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Exchange(number) => {
                for happening in [Happening::Send(number), Happening::Arrive(number), Happening::Answer(number)] {
                    self.play(happening);
                }
            }
            Happening::Send(number) => {
                let Player { candidate, under_way, .. } = &mut self.players[number];
                let claim = candidate.claim(now, &clock());
                under_way.get_or_insert(UnderWay { sent: now, claim, outcome: None });
            }
            Happening::Arrive(number) => {
                if let Some(UnderWay { claim, outcome: outcome @ None, .. }) = &mut self.players[number].under_way {
                    *outcome = Some(match claim.clone() {
                        None => Outcome::Seen(self.table.get()),
                        Some(claim) => self.table.put(claim).map_or(Outcome::Refused, Outcome::Claimed),
                    });
                }
            }
            Happening::Answer(number) => self.answer(number),
            Happening::Lose(number) => self.players[number].under_way = None,
            Happening::GiveBack(number) => {
                let player = &mut self.players[number];
                player.acts_until = player.acts_until.min(now);
                if let Some(free) = player.candidate.given_back() {
                    // Whether that succeeds does not matter to it any more.
                    let _ = self.table.put(free);
                }
                player.candidate.forget();
                player.under_way = None;
            }
            Happening::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                for player in &mut self.players {
                    if player.candidate.leads_until().is_some_and(|until| until <= self.now) {
                        player.candidate.forget();
                    }
                }
            }
        }
    }

    fn answer(&mut self, number: usize) {
        let (now, player) = (self.now, &mut self.players[number]);
        let Some(UnderWay { sent, claim, outcome: Some(outcome) }) = player.under_way.take_if(|under_way| under_way.outcome.is_some())
        else {
            return;
        };
        match outcome {
            Outcome::Seen(lease) => player.candidate.saw(lease, now),
            Outcome::Refused => player.candidate.forget(),
            // As when the loop gives up waiting at its deadline: it knows nothing then.
            Outcome::Claimed(_) if sent + player.candidate.terms.renew_deadline <= now => player.candidate.forget(),
            Outcome::Claimed(lease) => {
                assert!(claim.is_some());
                let led = player.candidate.claimed.is_some();
                player.candidate.claimed(lease, sent, now);
                self.terms_begun += usize::from(!led);
                let until = player.candidate.leads_until().expect("it leads") + player.candidate.terms.stop;
                player.acts_until = player.acts_until.max(until);
            }
        }
    }

    fn check(&self) {
        let acting: Vec<_> = self.players.iter().filter(|player| player.acts_until > self.now).map(|player| &player.candidate).collect();
        assert!(acting.len() <= 1, "{acting:?} at {:?}", self.now);
    }
}

proptest! {
    #[test]
    fn there_are_never_two_leaders_whatever_is_late_or_lost(happenings in prop::collection::vec(happening(), 0..200)) {
        let mut game = Game::new(Instant::now());
        for happening in happenings {
            game.play(happening);
            game.check();
        }
        // When nothing is lost any more, somebody leads.
        for _ in 0..20 {
            for number in 0..3 {
                game.play(Happening::Exchange(number));
                game.check();
            }
            game.play(Happening::Pass(2_000));
        }
        prop_assert!(game.terms_begun > 0);
        prop_assert!(game.players.iter().any(|player| player.candidate.claimed.is_some()));
    }
}

#[test]
fn a_claim_whose_answer_is_late_counts_from_when_it_was_sent() {
    let mut game = Game::new(Instant::now());
    game.play(Happening::Exchange(0));
    game.play(Happening::Send(0));
    game.play(Happening::Arrive(0));
    game.play(Happening::Exchange(1));
    game.play(Happening::Pass(5_000));
    game.play(Happening::Answer(0));
    assert!(game.players[0].candidate.claimed.is_some());
    game.play(Happening::Pass(10_000));
    game.play(Happening::Exchange(1));
    assert!(game.players[1].candidate.claimed.is_some(), "it has seen the lease unchanged for as long as it says");
    game.check();
}

/// Candidates that run, and who leads when.
struct Scene {
    server: FakeLease,
    began: Instant,
    /// Each change of who leads: a candidate, and whether it leads from then on.
    changes: Arc<Mutex<Vec<(Duration, String, bool)>>>,
    changed: tokio::sync::watch::Sender<usize>,
}

struct Running {
    network: Network,
    tasks: Tasks,
}

impl Scene {
    fn new() -> Self {
        let (changes, changed) = (Arc::default(), tokio::sync::watch::Sender::new(0));
        Self { server: FakeLease::default(), began: Instant::now(), changes, changed }
    }

    fn start(&self, name: &str) -> Running {
        self.start_with(name, clock(), Duration::ZERO)
    }

    /// `stop`: how long it takes to stop leading.
    fn start_with(&self, name: &str, clock: Clock, stop: Duration) -> Running {
        let (tasks, network) = (Tasks::new(CancellationToken::new()), Network::default());
        let client = self.server.client(&network, &tasks);
        let election =
            Election { namespace: key().namespace().into(), name: key().name().into(), candidate: name.into(), terms: Terms::default() };
        let (changes, changed, began, name) = (self.changes.clone(), self.changed.clone(), self.began, name.to_owned());
        let lead = move |ends: CancellationToken| {
            let (changes, changed, name) = (changes.clone(), changed.clone(), name.clone());
            let tell = move |leads| {
                changes.lock().expect("not held").push((began.elapsed(), name.clone(), leads));
                changed.send_modify(|changes| *changes += 1);
            };
            async move {
                tell(true);
                ends.cancelled().await;
                sleep(stop).await;
                tell(false);
            }
        };
        tasks.spawn("election", election.run(client, clock, tasks.token(), lead));
        Running { network, tasks }
    }

    /// Waits for the next change, and says when and what it was.
    async fn next(&self, seen: &mut usize) -> (Duration, String, bool) {
        *seen += 1;
        let wait = self.changed.subscribe().wait_for(|changes| changes >= seen).await.map(drop);
        wait.expect("the scene lives");
        self.changes.lock().expect("not held")[*seen - 1].clone()
    }
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("something happens")
}

#[tokio::test(start_paused = true)]
async fn one_of_several_leads_and_another_one_follows_at_once_when_it_ends() {
    let (scene, mut seen) = (Scene::new(), 0);
    let one = scene.start("one");
    assert_eq!(bounded(scene.next(&mut seen)).await.1, "one");
    let other = scene.start("other");
    sleep(Duration::from_secs(100)).await;
    assert_eq!(*scene.changed.borrow(), 1, "it stays the leader");
    let ended = scene.began.elapsed();
    one.tasks.shutdown(BOUND).await;
    assert_eq!((bounded(scene.next(&mut seen)).await.1, bounded(scene.next(&mut seen)).await.1), ("one".into(), "other".into()));
    let took = scene.began.elapsed() - ended;
    assert!(took <= Terms::default().retry_period * 2, "{took:?}");
    assert_eq!(scene.server.table().get().and_then(|lease| lease.spec).map(|spec| spec.lease_transitions), Some(1));
    other.tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_has_stopped_before_another_one_begins() {
    let (scene, mut seen, terms) = (Scene::new(), 0, Terms::default());
    let one = scene.start_with("one", clock(), Duration::from_secs(2));
    bounded(scene.next(&mut seen)).await;
    let other = scene.start("other");
    sleep(Duration::from_secs(30)).await;
    let cut = scene.began.elapsed();
    one.network.cut();
    let (stopped, who, leads) = bounded(scene.next(&mut seen)).await;
    assert_eq!((who.as_str(), leads), ("one", false));
    assert!(stopped - cut <= terms.renew_deadline + terms.stop, "{:?}", stopped - cut);
    let (began, who, leads) = bounded(scene.next(&mut seen)).await;
    assert_eq!((who.as_str(), leads), ("other", true));
    assert!(began > stopped && began - cut <= terms.lease_duration + terms.retry_period * 2, "{stopped:?}, {began:?}");
    one.network.repair();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(*scene.changed.borrow(), 3, "who comes back does not take over");
    one.tasks.shutdown(BOUND).await;
    other.tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_answers_are_lost_stops_too_and_may_lead_again() {
    let (scene, mut seen) = (Scene::new(), 0);
    let one = scene.start("one");
    bounded(scene.next(&mut seen)).await;
    one.network.lose_answers();
    assert!(!bounded(scene.next(&mut seen)).await.2);
    one.network.repair();
    assert_eq!(bounded(scene.next(&mut seen)).await.1, "one");
    one.tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn terms_that_end_by_themselves_at_once_follow_each_other_ever_more_slowly() {
    let (server, network, tasks) = (FakeLease::default(), Network::default(), Tasks::new(CancellationToken::new()));
    let client = server.client(&network, &tasks);
    let (began, terms) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let election =
        Election { namespace: key().namespace().into(), name: key().name().into(), candidate: "one".into(), terms: Terms::default() };
    let lead = {
        let terms = terms.clone();
        move |_| {
            terms.lock().expect("not held").push(began.elapsed());
            std::future::ready(())
        }
    };
    tasks.spawn("election", election.run(client, clock(), tasks.token(), lead));
    sleep(Duration::from_secs(1_000)).await;
    tasks.shutdown(BOUND).await;
    let terms = terms.lock().expect("not held").clone();
    assert!(terms.len() >= 10 && terms.len() <= 45, "{terms:?}");
    assert!(terms.windows(2).all(|pair| pair[1] - pair[0] >= Terms::default().retry_period / 2), "{terms:?}");
}

#[tokio::test(start_paused = true)]
async fn candidates_and_leaders_that_are_refused_come_back_when_they_are_told_and_lead_on() {
    let (scene, mut seen) = (Scene::new(), 0);
    let one = scene.start("one");
    bounded(scene.next(&mut seen)).await;
    let other = scene.start("other");
    one.network.refuse();
    other.network.refuse();
    sleep(COME_BACK - Duration::from_secs(1)).await;
    assert_eq!(scene.server.refused(), 2, "each has asked once");
    one.network.repair();
    other.network.repair();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(*scene.changed.borrow(), 1, "it has led all the time");
    one.tasks.shutdown(BOUND).await;
    other.tasks.shutdown(BOUND).await;
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_makes_no_second_leader() {
    let (scene, mut seen) = (Scene::new(), 0);
    let jumping = |years: u64| {
        let jump = Duration::from_secs(years * 365 * 24 * 3600);
        Clock::from_fn(move || UNIX_EPOCH + jump)
    };
    let one = scene.start("one");
    bounded(scene.next(&mut seen)).await;
    let others = [0, 100, 200].map(|years| scene.start_with("other", jumping(years), Duration::ZERO));
    sleep(Duration::from_secs(300)).await;
    assert_eq!(*scene.changed.borrow(), 1, "{:?}", scene.changes.lock());
    for running in others.into_iter().chain([one]) {
        running.tasks.shutdown(BOUND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_stop_in_time_is_dropped() {
    let (scene, mut seen, terms) = (Scene::new(), 0, Terms::default());
    let one = scene.start_with("one", clock(), BOUND);
    bounded(scene.next(&mut seen)).await;
    one.network.cut();
    let other = scene.start("other");
    let (began, who, _) = bounded(scene.next(&mut seen)).await;
    assert_eq!(who, "other", "the first one never said that it had stopped");
    assert!(began >= terms.lease_duration);
    one.tasks.shutdown(BOUND).await;
    other.tasks.shutdown(BOUND).await;
}
