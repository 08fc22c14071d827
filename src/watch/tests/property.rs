use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::super::Known;
use super::super::checkers::{Recorded, Reference, Seen, Stream, Watched};
use super::*;
use crate::api::{Kind, ObjectKey};
use crate::store::fixtures::{delete, pod, pod_key, put, service};
use crate::store::{Commit, Condition};

/// A step of a random run.
#[derive(Clone, Debug)]
enum Step {
    /// Put or delete some of a few objects.
    Commit(Vec<Change>),
    /// A burst that pushes a watch that isn't read out of its channels.
    Burst(usize),
    /// One watch takes a few messages, if they are ready.
    Read { watch: usize, messages: usize },
    /// One watch is cut and resumes, perhaps telling what it has.
    Resume { watch: usize, telling: Option<Telling> },
    /// The hub is replaced, as if the apiserver had been restarted.
    Restart,
}

/// What a watch that resumes tells of what it has.
#[derive(Clone, Debug)]
struct Telling {
    /// Also up to where it has everything, so that the history may do.
    with_revision: bool,
    /// For each object, of either kind.
    of_each: Vec<Tell>,
}

#[derive(Clone, Copy, Debug)]
enum Tell {
    /// As it is.
    Truly,
    /// Nothing.
    Nothing,
    /// As of some revision of the past, even if it never was like that.
    AsOf(u64),
}

#[derive(Clone, Debug)]
struct Change {
    object: usize,
    node: usize,
    label: usize,
    deletes: bool,
}

const NODES: [&str; 3] = ["", "n1", "n2"];
const LABELS: [&[(&str, &str)]; 3] = [&[], &[("app", "web")], &[("app", "db")]];
const OBJECTS: usize = 6;

fn selectors() -> Vec<Vec<Selector>> {
    let one = Selector { name: "o0".into(), namespace: "default".into(), ..kind("Pod") };
    vec![
        vec![],
        vec![kind("Pod")],
        vec![on_node("n1")],
        vec![labelled("app", "web")],
        vec![on_node("n2"), kind("Service"), one],
        vec![Selector { node_name: "n1".into(), ..labelled("app", "db") }],
    ]
}

fn change() -> impl Strategy<Value = Change> {
    (0..OBJECTS, 0..3usize, 0..3usize, prop::bool::weighted(0.2)).prop_map(|(object, node, label, deletes)| Change {
        object,
        node,
        label,
        deletes,
    })
}

fn telling() -> impl Strategy<Value = Telling> {
    let tell = prop_oneof![4 => Just(Tell::Truly), 1 => Just(Tell::Nothing), 1 => any::<u64>().prop_map(Tell::AsOf)];
    (any::<bool>(), prop::collection::vec(tell, 2 * OBJECTS)).prop_map(|(with_revision, of_each)| Telling { with_revision, of_each })
}

fn step() -> impl Strategy<Value = Step> {
    let watches = selectors().len();
    prop_oneof![
        8 => prop::collection::vec(change(), 1..5).prop_map(Step::Commit),
        1 => (20..150usize).prop_map(Step::Burst),
        6 => (0..watches, 1..4usize).prop_map(|(watch, messages)| Step::Read { watch, messages }),
        3 => (0..watches, prop::option::of(telling())).prop_map(|(watch, telling)| Step::Resume { watch, telling }),
        1 => Just(Step::Restart),
    ]
}

/// A watch, and what it has sent.
struct Watcher {
    selectors: Vec<Selector>,
    /// `None` until the next read, after a cut.
    cursor: Option<Cursor>,
    /// How it resumes the next time.
    telling: Option<Telling>,
    /// What it has.
    held: BTreeMap<ObjectKey, Revision>,
    watched: Watched,
}

impl Watcher {
    fn new(selectors: Vec<Selector>) -> Self {
        let watched = Watched { name: format!("{selectors:?}"), selectors: selectors.clone(), streams: Vec::new() };
        Self { selectors, cursor: None, telling: None, held: BTreeMap::new(), watched }
    }

