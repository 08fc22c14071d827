use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Wake};

use super::*;
use crate::api::v1::Selector;
use crate::store::fixtures::{open, pod, put, service, transaction};
use crate::store::{HistoryLimits, Write};

/// Counts how often somebody is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

type Waits<'a> = Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// So many who wait for something new.
fn waiting<'a>(channel: &'a Channel, many: usize, wakes: &Arc<Wakes>) -> Waits<'a> {
    let waker = Waker::from(Arc::clone(wakes));
    let mut waits: Waits<'_> = (0..many).map(|_| Box::pin(channel.changed(Revision::ZERO)) as Pin<Box<dyn Future<Output = ()>>>).collect();
    for wait in &mut waits {
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    waits
}

#[tokio::test]
async fn a_channel_with_few_watches_has_its_turn_between_those_of_a_crowded_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), HistoryLimits::default());
    let topics = Arc::new(Topics::new(store.feed().clone()));
    let of = |kind: &str| {
        let selector = Selector { kind: kind.into(), ..Default::default() };
        topics.subscribe(Filter::new(vec![Matcher::new(&selector, "").unwrap()])).unwrap()
    };
    let (crowded, quiet) = (of("Pod"), of("Service"));
    let (many, one) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let waits = (waiting(&crowded.channel, 1_000, &many), waiting(&quiet.channel, 1, &one));
    let commit = async |writes: [Write; 1]| store.commit(transaction(writes)).await.unwrap();
    commit([put(pod("a", "", &[]))]).await;
    commit([put(service("s"))]).await;

    let mut round = Round::default();
    assert!(topics.take_in(&mut round));
    topics.call(&mut round);
    assert!(round.is_full && many.count() > 0 && many.count() < 1_000 && one.count() == 0, "{} {}", many.count(), one.count());
    let before = many.count();
    topics.call(&mut round);
    assert!(round.is_full && many.count() == before, "there is no room, which is no turn");
    for _ in 0..before {
        topics.pace.heard();
    }
    topics.call(&mut round);
    assert_eq!(one.count(), 1, "it comes next");
    while many.count() < 1_000 {
        assert!(round.is_full);
        (0..many.count()).for_each(|_| topics.pace.heard());
        topics.call(&mut round);
    }
    drop(waits);
}
