use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Home, put_if};
use crate::api::Revision;
use crate::error::{Error, Result};
use crate::store::fixtures::{contents, pod, pod_key};
use crate::store::{Commit, Committed, Condition, Snapshot, Store, Transaction, Write};

/// What a client asked for, was told, and could see then.
#[derive(Clone)]
struct Heard {
    asked: Transaction,
    told: Result<Committed>,
    seen: Revision,
}

/// Whatever is decided on top of whatever: a client hears of nothing that isn't there for everybody, and all that was told fits one order.
pub(super) async fn of_many_at_once_each_is_told_what_is_right_in_a_state_that_is_visible_then(home: Home) {
    let store = home.open().await;
    let begin = store.snapshot();
    let seed = fastrand::u64(..);
    let clients: JoinSet<_> = (0..16).map(|client| live(store.clone(), fastrand::Rng::with_seed(seed.wrapping_add(client)))).collect();
    let heard = clients.join_all().await.concat();

    let commits = store.feed().after(begin.revision(), usize::MAX).unwrap();
    let states = states_of(begin, &commits);
    assert_eq!(contents(states.last().unwrap()), contents(&store.snapshot()), "seed {seed}");
    for Heard { asked, told, seen } in &heard {
        let visible = states.partition_point(|state| state.revision() <= *seen);
        let right_in = |state: &Snapshot| judge(asked, state);
        match told {
            Ok(Committed { revision, objects }) if objects.iter().any(Option::is_some) => {
                assert!(revision <= seen, "seed {seed}: {revision} was told when {seen} was visible");
                let at = states.iter().position(|state| state.revision() == *revision).unwrap();
                assert_eq!(right_in(&states[at - 1]), Ok(()), "seed {seed}");
            }
            Ok(_) => assert!(states[..visible].iter().any(|state| right_in(state).is_ok()), "seed {seed}: {asked:?}"),
            Err(error) => {
                let right = states[..visible].iter().any(|state| right_in(state).as_ref() == Err(error));
                assert!(right, "seed {seed}: {asked:?} was told {error:?} when {seen} was visible");
            }
        }
    }
    let done = heard.iter().filter(|heard| heard.told.is_ok()).count();
    assert!(done > 50 && heard.len() - done > 50, "seed {seed}: {done} of {}", heard.len());
}

fn judge(asked: &Transaction, state: &Snapshot) -> Result<(), Error> {
    asked.check(|key| state.get(key).map(|stored| stored.revision))
}

async fn live(store: Store, mut random: fastrand::Rng) -> Vec<Heard> {
    let mut heard = Vec::new();
    for _ in 0..20 {
        let asked = Transaction { writes: random_writes(&store.snapshot(), &mut random) };
        let told = store.commit(asked.clone()).await;
        let seen = store.current().await.unwrap().revision();
        heard.push(Heard { asked, told, seen });
    }
    heard
}

fn random_writes(state: &Snapshot, random: &mut fastrand::Rng) -> Vec<Write> {
    let names = random.choose_multiple(0..5, 2);
    let write = |name: u8| {
        let name = format!("p{name}");
        let key = pod_key(&name);
        let current = state.get(&key).map_or(Condition::Absent, |stored| Condition::At(stored.revision));
        let condition = if random.bool() { current } else { Condition::Any };
        match random.u8(..6) {
            0..=2 => put_if(pod(&name, &random.u8(..).to_string(), &[]), condition),
            3 => put_if(pod(&name, "", &[]), Condition::Absent),
            4 => Write::Delete { key, condition },
            _ => Write::Require { key, condition },
        }
    };
    names.into_iter().map(write).collect()
}

/// The states that a history leads to, the one that it begins with first.
fn states_of(begin: Snapshot, commits: &[Arc<Commit>]) -> Vec<Snapshot> {
    let mut states = vec![begin];
    for commit in commits {
        let mut state = states.last().expect("one at least").clone();
        state.apply(&commit.events, commit.revision);
        states.push(state);
    }
    states
}