    /// The cursor, resumed if need be: from the last revision or from what it has; with the initial state when that is impossible.
    fn cursor(&mut self, hub: &Hub) -> &mut Cursor {
        if self.cursor.is_none() {
            let matchers = || self.selectors.iter().map(|selector| Matcher::new(selector, "").unwrap()).collect::<Vec<_>>();
            let after = self.watched.streams.last().map(Stream::last_revision).filter(|revision| *revision > Revision::ZERO);
            let start = match self.telling.take() {
                Some(telling) => self.difference(&telling, after),
                None => after.map_or(Start::Initial, Start::After),
            };
            let (start, cursor) = match hub.watch(matchers(), start.clone()) {
                Ok(cursor) => (start, cursor),
                Err(Error::Compacted { .. }) => (Start::Initial, hub.watch(matchers(), Start::Initial).unwrap()),
                Err(error) => panic!("{error:?}"),
            };
            match &start {
                Start::Difference { known, .. } => self.held = known.iter().cloned().collect(),
                Start::Initial => self.held.clear(),
                Start::Now | Start::After(_) => {}
            }
            self.watched.streams.push(Stream { start, messages: Vec::new() });
            self.cursor = Some(cursor);
        }
        self.cursor.as_mut().unwrap()
    }

    fn difference(&self, telling: &Telling, after: Option<Revision>) -> Start {
        let objects =
            (0..OBJECTS).flat_map(|object| [Kind::Pod, Kind::Service].map(|kind| ObjectKey::new(kind, "default", &format!("o{object}"))));
        let past = after.map_or(0, |after| after.0 - 1);
        let told = objects.zip(&telling.of_each).filter_map(|(key, tell)| {
            let revision = match tell {
                Tell::Truly => *self.held.get(&key)?,
                Tell::Nothing => return None,
                Tell::AsOf(number) => Revision(1 + number.checked_rem(past)?),
            };
            Some((key, revision))
        });
        Start::Difference { known: Known::new(told.collect()).unwrap(), after: after.filter(|_| telling.with_revision) }
    }

    /// Takes note of a message; after an error the watch is cut.
    fn record(&mut self, result: Result<Message, Error>) {
        match result {
            Ok(message) => {
                let message = decoded(&message);
                for event in &message.events {
                    let object = event.object.as_ref().unwrap();
                    match event.r#type() {
                        Type::Deleted => self.held.remove(&object.key().unwrap()),
                        _ => self.held.insert(object.key().unwrap(), Revision(object.meta().resource_version)),
                    };
                }
                self.watched.streams.last_mut().unwrap().messages.push(Seen { at: Duration::ZERO, message });
            }
            Err(Error::Compacted { .. } | Error::Unavailable(_)) => self.cursor = None,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn read_ready(&mut self, hub: &Hub, messages: usize) {
        for _ in 0..messages {
            match self.cursor(hub).next().now_or_never() {
                Some(result) => self.record(result),
                None => return,
            }
        }
    }

    async fn read_up_to(&mut self, hub: &Hub, revision: Revision) {
        loop {
            let next = self.cursor(hub).next();
            let result = tokio::time::timeout(PATIENCE, next).await.expect("a watch is never silent for so long");
            self.record(result);
            if self.cursor.is_some() && self.watched.streams.last().unwrap().last_revision() >= revision {
                return;
            }
        }
    }
}

async fn commit(watching: &Watching, changes: &[Change], commits: &mut Vec<Commit>) {
    let mut writes = Vec::new();
    let mut named = std::collections::BTreeSet::new();
    for change in changes.iter().filter(|change| named.insert(change.object)) {
        let name = format!("o{}", change.object);
        let key: ObjectKey = pod_key(&name);
        match change.deletes {
            true if watching.store.snapshot().get(&key).is_some() => writes.push(delete(&name)),
            true => writes.push(Write::Put { object: service(&name), condition: Condition::Any }),
            false => writes.push(put(pod(&name, NODES[change.node], LABELS[change.label]))),
        }
    }
    let revision = watching.commit(writes).await;
    commits.extend(watching.store.feed().after(Revision(revision.0 - 1), 1).unwrap().into_iter().map(|commit| (*commit).clone()));
}

async fn run(steps: Vec<Step>, history: usize) {
    let mut watching = Watching::with_history(HistoryLimits { revisions: history, bytes: usize::MAX, ..HistoryLimits::default() });
    let mut watchers: Vec<_> = selectors().into_iter().map(Watcher::new).collect();
    let mut commits = Vec::new();
    for step in steps {
        match step {
            Step::Commit(changes) => commit(&watching, &changes, &mut commits).await,
            Step::Burst(size) => {
                for number in 0..size {
                    let change = Change { object: number % OBJECTS, node: number % 3, label: number % 2, deletes: number % 7 == 0 };
                    commit(&watching, &[change], &mut commits).await;
                }
            }
            Step::Read { watch, messages } => watchers[watch].read_ready(&watching.hub, messages),
            Step::Resume { watch, telling } => {
                watchers[watch].cursor = None;
                watchers[watch].telling = telling;
            }
            Step::Restart => watching.hub = Hub::new(&watching.store),
        }
    }
    // One more that everybody sees, so that everybody gets to the end.
    let all_match = |object, node, label| Change { object, node, label, deletes: false };
    commit(&watching, &[all_match(0, 1, 1), all_match(1, 1, 2), all_match(2, 2, 0)], &mut commits).await;
    commit(&watching, &[all_match(0, 1, 1), all_match(1, 1, 2), all_match(2, 2, 0)], &mut commits).await;
    let end = watching.store.snapshot().revision();
    for watcher in &mut watchers {
        watcher.read_up_to(&watching.hub, end).await;
    }
    let watches = watchers.into_iter().map(|watcher| watcher.watched).collect();
    Recorded { reference: Reference::from_commits(&commits), watches }.assert_kept(Duration::ZERO);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_watch_keeps_the_seven_guarantees(
        steps in prop::collection::vec(step(), 1..60),
        history in prop_oneof![Just(5usize), Just(60), Just(100_000)],
    ) {
        block_on(run(steps, history));
    }
}

/// So many nodes that it takes a while to look at all of their topics.
const MANY: usize = 60;

/// A small random life of one writer.
async fn write(store: &Store, writer: usize, commits: usize) {
    let mut random = fastrand::Rng::with_seed(writer as u64);
    for _ in 0..commits {
        let name = format!("o{}", random.usize(..OBJECTS));
        let write = match random.usize(..6) {
            0 => delete(&name),
            1 => put(service(&name)),
            _ => put(pod(&name, NODES[random.usize(..3)], LABELS[random.usize(..3)])),
        };
        let roamer = pod(&format!("w{writer}"), &format!("m{}", random.usize(..MANY)), &[]);
        match store.commit(transaction([write, put(roamer)])).await {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Reads until the end is told, cut now and then.
async fn read(hub: &Hub, selectors: Vec<Selector>, reader: usize, end: &std::sync::OnceLock<Revision>) -> Watched {
    let mut random = fastrand::Rng::with_seed(reader as u64);
    let mut watcher = Watcher::new(selectors);
    while end.get().is_none() {
        watcher.read_ready(hub, random.usize(1..20));
        if random.usize(..50) == 0 {
            watcher.cursor = None;
        }
        std::thread::yield_now();
    }
    watcher.read_up_to(hub, *end.get().unwrap()).await;
    watcher.watched
}

#[test]
fn while_many_write_and_read_at_once_every_watch_keeps_the_seven_guarantees() {
    let watching = Watching::new();
    let Watching { store, hub, .. } = &watching;
    let end = std::sync::OnceLock::new();
    let watches = std::thread::scope(|scope| {
        let many_nodes: Vec<_> = (0..MANY).map(|node| on_node(&format!("m{node}"))).chain([kind("Service")]).collect();
        let end = &end;
        let readers: Vec<_> = selectors().into_iter().chain([many_nodes.clone(), many_nodes]).enumerate().collect();
        let readers: Vec<_> =
            readers.into_iter().map(|(reader, selectors)| scope.spawn(move || block_on(read(hub, selectors, reader, end)))).collect();
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || block_on(write(store, writer, 300)))).collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        // What every selector matches, so that everybody gets to the end.
        let last = [pod("o0", "n1", LABELS[1]), pod("o1", "n1", LABELS[2]), pod("o2", "m0", &[]), service("s")].map(put);
        end.set(block_on(watching.commit(last))).unwrap();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let commits = store.feed().after(Revision::ZERO, usize::MAX).unwrap();
    Recorded { reference: Reference::from_commits(commits.iter().map(|commit| &**commit)), watches }.assert_kept(Duration::ZERO);
}
